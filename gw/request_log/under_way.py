"""The exchanges that are under way, and which of them must have a row before they end."""

from __future__ import annotations

from collections.abc import Callable

from gw.message import Exchange

DUE = 0.014  # seconds from what happened to the beginning of its transaction, which has the rest of the 20 ms
YOUNG = 0.005  # seconds; what is younger is left for the next transaction: it may be over by then


class UnderWay(dict[int, Exchange]):
    """Exchanges that are under way and have no row yet, by the number of their row, oldest first.

    Added to and taken from by any thread as a dictionary; one thread asks what is due and takes it. Nobody has a row
    as long as all are younger than 14 ms: nearly all are over by then, and are written once.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` is that of Exchange.started."""
        super().__init__()
        self._clock = clock
        self._is_asked = False  # somebody waits for the rows of all

    def ask(self) -> None:
        """Have the next `take` give all of them."""
        self._is_asked = True

    def due(self) -> float | None:
        """Seconds until the oldest must get its row; None where all have theirs."""
        while True:
            try:
                oldest = next(iter(self.values()), None)
            except RuntimeError:  # another thread came between the two calls
                continue
            return None if oldest is None else oldest.started + DUE - self._clock()

    def take(self) -> list[tuple[int, Exchange]]:
        """Those that must get their row now and those that would be next: each is given once."""
        is_asked, self._is_asked = self._is_asked, False
        found: list[tuple[int, Exchange]] = []
        now, age = self._clock(), DUE
        for row, exchange in self.copy().items():
            if exchange.started + age > now and not is_asked:
                break
            if self.pop(row, None) is not None:  # else it has just ended
                found.append((row, exchange))
            age = YOUNG  # once one is due, the next ones are taken along
        return found
