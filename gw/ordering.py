"""Which of the backends that could answer comes first: price, default, chain, context, and turns among equals."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from gw.backend import Backends
from gw.errors import InvalidRequest
from gw.message import Usage
from gw.models import Catalogue
from gw.plan import AUTO, Able, Plan, Skipped
from gw.turns import LeastBusy, Turns
from gw.wants import output_tokens

HOPELESS = 2  # times the longest context: a prompt of so many estimated tokens is refused without asking anybody

Size = tuple[int, int]  # tokens of the prompt and of the answer, estimated


class Ordering:
    """Puts able backends in order: the plan for one kind of request."""

    def __init__(
        self,
        backends: Backends,
        *,
        default_backend: str | None = None,
        prefer_cheapest: bool = False,
        balance: Literal["group", "all"] = "group",
        turns: Literal["weight", "least_busy"] = "weight",
        long_context_tokens: int = 100_000,
        catalogue: Catalogue | None = None,
    ) -> None:
        self._backends = backends
        self._default = default_backend
        self._cheapest = prefer_cheapest
        self._balance = balance
        self._kind = Turns if turns == "weight" else LeastBusy
        self._long_context = long_context_tokens
        self._catalogue = catalogue
        self._turns: dict[tuple[str, ...], Turns] = {}
        self._minded = {long_context_tokens}
        self._bounds: list[int] = []

    def mind(self, bounds: Iterable[int]) -> None:
        """A prompt of more tokens than one of these may have another order than one of just as many."""
        self._minded.update(bounds)

    def _all_bounds(self) -> list[int]:
        # Not when it is made: a program may add backends until the first request.
        lengths = {backend.context_length for backend in self._backends}
        lengths |= {model.context for model in self._catalogue or ()}
        known = set(filter(None, lengths))
        return sorted({*self._minded, *known, *(HOPELESS * length for length in known)})

    def size(self, chat: Mapping[str, Any], tokens: int) -> Size:
        """What is known of a request's size, as far as it makes a difference here."""
        return tokens, output_tokens(chat) if self._cheapest else 0

    def bucket(self, chat: Mapping[str, Any], tokens: int) -> object:
        """Requests of one bucket have the same order: only price and length look at the size.

        A bucket of prices is a sixteenth of its own size wide: far finer than the estimate of the tokens is true.
        """
        # Two prompts between the same two bounds differ in nothing but their price.
        bounds = self._bounds
        if not bounds:
            bounds = self._bounds = self._all_bounds()
        place = bisect_left(bounds, tokens) if tokens > bounds[0] else 0  # most prompts fit everywhere
        if not self._cheapest:
            return place
        return place, output_tokens(chat), tokens >> max(0, tokens.bit_length() - 5), tokens.bit_length()

    # --- who has room -------------------------------------------------------------------------------------------

    def roomy(self, able: Sequence[Able], tokens: int) -> tuple[list[Able], list[Skipped]]:
        """Those whose context the prompt fits in, and the others.

        The tokens are an estimate: where it says that the prompt fits nowhere, the longest context is asked all the
        same, unless that is hopeless. InvalidRequest (`context_length_exceeded`) then.
        """
        lengths = [self._context(entry) for entry in able]
        longest = max(lengths)
        if tokens > HOPELESS * longest:
            raise InvalidRequest(
                f"the prompt is about {tokens} tokens long; the longest context here is {longest:.0f}: shorten it",
                code="context_length_exceeded",
                param="messages",
            )
        least = min(tokens, longest)
        found = [entry for entry, length in zip(able, lengths, strict=True) if length >= least]
        skipped = [
            Skipped(backend.name, f"its context of {length:.0f} tokens is too short for about {tokens}")
            for (backend, _), length in zip(able, lengths, strict=True)
            if length < least
        ]
        return found, skipped

    def _context(self, entry: Able) -> float:
        """Tokens that fit, as far as anybody has said."""
        backend, upstream = entry
        if backend.context_length is not None:
            return backend.context_length
        model = self._catalogue.find(upstream) if self._catalogue is not None else None
        return math.inf if model is None or model.context is None else model.context

    # --- who is first -------------------------------------------------------------------------------------------

    def plan(self, able: Sequence[Able], model: str, size: Size, skipped: Sequence[Skipped]) -> Plan:
        """The order for requests of this model and about this size."""
        tokens = size[0]
        place = {name: index for index, name in enumerate(self._backends.chain)}
        is_long = tokens > self._long_context
        ranked = sorted(able, key=lambda entry: self._rank(entry, model, size, is_long, place))
        if self._balance == "all" and not is_long:
            equals = [entry for entry in ranked if not entry[0].explicit_only] or ranked[:1]
        else:
            equals = [entry for entry in ranked if is_equal(entry, ranked[0])]
        if ranked[0][0].name == model:
            equals = ranked[:1]  # a backend's own name means that one
        rest = [entry for entry in ranked if entry not in equals]
        skipped = list(skipped)
        if place:
            # Where a chain is configured, it alone says who comes after the first.
            skipped += [Skipped(entry[0].name, "not in the chain") for entry in rest if entry[0].name not in place]
            rest = sorted((entry for entry in rest if entry[0].name in place), key=lambda entry: place[entry[0].name])
        reasons = [self._why_first(equals, model, size, is_long)] * len(equals)
        reasons += [self._why_next(entry, size, place) for entry in rest]
        turns = self._shared_turns(equals) if len(equals) > 1 else None
        return Plan([*equals, *rest], model, reasons=reasons, skipped=skipped, turns=turns)

    def _shared_turns(self, equals: Sequence[Able]) -> Turns:
        # Shared by all kinds of requests: many kinds with one request each would all begin with the same backend.
        names = tuple(backend.name for backend, _ in equals)
        turns = self._turns.get(names)
        if turns is None:
            turns = self._turns[names] = self._kind([backend for backend, _ in equals])
        return turns

    def _rank(self, entry: Able, model: str, size: Size, is_long: bool, place: Mapping[str, int]) -> tuple[float, ...]:
        backend = entry[0]
        is_default = not self._cheapest and backend.name == self._default
        return (
            backend.name != model,  # a backend's own name, as /v1/models lists it
            # A process per request is the last resort for plain chat, unless it was made the default.
            "cli_tools" in backend.capabilities and not is_default,
            -self._known_context(entry) if is_long else 0,
            self._cost(entry, size) if self._cheapest else not is_default,
            place.get(backend.name, len(place)),
        )

    def _known_context(self, entry: Able) -> float:
        length = self._context(entry)
        return 0 if length == math.inf else length

    def _cost(self, entry: Able, size: Size) -> float:
        """USD for a request of this size; unknown prices come last."""
        found = entry[0].cost_of(Usage(prompt=size[0], completion=size[1]), entry[1])
        return math.inf if found is None else found[0]

    # --- why, for `gw explain` ----------------------------------------------------------------------------------

    def _why_first(self, equals: Sequence[Able], model: str, size: Size, is_long: bool) -> str:
        first = equals[0]
        if first[0].name == model != AUTO:
            why = "named by the model"
        elif is_long and self._known_context(first):
            why = f"long context: {self._known_context(first):.0f} tokens"
        elif self._cheapest:
            why = f"the cheapest: {self._price_text(first, size)}"
        else:
            why = "the default backend" if first[0].name == self._default else "first in order"
        if len(equals) == 1:
            return why
        return f"{why}; in turn: {_names(equals)}"

    def _why_next(self, entry: Able, size: Size, place: Mapping[str, int]) -> str:
        if place:
            return f"next: place {place[entry[0].name] + 1} of the chain"
        return f"next: {self._price_text(entry, size)}" if self._cheapest else "next in order"

    def _price_text(self, entry: Able, size: Size) -> str:
        cost = self._cost(entry, size)
        return "price unknown" if cost == math.inf else f"about {cost:.2g} USD"


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


def _names(entries: Iterable[Able]) -> str:
    return ", ".join(backend.name for backend, _ in entries)
