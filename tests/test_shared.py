"""Cells, gauges and counters stay exact across processes, and survive a process that is killed anywhere."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable

import pytest

from gw import shared
from gw.shared import ForkShared, Shared
from tests.forking import KINDS, fork, join, killed_at


def test_a_process_killed_while_it_holds_a_lock_blocks_nobody() -> None:
    limits = ForkShared(1)
    cells = limits.cells("breaker", 2)

    def die() -> None:
        with cells.lock():
            cells.values[0] = 7
            os.kill(os.getpid(), signal.SIGKILL)

    def carry_on() -> None:
        signal.alarm(60)
        with cells.lock():
            cells.values[1] = cells.values[0] + 1

    assert join(fork(die)) == [-signal.SIGKILL]
    assert join(fork(carry_on)) == [0]
    assert list(cells.values) == [7, 8]


def test_cells_under_their_lock_lose_no_update() -> None:
    limits = ForkShared(4)
    cells = limits.cells("sum", 1)

    def add() -> None:
        for _ in range(3000):
            with cells.lock():
                cells.values[0] += 1

    assert join(*[fork(add) for _ in range(4)]) == [0] * 4
    assert cells.values[0] == 12_000


def test_a_name_made_in_one_process_is_the_same_array_in_all() -> None:
    limits = ForkShared(2)

    def make(worker: int) -> None:
        limits.enter(worker)
        limits.counters("requests|gpt|200", 3).own[2] += worker + 1
        limits.counters(f"only in {worker} \u00fc", 1).own[0] += 5

    assert join(fork(lambda: make(0)), fork(lambda: make(1))) == [0, 0]
    assert sorted(limits.names("counters")) == ["only in 0 \u00fc", "only in 1 \u00fc", "requests|gpt|200"]
    assert limits.counters("requests|gpt|200", 3).totals() == [0, 0, 3]
    assert limits.counters("only in 1 \u00fc").total() == 5
    assert limits.names("cells") == limits.names("gauges") == []


def test_a_process_killed_at_any_line_of_making_a_name_leaves_the_directory_whole() -> None:
    for line in range(1, 100):
        limits = ForkShared(1)
        limits.cells("before", 2).values[1] = 4
        if not killed_at(line, shared.__file__, lambda at=limits: at.gauges("unborn", 50)):  # type: ignore[misc]
            assert line > 20
            return
        assert list(limits.cells("after", 30).values) == [0.0] * 30
        assert list(limits.gauges("unborn", 50).totals()) == [0.0] * 50
        assert limits.cells("before", 2).values[1] == 4
    raise AssertionError("never reached the end")


def test_a_dead_workers_gauges_vanish_and_its_counters_stay() -> None:
    limits = ForkShared(2)

    def die(worker: int) -> None:
        limits.enter(worker)
        limits.gauges("in flight", 2).own[1] += 3
        limits.counters("served").own[0] += 10
        os.kill(os.getpid(), signal.SIGKILL)

    assert join(fork(lambda: die(0)), fork(lambda: die(1))) == [-signal.SIGKILL] * 2
    assert limits.gauges("in flight", 2).totals() == [0, 6]
    limits.clear(0)
    assert limits.gauges("in flight", 2).totals() == [0, 3]
    assert join(fork(lambda: limits.enter(1))) == [0]  # its successor begins with nothing in flight
    assert limits.gauges("in flight", 2).total(1) == 0
    assert limits.counters("served").total() == 20


def test_rows_made_before_the_fork_are_the_workers_own_after_it() -> None:
    limits = ForkShared(2)
    served = limits.counters("served")
    served.own[0] += 1  # the supervisor's own row

    def work(worker: int) -> None:
        limits.enter(worker)
        served.own[0] += 10

    assert join(fork(lambda: work(0)), fork(lambda: work(1))) == [0, 0]
    assert [row[0] for row in served.rows] == [10, 10, 1]


def test_what_was_made_in_it_works_on_when_nobody_holds_the_shared_memory_itself() -> None:
    shared = ForkShared(2)
    cells, rows = shared.cells("breaker", 1), shared.gauges("in flight")
    del shared
    gc.collect()
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(4)]  # whoever closed the lock file gave its number away
    with cells.lock(), rows.lock():
        cells.values[0] += 1
    for other in others:
        os.close(other)
    assert cells.values[0] == 1


@KINDS
def test_two_parts_that_use_one_name_differently_are_told_so(made: Callable[[], Shared]) -> None:
    limits = made()
    limits.cells("x", 2)
    limits.gauges("x", 2)
    with pytest.raises(ValueError, match="cells 'x' has 2 values, not 3"):
        limits.cells("x", 3)
    with pytest.raises(ValueError, match="gauges 'x' has 2 values, not 3"):
        limits.gauges("x", 3)
    assert limits.counters("x", 3).totals() == [0, 0, 0]
    assert limits.names("gauges") == ["x"]


def test_a_worker_that_does_not_exist_and_a_full_arena_are_told() -> None:
    limits = ForkShared(2, arena=4096)
    with pytest.raises(ValueError, match="worker 2 is none of 0 to 1"):
        limits.enter(2)
    with pytest.raises(MemoryError, match="no room for cells 'big'"):
        limits.cells("big", 10_000)
    assert limits.names("cells") == []


@KINDS
def test_one_worker_and_many_behave_alike_to_their_users(made: Callable[[], Shared]) -> None:
    limits = made()
    limits.enter(0)
    gauge = limits.gauges("queued")
    with gauge.lock():
        if gauge.total() < 1:
            gauge.own[0] += 1
    assert limits.gauges("queued") is gauge
    assert gauge.totals() == [1]
    limits.clear(1)
    with limits.cells("c", 1).lock():
        limits.cells("c", 1).values[0] = 2.5
    assert list(limits.cells("c", 1).values) == [2.5]
