"""Which of the backends that could answer comes first: price, default, chain, context, and turns among equals."""

from __future__ import annotations

import math
from typing import Literal

from gw.backend import Backend, Backends
from gw.message import Usage

ASSUMED_OUTPUT_TOKENS = 500  # to compare prices before an answer exists

Able = tuple[Backend, str]  # a backend and its own name for the model


class Ordering:
    """Puts able backends in order. Keeps whose turn it is among equals; everything else is decided anew each time."""

    def __init__(
        self,
        backends: Backends,
        *,
        default_backend: str | None,
        prefer_cheapest: bool,
        balance: Literal["group", "all"],
        long_context_tokens: int,
    ) -> None:
        self._backends = backends
        self._default = default_backend
        self._cheapest = prefer_cheapest
        self._balance = balance
        self._long_context = long_context_tokens
        self._turns: dict[tuple[str, ...], int] = {}

    def order(self, able: list[Able], tokens: int) -> tuple[list[Able], str]:
        """Best first, and why the first is first."""
        place = {name: index for index, name in enumerate(self._backends.chain)}
        position = {backend.name: index for index, (backend, _) in enumerate(able)}

        def rank(entry: Able) -> tuple[float, ...]:
            backend, upstream = entry
            is_default = not self._cheapest and backend.name == self._default
            return (
                # A process per request is the last resort for plain chat, unless it was made the default (C16).
                "cli_tools" in backend.capabilities and not is_default,
                _cost(backend, upstream, tokens) if self._cheapest else not is_default,
                place.get(backend.name, len(place)),
                position[backend.name],
            )

        def by_context(entry: Able) -> float:
            return -float(entry[0].context_length or 0)

        ranked = sorted(able, key=rank)
        if not self._cheapest and ranked[0][0].name == self._default:
            reason = "the default backend"
        else:
            reason = "the cheapest" if self._cheapest else "first in order"
        if tokens > self._long_context:
            ranked.sort(key=by_context)
            reason = "long context"
        first = self._turn(ranked)
        rest = [entry for entry in ranked if entry is not first]
        if place:
            # Where a chain is configured, it alone says who comes after the first.
            rest = [entry for entry in rest if entry[0].name in place or is_equal(entry, first)]
            rest.sort(key=lambda entry: (not is_equal(entry, first), place.get(entry[0].name, -1)))
        return [first, *rest], reason

    def _turn(self, ranked: list[Able]) -> Able:
        """Round robin, by weight, among those who are equal to the first (or among all, if so configured)."""
        first = ranked[0]
        if self._balance == "all":
            equals = [entry for entry in ranked if not entry[0].explicit_only]
        else:
            equals = [entry for entry in ranked if is_equal(entry, first)]
        ready = [entry for entry in equals if not entry[0].is_cooling]
        shares = [entry for entry in ready or equals for _ in range(max(1, entry[0].weight))]
        if len(shares) < 2:
            return shares[0] if shares else first
        key = tuple(sorted(entry[0].name for entry in equals))
        turn = self._turns.get(key, 0)
        self._turns[key] = turn + 1
        return shares[turn % len(shares)]


def is_equal(one: Able, other: Able) -> bool:
    """Members of one group: named so, or of the same kind, upstream model and price (contract C17)."""
    left, right = one[0], other[0]
    if left.group or right.group:
        return left.group == right.group and one[1] == other[1]
    return (left.kind, one[1], left.price, left.cost_per_request) == (
        right.kind,
        other[1],
        right.price,
        right.cost_per_request,
    )


def _cost(backend: Backend, upstream: str, tokens: int) -> float:
    """USD for a request of this size; unknown prices come last."""
    found = backend.cost_of(Usage(prompt=tokens, completion=ASSUMED_OUTPUT_TOKENS), upstream)
    return math.inf if found is None else found[0]
