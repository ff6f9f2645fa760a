"""A drain: what is put is worked on in order, many at once, and never later than it may be."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from gw.drain import Drain

PATIENCE = 60.0  # seconds until a test gives up


def sleeps(drain: Drain[int]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not drain.is_asleep:
        assert time.monotonic() < deadline
        time.sleep(0)


def test_what_is_put_is_worked_on_in_order_and_in_batches() -> None:
    seen: list[Sequence[int]] = []
    drain: Drain[int] = Drain(lambda items: seen.append(items) if items else None, name="test", gather=60.0, batch=4)
    for n in range(10):
        drain.put(n)
    drain.start()
    assert drain.flush(PATIENCE)
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert drain.close(PATIENCE)


def test_what_is_put_while_it_sleeps_is_worked_on_soon() -> None:
    seen: list[int] = []
    done = threading.Event()

    def work(items: Sequence[int]) -> None:
        seen.extend(items)
        if items:
            done.set()

    drain: Drain[int] = Drain(work, name="test", gather=2 * PATIENCE)
    drain.start()
    sleeps(drain)
    drain.put(1)
    assert done.wait(PATIENCE)
    drain.put(2)  # it has only just been awake: this one is gathered
    assert not drain.is_asleep
    assert seen == [1]
    assert drain.close(PATIENCE)
    assert seen == [1, 2]


def test_the_first_item_after_a_silence_is_worked_on_soon_whatever_was_begun_before_it() -> None:
    begun: list[float] = []
    done = threading.Event()

    def due() -> float | None:
        return 2 * PATIENCE if begun else None

    def work(items: Sequence[int]) -> None:
        if items:
            done.set()

    drain: Drain[int] = Drain(work, name="test", gather=2 * PATIENCE, due=due)
    drain.start()
    sleeps(drain)
    begun.append(0.0)
    drain.wake()
    sleeps(drain)
    drain.put(1)
    assert done.wait(PATIENCE)
    assert drain.close(PATIENCE)


def test_work_beside_the_items_is_done_when_it_is_due() -> None:
    due_at = time.monotonic() + 0.02
    done = threading.Event()

    def due() -> float | None:
        return None if done.is_set() else due_at - time.monotonic()

    def work(items: Sequence[int]) -> None:
        if time.monotonic() >= due_at:
            done.set()

    drain: Drain[int] = Drain(work, name="test", gather=60.0, due=due)
    drain.start()
    assert done.wait(PATIENCE)
    assert drain.close(PATIENCE)


def test_whoever_makes_such_work_wakes_a_drain_that_sleeps() -> None:
    due_at: list[float] = []
    done = threading.Event()

    def due() -> float | None:
        return due_at[0] - time.monotonic() if due_at else None

    def work(items: Sequence[int]) -> None:
        if due_at:
            due_at.clear()
            done.set()

    drain: Drain[int] = Drain(work, name="test", gather=0.001, due=due)
    drain.start()
    sleeps(drain)
    due_at.append(time.monotonic() + 0.01)
    drain.wake()
    assert done.wait(PATIENCE)
    assert drain.close(PATIENCE)


def test_it_is_called_again_when_it_wanted_to_be() -> None:
    calls = 0
    done = threading.Event()

    def work(items: Sequence[int]) -> float | None:
        nonlocal calls
        calls += 1
        if calls == 3:
            done.set()
            return None
        return 0.005

    drain: Drain[int] = Drain(work, name="test", gather=0.001)
    drain.start()
    assert done.wait(PATIENCE)
    assert drain.flush(PATIENCE)
    assert calls >= 3
    assert drain.close(PATIENCE)


def test_an_exception_of_the_work_does_not_end_the_thread() -> None:
    seen: list[int] = []

    def work(items: Sequence[int]) -> None:
        for item in items:
            seen.append(1 // item)

    drain: Drain[int] = Drain(work, name="test", gather=0.0)
    drain.start()
    drain.put(0)
    assert drain.flush(PATIENCE)
    drain.put(1)
    assert drain.flush(PATIENCE)
    assert seen == [1]
    assert drain.close(PATIENCE)
