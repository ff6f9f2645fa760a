"""How many requests a backend is sent at once: a fixed number of places, and a short queue with a deadline."""

from __future__ import annotations

import asyncio
from collections import deque

from gw.backend import Backend
from gw.errors import Unavailable
from gw.shared import LocalShared, Rows, Shared

QUEUE_SIZE = 50  # waiting requests, where only max_concurrent is set
QUEUE_TIMEOUT = 30.0  # seconds
LOOK = 0.05  # seconds between two looks at places that another worker may have freed, while somebody waits
RETRY_AFTER = 1.0  # seconds, for a client that finds the queue full
_PROCESSED, _QUEUED, _REFUSED = range(3)  # counters


class Places:
    """`limit` requests at once, `queue` more waiting for at most `timeout` seconds, first come first served.

    Whoever has entered counts itself in `health.in_flight` at once, before it awaits anything, and calls `leave` when
    it is not counted any more. Requests of all workers count, in the places and in the queue; two workers that take
    the last place in the same microseconds may both get it.
    """

    def __init__(
        self, backend: Backend, *, limit: int, queue: int, timeout: float, shared: Shared | None = None
    ) -> None:
        self.limit = limit
        self.queue = queue
        self._backend = backend
        self._timeout = timeout
        self._shared = shared or LocalShared()
        self._rows: tuple[Rows, Rows] | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._called = 0  # of the queue, and not counted in flight yet
        self._looking: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Requests in the queue, of all workers."""
        return int(self._figures()[0].total())

    def status(self) -> dict[str, int]:
        """The figures of `/queue/status`, over all workers; `totalFailed` are those who found no place."""
        waiting, counters = self._figures()
        return {
            "active": self._backend.health.in_flight,
            "queued": int(waiting.total()),
            "maxConcurrent": self.limit,
            "maxQueue": self.queue,
            "totalProcessed": int(counters.total(_PROCESSED)),
            "totalQueued": int(counters.total(_QUEUED)),
            "totalFailed": int(counters.total(_REFUSED)),
        }

    async def enter(self) -> float | None:
        """Take a place; the seconds that it took, None where one was free. Unavailable (503, `queue_full`) for none."""
        if not self._waiting and self._has_room():
            return None
        waiting, counters = self._figures()
        with waiting.lock():
            is_full = waiting.total() >= self.queue
            if not is_full:
                waiting.own[0] += 1
        if is_full:
            raise self._full(
                f"{self._backend.health.in_flight} requests are on their way and {waiting.total():.0f} wait"
            )
        counters.own[_QUEUED] += 1
        began = self._backend.clock()
        try:
            await self._called_up()
        finally:
            with waiting.lock():
                waiting.own[0] -= 1
        self._called -= 1
        return self._backend.clock() - began

    def leave(self) -> None:
        """A place is free: whoever waits longest gets it."""
        self._figures()[1].own[_PROCESSED] += 1
        if self._waiting:
            self._call()

    def _figures(self) -> tuple[Rows, Rows]:
        # Found on first use: a worker's own row is known only once it runs.
        if self._rows is None:
            name = f"places {self._backend.name}"
            self._rows = self._shared.gauges(name), self._shared.counters(name, 3)
        return self._rows

    async def _called_up(self) -> None:
        loop = asyncio.get_running_loop()
        place: asyncio.Future[None] = loop.create_future()
        self._waiting.append(place)
        if self._looking is None:
            self._looking = loop.call_later(LOOK, self._look)
        try:
            async with asyncio.timeout(self._timeout):
                await place
        except TimeoutError:
            self._give_up(place)
            raise self._full(f"no place was free for {self._timeout:g} s") from None
        except BaseException:
            self._give_up(place)
            raise

    def _has_room(self) -> bool:
        return self._backend.health.in_flight + self._called < self.limit

    def _call(self) -> None:
        while self._waiting and self._has_room():
            place = self._waiting.popleft()
            if not place.done():
                self._called += 1
                place.set_result(None)

    def _look(self) -> None:
        self._looking = None
        self._call()
        if self._waiting:
            self._looking = asyncio.get_running_loop().call_later(LOOK, self._look)

    def _give_up(self, place: asyncio.Future[None]) -> None:
        if place in self._waiting:
            self._waiting.remove(place)
        elif place.done() and not place.cancelled():  # it was called, and does not come
            self._called -= 1
            self._call()

    def _full(self, why: str) -> Unavailable:
        self._figures()[1].own[_REFUSED] += 1
        return Unavailable(
            f'backend "{self._backend.name}": queue full ({why}): raise max_concurrent or queue_size',
            code="queue_full",
            retry_after=RETRY_AFTER,
        )
