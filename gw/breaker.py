"""A backend that fails again and again is left alone, then asked by one request at a time until it answers.

States, from what `gw.backend.Health` holds: closed (few failures in a row); open (cooling down); half-open (the
cool-down is over, the failures are not forgotten): one probe at a time goes through. A probe that fails opens it for
twice as long; an answer closes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gw.backend import COOLING_UNTIL, FAILURES, Backend
from gw.errors import ClientGone, GatewayError, can_fall_back

MAX_RETRY_AFTER = 3600.0  # seconds: a provider that says "come back tomorrow" is asked again after an hour
_NOT_ITS_FAULT = frozenset({"context_length", "unavailable"})  # they fall back, and say nothing of its health
_AT_ONCE = frozenset({"dead_key", "quota"})  # asking again cannot help

Admission = Literal["closed", "probe", "busy", "open"]


@dataclass(slots=True, frozen=True)
class Breaker:
    """After `failures` in a row a backend is left alone for `cooldown` seconds, doubled up to `cooldown_max`.

    The figures are Envoy's for outlier ejection (consecutive_5xx, base_ejection_time, max_ejection_time).
    """

    failures: int = 5
    cooldown: float = 30.0
    cooldown_max: float = 300.0

    def __post_init__(self) -> None:
        if self.failures < 1 or self.cooldown <= 0 or self.cooldown_max < self.cooldown:
            raise ValueError("breaker: failures is 1 or more, cooldown more than 0, cooldown_max not below cooldown")

    def admit(self, backend: Backend) -> Admission:
        """Whether a request may go there. "probe": it is the one that finds out, and ends with `release`.

        "busy" is half-open while another request is finding out.
        """
        health = backend.health
        known = health.known
        if known[FAILURES] < self.failures:
            return "open" if known[COOLING_UNTIL] and backend.is_cooling else "closed"
        if backend.is_cooling:
            return "open"
        return "probe" if health.claim_probe() else "busy"

    def release(self, backend: Backend) -> None:
        """The probe is over, however it went."""
        backend.health.probing = False

    def is_closed(self, backend: Backend) -> bool:
        """Whether nothing is known against it."""
        return backend.health.failures < self.failures and not backend.is_cooling

    def is_open(self, backend: Backend) -> bool:
        """Whether it is left alone for its failures, not only for what its provider says of a limit."""
        return backend.health.failures >= self.failures and backend.is_cooling

    def answered(self, backend: Backend) -> None:
        """It gave an answer."""
        health = backend.health
        if health.known[FAILURES]:
            health.failures = 0

    def failed(self, backend: Backend, error: GatewayError, *, is_last: bool) -> None:
        """It failed. The last one that could be asked is never shut off by failures; its Retry-After is obeyed."""
        said = getattr(error, "upstream_status", None)
        # A provider that said "do not try again here" (x-should-retry) has failed all the same.
        has_failed = error.fault == "unavailable" and said is not None and said >= 429
        if isinstance(error, ClientGone) or (error.fault in _NOT_ITS_FAULT and not has_failed):
            return
        if not can_fall_back(error):
            if error.fault in ("refused", "content_filter"):  # it lives: it has read the request and judged it
                self.answered(backend)
            return
        if (error.fault == "rate_limit" or said == 429) and error.retry_after is not None:
            backend.cool(min(error.retry_after, MAX_RETRY_AFTER), error.message)
            return
        health = backend.health
        missing = max(1, self.failures - health.failures) if error.fault in _AT_ONCE else 1
        opens = health.failures + missing >= self.failures
        # What was under way when it opened teaches nothing new.
        if (opens and is_last) or backend.is_cooling:
            return
        health.failures += missing
        if opens:
            doublings = min(health.failures - self.failures, 20)
            backend.cool(min(self.cooldown * 2**doublings, self.cooldown_max), error.message)
