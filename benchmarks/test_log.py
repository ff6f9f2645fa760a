"""What the request log costs: on the event loop, and in the thread that writes the rows.

Targets, on a core where nginx proxies a request in 15 us: 2 us on the loop for the begin and the end of an exchange
together, 15 us of the thread for a chat of 0.4 KB with an answer of 0.65 KB, 5 us for an access line.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.harness.load import REQUEST
from benchmarks.harness.processes import ANSWER
from gw.access_line import AccessLines
from gw.backend import Backend, Backends
from gw.document import Completion, Document
from gw.known_secrets import KnownSecrets
from gw.message import Attempt, Exchange, Request, Response, Summary, Usage
from gw.middleware.log import Log
from gw.request_log.answers import messages_of, said_by
from gw.request_log.content import ANSWER as KEPT
from gw.request_log.writer import RequestLog
from gw.secret import Secret
from tests.exchanges import chunk

ROWS = 2000  # in one round; the benchmarks tell the time of all, divide by it
CHUNKS = 1000


def _exchange(number: int = 0) -> Exchange:
    document = Document(REQUEST)
    document.peek()  # as the front door leaves it
    began = time.monotonic()
    summary = Summary("gpt-4o-mini", "chatcmpl-9", "stop", None, Usage(52, 80), 5.6e-05, "priced")
    return Exchange(
        id=f"req-{number:016x}",
        method="POST",
        path="/v1/chat/completions",
        client="127.0.0.1",
        started=began,
        timestamp=1.7e9 + number / 1000,
        operation="chat",
        request=document,
        model="gpt-4o-mini",
        attempts=[Attempt("provider", "gpt-4o-mini", began, began + 0.003, None, 200, None, summary)],
        status=200,
        ended=began + 0.003,
    )


@contextmanager
def _opened(path: Path) -> Iterator[RequestLog]:
    secrets = KnownSecrets([Secret("sk-proj-0123456789abcdefghijklmnopqrstuvwxyz")])
    log = RequestLog(path, secrets=secrets, backends=Backends([Backend("provider", "openai")]))
    log.start()
    log.flush()
    try:
        yield log
    finally:
        assert log.close(10.0)


def test_on_the_loop_begin_and_end(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """The whole middleware around a handler that answers at once; the thread is not started."""
    log = Log(path=tmp_path / "requests.db")
    answer = Response(Completion(ANSWER, orjson.loads(ANSWER)))

    async def call_next(request: Request) -> Response:
        return answer

    def setup() -> tuple[tuple[list[Request]], dict[str, Any]]:
        requests = []
        for number in range(ROWS):
            request = Request(method="POST", path="/v1/chat/completions")
            request.exchange = _exchange(number)
            requests.append(request)
        return (requests,), {}

    async def serve(requests: list[Request]) -> None:
        for request in requests:
            await log(request, call_next)
            log.ended(request.exchange)

    benchmark.pedantic(  # type: ignore[no-untyped-call]
        lambda requests: asyncio.run(serve(requests)), setup=setup, rounds=5
    )


def test_rows_written_and_flushed(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    said = said_by(Completion(ANSWER))
    with _opened(tmp_path / "requests.db") as log:

        def setup() -> tuple[tuple[list[Exchange]], dict[str, Any]]:
            exchanges = [_exchange(number) for number in range(ROWS)]
            for exchange in exchanges:
                exchange.response = [ANSWER]
                exchange.attributes[KEPT] = said
            return (exchanges,), {}

        def write(exchanges: list[Exchange]) -> None:
            for exchange in exchanges:
                log.end(log.begin(exchange), exchange)
            assert log.flush(10.0, begun=False)

        benchmark.pedantic(write, setup=setup, rounds=10)  # type: ignore[no-untyped-call]
        assert log.written > 0
        assert (log.written % ROWS, log.spilled, log.lost) == (0, 0, 0)  # one round where benchmarks are switched off


def test_a_streamed_answer_put_together(benchmark: BenchmarkFixture) -> None:
    raw = [chunk(role="assistant", content=""), *(chunk(content=f"word{number} ") for number in range(CHUNKS))]
    (message,) = benchmark(messages_of, raw)
    assert message["content"].endswith(" word999 ")


def test_access_lines(benchmark: BenchmarkFixture) -> None:
    exchanges = [_exchange(number) for number in range(ROWS)]
    lines = AccessLines(output=io.BytesIO())
    lines.start()

    def write() -> None:
        for exchange in exchanges:
            lines.write(exchange)
        assert lines.flush(10.0)

    benchmark.pedantic(write, rounds=10)  # type: ignore[no-untyped-call]
    assert lines.close(5.0)
    assert lines.dropped == 0
