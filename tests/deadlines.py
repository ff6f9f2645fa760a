"""Work that is to run into a deadline, of the machine's clock or of one that goes when it is told to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine

import pytest

from gw.errors import UpstreamTimeout
from tests.fakes import FakeClock
from tests.scripted_provider import SOON

LATE = 15.0  # seconds that a deadline of the machine's clock may be noticed late; every other deadline is further off


async def timed(ask: Callable[[], object], seconds: float) -> str:
    """Run into a deadline of so many seconds of the machine's clock; returns what it said."""
    started = time.monotonic()
    with pytest.raises(UpstreamTimeout) as failure:
        await ask()  # type: ignore[misc]
    took = time.monotonic() - started
    assert seconds - 0.01 <= took <= seconds + LATE
    assert failure.value.status == 504
    return failure.value.message


async def runs_out(
    work: Coroutine[object, object, object], is_waiting: asyncio.Event, clock: FakeClock, at: float
) -> str:
    """Have the work run into the deadline at this time of the clock, and not before; returns what it said."""
    task = asyncio.create_task(work)
    async with asyncio.timeout(SOON):
        await is_waiting.wait()
    clock.now = at - 0.001
    for _ in range(2):
        await clock.looked_at()
    assert not task.done()
    clock.now = at
    with pytest.raises(UpstreamTimeout) as failure:
        async with asyncio.timeout(SOON):
            await task
    assert failure.value.status == 504
    return failure.value.message
