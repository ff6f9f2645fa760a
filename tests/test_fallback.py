"""Fallback: who is asked next, how often, and what the client reads when nobody answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from gw.backend import Backend, Backends
from gw.breaker import Breaker
from gw.document import Completion, Document
from gw.errors import (
    GatewayError,
    InvalidRequest,
    RateLimited,
    Unavailable,
    UpstreamConnectionError,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)
from gw.message import Attempt, Candidate, Request, Response
from gw.middleware.fallback import Fallback
from gw.stream import Stream
from tests.fakes import FakeClock, FakeProvider, chat_request, chunks, completion, fake_backend
from tests.lint import Lint

LIMITED = UpstreamError("slow down", status=429, fault="rate_limit", upstream_status=429)


async def ask(request: Request) -> Response:
    """The innermost handler: the candidate's fake provider, recorded as `translate` records it."""
    backend = request.candidate.backend
    request.exchange.attempts.append(Attempt(backend.name, request.candidate.model, 0.0))
    assert backend.provider is not None
    return await backend.provider.answer(request)


def run(
    backends: Sequence[Backend], clock: FakeClock | None = None, request: Request | None = None, **options: Any
) -> tuple[Response, Request]:
    clock = clock or FakeClock()
    for backend in backends:
        backend.clock = clock
    request = request or chat_request()
    request.candidates = [Candidate(backend, "m", "gpt-4") for backend in backends]
    fallback = Fallback(backends=Backends(backends), sleep=clock.sleep, **options)
    outer, inner = Lint("outer"), Lint("inner")
    response = asyncio.run(outer(request, lambda r: fallback(r, lambda q: inner(q, ask))))
    return response, request


def asked(backend: Backend) -> int:
    assert isinstance(backend.provider, FakeProvider)
    return len(backend.provider.asked)


def test_the_first_candidate_answers_and_nobody_else_is_asked() -> None:
    a, b = fake_backend("a"), fake_backend("b")
    response, request = run([a, b])
    assert (asked(a), asked(b)) == (1, 0)
    assert response.headers["X-Gateway-Backend"] == "a"
    assert response.headers["X-Gateway-Degraded"] == "false"
    assert response.headers["X-Gateway-Attempts"] == "1"
    assert not request.exchange.degraded


@pytest.mark.parametrize("fault", ["overload", "server", "connection", "protocol", "timeout", "rate_limit", "dead_key"])
def test_a_failure_that_is_the_providers_goes_to_the_next_and_is_told_as_degraded(fault: Any) -> None:
    a, b = fake_backend("a", UpstreamError("down", fault=fault)), fake_backend("b")
    response, request = run([a, b], retries=0)
    assert (asked(a), asked(b)) == (1, 1)
    assert request.exchange.degraded
    assert response.headers["X-Gateway-Backend"] == "b"
    assert response.headers["X-Gateway-Degraded"] == "true"
    assert response.headers["X-Gateway-Attempts"] == "2"


@pytest.mark.parametrize("error", [UpstreamRefused("bad field", status=422), InvalidRequest("bad")])
def test_a_client_error_does_not_fall_back(error: GatewayError) -> None:
    a, b = fake_backend("a", error), fake_backend("b")
    with pytest.raises(type(error)):
        run([a, b])
    assert (asked(a), asked(b)) == (1, 0)


def test_the_same_backend_is_tried_again_with_growing_pauses() -> None:
    clock = FakeClock()
    a = fake_backend("a", UpstreamError("1"), UpstreamError("2"), completion())
    run([a], clock, retries=2, backoff=0.25)
    assert asked(a) == 3
    first, second = clock.slept
    assert 0.125 <= first <= 0.25
    assert 0.25 <= second <= 0.5


def test_retries_are_counted() -> None:
    a = fake_backend("a", UpstreamError("always"))
    with pytest.raises(UpstreamError, match="always"):
        run([a], retries=2)
    assert asked(a) == 3


def test_a_rate_limit_goes_to_the_next_at_once() -> None:
    clock = FakeClock()
    run([fake_backend("a", LIMITED), fake_backend("b")], clock)
    assert clock.slept == []


def test_a_rate_limit_is_waited_for_where_nobody_else_is_there() -> None:
    clock = FakeClock()
    error = UpstreamError("slow down", status=429, fault="rate_limit", retry_after=7)
    a = fake_backend("a", error, completion())
    run([a], clock)
    assert clock.slept == [7]
    assert asked(a) == 2


def test_a_long_retry_after_is_passed_on_and_not_slept() -> None:
    clock = FakeClock()
    a = fake_backend("a", UpstreamError("tomorrow", status=429, fault="rate_limit", retry_after=86400))
    with pytest.raises(UpstreamError) as caught:
        run([a], clock)
    assert clock.slept == []
    assert caught.value.retry_after == 86400
    assert a.cooling_for == 3600


