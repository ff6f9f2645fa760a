"""The log middleware watches without touching: what it hands on is what it was given."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from gw.document import Chunk, Completion, Document
from gw.errors import ConfigError, NotFound, UpstreamConnectionError
from gw.message import Request, Response, Usage
from gw.metrics import Metrics
from gw.middleware.log import CONTINUES, Log
from gw.stream import ListStream, Stream
from tests.exchanges import HELLO, attempt, chunk, completion


def asked(**body: Any) -> Request:
    request = Request(method="POST", path="/v1/chat/completions", id="req-1")
    request.operation = request.exchange.operation = "chat"
    request.document = Document(orjson.dumps({"model": "gpt-4", "messages": HELLO} | body))
    return request


def end(log: Log, request: Request, error: BaseException | None = None, status: int = 200) -> None:
    exchange = request.exchange
    exchange.status, exchange.error, exchange.ended = status, error, time.monotonic()
    log.ended(exchange)


def rows(path: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM requests ORDER BY id")]


def run(path: Path, act: Callable[[Log], Awaitable[None]], **options: Any) -> list[dict[str, Any]]:
    async def main() -> None:
        async with Log(path=str(path), **options) as log:
            await act(log)

    asyncio.run(main())
    return rows(path)


async def read(stream: object) -> list[Chunk]:
    assert isinstance(stream, Stream)
    return [chunk async for chunk in stream]


def test_a_whole_answer_passes_untouched_and_is_kept(tmp_path: Path) -> None:
    async def act(log: Log) -> None:
        request, answer = asked(), Response(Completion(completion("Hi Alice")))

        async def call_next(given: Request) -> Response:
            assert given is request
            given.exchange.attempts.append(attempt(usage=Usage(1, 2)))
            return answer

        assert await log(request, call_next) is answer
        assert isinstance(answer.content, Completion)
        assert not answer.content.is_opened
        end(log, request)

    (row,) = run(tmp_path / "deep" / "folder" / "requests.db", act)
    assert (row["response"], row["prompt"], row["state"]) == ("Hi Alice", orjson.dumps(HELLO).decode(), "done")


def test_a_stream_passes_chunk_by_chunk_and_is_kept(tmp_path: Path) -> None:
    chunks = [Chunk(chunk(content=text)) for text in ("Hi", " ", "Alice")]

    async def act(log: Log) -> None:
        request = asked(stream=True)

        async def call_next(given: Request) -> Response:
            return Response(ListStream(chunks))

        response = await log(request, call_next)
        assert await read(response.content) == chunks
        assert not any(chunk.is_opened for chunk in chunks)
        end(log, request)

    assert [row["response"] for row in run(tmp_path / "requests.db", act)] == ["Hi Alice"]


def test_what_was_streamed_before_a_break_is_kept(tmp_path: Path) -> None:
    broken = UpstreamConnectionError("reset")

    async def act(log: Log) -> None:
        request = asked(stream=True)

        async def call_next(given: Request) -> Response:
            return Response(ListStream([Chunk(chunk(content="Hi"))], broken))

        response = await log(request, call_next)
        with pytest.raises(UpstreamConnectionError) as caught:
            await read(response.content)
        end(log, request, caught.value)

    (row,) = run(tmp_path / "requests.db", act)
    assert (row["response"], row["error"], row["error_code"]) == ("Hi", "reset", "upstream_error")


def test_an_answer_that_never_reached_the_client_is_forgotten_by_the_next_try(tmp_path: Path) -> None:
    async def act(log: Log) -> None:
        request = asked(stream=True)
        for text in ("first", "second"):

            async def call_next(given: Request, text: str = text) -> Response:
                return Response(ListStream([Chunk(chunk(content=text))]))

            await read((await log(request, call_next)).content)
        end(log, request)

    assert [row["response"] for row in run(tmp_path / "requests.db", act)] == ["second"]


def test_an_answer_that_goes_on_elsewhere_is_kept_as_one(tmp_path: Path) -> None:
    async def act(log: Log) -> None:
        request = asked(stream=True)
        for text in ("first", " second"):

            async def call_next(given: Request, text: str = text) -> Response:
                return Response(ListStream([Chunk(chunk(content=text))]))

            await read((await log(request, call_next)).content)
            request.exchange.attributes[CONTINUES] = True
        end(log, request)

    assert [row["response"] for row in run(tmp_path / "requests.db", act)] == ["first second"]


def test_a_failure_passes_and_is_a_row(tmp_path: Path) -> None:
    async def act(log: Log) -> None:
        request, failure = asked(), NotFound("no such model", code="model_not_found")

        async def call_next(given: Request) -> Response:
            raise failure

        with pytest.raises(NotFound) as caught:
            await log(request, call_next)
        assert caught.value is failure
        end(log, request, failure, 404)

    assert [(row["status"], row["backend"]) for row in run(tmp_path / "requests.db", act)] == [(404, None)]


def test_an_exchange_refused_before_the_log_is_a_row_and_a_status_page_is_none(tmp_path: Path) -> None:
    async def act(log: Log) -> None:
        end(log, Request(method="POST", path="/v1/chat/completions", id="refused"), NotFound("no"), 404)
        end(log, Request(method="GET", path="/health", id="health"))

    assert [row["request_id"] for row in run(tmp_path / "requests.db", act)] == ["refused"]


def test_several_tries_are_one_row(tmp_path: Path) -> None:
    async def act(log: Log) -> None:
        request = asked()

        async def call_next(given: Request) -> Response:
            given.exchange.attempts.append(attempt())
            return Response(Completion(completion("Hi")))

        await log(request, call_next)
        await log(request, call_next)
        await log.flush()
        assert [row["state"] for row in rows(tmp_path / "requests.db")] == ["started"]
        end(log, request)

    assert [(row["attempts"], row["state"]) for row in run(tmp_path / "requests.db", act)] == [(2, "done")]


def test_content_none_does_not_watch_the_stream(tmp_path: Path) -> None:
    async def act(log: Log) -> None:
        request, stream = asked(stream=True), ListStream([Chunk(chunk(content="Hi"))])

        async def call_next(given: Request) -> Response:
            return Response(stream)

        assert (await log(request, call_next)).content is stream
        end(log, request)

    assert [row["response"] for row in run(tmp_path / "requests.db", act, content="none")] == [None]


def test_durable_rows_are_committed_before_the_answer_ends(tmp_path: Path) -> None:
    async def act(log: Log) -> None:
        request = asked()

        async def call_next(given: Request) -> Response:
            given.exchange.attempts.append(attempt(usage=Usage(3, 4)))
            return Response(Completion(completion("Hi")))

        await log(request, call_next)
        request.exchange.status = 200
        assert log.settle is not None
        await log.settle(request.exchange)
        (row,) = rows(tmp_path / "requests.db")
        assert (row["state"], row["tokens_output"], row["response"]) == ("done", 4, "Hi")
        await log.settle(request.exchange)
        end(log, request)

    assert len(run(tmp_path / "requests.db", act, durability="durable")) == 1


def test_settling_waits_for_an_exchange_that_has_ended(tmp_path: Path) -> None:
    async def act(log: Log) -> None:
        for method in ("POST", "GET"):
            request = Request(method=method, path="/v1/chat/completions", id=method)
            end(log, request, NotFound("no"), 404)
            assert log.settle is not None
            await log.settle(request.exchange)
        assert [row["request_id"] for row in rows(tmp_path / "requests.db")] == ["POST"]

    assert len(run(tmp_path / "requests.db", act, durability="durable")) == 1


def test_settling_serves_on_where_the_database_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"

    async def act(log: Log) -> None:
        request = asked()

        async def call_next(given: Request) -> Response:
            return Response(Completion(completion("Hi")))

        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            await log(request, call_next)
            assert log.settle is not None
            await log.settle(request.exchange)
            assert "locked" in str(log.problem)
            assert "spill.jsonl" in str(log.problem)
            other.execute("ROLLBACK")

    assert [row["state"] for row in run(path, act, durability="durable")] == ["done"]


def test_a_settling_that_the_client_cancels_leaves_the_row(tmp_path: Path) -> None:
    async def act(log: Log) -> None:
        request = asked()

        async def call_next(given: Request) -> Response:
            return Response(Completion(completion("Hi")))

        await log(request, call_next)
        assert log.settle is not None
        task = asyncio.ensure_future(log.settle(request.exchange))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        end(log, request, asyncio.CancelledError(), 0)
        await log.flush()

    assert [row["state"] for row in run(tmp_path / "requests.db", act, durability="durable")] == ["done"]


def test_fast_has_nothing_to_settle() -> None:
    assert Log().settle is None


def test_constructing_opens_nothing(tmp_path: Path) -> None:
    Log(path=str(tmp_path / "logs" / "requests.db"))
    assert list(tmp_path.iterdir()) == []


def test_a_negative_retention_is_refused() -> None:
    with pytest.raises(ConfigError, match="retention_days: found -1"):
        Log(retention_days=-1)


def test_trouble_with_the_file_is_a_problem_and_a_metric(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    path.mkdir()
    metrics = Metrics()

    async def act(log: Log) -> None:
        end(log, asked())
        await log.flush()
        assert str(path) in str(log.problem)
        text = metrics.exposition().decode()
        assert "gw_log_spilled_rows_total 1.0" in text
        assert "gw_log_lost_rows_total 0.0" in text
        path.rmdir()

    assert len(run(path, act, metrics=metrics)) == 1
    assert "gw_log_rows_total 1.0" in metrics.exposition().decode()


class _Endless(Stream):
    """A stream that says when it is closed."""

    def __init__(self) -> None:
        self.is_closed = False

    async def read(self) -> Sequence[Chunk]:
        return (Chunk(chunk(content="again ")),)

    async def aclose(self) -> None:
        self.is_closed = True


@asynccontextmanager
async def closed(response: Response) -> AsyncIterator[Response]:
    try:
        yield response
    finally:
        await response.aclose()


def test_closing_the_answer_closes_what_is_below(tmp_path: Path) -> None:
    async def act(log: Log) -> None:
        request, stream = asked(stream=True), _Endless()

        async def call_next(given: Request) -> Response:
            return Response(stream)

        async with closed(await log(request, call_next)) as response:
            assert isinstance(response.content, Stream)
            await response.content.read()
            assert not stream.is_closed
        assert stream.is_closed
        end(log, request, asyncio.CancelledError(), 0)

    (row,) = run(tmp_path / "requests.db", act)
    assert (row["response"], row["status"], row["error_code"]) == ("again ", 499, "client_gone")


def test_an_endless_answer_is_kept_up_to_a_limit(tmp_path: Path) -> None:
    async def act(log: Log) -> None:
        request = asked(stream=True)
        big = Chunk(chunk(content="x" * 1_000_000))

        async def call_next(given: Request) -> Response:
            return Response(ListStream([big] * 10))

        assert len(await read((await log(request, call_next)).content)) == 10
        end(log, request)

    (row,) = run(tmp_path / "requests.db", act)
    assert len(row["response"]) == 8_000_000
    assert orjson.loads(row["metadata"])["truncated"] is True
