"""What the Claude CLI's pool adds to the provider's own time: cold, from a spare, with a history, in a warm process.

`pytest benchmarks/test_claude_cli.py`: the real program over a loopback provider that answers at once; skipped where
the `claude_agent_sdk` wheel is not installed. The first content is what counts: the time is from the request to it.
"""

from __future__ import annotations

import asyncio
import os
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
from tests.fakes import LoopbackProvider, chat_request, fake_backend
from tests.test_claude_cli_real import PROGRAM, Anthropic

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="the claude_agent_sdk wheel is not installed")

T = TypeVar("T")
ROUNDS = 5
HI = {"role": "user", "content": "Hi"}
SAID = {"role": "assistant", "content": "Hello from the mock"}
SHORT = [HI]
LONG = [turn for number in range(5) for turn in ({"role": "user", "content": f"question {number}"}, SAID)] + [HI]


class Stage:
    """The real program over the loopback provider, in an event loop of its own."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.provider = LoopbackProvider(Anthropic())
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
