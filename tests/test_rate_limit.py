"""Each caller gets so many requests in so many seconds, exactly, and headers that tell the truth."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import pytest

from gw.errors import GatewayError, RateLimited, Unavailable
from gw.message import ANONYMOUS, Headers, Principal, Request, Response
from gw.middleware.rate_limit import RateLimit
from gw.pipeline import compose, operations
from gw.shared import ForkShared, LocalShared, Shared
from tests.fakes import FakeClock
from tests.lint import Lint


def limiter(clock: FakeClock | None = None, shared: Shared | None = None, **options: Any) -> RateLimit:
    return RateLimit(shared=shared or LocalShared(), clock=clock or FakeClock(), **options)


def ask(
    limit: RateLimit,
    client: str = "203.0.113.9",
    principal: Principal = ANONYMOUS,
    forwarded: Sequence[str] = (),
    fails: GatewayError | None = None,
) -> Response:
    request = Request(
        method="POST",
        path="/v1/chat/completions",
        headers=Headers([(b"x-forwarded-for", value.encode()) for value in forwarded]),
        client=client,
    )
    request.principal = principal

    async def inner(request: Request) -> Response:
        if fails is not None:
            raise fails
        return Response(b"{}")

    lints = Lint("outside", head_only=True), Lint("inside", head_only=True)

    async def send() -> Response:
        return await compose([lints[0], limit, lints[1]], inner)(request)

    return asyncio.run(send())


def is_refused(limit: RateLimit, *arguments: Any, **fields: Any) -> bool:
    try:
        ask(limit, *arguments, **fields)
    except RateLimited:
        return True
    return False


def figures(headers: dict[str, str]) -> tuple[int, int, int]:
    limit, remaining, reset = (int(headers[f"X-RateLimit-{name}"]) for name in ("Limit", "Remaining", "Reset"))
    return limit, remaining, reset


def test_it_decides_on_the_head_of_model_operations() -> None:
    assert RateLimit.head_only
    assert operations(limiter()) is None


def test_the_headers_tell_the_limit_what_remains_and_when_a_place_is_free() -> None:
    clock = FakeClock()
    limit = limiter(clock, max=3, window=10)
    assert figures(ask(limit).headers) == (3, 2, 10)
    clock.now += 4.5
    assert figures(ask(limit).headers) == (3, 1, 6)  # 5.5 seconds, rounded up
    assert figures(ask(limit).headers) == (3, 0, 6)
    clock.now += 5.5
    assert figures(ask(limit).headers) == (3, 0, 5)


def test_beyond_the_limit_retry_after_is_true() -> None:
    clock = FakeClock()
    limit = limiter(clock, max=2, window=10)
    ask(limit)
    clock.now += 3.3
    ask(limit)
    for _ in range(5):
        with pytest.raises(RateLimited) as caught:
            ask(limit)
    error = caught.value
    assert (error.status, error.type, error.code) == (429, "rate_limit_error", "rate_limit_exceeded")
    assert error.retry_after == 7  # 6.7 seconds
    assert figures(error.headers) == (2, 0, 7)
    assert error.message == "more than 2 requests in 10 seconds: try again in 7 seconds"
    clock.now += 6.6
    assert is_refused(limit)
    clock.now += 0.4
    assert not is_refused(limit)
    assert is_refused(limit)


def test_an_error_from_behind_carries_the_headers_too() -> None:
    limit = limiter(max=3, window=10)
    with pytest.raises(Unavailable) as caught:
        ask(limit, fails=Unavailable("nobody", headers={"X-Other": "1"}))
    assert figures(caught.value.headers) == (3, 2, 10)
    assert caught.value.headers["X-Other"] == "1"


def test_callers_by_address_are_counted_apart() -> None:
    limit = limiter(max=1)
    assert not is_refused(limit, "203.0.113.9")
    assert not is_refused(limit, "203.0.113.10")
    assert is_refused(limit, "203.0.113.9")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:203.0.113.9", "203.0.113.9", True),
        ("::ffff:203.0.113.9", "::ffff:203.0.113.10", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "", True),
    ],
)
def test_an_ipv6_caller_is_a_64_and_ipv4_inside_ipv6_is_ipv4(one: str, other: str, same: bool) -> None:
    limit = limiter(max=1)
    ask(limit, one)
    assert is_refused(limit, other) is same


def test_a_key_is_counted_by_its_name_wherever_it_comes_from() -> None:
    limit = limiter(max=1)
    ann, bob = Principal("ann"), Principal("bob")
    assert not is_refused(limit, "203.0.113.9", ann)
    assert is_refused(limit, "203.0.113.10", ann)
    assert not is_refused(limit, "203.0.113.9", bob)
    assert not is_refused(limit, "203.0.113.9")
    assert not is_refused(limit, "ann")  # an address that reads like a name is not that key


def test_a_keys_own_rate_goes_before() -> None:
    clock = FakeClock()
    limit = limiter(clock, max=1, window=10)
    ann = Principal("ann", rate=(3, 100.0))
    assert [figures(ask(limit, principal=ann).headers) for _ in range(3)] == [(3, 2, 100), (3, 1, 100), (3, 0, 100)]
    clock.now += 99
    assert is_refused(limit, principal=ann)
    clock.now += 1
    assert not is_refused(limit, principal=ann)


@pytest.mark.parametrize(
    ("client", "forwarded", "counted"),
    [
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),  # no proxy of ours: its word counts for nothing
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.1"], "198.51.100.1"),  # what the caller wrote himself stands on the left
        ("10.0.0.1", ["6.6.6.6, 198.51.100.1, 10.9.9.9"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6", "198.51.100.1", "10.9.9.9"], "198.51.100.1"),
        ("10.0.0.1", ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, garbage"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, unknown, 10.2.2.2"], "10.2.2.2"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", ['"[2001:db8::1]:4711"'], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("2001:db8:9::1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6," * 5000 + "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1" * 10_000], "10.0.0.1"),
    ],
)
def test_a_forwarded_address_is_believed_as_far_as_trusted_proxies_wrote_it(
    client: str, forwarded: list[str], counted: str
) -> None:
    shared = LocalShared()
    ask(limiter(shared=shared, max=1, trusted_proxies=["10.0.0.0/8", "2001:db8:9::1"]), client, forwarded=forwarded)
    assert is_refused(limiter(shared=shared, max=1), counted)


def test_without_trusted_proxies_a_forwarded_address_is_not_looked_at() -> None:
    limit = limiter(max=1)
    ask(limit, forwarded=["198.51.100.1"])
    assert is_refused(limit, forwarded=["198.51.100.2"])


@pytest.mark.parametrize("make", [LocalShared, lambda: ForkShared(1)], ids=["local", "fork"])
def test_it_is_exact_under_concurrency(make: Any) -> None:
    limit = limiter(shared=make(), max=50, window=10)
    running = most = 0

    async def slow(request: Request) -> Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return Response()

    async def flood() -> int:
        requests = [Request(method="POST", path="/", client=f"10.0.0.{number % 4}") for number in range(400)]
        answers = await asyncio.gather(*(limit(request, slow) for request in requests), return_exceptions=True)
        return sum(isinstance(answer, Response) for answer in answers)

    assert asyncio.run(flood()) == 4 * 50
    assert most > 1


def test_an_unexpected_exception_passes_unchanged() -> None:
    async def broken(request: Request) -> Response:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(limiter()(Request(method="POST", path="/"), broken))


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"max": 0}, "from 1 to 100,000"),
        ({"max": 100_001}, "from 1 to 100,000"),
        ({"window": 0}, "seconds, more than 0"),
        ({"window": math.nan}, "seconds, more than 0"),
        ({"trusted_proxies": ["10.0.0.1/8"]}, "write a network such as 10.0.0.0/8"),
        ({"trusted_proxies": ["proxy.example"]}, "write a network such as 10.0.0.0/8"),
    ],
)
def test_options_out_of_range_are_refused_with_the_cure(options: dict[str, Any], cure: str) -> None:
    with pytest.raises(ValueError, match=cure):
        limiter(**options)
