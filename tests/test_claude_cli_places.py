"""Places: first come first served, nobody is lost, and the same limit for all workers together."""

from __future__ import annotations

import asyncio
import threading

import pytest

from gw.adapters.claude_cli.places import Places
from gw.errors import Unavailable
from gw.shared import LocalShared
from tests.fakes import FakeClock, OneOf


def test_the_longest_waiter_comes_first_and_who_leaves_the_queue_is_forgotten() -> None:
    async def scene() -> None:
        places = Places("cli", 1, 3)
        held = await places.take(1)
        order: list[str] = []

        async def wait(name: str) -> None:
            place = await places.take(60)
            order.append(name)
            place.leave()

        first, gone, last = (asyncio.ensure_future(wait(name)) for name in ("first", "gone", "last"))
        await asyncio.sleep(0)
        assert places.status()["queued"] == 3
        with pytest.raises(Unavailable, match="Process pool queue full"):
            await places.take(60)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        held.leave()
        await asyncio.gather(first, last)
        assert order == ["first", "last"]
        status = places.status()
        assert (status["active"], status["queued"], status["totalProcessed"], status["totalQueued"]) == (0, 0, 3, 3)

    asyncio.run(scene())


def test_a_place_that_comes_in_the_moment_of_leaving_is_given_on() -> None:
    async def scene() -> None:
        places = Places("cli", 1, 3)
        held = await places.take(1)
        one, two = asyncio.ensure_future(places.take(60)), asyncio.ensure_future(places.take(60))
        await asyncio.sleep(0)
        held.leave()
        one.cancel()  # it has its place already, and does not know yet
        await asyncio.gather(one, return_exceptions=True)
        await asyncio.wait_for(two, 30)
        assert places.status()["active"] == 1

    asyncio.run(scene())


def test_two_workers_have_one_limit_and_one_queue_and_wake_each_other() -> None:
    async def scene() -> None:
        memory: dict[str, list[memoryview[float]]] = {}
        lock = threading.Lock()
        one, two = (Places("cli", 1, 1, shared=OneOf(memory, worker, lock)) for worker in (0, 1))
        held = await one.take(1)
        waiting = asyncio.ensure_future(two.take(60))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="1 of 1 running, 1 of 1 waiting"):
            await one.take(1)
        assert one.status() == two.status()
        held.leave(is_failed=True)
        assert (await waiting).waited > 0
        assert (two.status()["active"], two.status()["totalFailed"]) == (1, 1)

    asyncio.run(scene())


def test_the_longest_turn_is_told_over_all_workers() -> None:
    async def scene() -> None:
        memory: dict[str, list[memoryview[float]]] = {}
        lock, clock = threading.Lock(), FakeClock()
        one, two = (Places("cli", 3, 1, shared=OneOf(memory, worker, lock), clock=clock) for worker in (0, 1))
        assert two.longest() == 0.0
        first = await one.take(1)
        clock.now += 5
        second = await one.take(1)
        third = await two.take(1)
        clock.now += 2
        assert one.longest() == two.longest() == 7.0
        first.leave()
        assert two.longest() == 2.0
        second.leave()
        third.leave()
        assert one.longest() == 0.0

    asyncio.run(scene())


def test_a_place_that_was_taken_before_a_reload_is_missed_by_nobody_who_waits_behind_it() -> None:
    async def scene() -> None:
        shared = LocalShared()
        before, after = (Places("cli", 1, 1, shared=shared) for _ in range(2))
        held = await before.take(1)
        waiting = asyncio.ensure_future(after.take(60))
        await asyncio.sleep(0)
        held.leave()
        (await asyncio.wait_for(waiting, 30)).leave()

    asyncio.run(scene())
