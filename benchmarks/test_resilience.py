"""What routing and resilience cost a request that goes well: a thousand of each.

Breaker and budget may cost 2 us a request, a decision over 50 backends and 20 rules 25 us, a plain one 5 us.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from gw.backend import Backend, Backends
from gw.breaker import Breaker
from gw.deadline import deadline_of
from gw.document import Chunk
from gw.endpoints.patience import Patient, Quiet
from gw.message import Request, Response
from gw.middleware.route import Route, RuleTable
from gw.retry import Budget, Share
from gw.shared import LocalShared
from gw.shared_health import SharedHealth
from gw.stream import ListStream
from tests.fakes import chat_request, chunk, fake_backend

TURNS = 1000
pytestmark = pytest.mark.benchmark(timer=time.thread_time)  # CPU: other processes do not count


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
    assert least(benchmark) <= 2e-6


def test_breaker_and_budget_of_several_workers(benchmark: BenchmarkFixture) -> None:
    backend = fake_backend()
    backend.health = SharedHealth(LocalShared(), "a")
    benchmark(policy(backend))


def routed(route: Route, **chat: Any) -> Callable[[], None]:
    """Everything between `route` and the next layer: decided, written on the request, passed on."""
    request, answer = chat_request(chat), Response(b"")
    assert request.document is not None
    request.document.peek()

    async def answering(request: Request) -> Response:
        return answer

    async def requests() -> None:
        for _ in range(TURNS):
            await route(request, answering)

    def run() -> None:
        with suppress(StopIteration):  # nothing waits: no loop, and none of its cost
            requests().send(None)

    return run


def least(benchmark: BenchmarkFixture) -> float:
    """Seconds of one turn, the fastest of all rounds."""
    assert benchmark.stats is not None
    return float(benchmark.stats.stats.min) / TURNS


def test_a_plain_request_is_routed(benchmark: BenchmarkFixture) -> None:
    backends = [fake_backend("one", models={"gpt-4": "m"}), fake_backend("two", kind="other", models={"gpt-4": "n"})]
    benchmark(routed(Route(backends=Backends(backends))))


@pytest.mark.parametrize("options", [{"prefer_cheapest": True}, {"turns": "least_busy"}, {"sticky_header": "X-C"}])
def test_prices_load_and_stickiness(benchmark: BenchmarkFixture, options: dict[str, Any]) -> None:
    benchmark(routed(Route(backends=Backends([fake_backend("one"), fake_backend("two")]), **options)))


def test_fifty_backends_and_twenty_rules_are_decided_in_25_microseconds(benchmark: BenchmarkFixture) -> None:
    backends = [fake_backend(f"b{number}", models={"gpt-4": f"m{number}"}) for number in range(50)]
    whens = [f"model: other-{number}-* and has_tools: true and header X-{number}: a*" for number in range(20)]
    rules = [RuleTable(when=when, backend="b0") for when in whens]
    benchmark(routed(Route(backends=Backends(backends), rules=rules, prefer_cheapest=True)))
    assert least(benchmark) <= 25e-6


def test_fifty_backends_and_twenty_rules_for_a_kind_of_request_that_was_not_seen(benchmark: BenchmarkFixture) -> None:
    backends = [fake_backend(f"b{number}") for number in range(50)]
    rules = [RuleTable(when=f"model: other-{number}-* and has_tools: true", backend="b0") for number in range(20)]
    router = Route(backends=Backends(backends), rules=rules).router
    requests = [chat_request({"model": f"model-{number}"}) for number in range(TURNS)]
    benchmark(lambda: [router.decide(request, is_question=True) for request in requests])


@pytest.mark.parametrize("messages", [10, 100])
def test_a_long_conversation(benchmark: BenchmarkFixture, messages: int) -> None:
    said = [{"role": "user", "content": "x" * 200}] * messages
    benchmark(routed(Route(backends=Backends([fake_backend("one"), fake_backend("two")])), messages=said))


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
