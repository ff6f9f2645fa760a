"""Deadlines of an exchange: which one rules when, that each is kept, and that its message says what to do."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import pytest

from gw.backend import Timeouts
from gw.errors import UpstreamTimeout
from gw.upstream import HTTPTransport
from tests.test_upstream_provider import (
    CHUNKED,
    OK,
    Peer,
    Run,
    Script,
    gone,
    run,
    says,
    says_and_hangs,
    scene,
    whole,
    wire,
)

__all__ = ["run"]
LIMITS = Timeouts(connect=0.1, first_content=0.15, idle=0.2, total=0.25)
LATE = 0.3  # seconds: the promise is 0.1; the rest is for a busy machine


async def timed(ask: Callable[[], object], seconds: float) -> str:
    """Run into a deadline of so many seconds; returns what it said."""
    started = time.monotonic()
    with pytest.raises(UpstreamTimeout) as failure:
        await ask()  # type: ignore[misc]
    took = time.monotonic() - started
    assert seconds - 0.01 <= took <= seconds + LATE
    assert failure.value.status == 504
    return failure.value.message


def drips(*pieces: bytes, piece: bytes = b"1\r\n:\r\n") -> Script:
    """Write these pieces, then one more every 20 ms for ever."""

    async def script(peer: Peer) -> None:
        await says(*pieces)(peer)
        left = asyncio.create_task(peer.until_gone())
        while not (await asyncio.wait([left], timeout=0.02))[0]:
            peer.writer.write(piece)

    return script


@pytest.mark.parametrize("script", [says_and_hangs(), says_and_hangs(OK[:30]), drips(OK[:-7] + b"X: ", piece=b"a")])
def test_a_whole_answer_has_the_total_time(run: Run, script: Script) -> None:
    async def main() -> None:
        async with scene(script) as (provider, transport):
            said = await timed(lambda: transport(wire(provider, timeouts=LIMITS)), LIMITS.total)
            assert said.startswith('backend "acme" gave no whole answer within 0.25 s (total): raise timeouts.total')
            await gone(provider.peers[0], within=0.1)

    run(main)


@pytest.mark.parametrize("script", [says_and_hangs(CHUNKED), drips(CHUNKED)], ids=["hang", "drip"])
def test_a_whole_answer_that_does_not_end_has_the_total_time(run: Run, script: Script) -> None:
    async def main() -> None:
        async with scene(script) as (provider, transport):

            async def ask() -> None:
                await whole(await transport(wire(provider, timeouts=LIMITS)))

            await timed(ask, LIMITS.total)
            await gone(provider.peers[0], within=0.1)

    run(main)


def test_a_stream_without_a_head_has_the_time_for_the_first_content(run: Run) -> None:
    async def main() -> None:
        async with scene(says_and_hangs()) as (provider, transport):
            said = await timed(lambda: transport(wire(provider, stream=True, timeouts=LIMITS)), LIMITS.first_content)
            assert said == (
                'backend "acme" sent nothing for 0.15 s (first_content): '
                "raise timeouts.first_content or check the provider"
            )

    run(main)


def test_keep_alives_do_not_count_as_first_content(run: Run) -> None:
    async def main() -> None:
        async with scene(drips(CHUNKED)) as (provider, transport):

            async def ask() -> None:
                await whole(await transport(wire(provider, stream=True, timeouts=LIMITS)))

            assert "(first_content)" in await timed(ask, LIMITS.first_content)

    run(main)


def test_a_committed_stream_may_go_on_as_long_as_it_says_something(run: Run) -> None:
    async def main() -> None:
        async with scene(drips(CHUNKED)) as (provider, transport):
            answer = await transport(wire(provider, stream=True, timeouts=LIMITS))
            until = time.monotonic() + LIMITS.total + 0.2
            while time.monotonic() < until:
                answer.body.commit()
                assert await answer.body.read()
            await answer.body.aclose()

    run(main)


def test_a_committed_stream_that_falls_silent_has_the_idle_time(run: Run) -> None:
    async def main() -> None:
        async with scene(says_and_hangs(CHUNKED + b"5\r\nhello\r\n")) as (provider, transport):
            answer = await transport(wire(provider, stream=True, timeouts=LIMITS))
            assert await answer.body.read() == b"hello"
            answer.body.commit()
            said = await timed(answer.body.read, LIMITS.idle)
            assert said.startswith('backend "acme" sent nothing more for 0.2 s (idle): raise timeouts.idle')
            await gone(provider.peers[0], within=0.1)

    run(main)


def test_a_slow_reader_is_not_a_silent_provider(run: Run) -> None:
    async def main() -> None:
        async with scene(says(CHUNKED + b"5\r\nhello\r\n", b"0\r\n\r\n")) as (provider, transport):
            limits = Timeouts(first_content=0.05, idle=0.05)
            answer = await transport(wire(provider, stream=True, timeouts=limits))
            answer.body.commit()
            await asyncio.sleep(0.15)
            assert await whole(answer) == b"hello"

    run(main)


def test_deadlines_follow_the_clock_that_was_given(run: Run) -> None:
    async def main() -> None:
        now = 0.0
        async with scene(says_and_hangs()) as (provider, _):
            transport = HTTPTransport(clock=lambda: now)
            task = asyncio.create_task(transport(wire(provider)))
            await provider.asked.wait()
            now = 599.0
            await asyncio.wait([task], timeout=0.07)
            assert not task.done()
            now = 600.0
            await asyncio.wait([task], timeout=0.2)
            with pytest.raises(UpstreamTimeout, match="600 s"):
                await task
            await transport.aclose()

    run(main)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_host_that_takes_no_connection_has_the_connect_time(run: Run, scheme: str) -> None:
    async def main() -> None:
        # A socket that listens but never accepts: once its backlog is full, the kernel drops what asks (http); before
        # that it connects, and nobody answers the TLS handshake (https).
        with socket.socket() as hole:
            hole.bind(("127.0.0.1", 0))
            hole.listen(0)
            fillers = []
            if scheme == "http":
                for _ in range(3):
                    filler = socket.socket()
                    filler.setblocking(False)
                    filler.connect_ex(hole.getsockname())
                    fillers.append(filler)
            async with scene(says(OK)) as (provider, transport):
                request = wire(provider, timeouts=LIMITS)
                request.url = f"{scheme}://127.0.0.1:{hole.getsockname()[1]}/"
                with pytest.raises(UpstreamTimeout):
                    await transport(request)  # reads the certificate authorities of this machine, once
                said = await timed(lambda: transport(request), LIMITS.connect)
                assert said.startswith('backend "acme": no connection to 127.0.0.1')
                assert "after 0.1 s (connect)" in said
            for filler in fillers:
                filler.close()

    run(main)


def test_the_time_for_the_whole_rules_the_connection_too(run: Run) -> None:
    async def main() -> None:
        with socket.socket() as hole:
            hole.bind(("127.0.0.1", 0))
            hole.listen(1)
            async with scene(says(OK)) as (provider, transport):
                request = wire(provider, timeouts=Timeouts(connect=5, total=0.2))
                request.url = f"https://127.0.0.1:{hole.getsockname()[1]}/"
                with pytest.raises(UpstreamTimeout):
                    await transport(request)
                assert "(total)" in await timed(lambda: transport(request), 0.2)

    run(main)


def test_a_hundred_dripping_streams_do_not_slow_the_others_down(run: Run) -> None:
    async def main() -> None:
        async with scene(*[drips(CHUNKED)] * 100, says(OK)) as (provider, transport):
            limits = Timeouts(first_content=2.0)  # on a busy machine a hundred connections take some of it

            async def drip() -> None:
                await whole(await transport(wire(provider, stream=True, timeouts=limits)))

            dripping = [asyncio.create_task(drip()) for _ in range(100)]
            await provider.until(lambda: len(provider.requests) == 100)
            for _ in range(20):
                assert await whole(await transport(wire(provider))) == b"hello"
            outcomes = await asyncio.gather(*dripping, return_exceptions=True)
            assert all(isinstance(outcome, UpstreamTimeout) for outcome in outcomes)

    run(main)
