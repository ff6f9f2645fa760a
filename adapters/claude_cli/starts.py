"""How many processes may be starting at once, over all backends of this gateway: more than cores only slows them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from weakref import WeakKeyDictionary

PATIENCE = 3.0  # seconds after which a start is not waited for any more: it hangs, and nobody else shall for that

_OF_LOOP: WeakKeyDictionary[asyncio.AbstractEventLoop, Starts] = WeakKeyDictionary()


class Starts:
    """At most `limit` at once; one that takes more than `patience` seconds gives its place to the next."""

    def __init__(self, limit: int, patience: float = PATIENCE) -> None:
        self._places = asyncio.Semaphore(limit)
        self._patience = patience

    async def begin(self) -> Callable[[], None]:
        """Wait for a place. What is returned gives it back, and may be called again."""
        await self._places.acquire()
        timer: asyncio.TimerHandle | None = None

        def ended() -> None:
            nonlocal timer
            if timer is not None:
                timer.cancel()
                timer = None
                self._places.release()

        timer = asyncio.get_running_loop().call_later(self._patience, ended)
        return ended


def starts(workers: int) -> Starts:
    """Those of this event loop, which has an equal part of the cores where there are several worker processes."""
    loop = asyncio.get_running_loop()
    found = _OF_LOOP.get(loop)
    if found is None:
        found = _OF_LOOP[loop] = Starts(max(1, (os.cpu_count() or 1) // workers))
    return found
