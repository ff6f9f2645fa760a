"""Limits stay exact in every window and across processes, and survive a process that is killed anywhere."""

from __future__ import annotations

import mmap
import os
import resource
import sys
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gw import sliding_window
from gw.shared import ForkShared, Shared
from gw.sliding_window import LocalWindows, SharedWindows
from tests.forking import KINDS, fork, join, killed_at


def small_windows(max_keys: int = 128, max_blocks: int = 512) -> tuple[SharedWindows, int]:
    size = SharedWindows.size(max_keys, max_blocks)
    lock_file = os.memfd_create("test") if sys.platform == "linux" else os.open("/dev/null", os.O_RDWR)
    return SharedWindows(memoryview(bytearray(size)), lock_file, max_keys, max_blocks), lock_file


@KINDS
def test_the_limit_is_reached_and_never_passed_in_any_window(made: Callable[[], Shared]) -> None:
    limits = made()
    taken: list[float] = []
    for tick in range(2000):
        now = tick * 0.37
        if limits.admit(b"k", 7, 10.0, now)[0]:
            taken.append(now)
            assert sum(now - 10.0 < time <= now for time in taken) <= 7
        else:
            assert sum(now - 10.0 < time <= now for time in taken) == 7
    assert len(taken) > 490


@KINDS
def test_remaining_and_reset_are_true(made: Callable[[], Shared]) -> None:
    limits = made()
    assert limits.admit(b"k", 2, 10.0, 100.0) == (True, 1, 10.0)
    assert limits.admit(b"k", 2, 10.0, 104.0) == (True, 0, 6.0)
    assert limits.admit(b"k", 2, 10.0, 105.0) == (False, 0, 5.0)
    assert limits.admit(b"k", 2, 10.0, 110.0) == (True, 0, 4.0)
    assert limits.admit(b"other", 2, 10.0, 110.0) == (True, 1, 10.0)


@KINDS
def test_a_refused_request_consumes_nothing(made: Callable[[], Shared]) -> None:
    limits = made()
    assert limits.admit(b"k", 1, 10.0, 0.0)[0]
    assert not any(limits.admit(b"k", 1, 10.0, 9.0)[0] for _ in range(50))
    assert limits.admit(b"k", 1, 10.0, 10.0)[0]


@KINDS
def test_after_a_lowered_limit_reset_tells_when_enough_have_left(made: Callable[[], Shared]) -> None:
    limits = made()
    for now in range(20):
        assert limits.admit(b"k", 20, 100.0, float(now))[0]
    assert limits.admit(b"k", 3, 100.0, 20.0) == (False, 0, 97.0)  # the request of second 17 must leave


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.sampled_from([1, 2, 14, 15, 16, 40]), st.integers(0, 6)),
        max_size=300,
    )
)
def test_shared_windows_decide_as_local_ones(calls: list[tuple[bytes, int, int]]) -> None:
    windows, lock_file = small_windows()
    try:
        local, now = LocalWindows(), 0.0
        for key, limit, wait in calls:
            now += wait
            assert windows.admit(key, limit, 16.0, now) == local.admit(key, limit, 16.0, now)
    finally:
        os.close(lock_file)


def test_times_from_processes_that_overtake_each_other_are_counted() -> None:
    windows, lock_file = small_windows()
    local = LocalWindows()
    for limits in (windows, local):
        assert limits.admit(b"k", 2, 10.0, 5.0)[0]
        assert limits.admit(b"k", 2, 10.0, 4.999)[0]  # read its clock first, came second
        refused = limits.admit(b"k", 2, 10.0, 14.9991)
        assert not refused[0]
        assert refused[2] == pytest.approx(0.0009)
    os.close(lock_file)


def test_the_count_of_times_may_wrap_around() -> None:
    windows, lock_file = small_windows()
    assert windows.admit(b"k", 40, 16.0, 0.0)[0]
    local = LocalWindows()
    assert local.admit(b"k", 40, 16.0, 0.0)[0]
    slot = windows._places[b"k"][2]
    for end in (sliding_window._HEAD, sliding_window._TAIL):
        word = windows._words[slot + end]
        windows._words[slot + end] = word >> 32 << 32 | (0xFFFF_FFF0 + (word & 0xF))
    for step in range(200):
        now = step * 0.25
        assert windows.admit(b"k", 40, 16.0, now) == local.admit(b"k", 40, 16.0, now)
    os.close(lock_file)


