"""When a backend fails before its first content, the next one answers, and the failing one is left alone for a while.

What may be tried again, and where, is decided by the fault (`gw.errors`), never by the text. A request that the
provider refused is the client's to mend and goes nowhere else. The parts: `gw.breaker` (who may be asked), `gw.retry`
(when the same one is asked again), `gw.deadline` (until when), `gw.hedge` (a second one beside a slow first) and
`gw.continuation` (what becomes of a stream that breaks later).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Literal

from gw.backend import Backend, Backends
from gw.breaker import Admission, Breaker
from gw.continuation import Continued, Next, with_prefix
from gw.deadline import Deadline, TimedStream, deadline_of
from gw.document import Chunk, Document
from gw.errors import ClientGone, GatewayError, RateLimited, Unavailable, UpstreamTimeout, can_fall_back
from gw.estimate import account, total_usage
from gw.hedge import Hedge, first_content
from gw.latency import Latency
from gw.message import Candidate, Exchange, Request, Response
from gw.outcome import is_client_gone
from gw.pipeline import Handler
from gw.retry import Budget, Retries, Share
from gw.stream import ListStream, Stream

CONTINUES = "gw.continues"  # the attribute of an exchange whose stream broke and goes on elsewhere: the log reads it
_OF_A_KEY = frozenset({"dead_key", "quota", "rate_limit"})  # another key of the same backend may do


class Fallback:
    """Walks `request.candidates`. Options: see `[middleware.fallback]` in gateway.toml."""

    def __init__(
        self,
        *,
        backends: Backends,
        chain: list[str] | None = None,
        retries: int = 2,
        backoff: float = 0.25,
        retry_after_max: float = 30.0,
        retry_budget: Share | None = None,
        breaker: Breaker | None = None,
        commit: Literal["first_content", "complete"] = "first_content",
        after_content: Literal["error", "continue"] = "error",
        continues: list[str] | None = None,
        hedge: Hedge | None = None,
        explicit_fallback: bool = False,
        drop_tools: bool = False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if retries < 0:
            raise ValueError(f"retries is the number of further tries, 0 or more; found {retries}")
        backends.chain = tuple(chain or ())
        backends.explicit_fallback = explicit_fallback
        backends.drop_tools = drop_tools
        self._backends = backends
        self._retries = Retries(retries, backoff, retry_after_max)
        self._budget = Budget(retry_budget or Share(), clock)
        self._breaker = breaker or Breaker()
        self._commit = commit
        self._continues = frozenset(continues or ())
        self._goes_on = after_content == "continue"
        self._hedge = Budget(hedge.budget(), clock) if hedge is not None and hedge.share > 0 else None
        self._latencies: defaultdict[tuple[str, bool], Latency] = defaultdict(Latency)
        self._sleep = sleep
        self._clock = clock

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        walk = _Walk(self, request, call_next, deadline_of(request, self._clock))
        self._budget.count()
        if self._hedge is not None:
            self._hedge.count()
        candidates = request.candidates
        for position, candidate in enumerate(candidates):
            admission = self._breaker.admit(candidate.backend)
            if admission == "open" or (admission == "busy" and _others(candidates, position)):
                walk.failures.append(_cooling(candidate.backend))
                continue
            try:
                response = await self._ask(walk, position)
            finally:
                if admission == "probe":
                    self._breaker.release(candidate.backend)
            if response is not None:
                return response
        raise walk.verdict()

    def ended(self, exchange: Exchange) -> None:
        """A stream that broke after its first content, or went well, is known only now."""
        attempt = exchange.attempt
        if not exchange.stream or attempt is None or attempt.first_content is None:
            return
        backend = self._backends.get(attempt.backend)
        if backend is None or is_client_gone(attempt.error):
            return
        if attempt.error is None:
            self._breaker.answered(backend)
        elif isinstance(attempt.error, GatewayError):
            others = [other for other in self._backends if other is not backend and other.is_ready]
            self._breaker.failed(backend, attempt.error, is_last=not any(not other.is_cooling for other in others))

    # --- one candidate ------------------------------------------------------------------------------------------

    async def _ask(self, walk: _Walk, position: int) -> Response | None:
        """The candidate's answer, by as many tries as it may have; None where the next one is to be asked."""
        candidate = walk.candidates[position]
        backend = candidate.backend
        spare_keys = len(backend.keys) - 1
        retry = 0
        while True:
            try:
                response, answered = await self._try(walk, position, is_first=not walk.failures and retry == 0)
            except GatewayError as error:
                others = _others(walk.candidates, position)
                if spare_keys > 0 and error.fault in _OF_A_KEY and backend.has_spare_key:
                    spare_keys -= 1
                    walk.failures.append(error)
                    continue
                if not walk.is_late(error):
                    self._breaker.failed(backend, error, is_last=not others)
                if not can_fall_back(error):
                    raise
                walk.failures.append(error)
                pause = self._retries.pause(error, retry, has_other=bool(others))
                if pause is None or not walk.has_time(pause) or not self._budget.take():
                    return None
                retry += 1
                await self._sleep(pause)
            else:
                return self._answered(walk, response, answered)

    async def _try(self, walk: _Walk, position: int, *, is_first: bool) -> tuple[Response, int]:
        """One attempt, or two at once: the answer, and the position of the candidate that gave it."""
        attempt = walk.attempt(walk.candidates[position])
        work = self._call(walk, attempt)
        if walk.deadline is not None:
            seconds = walk.seconds_for(position)
            if seconds is None:
                work.close()
                raise walk.out_of_time()
            return await walk.within(seconds, work), position
        delay = self._hedges_after(walk, position) if is_first and self._hedge is not None else None
        if delay is None:
            return await work, position
        response, is_second = await first_content(
            work, partial(self._second, walk, position + 1), delay, walk.request.exchange
        )
        return response, position + is_second

    async def _call(self, walk: _Walk, attempt: Request) -> Response:
        response = await walk.call_next(attempt)
        if self._commit == "complete" and isinstance(response.content, Stream):
            response.content = await _whole(response.content)
        return response

    def _answered(self, walk: _Walk, response: Response, position: int) -> Response:
        exchange = walk.request.exchange
        candidate = walk.candidates[position]
        backend = candidate.backend
        # A stream has only begun: a closed breaker forgets earlier failures when it has ended well.
        if not isinstance(response.content, Stream) or not self._breaker.is_closed(backend):
            self._breaker.answered(backend)
        self._learn(exchange)
        if position:
            exchange.degraded = True
        headers = response.headers
        headers["X-Gateway-Backend"] = backend.name
        headers["X-Gateway-Degraded"] = "true" if exchange.degraded else "false"
        headers["X-Gateway-Attempts"] = str(len(exchange.attempts))
        if isinstance(response.content, Stream):
            if self._goes_on:
                response.content = Continued(response.content, _AskOn(self, walk, candidate))
            if walk.deadline is not None:
                response.content = TimedStream(response.content, walk.deadline)
        return response

    def _learn(self, exchange: Exchange) -> None:
        attempt = exchange.attempt
        if attempt is None:
            return
        until = attempt.first_content if exchange.stream else attempt.ended
        if until is not None:
            self._latencies[attempt.backend, exchange.stream].add(until - attempt.started)

    def latency(self, backend: Backend, exchange: Exchange) -> Latency:
        """How fast it was of late, at requests of this kind."""
        return self._latencies[backend.name, exchange.stream]

    # --- hedging ------------------------------------------------------------------------------------------------

    def _hedges_after(self, walk: _Walk, position: int) -> float | None:
        """Seconds until a second backend is asked beside this one; None for never."""
        if position + 1 >= len(walk.candidates):
            return None
        if not all(self._breaker.is_closed(candidate.backend) for candidate in walk.candidates):
            return None
        return self.latency(walk.candidates[position].backend, walk.request.exchange).p95

    def _second(self, walk: _Walk, position: int) -> Awaitable[Response] | None:
        assert self._hedge is not None
        candidate = walk.candidates[position]
        if not self._breaker.is_closed(candidate.backend) or not self._hedge.take():
            return None
        return self._hedged(walk, candidate)

    async def _hedged(self, walk: _Walk, candidate: Candidate) -> Response:
        try:
            return await self._call(walk, walk.attempt(candidate))
        except GatewayError as error:
            self._breaker.failed(candidate.backend, error, is_last=False)
            raise

    # --- after the first content --------------------------------------------------------------------------------

    def able_to_go_on(self, walk: _Walk, failed: Candidate) -> list[Candidate]:
        """Who may be asked to go on from a prefix: the same model elsewhere, whoever is listed, the same one again."""
        listed = [
            candidate
            for candidate in walk.candidates
            if candidate.backend is not failed.backend
            and (candidate.model == failed.model or candidate.backend.name in self._continues)
        ]
        return [*listed, failed]

    async def ask_on(self, walk: _Walk, failed: Candidate, text: str, error: GatewayError) -> tuple[Next, Candidate]:
        """Somebody who goes on from `text`. Raises `error` where nobody can."""
        exchange = walk.request.exchange
        exchange.attributes[CONTINUES] = True
        account(exchange, self._backends)
        spent = total_usage(exchange)
        able = self.able_to_go_on(walk, failed)
        self._breaker.failed(failed.backend, error, is_last=len(able) == 1)
        for candidate in able:
            admission: Admission = self._breaker.admit(candidate.backend)
            if admission in ("open", "busy"):
                continue
            attempt = walk.attempt(candidate)
            assert attempt.document is not None
            attempt.document = Document(value=with_prefix(attempt.document.peek(), text))
            try:
                response = await self._call(walk, attempt)
            except GatewayError as later:
                self._breaker.failed(candidate.backend, later, is_last=candidate is able[-1])
                if isinstance(later, ClientGone):
                    raise
                continue
            finally:
                if admission == "probe":
                    self._breaker.release(candidate.backend)
            if isinstance(response.content, Stream):
                exchange.degraded = exchange.degraded or candidate.backend is not failed.backend
                return Next(response.content, failed.backend.name, candidate.backend.name, spent), candidate
        raise error


