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

from gw.backend import Backend, Backends
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

    ended_with = PASSED_ON  # `ended` is told of no other exchange

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
        self._holds_back = commit == "complete"
        self._continues = frozenset(continues or ())
        self._goes_on = after_content == "continue"
        self._goes_on_of = {name: chosen == "continue" for name, chosen in (after_content_of or {}).items()}
        self._hedge = Budget(hedge.budget(), clock) if hedge is not None and hedge.share > 0 else None
        self._latencies = new_latencies()
        self._routes_around_filters = content_filter == "fallback"
        self._sleep = sleep
        self._clock = clock

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        if self._holds_back:
            call_next = _held_back(call_next)
        walk = Walk(request, call_next, deadline_of(request, self._clock), self._latencies)
        self._budget.count()
        if self._hedge is not None:
            self._hedge.count()
        for position, candidate in enumerate(walk.candidates):
            if walk.failures and walk.is_too_small(candidate.backend):
                continue
            admission = self._breaker.admit(candidate.backend)
            if admission == "open" or (admission == "busy" and walk.later(position)):
                walk.failures += (cooling(candidate.backend),)
                continue
            if position:
                walk.go_to(position)
            is_plain = walk.deadline is None and (self._hedge is None or bool(walk.failures))
            try:
                # All of it in this frame: hardly any request comes back to the head of the loop.
                asks = not walk.rivals or await self._may_ask(walk, candidate)
                while asks:
                    try:
                        if is_plain:
                            response = await call_next(walk.attempt(candidate))
                        else:
                            response = await self._try(walk, candidate)
                    except GatewayError as error:
                        asks = await self._asks_again(walk, candidate, error)
                    else:
                        return self._answered(walk, response)
            finally:
                if admission == "probe":
                    self._breaker.release(candidate.backend)
        raise walk.verdict()

    def ended(self, exchange: Exchange) -> None:
        """A stream that broke after its first content, or went well, is known only now."""
        walk: Walk | None = exchange.attributes.pop(PASSED_ON, None)
        if walk is None:
            return
        attempt = exchange.attempt
        if attempt is None or attempt.first_content is None or attempt is walk.judged:
            return
        backend = self._backends.get(attempt.backend)
        if backend is None or is_client_gone(attempt.error) or isinstance(attempt.error, DeadlinePassed):
            return
        if attempt.error is None:
            self._breaker.answered(backend)
        elif isinstance(attempt.error, GatewayError):
            self._breaker.failed(backend, attempt.error, is_last=walk.is_last_awake(backend))

    # --- one candidate ------------------------------------------------------------------------------------------

    async def _may_ask(self, walk: Walk, candidate: Candidate) -> bool:
        """Whether it is to be asked, now that it may have been asked beside another one, and failed."""
        failure = walk.rivals.get(candidate.backend.name)
        if failure is None:
            return True
        walk.failed(candidate.backend, failure)
        return await self._waits(walk, candidate.backend, failure)

    async def _asks_again(self, walk: Walk, candidate: Candidate, error: GatewayError) -> bool:
        """Whether the same one is to be asked after this failure, and when: it returns then. False: the next one is.

        Raises the failure where nobody else is to be asked either.
        """
        backend = candidate.backend
        if error.fault in _OF_A_KEY and walk.keys_given_up < len(backend.keys) - 1 and backend.has_spare_key:
            walk.keys_given_up += 1
            walk.failures += (error,)
            return True
        if not isinstance(error, DeadlinePassed):
            self._breaker.failed(backend, error, is_last=walk.is_last_awake(backend))
        if not can_fall_back(error) and not (self._routes_around_filters and error.fault == "content_filter"):
            raise error
        walk.failed(backend, error)
        return await self._waits(walk, backend, error)

    async def _waits(self, walk: Walk, backend: Backend, error: GatewayError) -> bool:
        """Wait until the same backend may be asked again after this failure; False where it is not to be."""
        pause = self._retries.pause(error, walk.retries, has_other=bool(walk.later(walk.position)))
        if pause is None or (self._breaker.is_open(backend) and backend.cooling_for > pause):
            return False  # a probe is one request
        if not walk.has_time(backend, pause) or not self._budget.take():
            return False
        await self._sleep(pause)
        walk.retries += 1
        return True

    async def _try(self, walk: Walk, candidate: Candidate) -> Response:
        """One attempt within the client's deadline, or two at once."""
        if walk.deadline is not None:
            seconds = walk.seconds_for(walk.position)
            if seconds is None:
                raise walk.out_of_time()
            return await walk.within(seconds, walk.ask(candidate))
        delay = self._hedges_after(walk, candidate.backend)
        work = walk.ask(candidate)
        if delay is None:
            return await work
        exchange, backend = walk.request.exchange, candidate.backend
        asked_before = len(exchange.attempts)
        second = partial(self._second, walk, walk.position + 1)
        response, is_second = await first_content(work, second, delay, exchange)
        for attempt in exchange.attempts[asked_before:]:
            if attempt.backend == backend.name and isinstance(attempt.error, GatewayError):
                self._breaker.failed(backend, attempt.error, is_last=False)
        walk.position += is_second
        return response

    def _answered(self, walk: Walk, response: Response) -> Response:
        exchange = walk.request.exchange
        attempts = exchange.attempts
        candidate = walk.candidates[walk.position]
        backend = candidate.backend
        content = response.content
        if isinstance(content, Stream):
            response.content = self._passed_on(walk, candidate, content)
        else:
            self._breaker.answered(backend)
        if attempts:
            # How long the one that answered took.
            attempt, stream = attempts[-1], exchange.stream
            until = attempt.ended if self._holds_back or not stream else attempt.first_content
            if until is not None:
                self._latencies[attempt.backend, stream].add(until - attempt.started)
        if walk.position:
            exchange.degraded = True
        headers = response.headers
        headers["X-Gateway-Backend"] = backend.name
        headers["X-Gateway-Degraded"] = "true" if exchange.degraded else "false"
        headers["X-Gateway-Attempts"] = str(len(attempts))
        return response

    def _passed_on(self, walk: Walk, candidate: Candidate, stream: Stream) -> Stream:
        """A stream that has begun, as the client gets it. A closed breaker waits for its end to forget failures."""
        backend = candidate.backend
        if not self._breaker.is_closed(backend):
            self._breaker.answered(backend)
        exchange = walk.request.exchange
        exchange.attributes[PASSED_ON] = walk
        if self._goes_on_of.get(backend.name, self._goes_on) and walk.has_one_choice:
            stream = Continued(stream, self._successor(walk, candidate))
        return stream if walk.deadline is None else TimedStream(stream, walk.deadline, exchange)

    def _successor(self, walk: Walk, answering: Candidate) -> Successor:
        return Successor(walk, answering, breaker=self._breaker, backends=self._backends, listed=self._continues)

    # --- hedging ------------------------------------------------------------------------------------------------

    def _hedges_after(self, walk: Walk, backend: Backend) -> float | None:
        """Seconds until a second backend is asked beside this one; None for never."""
        if walk.position + 1 >= len(walk.candidates):
            return None
        if not all(self._breaker.is_closed(candidate.backend) for candidate in walk.candidates):
            return None
        return walk.latency(backend).p95

    def _second(self, walk: Walk, position: int) -> Awaitable[Response] | None:
        assert self._hedge is not None
        candidate = walk.candidates[position]
        if not self._breaker.is_closed(candidate.backend) or not self._hedge.take():
            return None
        return self._hedged(walk, candidate)

    async def _hedged(self, walk: Walk, candidate: Candidate) -> Response:
        try:
            return await walk.ask(candidate)
        except GatewayError as error:
            self._breaker.failed(candidate.backend, error, is_last=False)
            walk.rivals = {**walk.rivals, candidate.backend.name: error}
            raise


def _held_back(call_next: Handler) -> Handler:
    """The same, with each answer read to its end before anything of it is passed on."""

    async def call(attempt: Request) -> Response:
        response = await call_next(attempt)
        if isinstance(response.content, Stream):
            response.content = await _whole(response.content)
        return response

    return call


async def _whole(stream: Stream) -> ListStream:
    chunks: list[Chunk] = []
    try:
        while more := await stream.read():
            chunks.extend(more)
    except BaseException:
        await stream.aclose()
        raise
    return ListStream(chunks)
