"""How long a backend took of late until its first content (streams) or its answer (whole ones)."""

from __future__ import annotations

from collections import deque
from math import ceil

KEPT = 64  # samples
ENOUGH = 16  # below, a quantile says nothing


class Latency:
    """The last samples, in seconds."""

    __slots__ = ("_samples", "add")

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=KEPT)
        self.add = self._samples.append  # one more; the oldest is forgotten

    @property
    def fastest(self) -> float:
        """The shortest of them; 0 where nothing is known."""
        return min(self._samples, default=0.0)

    @property
    def p95(self) -> float | None:
        """What 95 of 100 did not exceed; None where too little is known."""
        if len(self._samples) < ENOUGH:
            return None
        return sorted(self._samples)[ceil(0.95 * len(self._samples)) - 1]