class _Walk:
    """One request on its way along its candidates."""

    __slots__ = ("_fallback", "_late", "_raw", "call_next", "candidates", "deadline", "failures", "request")

    def __init__(self, fallback: Fallback, request: Request, call_next: Handler, deadline: Deadline | None) -> None:
        self._fallback = fallback
        self._late: GatewayError | None = None  # the failure that was the deadline's, not the backend's
        # Layers below may change the body in place; every try begins with what came in here.
        self._raw = request.document.raw if request.document is not None else b""
        self.call_next = call_next
        self.candidates = request.candidates
        self.deadline = deadline
        self.failures: list[GatewayError] = []
        self.request = request

    def attempt(self, candidate: Candidate) -> Request:
        """The request as one candidate is asked it."""
        attempt = self.request.replace(candidates=(candidate,))
        if self.request.exchange.attempts:
            attempt.document = Document(self._raw)
        return attempt

    # --- the client's deadline ----------------------------------------------------------------------------------

    def seconds_for(self, position: int) -> float | None:
        """What is left of the deadline for one attempt; None where it could not finish."""
        assert self.deadline is not None
        backend = self.candidates[position].backend
        fastest = self._fallback.latency(backend, self.request.exchange).fastest
        return self.deadline.share(1 + len(_others(self.candidates, position)), fastest)

    async def within(self, seconds: float, work: Awaitable[Response]) -> Response:
        """The attempt's answer in so many seconds, or UpstreamTimeout."""
        assert self.deadline is not None
        try:
            return await self.deadline.within(seconds, work)
        except UpstreamTimeout as error:
            attempt = self.request.exchange.attempt
            if attempt is not None and isinstance(attempt.error, asyncio.CancelledError):
                attempt.error = self._late = error
            raise

    def has_time(self, pause: float) -> bool:
        """Whether something can come of a try after this pause."""
        return self.deadline is None or self.deadline.left > pause

    def out_of_time(self) -> UpstreamTimeout:
        """The failure of an attempt that is not begun."""
        assert self.deadline is not None
        told = f"; the last failure was: {self.failures[-1].message}" if self.failures else ""
        error = self._late = self.deadline.missed(f"leaves no time for another attempt{told}")
        return error

    def is_late(self, error: GatewayError) -> bool:
        """Whether a failure says nothing of the backend."""
        return error is self._late

    # --- the end ------------------------------------------------------------------------------------------------

    def verdict(self) -> GatewayError:
        """The one error that the client gets when nobody answered."""
        failures = self.failures
        if self._late is not None and failures[-1] is self._late:
            return self._late
        limited = [failure for failure in failures if failure.fault in ("rate_limit", "quota")]
        if limited and len(limited) == len(failures):
            waits = [failure.retry_after for failure in limited if failure.retry_after is not None]
            if len(self.candidates) == 1:
                return limited[-1]
            return RateLimited(
                f"every backend is rate-limited by its provider; the last said: {limited[-1].message}",
                retry_after=min(waits, default=None),
            )
        told = [failure for failure in failures if not isinstance(failure, Unavailable)]
        return (told or failures)[-1]


class _AskOn:
    """Who goes on where one stream breaks; it knows who was the last to answer."""

    __slots__ = ("_failed", "_fallback", "_walk")

    def __init__(self, fallback: Fallback, walk: _Walk, answering: Candidate) -> None:
        self._fallback = fallback
        self._walk = walk
        self._failed = answering

    async def __call__(self, text: str, error: GatewayError) -> Next:
        found, self._failed = await self._fallback.ask_on(self._walk, self._failed, text, error)
        return found


def _others(candidates: Sequence[Candidate], position: int) -> list[Candidate]:
    return [other for other in candidates[position + 1 :] if not other.backend.is_cooling]


def _cooling(backend: Backend) -> Unavailable:
    why = f" ({backend.cooling_reason})" if backend.cooling_reason else ""
    return Unavailable(
        f'No backends currently available: "{backend.name}" is cooling down{why}',
        retry_after=max(1, math.ceil(backend.cooling_for)),
    )


async def _whole(stream: Stream) -> ListStream:
    """The stream, read to its end before anything of it is passed on."""
    chunks: list[Chunk] = []
    try:
        while more := await stream.read():
            chunks.extend(more)
    except BaseException:
        await stream.aclose()
        raise
    return ListStream(chunks)
