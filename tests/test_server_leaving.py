"""Whoever leaves frees what was being made for them; who only ended their sending is answered to the end."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gw.message import Request
from gw.server import Reply
from gw.server.halfclose import watch
from tests.serving import BOTH, GET, Client, Http, Pieces, run, serving, streaming


def leave_by_reset(client: Client) -> None:
    client.writer.transport.abort()


def leave_by_close(client: Client) -> None:
    client.writer.close()


class Waiting(Pieces):
    """One that has nothing behind its first piece until it may go on."""

    def __init__(self, go: asyncio.Event, pieces: Sequence[bytes]) -> None:
        super().__init__(pieces)
        self._go = go

    async def read(self) -> bytes:
        if self.reads == 1:
            await self._go.wait()
        return await super().read()


LEAVE = pytest.mark.parametrize("leave", [leave_by_reset, leave_by_close])


@pytest.mark.parametrize("http", BOTH)
@LEAVE
def test_a_client_that_leaves_before_the_answer_cancels_the_handler(
    http: Http, leave: Callable[[Client], None]
) -> None:
    async def main() -> None:
        cancelled: list[str] = []

        async def handler(request: Request) -> Reply:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(request.path)
                raise
            raise AssertionError

        async with serving(handler, http=http) as running:
            client = await running.client(GET)
            await running.until(lambda: running.server.in_flight == 1)
            leave(client)
            await running.until(lambda: running.server.in_flight == 0)
            assert cancelled == ["/"]

    run(main())


def test_a_client_that_ended_its_sending_and_is_gone_is_cut_off_within_half_a_second() -> None:
    class Gone:
        """A connection, its transport, its socket and its loop: it has gone, which shows once bytes are sent to it."""

        is_lost, task = False, None
        now, cut_at, error = 0.0, 0.0, 0
        due: list[tuple[float, Callable[[], None]]] = []  # noqa: RUF012 one test, one list

        def stimulate(self) -> None:
            self.error = errno.ECONNRESET

        def get_extra_info(self, name: str) -> Gone:
            return self

        def getsockopt(self, level: int, name: int) -> int:
            return self.error

        def abort(self) -> None:
            self.cut_at = self.now

        def call_later(self, seconds: float, work: Callable[..., None], *given: Any) -> None:
            self.due.append((self.now + seconds, lambda: work(*given)))

    gone: Any = Gone()
    watch(gone, gone, gone)
    while gone.due:
        gone.now, work = gone.due.pop()
        work()
    assert 0.0 < gone.cut_at < 0.5  # R7: at the worst


@LEAVE
def test_a_client_that_leaves_cancels_a_read_of_the_stream_and_closes_it(leave: Callable[[Client], None]) -> None:
    async def main() -> None:
        stream = Pieces([b"first"], endless=True)
        async with serving(streaming(stream)) as running:
            client = await running.client(GET)
            await client.reader.readuntil(b"first\r\n")
            leave(client)
            await running.until(lambda: running.server.in_flight == 0)
            assert (stream.cancelled, stream.closed) == (1, 1)

    run(main())


@pytest.mark.parametrize("http", BOTH)
def test_a_client_that_leaves_while_its_body_is_awaited_cancels_the_handler(http: Http) -> None:
    async def main() -> None:
        async def handler(request: Request) -> Reply:
            assert request.body is not None
            await request.body.read()
            raise AssertionError

        async with serving(handler, http=http) as running:
            client = await running.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nfour")
            await running.until(lambda: running.server.in_flight == 1)
            leave_by_reset(client)
            await running.until(lambda: running.server.in_flight == 0)

    run(main())


def test_a_handler_that_answers_though_it_is_cancelled_has_its_stream_closed() -> None:
    async def main() -> None:
        stream = Pieces([b"late"])

        async def handler(request: Request) -> Reply:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return Reply(200, [], stream)
            raise AssertionError

        async with serving(handler) as running:
            client = await running.client(GET)
            await running.until(lambda: running.server.in_flight == 1)
            leave_by_reset(client)
            await running.until(lambda: running.server.in_flight == 0)
            assert stream.closed == 1

    run(main())


def test_a_client_that_only_ended_its_sending_gets_its_stream_to_the_end() -> None:
    async def main() -> None:
        go = asyncio.Event()

        stream = Waiting(go, [b"first", b"second", b""])
        async with serving(streaming(stream)) as running:
            client = await running.client(GET)
            client.writer.write_eof()
            await client.reader.readuntil(b"first\r\n")
            assert await client.read(1) == b"0"  # asked whether it is there: a leading zero of the next size
            go.set()
            assert await client.rest() == b"6\r\nsecond\r\n0\r\n\r\n"
            assert stream.closed == 1

    run(main())


def test_a_last_chunk_with_a_leading_zero_is_a_last_chunk() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async with serving(streaming(Waiting(go, [b"only"]))) as running:
            client = await running.client(GET)
            client.writer.write_eof()
            await running.until(lambda: b"only\r\n0" in bytes(client.reader._buffer))  # type: ignore[attr-defined]
            go.set()
            answer = await client.answer()
            assert (answer.body, answer.complete) == (b"only", True)

    run(main())
