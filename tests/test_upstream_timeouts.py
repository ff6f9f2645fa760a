"""Deadlines of an exchange: which one rules when, that each is kept, and that its message says what to do."""

from __future__ import annotations

import asyncio
import socket

import pytest

from gw.backend import Timeouts
from gw.errors import UpstreamTimeout
from tests.deadlines import runs_out, timed
from tests.event_loops import Run, run
from tests.fakes import FakeClock
from tests.scripted_provider import CHUNKED, OK, Peer, Script, gone, says, says_and_hangs, scene, whole, wire

__all__ = ["run"]
LIMITS = Timeouts(connect=100, first_content=150, idle=200, total=250)  # of a clock that goes when it is told to


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
        clock = FakeClock()
        async with scene(script, clock=clock) as (provider, transport):
            asking = transport(wire(provider, timeouts=LIMITS))
            said = await runs_out(asking, provider.asked, clock, clock.now + LIMITS.total)
            assert said.startswith('backend "acme" gave no whole answer within 250 s (total): raise timeouts.total')
            await gone(provider.peers[0])

    run(main)


@pytest.mark.parametrize("script", [says_and_hangs(CHUNKED), drips(CHUNKED)], ids=["hang", "drip"])
def test_a_whole_answer_that_does_not_end_has_the_total_time(run: Run, script: Script) -> None:
    async def main() -> None:
        clock = FakeClock()
        async with scene(script, clock=clock) as (provider, transport):

            async def ask() -> None:
                await whole(await transport(wire(provider, timeouts=LIMITS)))

            assert "(total)" in await runs_out(ask(), provider.asked, clock, clock.now + LIMITS.total)
            await gone(provider.peers[0])

    run(main)


def test_a_stream_without_a_head_has_the_time_for_the_first_content(run: Run) -> None:
    async def main() -> None:
        clock = FakeClock()
        async with scene(says_and_hangs(), clock=clock) as (provider, transport):
            asking = transport(wire(provider, stream=True, timeouts=LIMITS))
            said = await runs_out(asking, provider.asked, clock, clock.now + LIMITS.first_content)
            assert said == (
                'backend "acme" sent nothing for 150 s (first_content): '
                "raise timeouts.first_content or check the provider"
            )

    run(main)


def test_keep_alives_do_not_count_as_first_content(run: Run) -> None:
    async def main() -> None:
        clock, heard = FakeClock(), asyncio.Event()
        async with scene(drips(CHUNKED), clock=clock) as (provider, transport):

            async def ask() -> None:
                answer = await transport(wire(provider, stream=True, timeouts=LIMITS))
                while await answer.body.read():
                    heard.set()

            assert "(first_content)" in await runs_out(ask(), heard, clock, clock.now + LIMITS.first_content)

    run(main)


def test_a_committed_stream_may_go_on_as_long_as_it_says_something(run: Run) -> None:
    async def main() -> None:
        clock, more = FakeClock(), asyncio.Event()

        async def speaks_up(peer: Peer) -> None:
            await peer.write(CHUNKED)
            while True:
                await more.wait()
                more.clear()
                await peer.write(b"1\r\n:\r\n")

        async with scene(speaks_up, clock=clock) as (provider, transport):
            answer = await transport(wire(provider, stream=True, timeouts=LIMITS))
            for _ in range(4):
                answer.body.commit()
                clock.now += LIMITS.idle - 0.001
                reading = asyncio.ensure_future(answer.body.read())
                for _ in range(2):
                    await clock.looked_at()
                assert not reading.done()
                more.set()
                assert await reading == b":"
            await answer.body.aclose()

    run(main)


def test_a_committed_stream_that_falls_silent_has_the_idle_time(run: Run) -> None:
    async def main() -> None:
        clock, read = FakeClock(), asyncio.Event()
        async with scene(says_and_hangs(CHUNKED + b"5\r\nhello\r\n"), clock=clock) as (provider, transport):

            async def ask() -> None:
                answer = await transport(wire(provider, stream=True, timeouts=LIMITS))
                assert await answer.body.read() == b"hello"
                clock.now += 100.0
                answer.body.commit()
                read.set()
                await answer.body.read()

            said = await runs_out(ask(), read, clock, clock.now + 100.0 + LIMITS.idle)
            assert said.startswith('backend "acme" sent nothing more for 200 s (idle): raise timeouts.idle')
            await gone(provider.peers[0])

    run(main)


def test_a_slow_reader_is_not_a_silent_provider(run: Run) -> None:
    async def main() -> None:
        clock, more = FakeClock(), asyncio.Event()

        async def speaks_twice(peer: Peer) -> None:
            await peer.write(CHUNKED + b"5\r\nhello\r\n")
            await more.wait()
            await peer.write(b"0\r\n\r\n")

        async with scene(speaks_twice, clock=clock) as (provider, transport):
            answer = await transport(wire(provider, stream=True, timeouts=LIMITS))
            answer.body.commit()
            clock.now += LIMITS.idle + 1
            for _ in range(2):
                await clock.looked_at()
            assert await answer.body.read() == b"hello"
            answer.body.commit()
            more.set()
            assert await whole(answer) == b""

    run(main)


def test_deadlines_are_of_the_machines_clock_where_no_other_is_given(run: Run) -> None:
    async def main() -> None:
        async with scene(says_and_hangs(OK[:30])) as (provider, transport):
            said = await timed(lambda: transport(wire(provider, timeouts=Timeouts(total=0.25))), 0.25)
            assert said.startswith('backend "acme" gave no whole answer within 0.25 s (total)')

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
                request = wire(provider, timeouts=Timeouts(connect=0.1))
                request.url = f"{scheme}://127.0.0.1:{hole.getsockname()[1]}/"
                with pytest.raises(UpstreamTimeout):
                    await transport(request)  # reads the certificate authorities of this machine, once
                said = await timed(lambda: transport(request), 0.1)
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
                request = wire(provider, timeouts=Timeouts(connect=100, total=0.2))
                request.url = f"https://127.0.0.1:{hole.getsockname()[1]}/"
                with pytest.raises(UpstreamTimeout):
                    await transport(request)
                assert "(total)" in await timed(lambda: transport(request), 0.2)

    run(main)


def test_a_hundred_dripping_streams_do_not_slow_the_others_down(run: Run) -> None:
    async def main() -> None:
        clock = FakeClock()
        async with scene(*[drips(CHUNKED)] * 100, says(OK), clock=clock) as (provider, transport):

            async def drip() -> None:
                await whole(await transport(wire(provider, stream=True, timeouts=LIMITS)))

            dripping = [asyncio.create_task(drip()) for _ in range(100)]
            await provider.until(lambda: len(provider.requests) == 100)
            for _ in range(20):
                assert await whole(await transport(wire(provider))) == b"hello"
            assert not any(task.done() for task in dripping)
            clock.now += LIMITS.first_content
            outcomes = await asyncio.gather(*dripping, return_exceptions=True)
            assert all(isinstance(outcome, UpstreamTimeout) for outcome in outcomes)

    run(main)
