"""What providers say of their rate limits with every answer, so that a backend that is used up is left alone in time.

OpenAI, Groq, xAI and Azure send `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, Anthropic
`anthropic-ratelimit-{requests,tokens,...}-{limit,remaining,reset}`, Mistral `x-ratelimit-{limit,remaining}-{...}`.
These are the gateway's limits at the provider, not the client's at the gateway: they go no further than the backend.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from gw.backend import Backend
from gw.message import Headers
from gw.retry_after import until_reset
from gw.secret import Secret

# Seconds. A reset tells when everything is given back; some of it is there sooner, and a refusal teaches the rest.
LONGEST = 10.0
_FIELDS = frozenset({"limit", "remaining", "reset"})


@dataclass(slots=True)
class Allowance:
    """One limit: how much of what. None is not told; `reset` is seconds from now."""

    name: str  # "requests", "tokens", "input-tokens", "tokens-minute", ...
    limit: int | None = None
    remaining: int | None = None
    reset: float | None = None

    @property
    def is_used_up(self) -> bool:
        """Whether nothing is left."""
        return self.remaining is not None and self.remaining <= 0


def read_allowances(headers: Headers, *, now: float | None = None) -> list[Allowance]:
    """Every limit that an answer tells of, in the order of its fields. `now` is Unix seconds."""
    found: dict[str, Allowance] = {}
    for field, value in headers.pairs:
        if b"ratelimit" not in field:
            continue
        steps = field.decode("latin-1").split("-")
        kind = next((step for step in steps if step in _FIELDS), None)
        if kind is None:
            continue
        name = "-".join(step for step in steps if step not in ("x", "anthropic", "ratelimit", kind)) or "requests"
        allowance = found.setdefault(name, Allowance(name))
        text = value.decode("latin-1").strip()
        if kind == "reset":
            allowance.reset = until_reset(text, headers, now)
        elif text.isascii() and text.isdigit() and len(text) < 16:
            setattr(allowance, kind, int(text))
    return list(found.values())


def _tells_of_limits(headers: Headers) -> bool:
    return headers.may_name(b"remaining")


def heed(
    backend: Backend, headers: Headers, key: Secret | None = None, *, clock: Callable[[], float] = time.time
) -> None:
    """Leave a backend, or the one of its keys that was used, alone for a moment where its limit is used up.

    `clock` gives Unix seconds, for a reset that is a date in an answer without a Date of its own.
    """
    if not headers.about(_tells_of_limits):
        return
    for allowance in read_allowances(headers, now=clock()):
        if allowance.is_used_up and allowance.reset:
            seconds = min(max(allowance.reset, 0.0), LONGEST)
            backend.rest(seconds, f"its limit of {allowance.name} is used up", key)
