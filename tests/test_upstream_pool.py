"""The life of a connection: when it serves again, when it must not, and who is freed by whom."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from gw.adapter import WireResponse
from gw.errors import UpstreamConnectionError
from gw.upstream import HTTPTransport
from tests.test_upstream_exchange import (
    CHUNKED,
    OK,
    SOON,
    Peer,
    Provider,
    Run,
    Script,
    run,
    says,
    says_and_closes,
    says_and_hangs,
    says_and_resets,
    scene,
    whole,
    wire,
)

__all__ = ["run"]
SECOND = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def gone(peer: Peer, within: float = SOON) -> None:
    async with asyncio.timeout(within):
        await peer.gone.wait()


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
        clock = Clock()
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
        clock = Clock()
        provider, transport = Provider(says(OK)), HTTPTransport(clock=clock, idle_for=7.0)
        await provider.open()
        await whole(await transport(wire(provider)))
        clock.now += 7.0
        await gone(provider.peers[0])
        await transport.aclose()
        await provider.close()

    run(main)


# --- whoever holds an answer ------------------------------------------------------------------------------------


def test_an_answer_closed_half_way_closes_its_connection_at_once(run: Run) -> None:
    async def main() -> None:
        async with scene(says_and_hangs(CHUNKED + b"5\r\nhello\r\n"), says(OK)) as (provider, transport):
            answer = await transport(wire(provider, stream=True))
            assert await answer.body.read() == b"hello"
            await answer.body.aclose()
            await gone(provider.peers[0], within=0.1)
            await answer.body.aclose()
            with pytest.raises(UpstreamConnectionError, match="closed by its reader"):
                await answer.body.read()
            assert await whole(await transport(wire(provider))) == b"hello"
            assert len(provider.peers) == 2

    run(main)


def test_an_answer_closed_after_its_end_leaves_its_connection_for_the_next(run: Run) -> None:
    async def main() -> None:
        async with scene(says(OK)) as (provider, transport):
            for _ in range(3):
                answer = await transport(wire(provider))
                assert await answer.body.read() == b"hello"
                await answer.body.aclose()
                assert await answer.body.read() == b""
            answer = await transport(wire(provider))  # never read, but all of it has come
            await answer.body.aclose()
            with pytest.raises(UpstreamConnectionError):
                await answer.body.read()
            await whole(await transport(wire(provider)))
            assert len(provider.peers) == 1

    run(main)


@pytest.mark.parametrize("pieces", [(), (b"HTTP/1.1 200 OK\r\n",), (CHUNKED + b"5\r\nhello\r\n",)])
@pytest.mark.parametrize("stream", [False, True])
def test_cancelling_whoever_waits_closes_the_connection_at_once(
    run: Run, pieces: tuple[bytes, ...], stream: bool
) -> None:
    async def main() -> None:
        async with scene(says_and_hangs(*pieces)) as (provider, transport):

            async def ask() -> bytes:
                return await whole(await transport(wire(provider, stream=stream)))

            task = asyncio.create_task(ask())
            await provider.asked.wait()
            await asyncio.sleep(0.01)
            started = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await gone(provider.peers[0], within=0.1)
            assert time.monotonic() - started < 0.1

    run(main)


def test_a_cancelled_request_leaves_the_others_alone(run: Run) -> None:
    async def main() -> None:
        async with scene(says_and_hangs(), says(OK)) as (provider, transport):
            task = asyncio.create_task(transport(wire(provider)))
            await provider.asked.wait()
            task.cancel()
            answers: list[WireResponse] = await asyncio.gather(*(transport(wire(provider)) for _ in range(5)))
            assert [await whole(answer) for answer in answers] == [b"hello"] * 5
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main)


def test_a_reader_who_does_not_read_holds_the_provider_back(run: Run) -> None:
    async def main() -> None:
        written = 0
        piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"

        async def flood(peer: Peer) -> None:
            nonlocal written
            await peer.write(CHUNKED)
            for _ in range(800):  # 50 MB
                await peer.write(piece)
                written += len(piece)
            await peer.write(b"0\r\n\r\n")

        async with scene(flood) as (provider, transport):
            answer = await transport(wire(provider, stream=True))
            before = -1
            while written != before:  # until the provider's writer is stuck
                before = written
                await asyncio.sleep(0.05)
            assert written < 20_000_000  # what the sockets hold, not what the script has
            assert len(await whole(answer)) == 800 * 65536
            await whole(await transport(wire(provider, stream=True)))
            assert len(provider.peers) == 1

    run(main)


def test_a_connection_whose_request_was_not_taken_whole_is_not_used_again(run: Run) -> None:
    async def main() -> None:
        async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
            await closed.wait()
            writer.transport.abort()

        closed = asyncio.Event()
        writers: list[asyncio.StreamWriter] = []
        server = await asyncio.start_server(early, "127.0.0.1", 0, limit=1024)
        provider = Provider()
        provider.port = server.sockets[0].getsockname()[1]
        transport = HTTPTransport()
        for _ in range(2):
            assert await whole(await transport(wire(provider, content=b"x" * 30_000_000))) == b"hello"
        assert len(writers) == 2
        closed.set()
        await transport.aclose()
        server.close()
        await server.wait_closed()

    run(main)


def test_an_answer_has_one_reader(run: Run) -> None:
    async def main() -> None:
        async with scene(says_and_hangs(CHUNKED)) as (provider, transport):
            answer = await transport(wire(provider, stream=True))
            first = asyncio.create_task(answer.body.read())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="one reader"):
                await answer.body.read()
            await answer.body.aclose()
            with pytest.raises(UpstreamConnectionError):
                await first

    run(main)


def test_closing_the_transport_ends_everything_that_is_under_way(run: Run) -> None:
    async def main() -> None:
        async with scene(says(OK), says_and_hangs()) as (provider, transport):
            await whole(await transport(wire(provider)))
            task = asyncio.create_task(transport(wire(provider)))
            await provider.until(lambda: len(provider.requests) == 2)
            await transport.aclose()
            with pytest.raises(UpstreamConnectionError, match="was closed"):
                await task
            with pytest.raises(RuntimeError, match="closed"):
                await transport(wire(provider))
            await gone(provider.peers[0])

    run(main)
