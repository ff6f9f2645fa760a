"""Which of the backends that could answer comes first: price, default, chain, context, and turns among equals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from gw.backend import Backend, Backends
from gw.errors import Unavailable
from gw.message import Candidate, Usage

AUTO = "auto"  # the model's name for "you decide"
NO_BACKEND = "No backends currently available"
ASSUMED_OUTPUT_TOKENS = 500  # to compare prices before an answer exists

Able = tuple[Backend, str]  # a backend and its own name for the model


class Skipped(NamedTuple):
    """A backend that may not answer this request, and why."""

    backend: str
    reason: str


class Plan:
    """An order that holds for every request of the same kind, and whose turn it is among the equals at its top.

    `pick` is all that is left to do for each request.
    """

    __slots__ = ("_shares", "_turn", "candidates", "drops_tools", "equals", "laters", "skipped")

    def __init__(
        self, ranked: Sequence[Able], equals: int, model: str, reason: str, skipped: Sequence[Skipped]
    ) -> None:
        """`ranked` is best first; its first `equals` entries take turns, by weight. `model` is as the client said."""
        self.drops_tools = False  # nobody can run the tools, and the operator prefers an answer without them
        self.skipped = skipped
        self.equals = equals
        self.candidates = [
            # A lone key is part of the plan; of several, the seam takes the next for each try.
            Candidate(
                backend,
                upstream,
                upstream if model == AUTO else model,
                reason,
                key=backend.keys[0] if len(backend.keys) == 1 else None,
            )
            for backend, upstream in ranked
        ]
        # Who comes second or later answers under its own name.
        self.laters = [candidate._replace(answers_as=candidate.model) for candidate in self.candidates]
        self._shares = [index for index in range(equals) for _ in range(max(1, ranked[index][0].weight))]
        self._turn = 0

    def pick(self) -> tuple[list[Candidate], bool]:
        """The candidates of one request, and whether a better one is left out because it is cooling down.

        Whoever stands behind the first is not looked at: fallback does that when it gets there. Raises Unavailable
        where everybody is cooling down.
        """
        first = 0
        if len(self._shares) > 1:
            first = self._shares[self._turn % len(self._shares)]
            self._turn += 1
        if not self.candidates[first].backend.is_cooling:
            later = self.laters
            if first == 0:
                return [self.candidates[0], *later[1:]], False
            return [self.candidates[first], *later[:first], *later[first + 1 :]], False
        return self._pick_awake(first)

    def _pick_awake(self, first: int) -> tuple[list[Candidate], bool]:
        order = [*range(first, self.equals), *range(first), *range(self.equals, len(self.candidates))]
        awake = [index for index in order if not self.candidates[index].backend.is_cooling]
        if not awake:
            raise self._all_cooling()
        is_degraded = awake[0] >= self.equals
        chosen = self.laters[awake[0]] if is_degraded else self.candidates[awake[0]]
        return [chosen, *(self.laters[index] for index in awake[1:])], is_degraded

    def _all_cooling(self) -> Unavailable:
        backends = [candidate.backend for candidate in self.candidates]
        why = "; ".join(f"{backend.name}: {backend.cooling_reason}" for backend in backends if backend.cooling_reason)
        return Unavailable(
            f"{NO_BACKEND}: all are cooling down{f' ({why})' if why else ''}",
            retry_after=math.ceil(min(backend.cooling_for for backend in backends)),
        )


class Ordering:
    """Puts able backends in order: the plan for one kind of request."""

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

    def plan(self, able: list[Able], model: str, tokens: int, skipped: Sequence[Skipped]) -> Plan:
        """The order for requests of this model and about this many prompt tokens."""
        place = {name: index for index, name in enumerate(self._backends.chain)}
        ranked = sorted(able, key=lambda entry: self._rank(entry, tokens, place))
        if not self._cheapest and ranked[0][0].name == self._default:
            reason = "the default backend"
        else:
            reason = "the cheapest" if self._cheapest else "first in order"
        if self.is_long(tokens):
            ranked.sort(key=lambda entry: -(entry[0].context_length or 0))
            reason = "long context"
        if self._balance == "all":
            equals = [entry for entry in ranked if not entry[0].explicit_only] or ranked[:1]
        else:
            equals = [entry for entry in ranked if is_equal(entry, ranked[0])]
        rest = [entry for entry in ranked if entry not in equals]
        if place:
            # Where a chain is configured, it alone says who comes after the first.
            rest = sorted((entry for entry in rest if entry[0].name in place), key=lambda entry: place[entry[0].name])
        return Plan([*equals, *rest], len(equals), model, reason, skipped)

    def is_long(self, tokens: int) -> bool:
        """Whether a prompt is so long that the longest context comes first."""
        return tokens > self._long_context

    def bucket(self, tokens: int) -> int:
        """Requests of one bucket have the same order. Only price and length look at the size.

        A bucket is a sixteenth of its own size wide: far finer than the estimate of the tokens is true.
        """
        if not self._cheapest and not self.is_long(tokens):
            return 0
        return tokens >> max(0, tokens.bit_length() - 5) << 8 | tokens.bit_length()

    def _rank(self, entry: Able, tokens: int, place: dict[str, int]) -> tuple[float, ...]:
        backend, upstream = entry
        is_default = not self._cheapest and backend.name == self._default
        return (
            # A process per request is the last resort for plain chat, unless it was made the default.
            "cli_tools" in backend.capabilities and not is_default,
            _cost(backend, upstream, tokens) if self._cheapest else not is_default,
            place.get(backend.name, len(place)),
        )


def is_equal(one: Able, other: Able) -> bool:
    """Members of one group: named so, or of the same kind, upstream model and price."""
    left, right = one[0], other[0]
    if left.group or right.group:
        return left.group == right.group
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
