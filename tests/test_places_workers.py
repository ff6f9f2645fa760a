"""A backend's places and its queue are those of all workers together, and a worker that dies leaves none taken."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from gw.backend import Backend
from gw.errors import Unavailable
from gw.places import Places
from gw.shared import ForkShared
from gw.shared_health import SharedHealth
from tests.forking import fork, join


def backend_of(shared: ForkShared) -> tuple[Backend, Places]:
    backend = Backend("a", "openai", health=SharedHealth(shared, "a"))
    places = backend.places = Places(backend, limit=1, queue=1, timeout=30.0, shared=shared)
    return backend, places


def test_what_one_worker_has_taken_is_taken_in_the_other() -> None:
    shared = ForkShared(2)
    told, tell = os.pipe()

    async def take_all() -> None:
        backend, places = backend_of(shared)
        assert await places.enter() is None
        backend.health.in_flight += 1
        waiting = asyncio.create_task(places.enter())
        await asyncio.sleep(0)
        os.write(tell, b".")
        await waiting

    def taker() -> None:
        shared.enter(0)
        asyncio.run(take_all())

    async def look() -> None:
        _, places = backend_of(shared)
        child = fork(taker)
        assert os.read(told, 1) == b"."
        assert places.waiting == 1
        with pytest.raises(Unavailable, match="1 requests are on their way and 1 wait"):
            await places.enter()
        status = places.status()
        assert (status["active"], status["queued"], status["totalQueued"], status["totalFailed"]) == (1, 1, 1, 1)
        os.kill(child, signal.SIGKILL)
        assert join(child) == [-signal.SIGKILL]
        shared.clear(0)  # the supervisor does this for a worker that died
        assert await places.enter() is None
        assert places.status()["queued"] == 0

    def looker() -> None:
        shared.enter(1)
        asyncio.run(look())

    assert join(fork(looker)) == [0]
    os.close(told)
    os.close(tell)
