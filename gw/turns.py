"""Whose turn it is among equals: one after the other by weight, whoever is least busy, or always the same one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from gw.backend import Backend

ROUND = 1000  # turns after which weights have had their shares, at most


class Turns:
    """One after the other, by weight, well mixed: 3 and 1 are 0 0 1 0. Shared by all plans with the same equals."""

    __slots__ = ("_at", "_order", "backends")

    def __init__(self, backends: Sequence[Backend]) -> None:
        self.backends = backends
        self._order = mixed([backend.weight for backend in backends])
        self._at = 0

    def now(self) -> int:
        """Whose turn it is."""
        return self._order[self._at]

    def take(self) -> int:
        """Whose turn it is; the next is the next one's."""
        at = self._at
        self._at = at + 1 if at + 1 < len(self._order) else 0
        return self._order[at]


class LeastBusy(Turns):
    """Whoever has the fewest requests on their way and in its queue, for its weight; among several, by turns."""

    __slots__ = ()

    def now(self) -> int:
        turn, count = super().now(), len(self.backends)
        return min(range(count), key=lambda index: (_load(self.backends[index]), (index - turn) % count))

    def take(self) -> int:
        found = self.now()
        super().take()
        return found


def mixed(weights: Sequence[int]) -> list[int]:
    """One round of turns: each index as often as its weight says, spread evenly."""
    weights = [max(1, weight) for weight in weights]
    divisor = math.gcd(*weights)
    total = sum(weights) // divisor
    scale = min(1.0, ROUND / total) / divisor
    weights = [max(1, round(weight * scale)) for weight in weights]
    total = sum(weights)
    order: list[int] = []
    credit = [0] * len(weights)
    for _ in range(total):
        credit = [has + weight for has, weight in zip(credit, weights, strict=True)]
        first = credit.index(max(credit))
        credit[first] -= total
        order.append(first)
    return order


def sticking(value: str, among: Iterable[int], backends: Sequence[Backend]) -> int:
    """Which of some indexes a value belongs to: the same in every process, and by weight over many values.

    Where one is missing its values are spread over the others, and nobody else's move (rendezvous hashing).
    """
    return max(among, key=lambda index: _score(value, backends[index]))


def _score(value: str, backend: Backend) -> float:
    digest = blake2b(f"{backend.name}\n{value}".encode(), digest_size=8).digest()
    share = (int.from_bytes(digest) + 1) / (2**64 + 1)  # between 0 and 1, neither of them
    return -max(1, backend.weight) / math.log(share)


def _load(backend: Backend) -> float:
    waiting = backend.places.waiting if backend.places is not None else 0
    return (backend.health.in_flight + waiting) / max(1, backend.weight)
