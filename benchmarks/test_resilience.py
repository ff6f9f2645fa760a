"""What resilience costs a request that goes well: a thousand of each. Breaker and budget may cost 2 us a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from pytest_benchmark.fixture import BenchmarkFixture

from gw.backend import Backend
from gw.breaker import Breaker
from gw.deadline import deadline_of
from gw.document import Chunk
from gw.endpoints.patience import Patient, Quiet
from gw.retry import Budget, Share
from gw.shared import LocalShared
from gw.shared_health import SharedHealth
from gw.stream import ListStream
from tests.fakes import chat_request, chunk, fake_backend

TURNS = 1000


def policy(backend: Backend) -> Callable[[], None]:
    """Everything that is decided about a request whose first backend answers."""
    breaker, budget = Breaker(), Budget(Share(), backend.clock)
    request = chat_request()

    def decide() -> None:
        for _ in range(TURNS):
            deadline_of(request, backend.clock)
            budget.count()
            breaker.admit(backend)
            breaker.answered(backend)

    return decide


def test_breaker_and_budget_cost_at_most_two_microseconds_a_request(benchmark: BenchmarkFixture) -> None:
    benchmark(policy(fake_backend()))
    assert benchmark.stats is not None
    assert benchmark.stats.stats.min / TURNS <= 2e-6


def test_breaker_and_budget_of_several_workers(benchmark: BenchmarkFixture) -> None:
    backend = fake_backend()
    backend.health = SharedHealth(LocalShared(), "a")
    benchmark(policy(backend))


def test_a_read_that_does_not_wait(benchmark: BenchmarkFixture) -> None:
    pieces: Sequence[Chunk] = [Chunk(value=chunk({"content": "x"}))]
    quiet = Quiet(15)

    async def reads() -> None:
        work: Patient[Sequence[Chunk]] = Patient(quiet)
        for _ in range(TURNS):
            assert work.start(ListStream(pieces).read())

    benchmark(lambda: asyncio.run(reads()))


def test_a_read_that_waits(benchmark: BenchmarkFixture) -> None:
    quiet = Quiet(15)

    async def waits(loop: asyncio.AbstractEventLoop) -> None:
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future

    async def reads() -> None:
        loop = asyncio.get_running_loop()
        work: Patient[None] = Patient(quiet)
        for _ in range(TURNS):
            assert work.start(waits(loop)) or await work

    benchmark(lambda: asyncio.run(reads()))
