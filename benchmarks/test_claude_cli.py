"""What the Claude CLI's pool adds to the provider's own time: cold, from a spare, with a history, in a warm process.

`pytest benchmarks/test_claude_cli.py`: the real program over a loopback provider that answers at once; skipped where
the `claude_agent_sdk` wheel is not installed. The first content is what counts: the time is from the request to it.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from gw.adapters.claude_cli import ClaudeCLI
from gw.environ import Environ
from gw.message import Attempt, Candidate
from gw.secret import Secret
from gw.stream import Stream, begun
from tests.fakes import Asked, LoopbackProvider, chat_request, fake_backend
from tests.real_claude import PROGRAM, Anthropic, event, last_text, says

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="the claude_agent_sdk wheel is not installed")

T = TypeVar("T")
ROUNDS = 5
HI = {"role": "user", "content": "Hi"}
SAID = {"role": "assistant", "content": "Hello from the mock"}
SHORT = [HI]
LONG = [turn for number in range(5) for turn in ({"role": "user", "content": f"question {number}"}, SAID)] + [HI]


DELTAS = 100
PAUSE = 0.01  # seconds between two deltas: each travels alone


async def answered(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """The mock; where deltas are asked for, each says when it was sent."""
    if asked.method != "POST" or "deltas" not in last_text(asked.json):
        await Anthropic()(asked, writer)
        return
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    head, _, tail = says("x").partition(delta("x"))
    for part in (head, *(None for _ in range(DELTAS)), tail):
        content = delta(f"{time.perf_counter()} ") if part is None else part
        writer.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        await writer.drain()
        await asyncio.sleep(PAUSE)
    writer.write(b"0\r\n\r\n")


def delta(text: str) -> bytes:
    return event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


class Stage:
    """The real program over the loopback provider, in an event loop of its own."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.provider = LoopbackProvider(answered)
        self.folder = folder
        self.cli: ClaudeCLI

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    async def open(self, **options: Any) -> None:
        await self.provider.__aenter__()
        self.cli = ClaudeCLI(
            command=PROGRAM,
            model="claude-sonnet-4-5",
            config_dir=self.folder,
            base_url=self.provider.url,
            api_key=Secret("sk-test-key"),
            environ=Environ({"PATH": os.defpath}),
            **options,
        )
        await self.cli.__aenter__()

    async def close(self) -> None:
        await self.cli.__aexit__()
        await self.provider.__aexit__()

    async def ask(self, messages: list[dict[str, str]]) -> None:
        """One streamed turn to its end; its start is what is measured."""
        stream = await self.first(messages)
        while await stream.read():
            pass

    async def first(self, messages: list[dict[str, str]]) -> Stream:
        candidate = Candidate(fake_backend("cli"), "claude-sonnet-4-5", "claude-sonnet-4-5")
        request = chat_request({"messages": messages, "stream": True}, candidates=(candidate,))
        request.exchange.attempts.append(Attempt("cli", "cli", 0.0))
        response = await self.cli.answer(request)
        assert isinstance(response.content, Stream)
        return await begun(response.content)

    async def ready(self) -> None:
        """Until a spare has started."""
        pool = self.cli._pool
        while len(pool._spares) < pool._min_idle:  # noqa: ASYNC110 (nobody is told of it)
            await asyncio.sleep(0.01)
        if pool._min_idle:
            await asyncio.sleep(1)  # what it still does after it has said that it is there


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.run(stage.close())
    stage.loop.run_until_complete(stage.loop.shutdown_default_executor())
    stage.loop.close()


def measured(benchmark: BenchmarkFixture, stage: Stage, messages: list[dict[str, str]]) -> None:
    streams: list[Stream] = []

    def to_first_content() -> None:
        streams.append(stage.run(stage.first(messages)))

    def finish() -> None:
        for stream in streams:
            stage.run(_drain(stream))
        streams.clear()
        stage.run(stage.ready())

    benchmark.pedantic(to_first_content, setup=finish, rounds=ROUNDS, warmup_rounds=1)  # type: ignore[no-untyped-call]
    finish()


async def _drain(stream: Stream) -> None:
    while await stream.read():
        pass
    await stream.aclose()


def test_cold(benchmark: BenchmarkFixture, stage: Stage) -> None:
    stage.run(stage.open(min_idle=0, max_warm=0))
    measured(benchmark, stage, SHORT)


def test_from_a_spare(benchmark: BenchmarkFixture, stage: Stage) -> None:
    stage.run(stage.open(min_idle=1, max_warm=0))
    measured(benchmark, stage, SHORT)


def test_from_a_spare_with_a_history_of_five_turns(benchmark: BenchmarkFixture, stage: Stage) -> None:
    stage.run(stage.open(min_idle=1, max_warm=0))
    measured(benchmark, stage, LONG)


def test_warm(benchmark: BenchmarkFixture, stage: Stage) -> None:
    stage.run(stage.open(min_idle=0, max_warm=1))
    stage.run(stage.ask(SHORT))
    talk = [list(SHORT)]

    def next_turn() -> None:
        talk[0] = [*talk[0], SAID, HI]
        stage.run(stage.ask(talk[0]))

    benchmark.pedantic(next_turn, rounds=ROUNDS, warmup_rounds=1)  # type: ignore[no-untyped-call]


def test_each_delta(benchmark: BenchmarkFixture, stage: Stage) -> None:
    """What lies between the provider's writing of a delta and its chunk: the program's part and ours."""
    stage.run(stage.open(min_idle=0, max_warm=0))
    seconds: list[float] = []

    async def ask() -> None:
        stream = await stage.first([{"role": "user", "content": "deltas"}])
        while chunks := await stream.read():
            now = time.perf_counter()
            for chunk in chunks:
                for choice in chunk.peek()["choices"]:
                    seconds.extend(now - float(sent) for sent in (choice["delta"].get("content") or "").split())
        await stream.aclose()

    benchmark.pedantic(lambda: stage.run(ask()), rounds=1)  # type: ignore[no-untyped-call]
    benchmark.extra_info["median_ms"] = round(statistics.median(seconds) * 1000, 2)
    benchmark.extra_info["p95_ms"] = round(statistics.quantiles(seconds, n=20)[-1] * 1000, 2)
