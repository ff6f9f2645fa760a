"""The health of one backend as all workers know it together: a breaker that opens in one is open in all.

Failures in a row and the cool-down are cells, which outlive every worker. What a request holds, its place in flight or
the probe, is a gauge: it vanishes with the worker that held it.
"""

from __future__ import annotations

from gw.backend import Health
from gw.shared import Shared

_FAILURES, _COOLING_UNTIL = range(2)  # cells
_IN_FLIGHT, _PROBING = range(2)  # gauges


class SharedHealth(Health):
    """`Health` in shared memory; to be used by one thread of each worker.

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

    @property
    def failures(self) -> int:
        """In a row, over all workers."""
        self._read_failures = read = int(self._cells.values[_FAILURES])
        return read

    @failures.setter
    def failures(self, value: int) -> None:
        cells = self._cells
        if value or cells.values[_FAILURES]:  # a success after a success, the usual case, needs no lock
            with cells.lock():
                now = value and max(0.0, cells.values[_FAILURES] + value - self._read_failures)
                cells.values[_FAILURES] = now

    @property
    def cooling_until(self) -> float:
        """Monotonic seconds."""
        return self._cells.values[_COOLING_UNTIL]

    @cooling_until.setter
    def cooling_until(self, value: float) -> None:
        self._cells.values[_COOLING_UNTIL] = value

    def cool_until(self, moment: float) -> None:
        with self._cells.lock():
            if moment > self._cells.values[_COOLING_UNTIL]:
                self._cells.values[_COOLING_UNTIL] = moment

    @property
    def in_flight(self) -> int:
        """Requests that any worker has under way."""
        total = 0.0
        for row in self._rows.rows:  # twice as fast as Rows.total, and asked for with every request
            total += row[_IN_FLIGHT]
        self._read_in_flight = read = int(total)
        return read

    @in_flight.setter
    def in_flight(self, value: int) -> None:
        self._rows.own[_IN_FLIGHT] += value - self._read_in_flight

    @property
    def probing(self) -> bool:
        """Half-open: one request of some worker is finding out."""
        return any(row[_PROBING] for row in self._rows.rows)

    @probing.setter
    def probing(self, value: bool) -> None:
        self._rows.own[_PROBING] = value

    def claim_probe(self) -> bool:
        with self._rows.lock():
            claimed = not self.probing
            if claimed:
                self._rows.own[_PROBING] = True
        return claimed
