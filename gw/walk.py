"""One request on its way along its candidates: what each is asked, how long it may take, what is told at the end."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Awaitable, Mapping

from gw.backend import Backend
from gw.deadline import Deadline, DeadlinePassed, tell_cancelled
from gw.document import Document
from gw.errors import GatewayError, RateLimited, Unavailable
from gw.latency import Latency
from gw.message import Attempt, Candidate, Request, Response
from gw.pipeline import Handler

Latencies = defaultdict[tuple[str, bool], Latency]
"""By the backend's name and whether the answer is a stream."""


_NOBODY: Mapping[str, GatewayError] = {}
RETRY_AFTER = 1.0  # seconds, for a client where no provider says how long its limit lasts


class Walk:
    """The candidates of one request, and how those that were asked have failed."""

    __slots__ = (
        "_latencies",
        "_raw",
        "_too_short",
        "call_next",
        "candidates",
        "deadline",
        "failures",
        "judged",
        "keys_given_up",
        "position",
        "request",
        "retries",
        "rivals",
    )

    def __init__(self, request: Request, call_next: Handler, deadline: Deadline | None, latencies: Latencies) -> None:
        # Layers below may change the body in place; every try begins with what came in here.
        document = request.document
        self._raw = document.raw if document is not None else b""
        self._latencies = latencies
        self._too_short = 0  # the longest context that the prompt did not fit in, in tokens
        self.call_next = call_next
        self.candidates = request.candidates
        self.deadline = deadline
        self.failures: tuple[GatewayError, ...] = ()
        self.judged: Attempt | None = None  # the breaker knows already how its stream broke
        self.keys_given_up = 0  # of the candidate that is asked
        self.position = 0  # of the candidate that is asked, or has answered
        self.request = request
        self.retries = 0  # of the candidate that is asked
        self.rivals = _NOBODY  # how those failed that were asked beside another one

    def go_to(self, position: int) -> None:
        """Another candidate is asked from now on."""
        self.position = position
        self.keys_given_up = self.retries = 0

    def attempt(self, candidate: Candidate) -> Request:
        """The request as one candidate is asked it."""
        attempt = self.request.copy()
        attempt.candidates = (candidate,)
        if self.request.exchange.attempts:
            attempt.document = Document(self._raw)
        return attempt

    def ask(self, candidate: Candidate) -> Awaitable[Response]:
        """The candidate's answer."""
        return self.call_next(self.attempt(candidate))

    @property
    def has_one_choice(self) -> bool:
        """Whether one answer is asked for, not several beside each other."""
        document = self.request.document
        return document is None or (document.peek().get("n") or 1) == 1

    def later(self, position: int) -> list[Candidate]:
        """Who may still be asked behind this one."""
        return [other for other in self.candidates[position + 1 :] if not other.backend.is_cooling]

    def is_last_awake(self, backend: Backend) -> bool:
        """Whether nobody else of the candidates may be asked, before it or behind it."""
        return all(other.backend is backend or other.backend.is_cooling for other in self.candidates)

    def failed(self, backend: Backend, error: GatewayError) -> None:
        """Remember a failure."""
        self.failures += (error,)
        if error.fault == "context_length" and backend.context_length is not None:
            self._too_short = max(self._too_short, backend.context_length)

    def is_too_small(self, backend: Backend) -> bool:
        """Whether its context is known to be no longer than one that was too short."""
        return backend.context_length is not None and backend.context_length <= self._too_short

    def latency(self, backend: Backend) -> Latency:
        """How fast it was of late, at requests of this kind."""
        return self._latencies[backend.name, self.request.exchange.stream]

    # --- the client's deadline ----------------------------------------------------------------------------------

    def seconds_for(self, position: int) -> float | None:
        """What is left of the deadline for one attempt; None where it could not finish."""
        assert self.deadline is not None
        fastest = self.latency(self.candidates[position].backend).fastest
        return self.deadline.share(1 + len(self.later(position)), fastest)

    async def within(self, seconds: float, work: Awaitable[Response]) -> Response:
        """The attempt's answer in so many seconds, or DeadlinePassed."""
        assert self.deadline is not None
        try:
            return await self.deadline.within(seconds, work)
        except DeadlinePassed as error:
            tell_cancelled(self.request.exchange, error)
            raise

    def has_time(self, backend: Backend, pause: float = 0.0) -> bool:
        """Whether a try after this pause could finish."""
        return self.deadline is None or self.deadline.left > pause + self.latency(backend).fastest

    def out_of_time(self) -> DeadlinePassed:
        """The failure of an attempt that is not begun."""
        assert self.deadline is not None
        told = [failure.message for failure in self.failures if not isinstance(failure, DeadlinePassed)]
        return self.deadline.missed(
            f"leaves no time for another attempt{f'; the last failure was: {told[-1]}' if told else ''}"
        )

    # --- the end ------------------------------------------------------------------------------------------------

    def verdict(self) -> GatewayError:
        """The one error that the client gets when nobody answered."""
        failures = self.failures
        if isinstance(failures[-1], DeadlinePassed):
            return failures[-1]
        limited = [failure for failure in failures if failure.fault in ("rate_limit", "quota")]
        if limited and len(limited) == len(failures):
            last = limited[-1]
            waits = [failure.retry_after for failure in limited if failure.retry_after is not None]
            if all(failure.fault == "quota" for failure in limited) or (len(self.candidates) == 1 and waits):
                return last
            several = "every backend is rate-limited by its provider; the last said: "
            return RateLimited(
                f"{several if len(self.candidates) > 1 else ''}{last.message}",
                retry_after=min(waits, default=RETRY_AFTER),
                fault="rate_limit",
            )
        for failure in failures:
            if failure.fault == "content_filter":  # it judged the request; the others only failed
                return failure
        told = [failure for failure in failures if not isinstance(failure, Unavailable)]
        return (told or failures)[-1]


def cooling(backend: Backend) -> Unavailable:
    """What is said of a backend that is left alone for now."""
    why = f" ({backend.cooling_reason})" if backend.cooling_reason else ""
    state = "is cooling down" if backend.is_cooling else "is being tried again by another request"
    return Unavailable(
        f'No backends currently available: "{backend.name}" {state}{why}',
        retry_after=max(1, math.ceil(backend.cooling_for)),
    )


def new_latencies() -> Latencies:
    """Nothing known yet."""
    return defaultdict(Latency)
