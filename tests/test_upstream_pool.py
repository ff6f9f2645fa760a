"""The life of a connection: when it serves again, when it must not, and who is freed by whom."""

from __future__ import annotations

import asyncio
import socket

import pytest

from gw.errors import UpstreamConnectionError
from gw.upstream import HTTPTransport
from tests.event_loops import Run, run
from tests.fakes import FakeClock
from tests.scripted_provider import (
    CHUNKED,
    OK,
    SECOND,
    Peer,
    Provider,
    Script,
    gone,
    says,
    says_and_closes,
    says_and_resets,
    scene,
    whole,
    wire,
)

__all__ = ["run"]


def test_one_connection_serves_one_request_after_another(run: Run) -> None:
    async def main() -> None:
        async with scene(says(OK)) as (provider, transport):
            for number in range(50):
                assert await whole(await transport(wire(provider, path=f"/{number}"))) == b"hello"
            assert len(provider.peers) == 1
            assert len(provider.requests) == 50

    run(main)


def test_requests_at_the_same_time_have_a_connection_each_and_the_latest_is_used_first(run: Run) -> None:
    async def main() -> None:
        async with scene(says(OK)) as (provider, transport):
            answers = await asyncio.gather(*(transport(wire(provider)) for _ in range(5)))
            assert len(provider.peers) == 5
            for answer in answers:
                await whole(answer)
            for _ in range(3):
                await whole(await transport(wire(provider)))
            assert len({number for number, _, _ in provider.requests[5:]}) == 1

    run(main)


def test_no_more_idle_connections_are_kept_than_allowed(run: Run) -> None:
    async def main() -> None:
        provider, transport = Provider(says(OK)), HTTPTransport(max_idle=2)
        await provider.open()
        answers = await asyncio.gather(*(transport(wire(provider)) for _ in range(5)))
        for answer in answers:
            await whole(answer)
        await provider.until(lambda: sum(peer.gone.is_set() for peer in provider.peers) >= 3)
        assert sum(peer.gone.is_set() for peer in provider.peers) == 3
        await transport.aclose()
        await provider.close()

    run(main)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("pieces", [(OK + SECOND,), (OK, SECOND), (OK + b"x",), (OK + b"\r\n",)])
def test_what_trails_an_answer_never_reaches_the_next_request(
    run: Run, stream: bool, pieces: tuple[bytes, ...]
) -> None:
    async def main() -> None:
        async with scene(says(*pieces), says(OK)) as (provider, transport):
            for _ in range(2):
                assert await whole(await transport(wire(provider, stream=stream))) == b"hello"
            await gone(provider.peers[0])
            assert [number for number, _, _ in provider.requests] == [0, 1]

    run(main)


def test_a_second_chunked_answer_never_reaches_the_next_request(run: Run) -> None:
    async def main() -> None:
        answer = CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"
        async with scene(says(answer + SECOND), says(OK)) as (provider, transport):
            for _ in range(2):
                assert await whole(await transport(wire(provider))) == b"hello"
            assert len(provider.peers) == 2

    run(main)


def test_bytes_that_lie_unread_in_the_kernel_rule_a_connection_out(run: Run) -> None:
    async def main() -> None:
        poisoned = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.write(OK)
            poisoned.set()

        async with scene(script, says(OK)) as (provider, transport):
            await whole(await transport(wire(provider)))
            await poisoned.wait()
            # Straight through the socket and without a turn of the loop: only the kernel knows of it.
            sock = provider.peers[0].writer.get_extra_info("socket")
            with socket.socket(fileno=socket.dup(sock.fileno())) as raw:
                raw.setblocking(True)
                raw.send(SECOND)
            assert await whole(await transport(wire(provider))) == b"hello"
            assert len(provider.peers) == 2

    run(main)


