"""How late the event loop is: what one request makes all others wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

BEAT = 0.05  # seconds between two looks
KEPT = 60.0  # seconds that a delay is remembered: longer than the pause between two scrapes


class LoopLag:
    """Looks at the clock every BEAT seconds. `clock` is the loop's own, `call_at` its timer."""

    def __init__(
        self, clock: Callable[[], float], call_at: Callable[[float, Callable[[], None]], asyncio.TimerHandle]
    ) -> None:
        self._clock = clock
        self._call_at = call_at
        self._longest = self._before = 0.0  # of this span of KEPT seconds, and of the one before it
        self._until = clock() + KEPT
        self._due = clock() + BEAT
        self._timer = call_at(self._due, self._beat)

    @property
    def longest(self) -> float:
        """Seconds: the longest delay of the last one to two spans."""
        return max(self._longest, self._before)

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _beat(self) -> None:
        now = self._clock()
        if now >= self._until:
            self._before, self._longest = self._longest, 0.0
            self._until = now + KEPT
        self._longest = max(self._longest, now - self._due)
        self._due = now + BEAT
        self._timer = self._call_at(self._due, self._beat)
