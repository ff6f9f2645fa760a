"""A backend that fails is left alone, probed by one request at a time, and back when it has healed."""

from __future__ import annotations

import asyncio

import pytest

from gw.backend import Backend
from gw.breaker import Breaker
from gw.errors import (
    Fault,
    GatewayError,
    UpstreamError,
    UpstreamRefused,
)
from gw.message import Attempt, Candidate, Request, Response
from gw.middleware.fallback import PASSED_ON
from gw.shared import LocalShared
from gw.shared_health import SharedHealth
from gw.walk import Walk, new_latencies
from tests.fakes import FakeClock, FakeProvider, chat_request, completion, fake_backend
from tests.fallback_world import DOWN, LIMITED, LIMITED_BRIEFLY, World, ask, asked


@pytest.fixture(params=["local", "shared"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """The same laws whether one worker keeps its health or all do."""
    made = fake_backend("a", clock=FakeClock())
    if request.param == "shared":
        made.health = SharedHealth(LocalShared(), "a")
    return made


def clock_of(backend: Backend) -> FakeClock:
    assert isinstance(backend.clock, FakeClock)
    return backend.clock


def fail(
    breaker: Breaker, backend: Backend, times: int = 1, error: GatewayError = DOWN, *, is_last: bool = False
) -> None:
    for _ in range(times):
        breaker.failed(backend, error, is_last=is_last)


def test_a_breaker_opens_after_so_many_failures_in_a_row(backend: Backend) -> None:
    breaker = Breaker(failures=5, cooldown=30)
    fail(breaker, backend, 4)
    assert breaker.admit(backend) == "closed"
    fail(breaker, backend)
    assert breaker.admit(backend) == "open"
    assert backend.cooling_for == pytest.approx(30)


def test_half_open_lets_one_probe_through_at_a_time(backend: Backend) -> None:
    breaker = Breaker(failures=2, cooldown=30)
    fail(breaker, backend, 2)
    clock_of(backend).now += 30
    assert [breaker.admit(backend) for _ in range(3)] == ["probe", "busy", "busy"]
    breaker.release(backend)
    assert breaker.admit(backend) == "probe"


def test_an_answer_closes_it(backend: Backend) -> None:
    breaker = Breaker(failures=2, cooldown=30)
    fail(breaker, backend, 2)
    clock_of(backend).now += 30
    assert breaker.admit(backend) == "probe"
    breaker.answered(backend)
    breaker.release(backend)
    assert breaker.is_closed(backend)
    assert [breaker.admit(backend) for _ in range(3)] == ["closed"] * 3


def test_the_cool_down_doubles_with_each_failed_probe_up_to_its_cap(backend: Backend) -> None:
    breaker = Breaker(failures=2, cooldown=30, cooldown_max=100)
    fail(breaker, backend, 2)
    found = []
    for _ in range(4):
        found.append(backend.cooling_for)
        clock_of(backend).now += backend.cooling_for
        fail(breaker, backend)
    assert found == pytest.approx([30, 60, 100, 100])


def test_failures_that_were_under_way_when_it_opened_do_not_double(backend: Backend) -> None:
    breaker = Breaker(failures=2, cooldown=30)
    fail(breaker, backend, 20)
    assert backend.cooling_for == pytest.approx(30)


def test_a_cool_down_is_never_shortened(backend: Backend) -> None:
    breaker = Breaker(failures=1, cooldown=30)
    backend.cool(100, "Retry-After")
    fail(breaker, backend)
    assert backend.cooling_for == pytest.approx(100)


def test_the_last_one_is_never_shut_off_by_failures(backend: Backend) -> None:
    breaker = Breaker(failures=2)
    fail(breaker, backend, 50, is_last=True)
    fail(breaker, backend, error=UpstreamError("bad key", fault="dead_key"), is_last=True)
    assert breaker.admit(backend) == "closed"
    fail(breaker, backend)  # somebody else is there again: it opens at once, for the first span
    assert backend.cooling_for == pytest.approx(30)


def test_the_last_ones_retry_after_is_obeyed(backend: Backend) -> None:
    fail(Breaker(), backend, error=LIMITED, is_last=True)
    assert backend.cooling_for == pytest.approx(7)


def test_a_dead_key_opens_it_at_once(backend: Backend) -> None:
    breaker = Breaker(failures=5, cooldown=30)
    fail(breaker, backend, error=UpstreamError("bad key", fault="dead_key"))
    assert breaker.admit(backend) == "open"
    clock_of(backend).now += 30
    assert breaker.admit(backend) == "probe"


@pytest.mark.parametrize("fault", ["context_length", "refused", "content_filter"])
def test_a_request_that_was_judged_is_no_failure(backend: Backend, fault: Fault) -> None:
    fail(Breaker(failures=1), backend, error=UpstreamRefused("no", fault=fault))
    assert Breaker(failures=1).is_closed(backend)


def test_wrong_figures_are_told() -> None:
    with pytest.raises(ValueError, match="cooldown_max"):
        Breaker(cooldown=30, cooldown_max=10)


def test_a_backend_that_is_down_is_probed_once_per_cool_down_and_is_back_when_it_has_healed() -> None:
    a, b = fake_backend("a", DOWN), fake_backend("b")
    world = World(a, b, retries=0, breaker=Breaker(failures=5, cooldown=30))
    for _ in range(60 * 10):  # a minute, ten requests a second
        world.run()
        world.clock.now += 0.1
    assert asked(a) == 5 + 1  # one probe, at 30 s; the next is due at 90 s
    assert asked(b) == 600
    assert isinstance(a.provider, FakeProvider)
    a.provider.answers = [completion()]
    world.clock.now += 35
    assert world.run().headers["X-Gateway-Backend"] == "a"
    assert not world.request.exchange.degraded


def test_only_one_of_many_at_once_finds_out_whether_it_is_back() -> None:
    a, b = fake_backend("a", DOWN), fake_backend("b")
    world = World(a, b, retries=0, breaker=Breaker(failures=1, cooldown=30))
    world.run()
    world.clock.now += 30

    async def slow(request: Request) -> Response:
        await asyncio.sleep(0)
        return await ask(request)

    async def many() -> list[Response]:
        return await asyncio.gather(*(world.ask(slow) for _ in range(10)))

    assert {response.headers["X-Gateway-Backend"] for response in asyncio.run(many())} == {"b"}
    assert asked(a) == 2


def test_a_probe_that_is_cancelled_leaves_the_way_free_for_the_next() -> None:
    a, b = fake_backend("a", DOWN), fake_backend("b")
    world = World(a, b, retries=0, breaker=Breaker(failures=1, cooldown=30))
    world.run()
    world.clock.now += 30

    async def hangs(request: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def leave() -> None:
        task = asyncio.create_task(world.ask(hangs))
        await asyncio.sleep(0)
        assert a.health.probing
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    assert not a.health.probing


def ended(world: World, attempt: Attempt) -> None:
    """A stream of the world was passed on, and this is how it ended."""
    exchange = chat_request({"stream": True}).exchange
    exchange.attempts = [attempt]
    request = chat_request()
    request.candidates = [Candidate(backend, "m", "gpt-4") for backend in world.backends]
    exchange.attributes[PASSED_ON] = Walk(request, ask, None, new_latencies())
    world.fallback.ended(exchange)


def test_a_stream_that_breaks_later_counts_against_its_backend() -> None:
    a, b = fake_backend("a"), fake_backend("b")
    world = World(a, b, breaker=Breaker(failures=2))
    for _ in range(2):
        ended(world, Attempt("a", "m", 0.0, first_content=1.0, error=DOWN))
    assert a.is_cooling
    b.health.failures = 1
    ended(world, Attempt("b", "m", 0.0, first_content=1.0))
    assert b.health.failures == 0


def test_a_lone_backend_whose_streams_break_is_not_shut_off() -> None:
    a = fake_backend("a")
    world = World(a, breaker=Breaker(failures=2))
    for _ in range(9):
        ended(world, Attempt("a", "m", 0.0, first_content=1.0, error=DOWN))
    assert not a.is_cooling


def test_a_backend_that_flaps_for_a_minute_costs_nobody_an_answer() -> None:
    a, b = fake_backend("a", *([DOWN, completion()] * 400)), fake_backend("b")
    world = World(a, b, retries=0)
    for _ in range(600):
        assert world.run().status == 200
        world.clock.now += 0.1
    assert asked(a) == 600  # never five in a row


def test_a_backend_that_is_down_for_long_spells_is_asked_little_and_serves_between_them() -> None:
    a, b = fake_backend("a", completion()), fake_backend("b")
    world = World(a, b, retries=0, breaker=Breaker(failures=5, cooldown=1))
    assert isinstance(a.provider, FakeProvider)
    served = 0
    for tenth in range(600):
        is_down = tenth // 100 % 2 == 1  # ten seconds up, ten seconds down
        a.provider.answers = [DOWN if is_down else completion()]
        served += world.run().headers["X-Gateway-Backend"] == "a"
        world.clock.now += 0.1
    failed = asked(a) - served
    assert served >= 150
    assert failed <= 3 * (5 + 4)  # each spell: five to open it, then probes after 1, 2 and 4 seconds


def test_the_last_of_a_chain_is_shut_off_too_while_another_may_be_asked() -> None:
    a, b = fake_backend("a", LIMITED_BRIEFLY), fake_backend("b", DOWN)
    world = World(a, b, retries=0, breaker=Breaker(failures=2))
    for _ in range(2):
        with pytest.raises(UpstreamError):
            world.run()
    assert b.is_cooling


def test_a_prompt_that_was_too_long_is_not_tried_where_there_is_no_more_room() -> None:
    too_long = UpstreamRefused("too long", fault="context_length", code="context_length_exceeded")
    a = fake_backend("a", too_long, context_length=1000)
    small, large = fake_backend("small", context_length=1000), fake_backend("large", context_length=2000)
    world = World(a, small, large)
    assert world.run().headers["X-Gateway-Backend"] == "large"
    assert (asked(small), a.health.failures) == (0, 0)
    with pytest.raises(UpstreamRefused, match="too long"):
        World(a, small).run()
