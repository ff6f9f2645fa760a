"""What the pipeline itself costs: a layer, composing, a decision, a chunk. `pytest benchmarks`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from gw.backend import Backend, Backends
from gw.document import Chunk
from gw.endpoints.chat import extras
from gw.endpoints.event_stream import EventStream
from gw.message import Request, Response
from gw.middleware.route import Route, RuleTable
from gw.pipeline import Handler, compose
from gw.stream import ListStream
from tests.fakes import chat_request, chunk, chunks, fake_backend


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits, without an event loop's own cost."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


async def passing(request: Request, call_next: Handler) -> Response:
    return await call_next(request)


async def answering(request: Request) -> Response:
    return Response(b"")


@pytest.mark.parametrize("layers", [0, 1, 7, 20])
def test_a_layer_that_passes_through(benchmark: BenchmarkFixture, layers: int) -> None:
    handler = compose([passing] * layers, answering)
    request = chat_request()
    benchmark(lambda: run(handler(request)))  # type: ignore[arg-type]


def test_composing_seven_layers(benchmark: BenchmarkFixture) -> None:
    benchmark(compose, [passing] * 7, answering)


def test_copying_a_request(benchmark: BenchmarkFixture) -> None:
    request = chat_request()
    benchmark(lambda: request.replace(candidates=()))


@pytest.mark.parametrize(("backends", "rules"), [(1, 0), (5, 3), (50, 20)])
def test_a_route_decision(benchmark: BenchmarkFixture, backends: int, rules: int) -> None:
    known: list[Backend] = [fake_backend(f"b{number}", models={"gpt-4": f"m{number}"}) for number in range(backends)]
    tables = [RuleTable(when=f"model: other-{number}-* and has_tools: true", backend="b0") for number in range(rules)]
    router = Route(backends=Backends(known), rules=tables)
    request = chat_request()
    decision = benchmark(router.decide, request)
    assert len(decision.candidates) == backends


@pytest.mark.parametrize("count", [1, 200])
def test_chunks_to_events(benchmark: BenchmarkFixture, count: int) -> None:
    """As they leave: raw chunks joined to one write."""
    raw = Chunk(value=chunk({"content": "x" * 50})).raw

    def encode() -> None:
        request = chat_request()
        stream = EventStream(
            ListStream([Chunk(raw) for _ in range(count)]),
            request.exchange,
            include_usage=False,
            extras=extras,
            ended=lambda error: None,
        )
        run(stream.read())

    benchmark(encode)


def test_a_whole_stream_from_first_to_last(benchmark: BenchmarkFixture) -> None:
    raws = [Chunk(value=value).raw for value in chunks(*["word "] * 20)]

    def encode() -> bytes:
        request = chat_request()
        stream = EventStream(
            ListStream([Chunk(raw) for raw in raws]),
            request.exchange,
            include_usage=False,
            extras=extras,
            ended=lambda error: None,
        )

        async def drain() -> bytes:
            data = b""
            while piece := await stream.read():
                data += piece
            return data

        return bytes(run(drain()))

    assert benchmark(encode).endswith(b"data: [DONE]\n\n")


def test_an_empty_event_loop_turn(benchmark: BenchmarkFixture) -> None:
    """For comparison: what one turn of the loop costs by itself."""
    with asyncio.Runner() as runner:
        benchmark(lambda: runner.run(asyncio.sleep(0)))
