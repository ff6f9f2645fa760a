"""The exchanges that are under way, and which of them must have a row before they end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from gw.message import Exchange

DUE = 0.014  # seconds from what happened to the beginning of its transaction, which has the rest of the 20 ms
YOUNG = 0.005  # seconds; what is younger is left for the next transaction: it may be over by then


class UnderWay:
    """Added to and removed from by any thread; one thread asks what is due and takes it.

    Nobody has a row as long as all are younger than 14 ms: nearly all are over by then, and are written once.
    """

    __slots__ = ("_clock", "_exchanges", "_is_asked", "_new")

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` is that of Exchange.started."""
        self._clock = clock
        self._exchanges: dict[int, Exchange] = {}
        self._new: deque[int] = deque()  # those of them that have no row yet, and some that are over
        self._is_asked = False  # somebody waits for the rows of all

    def add(self, row: int, exchange: Exchange) -> None:
        self._exchanges[row] = exchange
        self._new.append(row)

    def remove(self, row: int) -> None:
        """It is over; harmless where it was not added."""
        self._exchanges.pop(row, None)

    def ask(self) -> None:
        """Have the next `take` give all of them."""
        self._is_asked = True

    def due(self) -> float | None:
        """Seconds until the oldest must get its row; None where all have theirs."""
        oldest = self._oldest()
        return None if oldest is None else oldest.started + DUE - self._clock()

    def take(self) -> list[tuple[int, Exchange]]:
        """Those that must get their row now and those that would be next: each is given once."""
        is_asked, self._is_asked = self._is_asked, False
        found: list[tuple[int, Exchange]] = []
        now, age = self._clock(), DUE
        while (oldest := self._oldest()) is not None and (is_asked or oldest.started + age - now <= 0):
            found.append((self._new.popleft(), oldest))
            age = YOUNG  # once one is due, the next ones are taken along
        return found

    def _oldest(self) -> Exchange | None:
        while self._new:
            exchange = self._exchanges.get(self._new[0])
            if exchange is not None:
                return exchange
            self._new.popleft()
        return None
