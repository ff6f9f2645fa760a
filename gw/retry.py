"""When the same backend is asked again: how long to wait, and how much of all traffic may be second tries."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from gw.errors import GatewayError, can_retry

_HALF = 5.0  # seconds: traffic is counted in halves of ten seconds


@dataclass(slots=True, frozen=True)
class Retries:
    """`tries` further tries, `backoff` seconds apart and doubled, or as a Retry-After of up to `retry_after_max` says.

    `random` gives numbers from 0 to 1.
    """

    tries: int = 2
    backoff: float = 0.25
    retry_after_max: float = 30.0
    random: Callable[[], float] = random.random

    def pause(self, error: GatewayError, retry: int, *, has_other: bool) -> float | None:
        """Seconds to wait before try number `retry` (from 0) is followed by another; None to go elsewhere."""
        if retry >= self.tries or not can_retry(error):
            return None
        if error.fault == "timeout" and getattr(error, "upstream_status", None) is None:
            return None  # the client has waited for one whole timeout already
        told = error.retry_after
        if has_other and (told is not None or error.fault in ("rate_limit", "timeout", "overload")):
            return None  # waiting is for those who have nobody else to ask
        # Jitter on the upper half: the retries of many clients must not come in step.
        pause = self.backoff * 2.0**retry * (0.5 + self.random() / 2)
        if told is None:
            return pause
        return max(told, pause) if told <= self.retry_after_max else None


@dataclass(slots=True, frozen=True)
class Share:
    """At most `share` of the requests of the last seconds, and `at_least` so many in any case."""

    share: float = 0.2
    at_least: int = 3

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.at_least < 0:
            raise ValueError("share is a number from 0 to 1, at_least 0 or more")


class Budget:
    """Lets a share of the traffic through: retries or hedges. It looks at the last five to ten seconds."""

    __slots__ = ("_at_least", "_clock", "_requests", "_share", "_taken", "_until", "_was_requests", "_was_taken")

    def __init__(self, share: Share, clock: Callable[[], float]) -> None:
        self._share = share.share
        self._at_least = share.at_least
        self._clock = clock
        self._requests = self._taken = self._was_requests = self._was_taken = 0
        self._until = clock() + _HALF

    def count(self) -> None:
        """A request has come."""
        if self._clock() >= self._until:
            self._turn()
        self._requests += 1

    def take(self) -> bool:
        """Whether there is room for one more; if so, it is taken."""
        if self._clock() >= self._until:
            self._turn()
        allowed = max(self._at_least, self._share * (self._requests + self._was_requests))
        if self._taken + self._was_taken + 1 > allowed:
            return False
        self._taken += 1
        return True

    def _turn(self) -> None:
        now = self._clock()
        is_next = now < self._until + _HALF
        self._was_requests, self._was_taken = (self._requests, self._taken) if is_next else (0, 0)
        self._requests = self._taken = 0
        self._until = now + _HALF
