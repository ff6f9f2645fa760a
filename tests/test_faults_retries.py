"""Retries stay within a share of the traffic, and everything within the client's own deadline."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gw.breaker import Breaker
from gw.deadline import Deadline, deadline_of
from gw.errors import (
    Fault,
    InvalidRequest,
    UpstreamError,
    UpstreamTimeout,
)
from gw.message import Request, Response
from gw.retry import Budget, Retries, Share
from gw.stream import Stream
from tests.fakes import FakeClock, chat_request, fake_backend
from tests.fallback_world import DOWN, LIMITED, World, asked


def test_retries_stay_within_a_fifth_of_the_traffic_and_three_are_always_there() -> None:
    a = fake_backend("a", DOWN)
    world = World(a, retries=2, backoff=0.001)
    for _ in range(100):
        with pytest.raises(UpstreamError):
            world.run()
    assert 100 + 3 <= asked(a) <= 100 * 1.2 + 3


def test_a_quiet_gateway_may_always_try_three_times_again() -> None:
    clock = FakeClock()
    budget = Budget(Share(), clock)
    for _ in range(5):
        clock.now += 60
        budget.count()
        assert [budget.take() for _ in range(4)] == [True, True, True, False]


def test_the_budget_remembers_the_last_seconds_only() -> None:
    clock = FakeClock()
    budget = Budget(Share(share=0.5, at_least=0), clock)
    for _ in range(4):
        budget.count()
    assert [budget.take() for _ in range(3)] == [True, True, False]
    clock.now += 6
    assert not budget.take()
    clock.now += 20
    assert not budget.take()
    budget.count()
    budget.count()
    assert budget.take()


@pytest.mark.parametrize(
    ("fault", "has_other", "again"),
    [
        ("server", False, True),
        ("server", True, True),
        ("connection", True, True),
        ("overload", False, True),
        ("overload", True, False),
        ("rate_limit", True, False),
        ("timeout", False, False),
        ("dead_key", False, False),
        ("quota", False, False),
        ("refused", False, False),
        ("context_length", False, False),
    ],
)
def test_what_is_tried_again_at_the_same_backend(fault: Fault, has_other: bool, again: bool) -> None:
    pause = Retries().pause(UpstreamError("x", fault=fault), 0, has_other=has_other)
    assert (pause is not None) == again


def test_pauses_double_and_are_jittered() -> None:
    for jitter in (0.0, 1.0):
        retries = Retries(tries=3, backoff=0.25, random=lambda jitter=jitter: jitter)  # type: ignore[misc]
        pauses = [retries.pause(DOWN, retry, has_other=False) for retry in range(4)]
        scale = 0.5 + jitter / 2
        assert pauses == [0.25 * scale, 0.5 * scale, 1.0 * scale, None]


HURRY = {"X-Gateway-Deadline-Ms": "1000"}


class Slow:
    """A provider that takes its time before it fails."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        self.asked: list[float] = []
        self._clock = clock
        self._seconds = seconds

    async def answer(self, request: Request) -> Response:
        self.asked.append(self._clock.now)
        self._clock.now += self._seconds
        raise DOWN


def test_an_attempt_that_cannot_finish_is_not_started_and_the_client_is_told_why() -> None:
    world = World(fake_backend("a"), fake_backend("b"), retries=0)
    for backend in world.backends:
        backend.provider = Slow(world.clock, 1.5)
    with pytest.raises(UpstreamTimeout, match=r"1000 ms.*no time for another attempt.*down") as caught:
        world.run(headers=HURRY)
    assert (caught.value.status, caught.value.code) == (504, "upstream_timeout")
    assert isinstance(world.backends[1].provider, Slow)
    assert world.backends[1].provider.asked == []


def test_a_pause_never_outlasts_the_deadline() -> None:
    world = World(fake_backend("a", LIMITED))
    with pytest.raises(UpstreamError, match="slow down"):
        world.run(headers=HURRY)
    assert world.clock.slept == []


def test_what_is_left_is_split_over_the_attempts_that_may_come() -> None:
    clock = FakeClock()
    deadline = Deadline(900, clock.now, clock)
    assert deadline.share(3, 0.0) == pytest.approx(0.3)
    assert deadline.share(3, 0.4) == pytest.approx(0.6)  # a backend that needs longer gets it
    clock.now += 0.6
    assert deadline.share(1, 0.0) == pytest.approx(0.3)
    assert deadline.share(1, 0.4) is None
    clock.now += 0.4
    assert deadline.share(1, 0.0) is None


def test_an_attempt_that_outlasts_its_share_makes_room_for_the_next() -> None:
    a, b = fake_backend("a"), fake_backend("b")

    class Hangs:
        async def answer(self, request: Request) -> Response:
            await asyncio.Event().wait()
            raise AssertionError

    a.provider = Hangs()
    world = World(a, b, retries=0, breaker=Breaker(failures=1))
    response = world.run(headers={"X-Gateway-Deadline-Ms": "40"})
    assert response.headers["X-Gateway-Backend"] == "b"
    assert not a.is_cooling  # the client was in a hurry: that says nothing of it


@pytest.mark.parametrize("value", ["soon", "0", "-5", "1.5", "+1", "1_0", "９"])
def test_a_deadline_that_is_no_number_is_a_400(value: str) -> None:
    headers = chat_request(headers={"X-Gateway-Deadline-Ms": value} if value.isascii() else {}).headers
    request = chat_request()
    request.headers = headers
    if not value.isascii():
        request.headers.pairs = [(b"x-gateway-deadline-ms", value.encode())]
    with pytest.raises(InvalidRequest) as caught:
        deadline_of(request, FakeClock())
    assert caught.value.param == "X-Gateway-Deadline-Ms"


def test_a_stream_breaks_where_the_deadline_passes() -> None:
    class Stalls:
        async def answer(self, request: Request) -> Response:
            class Endless(Stream):
                async def read(self) -> Any:
                    await asyncio.Event().wait()

                async def aclose(self) -> None: ...

            return Response(Endless())

    world = World(fake_backend("a"))
    world.backends[0].provider = Stalls()

    async def main() -> None:
        response = await world.ask(headers={"X-Gateway-Deadline-Ms": "20"})
        with pytest.raises(UpstreamTimeout, match="in the middle"):
            await response.content.read()  # type: ignore[union-attr]

    asyncio.run(main())
