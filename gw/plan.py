"""The order of backends for one kind of request, and what is left to decide for each: whose turn it is, who is up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from gw.backend import COOLING_UNTIL, Backend
from gw.errors import Unavailable
from gw.message import Candidate
from gw.turns import Turns, sticking

AUTO = "auto"  # the model's name for "you decide"
NO_BACKEND = "No backends currently available"

Able = tuple[Backend, str]  # a backend and its own name for the model


class Skipped(NamedTuple):
    """A backend that may not answer this request, and why."""

    backend: str
    reason: str


@dataclass(slots=True, frozen=True)
class Decision:
    """What was decided for one request: who may answer, best first, and who may not."""

    candidates: Sequence[Candidate]
    skipped: Sequence[Skipped] = ()
    degraded: bool = False  # a better candidate exists but is cooling down, or tools are dropped
    drops_tools: bool = False  # the candidates cannot run the tools, and the operator prefers an answer without them
    without_tools: Sequence[Candidate] = ()  # who is asked without them, should all candidates fail


class Plan:
    """An order that holds for every request of the same kind; `pick` is all that is left to do for each of them."""

    __slots__ = (
        "_backends",
        "_candidates",
        "_decisions",
        "_equals",
        "_laters",
        "_skipped",
        "_turns",
        "drops_tools",
        "plain",
    )

    def __init__(
        self,
        ranked: Sequence[Able],
        model: str,
        *,
        reasons: Sequence[str],
        skipped: Sequence[Skipped] = (),
        turns: Turns | None = None,
    ) -> None:
        """`ranked` is best first, `reasons` says why each stands where it stands, `model` is as the client said.

        The first ones, as many as `turns` knows, take turns; without it nobody does.
        """
        self.drops_tools = False  # nobody here can run the tools, and the operator prefers an answer without them
        self.plain: Plan | None = None  # who answers without the tools where nobody here does
        self._skipped = skipped
        self._turns = turns
        self._equals = 1 if turns is None else len(turns.backends)
        self._candidates = [
            # A lone key is part of the plan; of several, the seam takes the next for each try.
            Candidate(
                backend,
                upstream,
                upstream if model == AUTO else model,
                reason,
                key=backend.keys[0] if len(backend.keys) == 1 else None,
            )
            for (backend, upstream), reason in zip(ranked, reasons, strict=True)
        ]
        # Who comes second or later answers under its own name.
        self._laters = [replace(candidate, answers_as=candidate.model) for candidate in self._candidates]
        self._backends = [backend for backend, _ in ranked]
        self._decisions: list[Decision | None] = [None] * self._equals  # by who is first, while that one is awake

    def pick(self, sticky: str = "", is_question: bool = False) -> Decision:
        """Who answers one request. Whoever stands behind the first is not looked at: fallback does that.

        `sticky` belongs to one of the equals. A question, as `gw explain` asks it, takes nobody's turn. Raises
        Unavailable where everybody is cooling down.
        """
        turns = self._turns
        if turns is None:
            first = 0
        elif sticky:
            first = sticking(sticky, range(self._equals), turns.backends)
        else:
            first = turns.now() if is_question else turns.take()
        backend = self._backends[first]
        if backend.health.known[COOLING_UNTIL] and backend.is_cooling:  # most have never had to cool down
            return self._pick_awake(first, sticky)
        return self._decisions[first] or self._decide(first)

    def _decide(self, first: int) -> Decision:
        rest = [*self._laters[:first], *self._laters[first + 1 :]]
        found = self._decisions[first] = Decision((self._candidates[first], *rest), self._skipped)
        return found

    def _pick_awake(self, first: int, sticky: str) -> Decision:
        order = [*range(first, self._equals), *range(first), *range(self._equals, len(self._candidates))]
        awake = [index for index in order if not self._backends[index].is_cooling]
        if not awake:
            raise self._all_cooling()
        if sticky and self._turns is not None and awake[0] < self._equals:
            equals = [index for index in awake if index < self._equals]
            first = sticking(sticky, equals, self._turns.backends)
            awake = [first, *(index for index in awake if index != first)]
        is_degraded = awake[0] >= self._equals
        chosen = self._laters[awake[0]] if is_degraded else self._candidates[awake[0]]
        asleep = [
            Skipped(backend.name, f"cooling down for {math.ceil(backend.cooling_for)} s: {backend.cooling_reason}")
            for backend in (self._backends[index] for index in order if index not in awake)
        ]
        return Decision((chosen, *(self._laters[index] for index in awake[1:])), (*self._skipped, *asleep), is_degraded)

    def stand_ins(self) -> Sequence[Candidate]:
        """Its candidates as those who answer where others could not; the ones that are cooling down are left out."""
        return [later for later in self._laters if not later.backend.is_cooling]

    def _all_cooling(self) -> Unavailable:
        backends = self._backends
        why = "; ".join(f"{backend.name}: {backend.cooling_reason}" for backend in backends if backend.cooling_reason)
        return Unavailable(
            f"{NO_BACKEND}: all are cooling down{f' ({why})' if why else ''}",
            retry_after=math.ceil(min(backend.cooling_for for backend in backends)),
        )
