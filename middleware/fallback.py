"""When a backend fails before its first content, the next one answers, and the failing one is left alone for a while.

What may be tried again, and where, is decided by the fault (`gw.errors`), never by the text. A request that the
provider refused is the client's to mend and goes nowhere else. The parts: `gw.breaker` (who may be asked), `gw.retry`
(when the same one is asked again), `gw.deadline` (until when), `gw.hedge` (a second one beside a slow first),
`gw.continuation` and `gw.successor` (what becomes of a stream that breaks later).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal

from gw.backend import Backends
from gw.breaker import Breaker
from gw.continuation import Continued
from gw.deadline import DeadlinePassed, TimedStream, deadline_of
from gw.document import Chunk
from gw.errors import GatewayError, can_fall_back
from gw.hedge import Hedge, first_content
from gw.message import Candidate, Exchange, Request, Response
from gw.outcome import is_client_gone
from gw.pipeline import Handler
from gw.retry import Budget, Retries, Share
from gw.stream import ListStream, Stream
from gw.successor import Successor
from gw.walk import Walk, cooling, new_latencies

PASSED_ON = "gw.fallback.passed_on"  # the attribute of an exchange that holds the Walk of a stream that has begun
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
        after_content_of: dict[str, Literal["error", "continue"]] | None = None,
        continues: list[str] | None = None,
        hedge: Hedge | None = None,
        explicit_fallback: bool = False,
        drop_tools: bool = False,
        content_filter: Literal["tell", "fallback"] = "tell",
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
        self._goes_on_of = {name: chosen == "continue" for name, chosen in (after_content_of or {}).items()}
        self._hedge = Budget(hedge.budget(), clock) if hedge is not None and hedge.share > 0 else None
        self._latencies = new_latencies()
        self._routes_around_filters = content_filter == "fallback"
        self._sleep = sleep
        self._clock = clock

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        walk = Walk(request, call_next, deadline_of(request, self._clock), self._latencies)
        self._budget.count()
        if self._hedge is not None:
            self._hedge.count()
        candidates = request.candidates
        for position, candidate in enumerate(candidates):
            if walk.failures and walk.is_too_small(candidate.backend):
                continue
            admission = self._breaker.admit(candidate.backend)
            if admission == "open" or (admission == "busy" and walk.later(position)):
                walk.failures.append(cooling(candidate.backend))
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
        walk: Walk | None = exchange.attributes.pop(PASSED_ON, None)
        attempt = exchange.attempt
        if walk is None or attempt is None or attempt.first_content is None or attempt is walk.judged:
            return
        backend = self._backends.get(attempt.backend)
        if backend is None or is_client_gone(attempt.error) or isinstance(attempt.error, DeadlinePassed):
            return
        if attempt.error is None:
            self._breaker.answered(backend)
        elif isinstance(attempt.error, GatewayError):
            self._breaker.failed(backend, attempt.error, is_last=walk.is_last_awake(backend))

    # --- one candidate ------------------------------------------------------------------------------------------

    async def _ask(self, walk: Walk, position: int) -> Response | None:
        """The candidate's answer, by as many tries as it may have; None where the next one is to be asked."""
        candidate = walk.candidates[position]
        backend = candidate.backend
        spare_keys = len(backend.keys) - 1
        is_plain = walk.deadline is None and (self._hedge is None or bool(walk.failures))
        retry = 0
        if failure := walk.rivals.get(backend.name):  # it was asked beside another one, and failed
            walk.failed(backend, failure)
            if not await self._waits(walk, position, failure, retry):
                return None
            retry += 1
        while True:
            try:
                if is_plain:
                    response, answered = await self._call(walk, walk.attempt(candidate)), position
                else:
                    response, answered = await self._try(walk, position)
            except GatewayError as error:
                if spare_keys > 0 and error.fault in _OF_A_KEY and backend.has_spare_key:
                    spare_keys -= 1
                    walk.failures.append(error)
                    continue
                if not isinstance(error, DeadlinePassed):
                    self._breaker.failed(backend, error, is_last=walk.is_last_awake(backend))
                if not can_fall_back(error) and not (self._routes_around_filters and error.fault == "content_filter"):
                    raise
                walk.failed(backend, error)
                if not await self._waits(walk, position, error, retry):
                    return None
                retry += 1
            else:
                return self._answered(walk, response, answered)

    async def _waits(self, walk: Walk, position: int, error: GatewayError, retry: int) -> bool:
        """Wait until the same backend may be asked again after this failure; False where it is not to be."""
        backend = walk.candidates[position].backend
        pause = self._retries.pause(error, retry, has_other=bool(walk.later(position)))
        if pause is None or (self._breaker.is_open(backend) and backend.cooling_for > pause):
            return False  # a probe is one request
        if not walk.has_time(backend, pause) or not self._budget.take():
            return False
        await self._sleep(pause)
        return True

    async def _try(self, walk: Walk, position: int) -> tuple[Response, int]:
        """One attempt, or two at once: the answer, and the position of the candidate that gave it."""
        candidate = walk.candidates[position]
        if walk.deadline is not None:
            seconds = walk.seconds_for(position)
            if seconds is None:
                raise walk.out_of_time()
            return await walk.within(seconds, self._call(walk, walk.attempt(candidate))), position
        delay = self._hedges_after(walk, position)
        work = self._call(walk, walk.attempt(candidate))
        if delay is None:
            return await work, position
        exchange, backend = walk.request.exchange, candidate.backend
        asked_before = len(exchange.attempts)
        second = partial(self._second, walk, position + 1)
        response, is_second = await first_content(work, second, delay, exchange)
        for attempt in exchange.attempts[asked_before:]:
            if attempt.backend == backend.name and isinstance(attempt.error, GatewayError):
                self._breaker.failed(backend, attempt.error, is_last=False)
        return response, position + is_second

    def _call(self, walk: Walk, attempt: Request) -> Awaitable[Response]:
        return walk.call_next(attempt) if self._commit == "first_content" else self._held_back(walk, attempt)

    @staticmethod
    async def _held_back(walk: Walk, attempt: Request) -> Response:
        response = await walk.call_next(attempt)
        if isinstance(response.content, Stream):
            response.content = await _whole(response.content)
        return response

    def _answered(self, walk: Walk, response: Response, position: int) -> Response:
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
            exchange.attributes[PASSED_ON] = walk
            if self._goes_on_of.get(backend.name, self._goes_on) and walk.has_one_choice:
                response.content = Continued(response.content, self._successor(walk, candidate))
            if walk.deadline is not None:
                response.content = TimedStream(response.content, walk.deadline, exchange)
        return response

    def _learn(self, exchange: Exchange) -> None:
        attempt = exchange.attempt
        if attempt is None:
            return
        is_whole = not exchange.stream or self._commit == "complete"
        until = attempt.ended if is_whole else attempt.first_content
        if until is not None:
            self._latencies[attempt.backend, exchange.stream].add(until - attempt.started)

    def _successor(self, walk: Walk, answering: Candidate) -> Successor:
        return Successor(
            walk, answering, self._call, breaker=self._breaker, backends=self._backends, listed=self._continues
        )

    # --- hedging ------------------------------------------------------------------------------------------------

    def _hedges_after(self, walk: Walk, position: int) -> float | None:
        """Seconds until a second backend is asked beside this one; None for never."""
        if position + 1 >= len(walk.candidates):
            return None
        if not all(self._breaker.is_closed(candidate.backend) for candidate in walk.candidates):
            return None
        return walk.latency(walk.candidates[position].backend).p95

    def _second(self, walk: Walk, position: int) -> Awaitable[Response] | None:
        assert self._hedge is not None
        candidate = walk.candidates[position]
        if not self._breaker.is_closed(candidate.backend) or not self._hedge.take():
            return None
        return self._hedged(walk, candidate)

    async def _hedged(self, walk: Walk, candidate: Candidate) -> Response:
        try:
            return await self._call(walk, walk.attempt(candidate))
        except GatewayError as error:
            self._breaker.failed(candidate.backend, error, is_last=False)
            walk.rivals[candidate.backend.name] = error
            raise


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
