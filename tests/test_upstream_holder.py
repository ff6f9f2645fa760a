"""Whoever holds an answer: what closing, cancelling, reading slowly and not reading do to its connection."""

from __future__ import annotations

import asyncio

import pytest

from gw.adapter import WireResponse
from gw.errors import UpstreamConnectionError, UpstreamTimeout
from gw.upstream import HTTPTransport
from tests.event_loops import Run, run
from tests.scripted_provider import CHUNKED, OK, Peer, Provider, gone, says, says_and_hangs, scene, whole, wire
from tests.upstream_in_memory import exchange_in_memory

__all__ = ["run"]


def test_an_answer_closed_half_way_closes_its_connection_at_once(run: Run) -> None:
    async def main() -> None:
        async with scene(says_and_hangs(CHUNKED + b"5\r\nhello\r\n"), says(OK)) as (provider, transport):
            answer = await transport(wire(provider, stream=True))
            assert await answer.body.read() == b"hello"
            await answer.body.aclose()
            await gone(provider.peers[0])
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


def test_an_answer_that_is_whole_holds_no_connection_while_nobody_reads_it(run: Run) -> None:
    async def main() -> None:
        async with scene(says(OK), says(CHUNKED + b"2\r\nho\r\n0\r\n\r\n")) as (provider, transport):
            first = await transport(wire(provider))
            second = await transport(wire(provider))
            assert (await whole(first), await whole(second)) == (b"hello", b"ho")
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
            for _ in range(100):
                await asyncio.sleep(0)  # what it says comes
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await gone(provider.peers[0])

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


def test_a_connection_that_was_paused_is_read_again_by_whoever_uses_it_next() -> None:
    async def main() -> None:
        exchange, connection, socket, shelf = exchange_in_memory()
        socket.arrive(b"HTTP/1.1 200 OK\r\nContent-Length: 20001\r\n\r\n" + b"x" * 20_000)
        socket.arrive(b"x", anyway=True)
        await exchange.aclose()
        assert socket.did == ["write", "pause", "resume"]
        assert shelf.given == [connection]

    asyncio.run(main())


def test_cancelling_in_the_moment_of_the_answer_leaves_no_connection_behind() -> None:
    async def main() -> None:
        exchange, _, socket, shelf = exchange_in_memory()
        task = asyncio.create_task(exchange.wait())
        await asyncio.sleep(0)
        socket.arrive(OK)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert socket.did == ["write", "abort"]
        assert shelf.given == []

    asyncio.run(main())


def test_a_deadline_in_the_moment_of_the_answer_does_not_spoil_it() -> None:
    async def main() -> None:
        exchange, connection, socket, shelf = exchange_in_memory()
        task = asyncio.create_task(exchange.wait())
        await asyncio.sleep(0)
        socket.arrive(OK)
        exchange.expire()
        await task
        assert [await exchange.read(), await exchange.read()] == [b"hello", b""]
        assert shelf.given == [connection]

        exchange, connection, socket, shelf = exchange_in_memory(stream=True)
        socket.arrive(CHUNKED)
        exchange.commit()
        reading = asyncio.create_task(exchange.read())
        await asyncio.sleep(0)
        socket.arrive(b"5\r\nhello\r\n")
        exchange.expire()
        assert await reading == b"hello"
        await exchange.aclose()
        assert socket.did == ["write", "abort"]

    asyncio.run(main())


def test_a_flood_without_content_does_not_outlast_the_deadline() -> None:
    async def main() -> None:
        exchange, _, socket, _ = exchange_in_memory(stream=True)
        socket.arrive(CHUNKED)
        reading = asyncio.create_task(exchange.read())
        await asyncio.sleep(0)
        socket.arrive(b"2\r\n:\n\r\n")  # always something in the moment of the tick
        exchange.expire()
        assert socket.did == ["write", "abort"]
        assert await reading == b":\n"
        with pytest.raises(UpstreamTimeout):
            await exchange.read()

    asyncio.run(main())
