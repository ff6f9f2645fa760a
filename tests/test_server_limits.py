"""Deadlines, numbers, and the end: nobody waits for ever, nobody takes everything, nobody is cut off early."""

from __future__ import annotations

import asyncio
import time

import pytest

from gw.errors import GatewayError
from gw.message import Request
from gw.server import Limits, Reply, Server
from tests.serving import BOTH, PATIENCE, Client, Http, Running, mirror, run, serving, whole

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HURRY = Limits(head_timeout=0.15, body_timeout=0.15, min_rate=1_000_000, linger_timeout=0.1)
GRACE = 5 * PATIENCE  # seconds that nobody wants to wait for


class Gate:
    """A handler that answers when it is let go; a body or the pieces of a stream."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, request: Request) -> Reply:
        if request.path == "/stream":
            return Reply(200, [], self)
        await self.go.wait()
        return Reply(200, [], b"done")

    _left = 3

    async def read(self) -> bytes:
        self._left -= 1
        if self._left == 2:
            return b"begun"
        await self.go.wait()
        return b" ended" if self._left == 1 else b""

    async def aclose(self) -> None:
        self._left = 0


async def drip(client: Client, data: bytes) -> None:
    """Send byte by byte until the server has had enough."""
    for at in range(len(data)):
        if client.writer.is_closing() or client.reader.at_eof():
            return
        client.send(data[at : at + 1])
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("http", BOTH)
def test_a_head_that_drips_is_told_408_at_its_absolute_deadline(http: Http) -> None:
    async def main() -> None:
        async with serving(mirror, limits=HURRY, http=http) as running:
            client = await running.client()
            began = time.monotonic()
            dripping = asyncio.create_task(drip(client, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 30_000))
            answer = await client.answer()
            assert time.monotonic() - began > 0.1
            assert (answer.status, answer.code, answer.headers["connection"]) == (408, "request_timeout", "close")
            dripping.cancel()
            assert [error.status for _, error in running.refusals] == [408]

    run(main())


@pytest.mark.parametrize("http", BOTH)
@pytest.mark.parametrize("framing", [b"Content-Length: 90000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n15F90\r\n"])
def test_a_body_that_drips_is_told_408(http: Http, framing: bytes) -> None:
    async def main() -> None:
        async with serving(mirror, limits=HURRY, http=http) as running:
            began = time.monotonic()
            client = await running.client(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing)
            dripping = asyncio.create_task(drip(client, b"y" * 80_000))
            answer = await client.answer()
            assert time.monotonic() - began > 0.1
            assert (answer.status, answer.code, answer.headers["connection"]) == (408, "request_timeout", "close")
            dripping.cancel()
            assert running.refusals == []  # the handler had it

    run(main())


def test_the_time_before_the_handler_reads_the_body_is_not_the_clients() -> None:
    async def main() -> None:
        async def handler(request: Request) -> Reply:
            await asyncio.sleep(0.4)
            await sent.wait()
            return await mirror(request)

        sent = asyncio.Event()

        async with serving(handler, limits=HURRY) as running:
            client = await running.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n" + b"a" * 600)
            await running.until(lambda: running.server.in_flight == 1)
            client.send(b"a" * 300)
            for _ in range(100):
                await asyncio.sleep(0)  # it arrives
            sent.set()
            assert (await client.answer()).status == 200

    run(main())


def test_an_idle_connection_is_closed_without_a_word_and_a_handler_at_work_is_not_idle() -> None:
    async def main() -> None:
        async def handler(request: Request) -> Reply:
            await is_fresh_closed.wait()
            return Reply(200, [], b"")

        is_fresh_closed = asyncio.Event()
        async with serving(handler, limits=Limits(idle_timeout=0.8)) as running:
            used = await running.client(GET)
            await running.until(lambda: running.server.in_flight == 1)
            fresh = await running.client()
            assert await fresh.rest() == b""
            is_fresh_closed.set()
            assert (await used.answer()).status == 200
            assert await used.rest() == b""
            assert running.refusals == []

    run(main())


def test_a_second_head_that_drips_has_a_deadline_of_its_own() -> None:
    async def main() -> None:
        async with serving(mirror, limits=Limits(head_timeout=0.8)) as running:
            client = await running.client(b"GE")
            await running.until(lambda: any(each._buffer for each in running.server._state.connections))
            client.send(b"T / HTTP/1.1\r\nHost: a\r\n\r\nGET ")
            assert (await client.answer()).status == 200
            assert (await client.answer()).status == 408

    run(main())


@pytest.mark.parametrize("http", BOTH)
def test_more_than_may_be_in_flight_is_told_503_at_once(http: Http) -> None:
    async def main() -> None:
        gate = Gate()
        async with serving(gate, limits=Limits(max_in_flight=2), http=http) as running:
            first = [await running.client(GET) for _ in range(2)]
            await running.until(lambda: running.server.in_flight == 2)
            third = await running.client(b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: mine\r\n\r\n")
            answer = await third.answer()
            assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "overloaded", "1")
            assert answer.headers["x-request-id"] == "mine"
            gate.go.set()
            for client in first:
                assert (await client.answer()).body == b"done"
            fourth = await running.client(GET)
            assert (await fourth.answer()).status == 200

    run(main())


def test_more_connections_than_allowed_are_told_503_and_make_room_again() -> None:
    async def main() -> None:
        limits = Limits(max_connections=4, max_connections_per_address=2, linger_timeout=0.1)
        async with serving(mirror, limits=limits) as running:
            kept = [await running.client(address=f"127.0.0.{host}") for host in (2, 2, 3)]
            await running.until(lambda: running.server.connections == 3)
            refused = await running.client(address="127.0.0.2")
            answer = await refused.answer()
            assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "too_many_connections", "1")
            assert [address for address, _ in running.refusals] == ["127.0.0.2"]
            await running.until(lambda: running.server.connections == 3)
            kept.append(await running.client(address="127.0.0.4"))
            await running.until(lambda: running.server.connections == 4)
            assert (await (await running.client(address="127.0.0.5")).answer()).status == 503
            for client in kept:
                client.send(GET)
                assert (await client.answer()).status == 200
            kept[0].writer.close()
            await running.until(lambda: running.server.connections == 3)
            again = await running.client(GET, address="127.0.0.2")
            assert (await again.answer()).status == 200

    run(main())


def test_close_lets_requests_and_streams_finish_and_closes_idle_connections_at_once() -> None:
    async def main() -> None:
        gate = Gate()
        async with serving(gate) as running:
            whole_one = await running.client(GET)
            stream = await running.client(GET.replace(b"/ ", b"/stream "))
            await stream.reader.readuntil(b"begun\r\n")
            idle = await running.client()
            await running.until(lambda: running.server.connections == 3)
            closing = asyncio.create_task(running.server.close(GRACE))
            assert await idle.rest() == b""
            with pytest.raises(OSError, match="refused"):
                await running.client()
            assert not closing.done()
            gate.go.set()
            answer = await whole_one.answer()
            assert (answer.body, answer.headers["connection"]) == (b"done", "close")
            assert await stream.rest() == b"6\r\n ended\r\n0\r\n\r\n"
            await asyncio.wait_for(closing, PATIENCE)

    run(main())


def test_close_lets_a_head_come_in_that_has_begun() -> None:
    async def main() -> None:
        async with serving(mirror) as running:
            client = await running.client(GET[:9])
            await running.until(lambda: any(each._buffer for each in running.server._state.connections))
            closing = asyncio.create_task(running.server.close(GRACE))
            await asyncio.sleep(0)
            client.send(GET[9:])
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            await asyncio.wait_for(closing, PATIENCE)

    run(main())


def test_close_breaks_what_is_left_after_the_grace() -> None:
    async def main() -> None:
        gate = Gate()
        async with serving(gate) as running:
            waiting = await running.client(GET)
            stream = await running.client(GET.replace(b"/ ", b"/stream "))
            await stream.reader.readuntil(b"begun\r\n")
            await asyncio.wait_for(running.server.close(0.1), PATIENCE)
            assert (running.server.connections, running.server.in_flight) == (0, 0)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await waiting.answer()
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await stream.read(1)

    run(main())


def test_close_may_be_called_twice_and_before_the_start() -> None:
    async def main() -> None:
        await Server(mirror).close(0)
        async with serving(mirror) as running:
            await running.server.close(0)

    run(main())


def test_a_bystander_is_not_held_up_by_clients_that_misbehave() -> None:
    async def main() -> None:
        limits = Limits(head_timeout=0.5, write_timeout=0.5, body_timeout=0.5, linger_timeout=0.1)
        async with serving(mirror, limits=limits) as running:
            bystander = await running.client()
            tasks = []
            for _ in range(20):
                slow = await running.client()
                tasks.append(asyncio.create_task(drip(slow, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 100)))
                await running.client(b"\x16\x03\x01")
                await running.client(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz")
                await running.client(GET * 500)
            for _ in range(100):
                began = time.monotonic()
                bystander.send(GET)
                assert (await bystander.answer()).status == 200
                assert time.monotonic() - began < PATIENCE
            for task in tasks:
                task.cancel()

    run(main())


def refusal(running: Running) -> GatewayError:
    return running.refusals[0][1]


def test_what_was_refused_is_told_with_its_error() -> None:
    async def main() -> None:
        async with serving(whole(b""), limits=Limits(max_body=10)) as running:
            client = await running.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n")
            assert (await client.answer()).status == 413
            assert refusal(running).code == "request_too_large"
            assert "max_body" in str(refusal(running))

    run(main())
