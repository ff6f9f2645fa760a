"""A bounded number of places and a bounded queue before them, first come first served, exact across worker processes.

There is a place for each turn that runs. Who finds none waits, up to a limit; who finds the queue full too is told at
once.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable

from gw.errors import Unavailable
from gw.shared import LocalShared, Rows, Shared

POLL = 0.02  # seconds: how often who waits looks for a place that another worker, or one before a reload, gave back
_ACTIVE, _QUEUED, _SINCE = 0, 1, 2  # since when (clock) the turn runs that began first; 0: none does
_PROCESSED, _WAITED, _FAILED = 0, 1, 2


class Place:
    """One of the places, taken. Whoever has it leaves it, once."""

    __slots__ = ("_places", "since", "waited")

    def __init__(self, places: Places, since: float, waited: float) -> None:
        self._places = places
        self.since = since  # by the clock
        self.waited = waited  # seconds

    def leave(self, *, is_failed: bool = False) -> None:
        """Give it back, and tell how it was used."""
        self._places.left(self, is_failed)


class Places:
    """`limit` places and `room` for those who wait. `name` is what all workers know it by, and what messages say."""

    def __init__(
        self,
        name: str,
        limit: int,
        room: int,
        *,
        shared: Shared | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._limit = limit
        self._room = room
        self._shared = shared or LocalShared()
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._rows: tuple[Rows, Rows] | None = None
        self._running: dict[Place, None] = {}  # the longest running first
        self._usual = 1.0  # seconds that a turn takes, smoothed
        self._is_polling = False

    async def take(self, patience: float) -> Place:
        """Take a place, waiting for at most `patience` seconds.

        Raises Unavailable (503 `queue_full`) where the queue is full or the time is over.
        """
        began = self._clock()
        gauges, counters = self._figures()
        with gauges.lock():
            if not self._waiting and self._has_taken(gauges):
                return self._taken(gauges, waited=0.0)
            is_full = gauges.total(_QUEUED) >= self._room
            if not is_full:
                gauges.own[_QUEUED] += 1
        if is_full:
            raise self._full("Process pool queue full", gauges)
        counters.own[_WAITED] += 1
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._poll(gauges)
        try:
            async with asyncio.timeout(patience):
                await place
        except BaseException as error:
            self._give_up(place, gauges)
            if isinstance(error, TimeoutError):
                raise self._full(f"no place in the process pool within {patience:g} s", gauges) from None
            raise
        return self._taken(gauges, waited=self._clock() - began)

    def left(self, place: Place, is_failed: bool) -> None:
        """A turn has ended."""
        gauges, counters = self._figures()
        counters.own[_FAILED if is_failed else _PROCESSED] += 1
        self._usual += (self._clock() - place.since - self._usual) / 8
        del self._running[place]
        self._note(gauges)
        self._give_back(gauges)

    def status(self) -> dict[str, int]:
        """Document A's figures, over all workers."""
        gauges, counters = self._figures()
        return {
            "active": int(gauges.total(_ACTIVE)),
            "queued": int(gauges.total(_QUEUED)),
            "maxConcurrent": self._limit,
            "maxQueue": self._room,
            "totalProcessed": int(counters.total(_PROCESSED)),
            "totalQueued": int(counters.total(_WAITED)),
            "totalFailed": int(counters.total(_FAILED)),
        }

    def longest(self) -> float:
        """Seconds for which the longest of all turns has been running; 0 where none is."""
        begun = [row[_SINCE] for row in self._figures()[0].rows if row[_SINCE]]
        return max(0.0, self._clock() - min(begun)) if begun else 0.0

    @property
    def workers(self) -> int:
        """How many worker processes share these places."""
        return len(self._figures()[0].rows)

    def _figures(self) -> tuple[Rows, Rows]:
        # Found on first use: a worker's own row is known only once it runs.
        if self._rows is None:
            name = f"claude-cli:{self._name}"
            self._rows = self._shared.gauges(name, 3), self._shared.counters(name, 3)
        return self._rows

    def _taken(self, gauges: Rows, *, waited: float) -> Place:
        place = Place(self, self._clock(), waited)
        self._running[place] = None
        self._note(gauges)
        return place

    def _note(self, gauges: Rows) -> None:
        gauges.own[_SINCE] = next(iter(self._running)).since if self._running else 0.0

    def _has_taken(self, gauges: Rows) -> bool:
        if gauges.total(_ACTIVE) >= self._limit:
            return False
        gauges.own[_ACTIVE] += 1
        return True

    def _give_back(self, gauges: Rows) -> None:
        with gauges.lock():
            gauges.own[_ACTIVE] -= 1
        self._hand_on(gauges)

    def _hand_on(self, gauges: Rows) -> None:
        """Give free places to those who wait, the longest first."""
        while self._waiting:
            if self._waiting[0].done():  # it was cancelled, and takes itself out in a moment
                return
            with gauges.lock():
                if not self._has_taken(gauges):
                    return
                gauges.own[_QUEUED] -= 1
            self._waiting.popleft().set_result(None)

    def _give_up(self, place: asyncio.Future[None], gauges: Rows) -> None:
        if place.done() and not place.cancelled():
            self._give_back(gauges)  # it came in the moment in which nobody wanted it any more
            return
        with contextlib.suppress(ValueError):
            self._waiting.remove(place)
        with gauges.lock():
            gauges.own[_QUEUED] -= 1
        self._hand_on(gauges)

    def _poll(self, gauges: Rows) -> None:
        """Places of others come back without a word."""
        if self._is_polling:
            return

        def look() -> None:
            self._is_polling = False
            self._hand_on(gauges)
            if self._waiting:
                self._poll(gauges)

        self._is_polling = True
        asyncio.get_running_loop().call_later(POLL, look)

    def _full(self, what: str, gauges: Rows) -> Unavailable:
        active, queued = int(gauges.total(_ACTIVE)), int(gauges.total(_QUEUED))
        return Unavailable(
            f'{what} (backend "{self._name}": {active} of {self._limit} running, {queued} of {self._room} waiting): '
            "try again later, or raise max_concurrent or queue_size",
            code="queue_full",
            retry_after=max(1, math.ceil(self._usual * (queued + 1) / self._limit)),
        )
