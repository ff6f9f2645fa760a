"""A backend's health is one for all workers: no failure is lost, no cool-down shortened, no dead request in flight."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from gw.backend import PROBING, Backend, Health
from gw.shared import ForkShared, LocalShared
from gw.shared_health import SharedHealth
from tests.fakes import FakeClock
from tests.forking import fork, join

KINDS = pytest.mark.parametrize(
    "made",
    [Health, lambda: SharedHealth(LocalShared(), "a"), lambda: SharedHealth(ForkShared(2), "a")],
    ids=["plain", "local", "fork"],
)


@KINDS
def test_every_kind_of_health_behaves_alike_to_its_users(made: Callable[[], Health]) -> None:
    health = made()
    assert (health.failures, health.cooling_until, health.in_flight, health.probing) == (0, 0.0, 0, False)
    health.failures += 1
    health.failures += 1
    assert health.failures == 2
    health.failures = 0
    assert health.failures == 0
    health.in_flight += 1
    health.in_flight += 1
    health.in_flight -= 1
    assert health.in_flight == 1
    assert isinstance(health.in_flight, int)
    health.cooling_until = 50.0
    health.cool_until(40.0)
    assert health.cooling_until == 50.0
    health.cool_until(60.0)
    assert health.cooling_until == 60.0
    assert [health.claim_probe(), health.claim_probe(), health.probing] == [True, False, True]
    health.probing = False
    assert [health.probing, health.claim_probe()] == [False, True]


def test_two_backends_do_not_share_their_health() -> None:
    shared = LocalShared()
    a, b = SharedHealth(shared, "a"), SharedHealth(shared, "b")
    a.failures += 1
    a.in_flight += 1
    a.cool_until(9.0)
    assert (b.failures, b.in_flight, b.cooling_until) == (0, 0, 0.0)


def test_a_breaker_that_opens_in_one_worker_is_open_in_the_other_at_once() -> None:
    shared = ForkShared(2)
    told, tell = os.pipe()

    def open_it() -> None:
        shared.enter(0)
        backend = Backend("a", "openai", health=SharedHealth(shared, "a"), clock=FakeClock(100.0))
        backend.health.failures += 5
        backend.cool(30.0)
        os.write(tell, b".")

    def see_it() -> None:
        shared.enter(1)
        backend = Backend("a", "openai", health=SharedHealth(shared, "a"), clock=FakeClock(101.0))
        assert not backend.is_cooling
        opener = fork(open_it)
        assert os.read(told, 1) == b"."
        assert backend.is_cooling
        assert backend.cooling_for == 29.0
        assert backend.health.failures == 5
        assert join(opener) == [0]

    assert join(fork(see_it)) == [0]
    os.close(told)
    os.close(tell)


class Together:
    """Workers that do every step at the same time: `meet` returns when all of them have called it as often."""

    def __init__(self, shared: ForkShared) -> None:
        self._steps = shared.counters("steps")

    def meet(self) -> None:
        steps = self._steps
        steps.own[0] += 1
        while min(row[0] for row in steps.rows[:-1]) < steps.own[0]:  # the last row is the supervisor's
            os.sched_yield()


def in_two_workers(shared: ForkShared, work: Callable[[SharedHealth, Together], object]) -> None:
    """Run `work` in both at once. Two, because more do not run at the same time on a small machine."""

    def enter(worker: int) -> None:
        signal.alarm(100)
        shared.enter(worker)
        work(SharedHealth(shared, "a"), Together(shared))

    assert join(fork(lambda: enter(0)), fork(lambda: enter(1))) == [0, 0]


def test_workers_that_fail_together_lose_no_failure_and_no_place_in_flight() -> None:
    shared = ForkShared(2)

    def work(health: SharedHealth, together: Together) -> None:
        for _ in range(3000):
            together.meet()
            for _ in range(5):
                health.failures += 1
            health.in_flight += 1
            health.in_flight += 1
            health.in_flight -= 1

    in_two_workers(shared, work)
    health = SharedHealth(shared, "a")
    assert (health.failures, health.in_flight) == (30_000, 6000)


def test_workers_that_cool_a_backend_together_never_shorten_it() -> None:
    def work(health: SharedHealth, together: Together) -> None:
        for _ in range(3000):
            together.meet()
            moment = time.monotonic()
            health.cool_until(moment)
            assert health.cooling_until >= moment

    in_two_workers(ForkShared(2), work)


def test_one_worker_only_gets_the_probe() -> None:
    shared = ForkShared(2)
    rounds = 2000
    claims = shared.counters("claims", rounds)

    def work(health: SharedHealth, together: Together) -> None:
        for turn in range(rounds):
            together.meet()
            claims.own[turn] = health.claim_probe()
            assert health.held[PROBING] == claims.own[turn]  # who did not get it does not hold it either
            together.meet()
            health.probing = False

    in_two_workers(shared, work)
    assert claims.totals() == [1.0] * rounds


def test_what_a_killed_worker_had_in_flight_vanishes_and_what_it_learnt_stays() -> None:
    shared = ForkShared(2)

    def die() -> None:
        shared.enter(0)
        health = SharedHealth(shared, "a")
        health.in_flight += 3
        assert health.claim_probe()
        health.failures += 2
        health.cool_until(99.0)
        os.kill(os.getpid(), signal.SIGKILL)

    def go_on() -> None:
        shared.enter(1)
        health = SharedHealth(shared, "a")
        health.in_flight += 1
        assert health.in_flight == 4
        assert health.probing
        shared.clear(0)  # as the supervisor does when it hears of the death
        assert health.in_flight == 1
        assert health.claim_probe()
        assert (health.failures, health.cooling_until) == (2, 99.0)
        health.in_flight -= 1
        assert health.in_flight == 0

    assert join(fork(die)) == [-signal.SIGKILL]
    assert join(fork(go_on)) == [0]


def test_a_worker_killed_under_the_lock_of_a_breaker_blocks_nobody() -> None:
    shared = ForkShared(2)

    def die() -> None:
        with shared.cells("health a", 2).lock():
            os.kill(os.getpid(), signal.SIGKILL)

    def go_on() -> None:
        signal.alarm(60)
        health = SharedHealth(shared, "a")
        health.failures += 1
        health.cool_until(1.0)

    assert join(fork(die)) == [-signal.SIGKILL]
    assert join(fork(go_on)) == [0]
