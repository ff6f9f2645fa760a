"""Deadlines of everything that waits for a provider, watched by one coarse timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

PERIOD = 0.05  # seconds: how late a deadline may be noticed


class Waiting(Protocol):
    """Somebody who waits until `deadline` (the clock's seconds) and is then told by `expire`."""

    deadline: float

    def expire(self) -> None: ...


class Ticker:
    """Looks at who waits every PERIOD seconds, while anybody does: one timer instead of one per request."""

    __slots__ = ("_handle", "_waiting", "clock")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._waiting: set[Waiting] = set()
        self._handle: asyncio.TimerHandle | None = None

    def watch(self, waiting: Waiting) -> None:
        """Call `waiting.expire()` once its deadline has passed, unless it is forgotten before."""
        self._waiting.add(waiting)
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(PERIOD, self._tick)

    def forget(self, waiting: Waiting) -> None:
        """It no longer waits."""
        self._waiting.discard(waiting)

    def close(self) -> None:
        """Stop the timer; nobody expires any more."""
        self._waiting.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _tick(self) -> None:
        self._handle = None
        if not self._waiting:
            return
        self._handle = asyncio.get_running_loop().call_later(PERIOD, self._tick)
        now = self.clock()
        for waiting in [waiting for waiting in self._waiting if waiting.deadline <= now]:
            waiting.expire()