def test_a_retry_after_cools_the_backend_and_is_never_shortened() -> None:
    a = fake_backend("a", UpstreamError("x", status=429, fault="rate_limit", retry_after=20))
    b = fake_backend("b")
    run([a, b])
    assert a.cooling_for == 20
    a.cool(5)
    assert a.cooling_for == 20


def test_the_breaker_opens_after_failures_in_a_row_and_closes_with_time() -> None:
    clock = FakeClock()
    a, b = fake_backend("a", UpstreamError("down")), fake_backend("b")
    for _ in range(5):
        run([a, b], clock, retries=0, breaker=Breaker(failures=5, cooldown=30))
    assert a.is_cooling
    run([a, b], clock, retries=0)
    assert asked(a) == 5  # left alone
    clock.now += 30
    run([a, b], clock, retries=0)
    assert asked(a) == 6


def test_a_success_forgets_earlier_failures() -> None:
    clock = FakeClock()
    a = fake_backend("a", UpstreamError("1"), UpstreamError("2"), completion(), UpstreamError("3"), completion())
    for _ in range(2):
        run([a], clock, breaker=Breaker(failures=3))
    assert a.health.failures == 0
    assert not a.is_cooling


def test_a_dead_key_is_taken_out_at_once() -> None:
    a, b = fake_backend("a", UpstreamError("bad key", fault="dead_key")), fake_backend("b")
    run([a, b])
    assert asked(a) == 1
    assert a.is_cooling


def test_when_everybody_is_limited_the_answer_is_a_429_with_the_soonest_return() -> None:
    slow = UpstreamError("a", status=429, fault="rate_limit", retry_after=40)
    slower = UpstreamError("b", status=429, fault="rate_limit", retry_after=50)
    with pytest.raises(RateLimited) as caught:
        run([fake_backend("a", slow), fake_backend("b", slower)])
    assert (caught.value.status, caught.value.retry_after) == (429, 40)


def test_the_error_told_is_a_real_failure_rather_than_a_cool_down() -> None:
    a, b = fake_backend("a", UpstreamTimeout("silent")), fake_backend("b")
    b.clock = FakeClock()
    b.health.cooling_until = 1e9
    with pytest.raises(UpstreamTimeout, match="silent"):
        run([a, b], retries=0)


def test_a_lone_backend_that_cools_down_is_a_503_with_retry_after() -> None:
    a = fake_backend("a")
    a.health.cooling_until = 1010.0
    with pytest.raises(Unavailable) as caught:
        run([a])
    assert caught.value.retry_after == 10
    assert asked(a) == 0


def test_each_try_begins_with_the_request_as_it_came_in() -> None:
    class Spoiler:
        """A provider that changes the body in place and then fails."""

        def __init__(self) -> None:
            self.asked: list[Request] = []

        async def answer(self, request: Request) -> Response:
            request.chat["messages"].clear()
            raise UpstreamConnectionError("gone")

    spoiler = Backend(name="spoiler", kind="fake", provider=Spoiler())
    b = fake_backend("b")
    run([spoiler, b], retries=1)
    assert isinstance(b.provider, FakeProvider)
    assert b.provider.asked[0].chat["messages"] == [{"role": "user", "content": "Hi"}]


def test_a_stream_that_has_begun_is_not_started_again() -> None:
    broken = [*chunks("Hello")[:2], UpstreamError("broke")]
    a, b = fake_backend("a", broken), fake_backend("b")
    response, _ = run([a, b])

    async def read() -> None:
        assert isinstance(response.content, Stream)
        await response.content.read()
        with pytest.raises(UpstreamError):
            await response.content.read()

    asyncio.run(read())
    assert asked(b) == 0


def test_commit_complete_holds_a_stream_back_so_that_a_break_is_never_seen() -> None:
    broken = [*chunks("Hello")[:2], UpstreamError("broke")]
    a, b = fake_backend("a", broken), fake_backend("b", chunks("Hi"))
    response, request = run([a, b], retries=0, commit="complete")

    async def read() -> int:
        assert isinstance(response.content, Stream)
        return len([piece async for piece in response.content])

    assert asyncio.run(read()) == len(chunks("Hi"))
    assert request.exchange.degraded


def test_a_body_that_nobody_opened_is_passed_on_as_it_came() -> None:
    raw = b'{"model": "gpt-4",   "messages": [{"role":"user","content":"Hi"}]}'
    request = chat_request()
    request.document = Document(raw)
    a, b = fake_backend("a", UpstreamError("x")), fake_backend("b")
    run([a, b], request=request, retries=0)
    assert isinstance(b.provider, FakeProvider)
    assert b.provider.asked[0].document is not None
    assert b.provider.asked[0].document.raw is raw


def test_the_answer_is_passed_on_untouched() -> None:
    response, _ = run([fake_backend("a")])
    assert isinstance(response.content, Completion)
    assert response.content.peek() == completion()