def test_the_key_that_was_idle_the_longest_is_forgotten_first() -> None:
    windows, lock_file = small_windows(max_keys=128)  # one set of 16 keys in each of the 8 stripes
    local = LocalWindows(max_keys=128)
    for limits in (windows, local):
        assert limits.admit(b"busy", 1, 1e9, 0.0)[0]
        for step in range(5000):
            assert limits.admit(b"scan%d" % step, 1, 1e9, float(step))[0]
            assert not limits.admit(b"busy", 1, 1e9, float(step))[0]
        assert limits.admit(b"scan0", 1, 1e9, 5000.0)[0]
    os.close(lock_file)


def test_where_no_room_is_left_for_times_idle_keys_make_room() -> None:
    windows, lock_file = small_windows(max_keys=1024, max_blocks=64)  # 8 blocks of 15 times in a stripe
    local = LocalWindows(max_times=900)
    for limits in (windows, local):
        for step in range(3000):
            limits.admit(b"other%d" % (step % 300), 60, 1e9, float(step))
        taken = sum(limits.admit(b"greedy", 60, 1e9, 3000.0)[0] for _ in range(100))
        assert taken == 60
    os.close(lock_file)


def test_a_key_that_fills_its_stripe_is_told_so() -> None:
    windows, lock_file = small_windows(max_keys=128, max_blocks=16)  # 2 blocks in a stripe
    with pytest.raises(MemoryError, match="lower its rate limit"):
        [windows.admit(b"k", 1000, 1e9, 0.0) for _ in range(1000)]
    os.close(lock_file)


@KINDS
def test_a_hundred_thousand_addresses_take_less_than_50_megabytes(made: Callable[[], Shared]) -> None:
    def scan() -> None:
        limits = made()
        before = _peak_memory()
        for number in range(100_000):
            limits.admit(b"a:%d" % number, 60, 60.0, number / 1000)
        assert _peak_memory() - before < 50_000_000

    assert join(fork(scan)) == [0]


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# --- several processes ------------------------------------------------------------------------------------------


def test_four_processes_together_are_admitted_exactly_the_limit() -> None:
    limits = ForkShared(4)
    keys = [b"key%d" % number for number in range(5)]

    def work(worker: int) -> None:
        limits.enter(worker)
        admitted = limits.counters("admitted", len(keys))
        for _ in range(400):
            for index, key in enumerate(keys):
                if limits.admit(key, 1000, 60.0, 1.0)[0]:
                    admitted.own[index] += 1

    children = [fork(lambda worker=worker: work(worker)) for worker in range(4)]  # type: ignore[misc]
    assert join(*children) == [0, 0, 0, 0]
    assert limits.counters("admitted", len(keys)).totals() == [1000.0] * len(keys)


def test_a_process_killed_at_any_line_of_admit_blocks_nobody_and_spoils_no_window() -> None:
    """Each child starts where there is the most to do: one block is to be given back and another to be taken."""
    lines = 0
    for line in range(1, 400, 2):
        limits = ForkShared(1)
        for step in range(30):
            assert limits.admit(b"k", 30, 100.0, float(step))[0]
        if not killed_at(line, sliding_window.__file__, lambda at=limits: at.admit(b"k", 30, 100.0, 115.0)):  # type: ignore[misc]
            break
        lines += 2
        taken = sum(limits.admit(b"k", 30, 100.0, 115.0)[0] for _ in range(40))
        assert taken in (15, 16)  # 16 have left the window; the killed process took one of the places, or not
        local = LocalWindows()
        for step in range(100):
            for key in (b"x", b"y"):
                now = 100 + step * 0.5
                assert limits.admit(key, 17, 15.0, now) == local.admit(key, 17, 15.0, now)
    assert 150 < lines < 399


def test_a_process_killed_at_any_line_of_making_room_blocks_nobody_and_spoils_no_window() -> None:
    size = SharedWindows.size(128, 64)
    for line in range(1, 300, 7):
        limits = ForkShared(1)
        limits.admit = SharedWindows(_mapping(size), limits._locks.fileno(), 128, 64).admit
        for step in range(600):
            limits.admit(b"scan%d" % step, 2, 1e9, float(step))

        def work(at: Shared = limits) -> None:
            for step in range(40):
                at.admit(b"new", 40, 1e9, 600.0 + step)

        assert killed_at(line, sliding_window.__file__, work)
        local = LocalWindows()
        for step in range(100):
            now = 1e10 + step
            assert limits.admit(b"after", 17, 30.0, now) == local.admit(b"after", 17, 30.0, now)


def _mapping(size: int) -> memoryview[int]:
    return memoryview(mmap.mmap(-1, size))