def test_bytes_on_an_idle_connection_close_it(run: Run) -> None:
    async def main() -> None:
        async with scene(says(OK)) as (provider, transport):
            await whole(await transport(wire(provider)))
            await provider.peers[0].write(SECOND)
            await gone(provider.peers[0])

    run(main)


@pytest.mark.parametrize("script", [says_and_closes(), says_and_resets()], ids=["close", "reset"])
def test_a_kept_connection_that_dies_before_the_answer_is_replaced_once(run: Run, script: Script) -> None:
    async def main() -> None:
        async with scene(says(OK), script, says(OK)) as (provider, transport):
            for _ in range(2):
                assert await whole(await transport(wire(provider))) == b"hello"
            assert [number for number, _, _ in provider.requests] == [0, 0, 1]

        async with scene(says(OK), script, script) as (provider, transport):
            await whole(await transport(wire(provider)))
            with pytest.raises(UpstreamConnectionError):
                await transport(wire(provider))
            assert [number for number, _, _ in provider.requests] == [0, 0, 1]

    run(main)


def test_a_fresh_connection_that_dies_is_not_tried_again(run: Run) -> None:
    async def main() -> None:
        async with scene(says_and_closes(), says(OK)) as (provider, transport):
            with pytest.raises(UpstreamConnectionError, match="before it answered"):
                await transport(wire(provider))
            assert len(provider.requests) == 1

    run(main)


def test_nothing_is_sent_again_once_a_byte_of_the_answer_has_come(run: Run) -> None:
    async def main() -> None:
        async with scene(says(OK), says_and_closes(b"H"), says(OK)) as (provider, transport):
            await whole(await transport(wire(provider)))
            with pytest.raises(UpstreamConnectionError, match="in the middle"):
                await transport(wire(provider))
            assert len(provider.requests) == 2

    run(main)


def test_a_connection_that_the_provider_closed_while_idle_is_passed_over(run: Run) -> None:
    async def main() -> None:
        async with scene(says_and_closes(OK), says(OK)) as (provider, transport):
            for _ in range(3):
                assert await whole(await transport(wire(provider))) == b"hello"
            assert len(provider.requests) == 3

    run(main)


@pytest.mark.parametrize("field", [b"Connection: close", b"Connection: foo, Close", b"Keep-Alive: timeout=0"])
def test_a_provider_that_wants_to_close_is_believed(run: Run, field: bytes) -> None:
    async def main() -> None:
        answer = OK.replace(b"Content-Type: application/json", field)
        async with scene(says(answer)) as (provider, transport):
            for _ in range(2):
                assert await whole(await transport(wire(provider))) == b"hello"
            await gone(provider.peers[0])
            assert len(provider.peers) == 2

    run(main)


@pytest.mark.parametrize(("field", "seconds"), [(b"X-Nothing: 1", 60.0), (b"Keep-Alive: timeout=5, max=9", 4.5)])
def test_idle_connections_are_closed_in_time(run: Run, field: bytes, seconds: float) -> None:
    async def main() -> None:
        clock = FakeClock()
        provider = Provider(says(OK.replace(b"Content-Type: application/json", field)))
        transport = HTTPTransport(clock=clock)
        await provider.open()
        for _ in range(2):
            await whole(await transport(wire(provider)))
            clock.now += seconds - 0.1
        await whole(await transport(wire(provider)))
        assert len(provider.peers) == 1
        clock.now += seconds
        await whole(await transport(wire(provider)))
        assert len(provider.peers) == 2
        await gone(provider.peers[0])
        await transport.aclose()
        await provider.close()

    run(main)


def test_idle_connections_are_closed_in_time_though_nobody_asks(run: Run) -> None:
    async def main() -> None:
        clock = FakeClock()
        provider, transport = Provider(says(OK)), HTTPTransport(clock=clock, idle_for=7.0)
        await provider.open()
        await whole(await transport(wire(provider)))
        clock.now += 7.0
        await gone(provider.peers[0])
        await transport.aclose()
        await provider.close()

    run(main)
