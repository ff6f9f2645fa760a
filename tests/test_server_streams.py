"""Streams: one chunk a read, one end, and read no faster than their client reads."""

from __future__ import annotations

import asyncio
import logging

import orjson
import pytest

from gw.errors import UpstreamProtocolError
from gw.message import Request
from gw.server import Limits, Reply
from tests.serving import BOTH, GET, PATIENCE, Client, Http, Pieces, Running, run, serving, streaming

OLD = b"GET / HTTP/1.0\r\n\r\n"


class Flood(Pieces):
    """As many bytes as anybody takes."""

    async def read(self) -> bytes:
        self.reads += 1
        return b"x" * 16_384


@pytest.mark.parametrize("http", BOTH)
def test_each_read_is_one_chunk_and_the_connection_is_kept(http: Http) -> None:
    async def main() -> None:
        streams: list[Pieces] = []

        async def handler(request: Request) -> Reply:
            streams.append(Pieces([b"one", b"two" * 10_000, b"\r\n"]))
            return Reply(200, [("Content-Type", "text/event-stream")], streams[-1])

        async with serving(handler, http=http) as running:
            client = await running.client(GET * 3)
            for _ in range(3):
                answer = await client.answer()
                assert answer.complete
                assert answer.headers["content-type"] == "text/event-stream"
                assert answer.body == b"one" + b"two" * 10_000 + b"\r\n"
            assert [stream.closed for stream in streams] == [1, 1, 1]

    run(main())


def test_the_head_goes_out_with_the_first_bytes() -> None:
    async def main() -> None:
        stream = Pieces([b"first"], endless=True)
        async with serving(streaming(stream)) as running:
            client = await running.client(GET)
            data = await asyncio.wait_for(client.reader.read(65536), PATIENCE)
            assert data.startswith(b"HTTP/1.1 200 OK\r\n")
            assert data.endswith(b"\r\n\r\n5\r\nfirst\r\n")

    run(main())


def test_an_empty_stream_is_a_complete_answer() -> None:
    async def main() -> None:
        stream = Pieces()
        async with serving(streaming(stream)) as running:
            client = await running.client(GET)
            answer = await client.answer()
            assert (answer.status, answer.body, answer.complete) == (200, b"", True)
            assert stream.closed == 1

    run(main())


def test_http_1_0_gets_no_chunks_and_the_end_of_the_connection() -> None:
    async def main() -> None:
        stream = Pieces([b"a", b"b"])
        async with serving(streaming(stream)) as running:
            client = await running.client(OLD)
            answer = await client.answer()
            assert "transfer-encoding" not in answer.headers
            assert (answer.headers["connection"], answer.body, answer.complete) == ("close", b"ab", True)
            assert stream.closed == 1

    run(main())


def test_head_closes_the_stream_unread() -> None:
    async def main() -> None:
        stream = Pieces([b"a"])
        async with serving(streaming(stream)) as running:
            client = await running.client(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
            assert (await client.answer("HEAD")).headers["transfer-encoding"] == "chunked"
            assert (await client.answer("HEAD")).status == 200
            assert (stream.reads, stream.closed) == (0, 2)

    run(main())


@pytest.mark.parametrize("data", [GET, OLD])
@pytest.mark.parametrize("error", [UpstreamProtocolError("cut short"), ValueError("bug")])
def test_a_stream_that_breaks_never_looks_complete(
    data: bytes, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gw.server")

    async def main() -> None:
        stream = Pieces([b"some"], error)
        async with serving(streaming(stream)) as running:
            client = await running.client(data)
            answer = await client.answer()
            assert answer.status == 200
            assert not answer.complete
            assert answer.body == b"some" or data == OLD  # a reset may overtake what came before it
            assert stream.closed == 1

    run(main())
    assert [record.levelname for record in caplog.records] == ["ERROR" if isinstance(error, ValueError) else "INFO"]


@pytest.mark.parametrize(
    ("error", "status"), [(UpstreamProtocolError("cut short"), 502), (ValueError("bug"), 500)], ids=["ours", "bug"]
)
def test_a_stream_that_breaks_before_its_first_bytes_is_an_error_answer(error: Exception, status: int) -> None:
    async def main() -> None:
        stream = Pieces([], error)
        async with serving(streaming(stream)) as running:
            client = await running.client(GET * 2)
            for _ in range(2):
                answer = await client.answer()
                assert answer.status == status
                assert answer.code
            assert stream.closed == 2

    logging.getLogger("gw.server").disabled = True
    try:
        run(main())
    finally:
        logging.getLogger("gw.server").disabled = False


def test_a_stream_with_a_header_that_must_not_be_sent_is_closed_and_answered_with_500() -> None:
    async def main() -> None:
        stream = Pieces([b"a"])
        async with serving(streaming(stream, [("X", "a\r\nB: c")])) as running:
            client = await running.client(GET)
            answer = await client.answer()
            assert answer.status == 500
            assert "b" not in answer.headers
            assert stream.closed == 1

    run(main())


async def unread(running: Running) -> Client:
    """A client that asks and does not read: a small window, and reading paused."""
    client = await running.client(GET, limit=1024)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    return client


def test_a_stream_is_read_no_faster_than_its_client_reads() -> None:
    async def main() -> None:
        stream = Flood()
        async with serving(streaming(stream)) as running:
            client = await unread(running)
            await running.until(lambda: stream.reads > 0)
            reads = -1
            while reads != stream.reads:  # until both sockets are full
                reads = stream.reads
                for _ in range(100):
                    await asyncio.sleep(0)
            assert reads * 16_384 < 16_000_000
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            while stream.reads < reads + 100:
                await asyncio.wait_for(client.reader.read(65536), PATIENCE)

    run(main())


def test_a_client_that_does_not_read_is_cut_at_the_write_deadline() -> None:
    async def main() -> None:
        stream = Flood()
        async with serving(streaming(stream), limits=Limits(write_timeout=0.1, min_rate=10_000_000)) as running:
            await unread(running)
            await running.until(lambda: stream.closed == 1)
            await running.until(lambda: running.server.connections == 0)

    run(main())


def test_a_whole_answer_that_nobody_reads_is_cut_too() -> None:
    async def main() -> None:
        async def handler(request: Request) -> Reply:
            return Reply(200, [], b"x" * 20_000_000)

        limits = Limits(write_timeout=0.1, min_rate=1_000_000_000)
        async with serving(handler, limits=limits) as running:
            await unread(running)
            await running.until(lambda: running.server.in_flight == 1)
            await running.until(lambda: running.server.connections == 0 and running.server.in_flight == 0)

    run(main())


def test_a_large_whole_answer_arrives_whole_and_the_connection_is_kept() -> None:
    async def main() -> None:
        body = bytes(range(256)) * 20_000

        async def handler(request: Request) -> Reply:
            return Reply(200, [], body)

        async with serving(handler) as running:
            client = await running.client(GET * 2)
            for _ in range(2):
                assert (await client.answer()).body == body

    run(main())


def test_one_slow_reader_does_not_hold_up_another() -> None:
    async def main() -> None:
        async def handler(request: Request) -> Reply:
            return Reply(200, [], Flood() if request.path == "/" else orjson.dumps(request.path))

        async with serving(handler) as running:
            await unread(running)
            other = await running.client()
            for number in range(50):
                other.send(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
                assert (await other.answer()).body == b'"/%d"' % number

    run(main())
