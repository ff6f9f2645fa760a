"""What a provider is spared and a client is told: laws of fallback where retries meet the breaker."""

from __future__ import annotations

from typing import Any

import pytest

from gw.breaker import Breaker
from gw.deadline import HEADER
from gw.errors import GatewayError, UpstreamError, UpstreamRefused
from gw.message import Headers, Request, Response
from gw.provider_errors import from_answer
from gw.retry import Retries
from tests.fakes import completion, fake_backend
from tests.fallback_world import DOWN, LIMITED, World, ask, asked

# --- the breaker ----------------------------------------------------------------------------------------------------


def test_a_probe_is_one_request_to_the_provider_whatever_retries_there_are() -> None:
    a, b = fake_backend("a", DOWN), fake_backend("b")
    world = World(a, b, retries=2, breaker=Breaker(failures=1, cooldown=30))
    world.run()
    assert asked(a) == 1  # it opened: nobody asks again
    world.clock.now += 30
    world.run()
    assert asked(a) == 2


def test_from_the_sixth_failure_on_a_provider_is_left_alone() -> None:
    a, b = fake_backend("a", DOWN), fake_backend("b")
    world = World(a, b)
    for _ in range(100):
        world.run()
        world.clock.now += 0.01
    assert asked(a) == 5


def test_the_last_one_is_retried_although_its_breaker_would_be_open() -> None:
    a = fake_backend("a", DOWN, completion())
    world = World(a, breaker=Breaker(failures=1))
    assert world.run().status == 200


def test_a_limit_that_was_told_beside_a_retry_after_does_not_forbid_the_try_that_this_allows() -> None:
    a = fake_backend("a", UpstreamError("slow down", status=429, fault="rate_limit", retry_after=1), completion())
    world = World(a)

    async def telling(request: Request) -> Response:
        a.rest(8.0, "its limit of requests is used up")  # as from the answer's other headers
        return await ask(request)

    assert world.run(handler=telling).status == 200
    assert world.clock.slept == [1.0]


# --- retries --------------------------------------------------------------------------------------------------------

NO_MONEY = UpstreamError("no credit", status=429, type="insufficient_quota", code="insufficient_quota", fault="quota")


def test_a_retry_after_of_nothing_is_no_leave_to_ask_at_once() -> None:
    retries = Retries(random=lambda: 1.0)
    at_once = UpstreamError("slow down", status=429, fault="rate_limit", retry_after=0)
    assert [retries.pause(at_once, retry, has_other=False) for retry in range(2)] == [0.25, 0.5]


@pytest.mark.parametrize("fault", ["server", "connection", "protocol"])
def test_a_retry_after_is_not_waited_for_while_somebody_else_may_be_asked(fault: Any) -> None:
    error = UpstreamError("later", fault=fault, retry_after=20)
    assert Retries().pause(error, 0, has_other=True) is None
    assert Retries().pause(error, 0, has_other=False) == 20


def test_no_pause_is_begun_where_the_try_behind_it_could_not_finish() -> None:
    a, b = fake_backend("a", DOWN), fake_backend("b")
    world = World(a, b, backoff=10)
    world.fallback._latencies["a", False].add(8.0)
    assert world.run(headers={HEADER: "12000"}).headers["X-Gateway-Backend"] == "b"
    assert world.clock.slept == []


def test_where_nobody_has_money_left_that_is_what_the_client_is_told() -> None:
    world = World(fake_backend("a", NO_MONEY), fake_backend("b", NO_MONEY))
    with pytest.raises(GatewayError) as told:
        world.run()
    assert (told.value.status, told.value.type, told.value.code) == (429, "insufficient_quota", "insufficient_quota")
    mixed = World(fake_backend("a", NO_MONEY), fake_backend("b", LIMITED), retries=0)
    with pytest.raises(GatewayError) as told:
        mixed.run()
    assert (told.value.code, told.value.retry_after) == ("rate_limit_exceeded", 7)


@pytest.mark.parametrize("count", [1, 2])
def test_a_client_is_told_when_to_come_back_also_where_no_provider_says_so(count: int) -> None:
    wordless = UpstreamError("slow down", status=429, type="rate_limit_error", fault="rate_limit", upstream_status=429)
    world = World(*(fake_backend(f"b{number}", wordless) for number in range(count)), retries=0)
    with pytest.raises(GatewayError, match="slow down") as told:
        world.run()
    error = told.value
    assert (error.status, error.type, error.code) == (429, "rate_limit_error", "rate_limit_exceeded")
    assert (error.retry_after, error.fault) == (1.0, "rate_limit")  # the fault: who has no tools may still be asked


def test_a_provider_that_wants_no_retry_has_failed_all_the_same() -> None:
    down = from_answer(500, Headers([(b"x-should-retry", b"false")]), b'{"error": {"message": "boom"}}')
    limit = Headers([(b"x-should-retry", b"false"), (b"retry-after", b"60")])
    limited = from_answer(429, limit, b'{"error": {"message": "slow down"}}')
    a, b, c = fake_backend("a", down), fake_backend("b", limited), fake_backend("c")
    world = World(a, b, c)
    for _ in range(9):
        assert world.run().headers["X-Gateway-Backend"] == "c"
    assert (asked(a), asked(b)) == (5, 1)
    too_long = from_answer(500, Headers(), b'{"error": {"message": "the prompt is too long"}}')
    d = fake_backend("d", too_long)
    for _ in range(9):
        World(d, c).run()
    assert d.health.failures == 0


FILTERED = UpstreamRefused("flagged", code="content_policy_violation", fault="content_filter")


def test_what_a_filter_refused_goes_elsewhere_only_where_so_configured() -> None:
    a, b = fake_backend("a", FILTERED), fake_backend("b")
    with pytest.raises(UpstreamRefused, match="flagged"):
        World(a, b).run()
    assert (asked(a), asked(b)) == (1, 0)
    response = World(a, b, content_filter="fallback").run()
    assert response.headers["X-Gateway-Backend"] == "b"
    assert (asked(a), a.health.failures) == (2, 0)  # never twice by one request, and it has judged: it lives


def test_a_filters_refusal_is_told_where_nobody_else_answers() -> None:
    world = World(fake_backend("a", FILTERED), fake_backend("b", DOWN), retries=0, content_filter="fallback")
    with pytest.raises(UpstreamRefused, match="flagged"):
        world.run()
