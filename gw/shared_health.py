"""The health of one backend as all workers know it together: a breaker that opens in one is open in all.

Failures in a row and the cool-down are cells, which outlive every worker. What a request holds, its place in flight or
the probe, is a gauge: it vanishes with the worker that held it.
"""

from __future__ import annotations

from gw.backend import FAILURES, IN_FLIGHT, PROBING, Health
from gw.shared import Shared


class SharedHealth(Health):
    """`Health` in shared memory; to be used by one thread of each worker, which makes it after `Shared.enter`.

    `failures` and `in_flight` are those of all workers. `+=` and `-=` on them are exact, whatever the others do in
    between: what is written is the change since the reading before it. So change them in one statement, or set
    `failures` to 0; nothing else.
    """

    __slots__ = ("_cells", "_read_failures", "_read_in_flight", "_rows", "_shared")

    def __init__(self, shared: Shared, name: str) -> None:
        """The health of the backend of that name, found or made."""
        self._shared = shared  # its locks end with it
        self._cells = shared.cells(f"health {name}", 2)
        self._rows = shared.gauges(f"health {name}", 2)
        self._read_failures = self._read_in_flight = 0
        self.known, self.held = self._cells.values, self._rows.own

    @property
    def failures(self) -> int:
        """In a row, over all workers."""
        self._read_failures = read = int(self.known[FAILURES])
        return read

    @failures.setter
    def failures(self, value: int) -> None:
        with self._cells.lock():
            self.known[FAILURES] = value and max(0.0, self.known[FAILURES] + value - self._read_failures)

    def cool_until(self, moment: float) -> None:
        with self._cells.lock():
            super().cool_until(moment)

    @property
    def in_flight(self) -> int:
        """Requests that any worker has under way."""
        total = 0.0
        for row in self._rows.rows:  # twice as fast as Rows.total: with places it is asked for with every request
            total += row[IN_FLIGHT]
        self._read_in_flight = read = int(total)
        return read

    @in_flight.setter
    def in_flight(self, value: int) -> None:
        self.held[IN_FLIGHT] += value - self._read_in_flight

    @property
    def probing(self) -> bool:
        """Half-open: one request of some worker is finding out."""
        return bool(self._rows.total(PROBING))

    @probing.setter
    def probing(self, value: bool) -> None:
        self.held[PROBING] = value

    def claim_probe(self) -> bool:
        with self._rows.lock():
            return super().claim_probe()
