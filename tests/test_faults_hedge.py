"""A second backend is asked where the first is slower than it usually is, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gw.document import Completion
from gw.errors import (
    GatewayError,
    UpstreamError,
)
from gw.hedge import Hedge, Overtaken
from gw.latency import ENOUGH, Latency
from gw.message import Request, Response
from gw.middleware.translate import Translate
from tests.fakes import chunks, completion, fake_backend
from tests.fallback_world import World


class Answers:
    """A provider that answers when it is let go, and notes whether it was given up."""

    def __init__(self, *, at_once: bool = False, error: GatewayError | None = None) -> None:
        self.go = asyncio.Event()
        self.was_asked = asyncio.Event()
        self.asked = self.given_up = 0
        self._error = error
        if at_once:
            self.go.set()

    async def answer(self, request: Request) -> Response:
        self.asked += 1
        self.was_asked.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if self._error is not None:
            raise self._error
        return Response(Completion(value=completion()))


def hedging(
    first: Answers, second: Answers, usual: float = 0.001, **hedge: Any
) -> tuple[World, Callable[[Request], Awaitable[Response]]]:
    a, b = fake_backend("a"), fake_backend("b")
    a.provider, b.provider = first, second
    world = World(a, b, hedge=Hedge(**({"share": 1.0} | hedge)), retries=0)
    latency = world.fallback._latencies["a", False]
    for _ in range(ENOUGH):
        latency.add(usual)
    translate = Translate()

    async def handler(request: Request) -> Response:
        async def nowhere(wire: Any) -> Any:
            raise AssertionError

        return await translate(request, nowhere)

    return world, handler


def test_a_second_backend_is_asked_where_the_first_is_slower_than_it_usually_is_and_the_faster_answers() -> None:
    async def main() -> None:
        slow, fast = Answers(), Answers(at_once=True)
        world, handler = hedging(slow, fast)
        response = await world.ask(handler)
        assert response.headers["X-Gateway-Backend"] == "b"
        assert (slow.asked, slow.given_up) == (1, 1)
        loser, winner = world.request.exchange.attempts
        assert isinstance(loser.error, Overtaken)
        assert (loser.backend, winner.backend, winner.error) == ("a", "b", None)
        assert world.backends[0].health.in_flight == 0

    asyncio.run(main())


def test_the_first_may_still_win_and_its_attempt_is_then_the_one_that_answered() -> None:
    async def main() -> None:
        first, second = Answers(), Answers()
        world, handler = hedging(first, second)
        task = asyncio.create_task(world.ask(handler))
        await second.was_asked.wait()
        first.go.set()
        response = await task
        assert response.headers["X-Gateway-Backend"] == "a"
        assert response.headers["X-Gateway-Degraded"] == "false"
        assert second.given_up == 1
        attempt = world.request.exchange.attempt
        assert attempt is not None
        assert attempt.backend == "a"

    asyncio.run(main())


def test_a_first_that_answers_in_time_has_no_rival() -> None:
    async def main() -> None:
        first, second = Answers(), Answers(at_once=True)
        world, handler = hedging(first, second, usual=60.0)
        task = asyncio.create_task(world.ask(handler))
        await first.was_asked.wait()
        for _ in range(3):
            await asyncio.sleep(0)
        first.go.set()
        await task
        assert second.asked == 0

    asyncio.run(main())


def test_a_rival_that_fails_leaves_the_field_to_the_first() -> None:
    async def main() -> None:
        first, second = Answers(), Answers(at_once=True, error=UpstreamError("no"))
        world, handler = hedging(first, second)
        task = asyncio.create_task(world.ask(handler))
        await second.was_asked.wait()
        first.go.set()
        assert (await task).headers["X-Gateway-Backend"] == "a"

    asyncio.run(main())


@pytest.mark.parametrize("why", ["off", "share used up", "a breaker is open", "nothing is known yet"])
def test_there_is_no_hedge_where_there_shall_be_none(why: str) -> None:
    async def main() -> None:
        first, second = Answers(), Answers()
        world, handler = hedging(first, second, **({"share": 0.0001} if why == "share used up" else {}))
        if why == "off":
            world.fallback._hedge = None
        elif why == "a breaker is open":
            world.backends[1].cool(30, "down")
        elif why == "nothing is known yet":
            world.fallback._latencies.clear()
        task = asyncio.create_task(world.ask(handler))
        await first.was_asked.wait()
        await asyncio.sleep(0.02)
        assert (first.asked, second.asked) == (1, 0)
        first.go.set()
        await task

    asyncio.run(main())


def test_a_client_that_leaves_takes_both_with_it() -> None:
    async def main() -> None:
        first, second = Answers(), Answers()
        world, handler = hedging(first, second)
        task = asyncio.create_task(world.ask(handler))
        await second.was_asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (first.given_up, second.given_up) == (1, 1)
        assert [backend.health.in_flight for backend in world.backends] == [0, 0]

    asyncio.run(main())


def test_a_quantile_needs_enough_samples_and_forgets_the_oldest() -> None:
    latency = Latency()
    for n in range(ENOUGH - 1):
        latency.add(float(n))
    assert latency.p95 is None
    for n in range(1000):
        latency.add(float(n % 64))
    assert latency.p95 == 60.0
    assert latency.fastest == 0.0


def test_streams_and_whole_answers_are_timed_apart() -> None:
    world = World(fake_backend("a", chunks("Hi")))
    world.run(chat={"stream": True})
    assert all(is_stream for _, is_stream in world.fallback._latencies)
