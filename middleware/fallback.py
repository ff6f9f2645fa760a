"""When a backend fails before its first content, the next one answers, and the failing one is left alone for a while.

What may be tried again, and where, is decided by the fault (`gw.errors`), never by the text. A request that the
provider refused is the client's to mend and goes nowhere else.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from gw.backend import Backend, Backends
from gw.document import Chunk, Document
from gw.errors import ClientGone, GatewayError, RateLimited, Unavailable, can_fall_back, can_retry
from gw.message import Candidate, Request, Response
from gw.pipeline import Handler
from gw.stream import ListStream, Stream

MAX_COOLDOWN = 3600.0  # a provider that says "come back tomorrow" is asked again after an hour


@dataclass(slots=True, frozen=True)
class Breaker:
    """After `failures` in a row a backend is left alone for `cooldown` seconds."""

    failures: int = 5
    cooldown: float = 30.0


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
        breaker: Breaker | None = None,
        commit: Literal["first_content", "complete"] = "first_content",
        after_content: Literal["error"] = "error",
        explicit_fallback: bool = False,
        drop_tools: bool = False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if retries < 0:
            raise ValueError(f"retries is the number of further tries, 0 or more; found {retries}")
        backends.chain = tuple(chain or ())
        backends.explicit_fallback = explicit_fallback
        backends.drop_tools = drop_tools
        self._retries = retries
        self._backoff = backoff
        self._retry_after_max = retry_after_max
        self._breaker = breaker or Breaker()
        self._commit = commit
        self._sleep = sleep

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        candidates = request.candidates
        # Layers below may change the body in place; every try begins with what came in here.
        raw = request.document.raw if request.document is not None else b""
        failures: list[GatewayError] = []
        for position, candidate in enumerate(candidates):
            others = [other for other in candidates[position + 1 :] if not other.backend.is_cooling]
            if candidate.backend.is_cooling:
                failures.append(_cooling(candidate.backend))
                continue
            for retry in range(self._retries + 1):
                attempt = request.replace(candidates=(candidate,))
                if request.exchange.attempts:
                    attempt.document = Document(raw)
                try:
                    response = await self._try(attempt, call_next)
                except GatewayError as error:
                    self._note(candidate.backend, error)
                    if not can_fall_back(error):
                        raise
                    failures.append(error)
                    pause = self._pause(error, retry, has_other=bool(others))
                    if pause is None:
                        break
                    await self._sleep(pause)
                else:
                    return self._answered(request, response, candidate, position)
        raise _verdict(failures, candidates)

    async def _try(self, request: Request, call_next: Handler) -> Response:
        response = await call_next(request)
        if self._commit == "complete" and isinstance(response.content, Stream):
            response.content = await _whole(response.content)
        return response

    def _answered(self, request: Request, response: Response, candidate: Candidate, position: int) -> Response:
        health = candidate.backend.health
        health.failures = 0
        exchange = request.exchange
        if position:
            exchange.degraded = True
        response.headers["X-Gateway-Backend"] = candidate.backend.name
        response.headers["X-Gateway-Degraded"] = "true" if exchange.degraded else "false"
        response.headers["X-Gateway-Attempts"] = str(len(exchange.attempts))
        return response

    def _pause(self, error: GatewayError, retry: int, *, has_other: bool) -> float | None:
        """Seconds until the same backend is tried again; None to go on to the next."""
        if retry >= self._retries or not can_retry(error):
            return None
        if error.fault in ("rate_limit", "timeout"):
            # Waiting is for those who have nobody else to ask.
            if has_other:
                return None
            if error.retry_after is not None:
                return error.retry_after if error.retry_after <= self._retry_after_max else None
        # Full jitter on the upper half: retries of many clients must not come in step.
        return float(self._backoff * 2**retry * (0.5 + random.random() / 2))  # noqa: S311

    def _note(self, backend: Backend, error: GatewayError) -> None:
        """What this failure teaches about the backend."""
        if (
            isinstance(error, ClientGone)
            or not can_fall_back(error)
            or error.fault in ("context_length", "unavailable")
        ):
            return
        health = backend.health
        health.failures += 1
        if error.fault == "rate_limit" and error.retry_after is not None:
            backend.cool(min(error.retry_after, MAX_COOLDOWN), error.message)
        elif error.fault in ("dead_key", "quota") or health.failures >= self._breaker.failures:
            backend.cool(self._breaker.cooldown, error.message)


def _cooling(backend: Backend) -> Unavailable:
    return Unavailable(
        f'No backends currently available: "{backend.name}" is cooling down ({backend.cooling_reason})',
        retry_after=math.ceil(backend.cooling_for),
    )


def _verdict(failures: Sequence[GatewayError], candidates: Sequence[Candidate]) -> GatewayError:
    """The one error that the client gets when nobody answered."""
    limited = [failure for failure in failures if failure.fault in ("rate_limit", "quota")]
    if limited and len(limited) == len(failures):
        waits = [failure.retry_after for failure in limited if failure.retry_after is not None]
        if len(candidates) == 1:
            return limited[-1]
        return RateLimited(
            f"every backend is rate-limited by its provider; the last said: {limited[-1].message}",
            retry_after=min(waits, default=None),
        )
    told = [failure for failure in failures if not isinstance(failure, Unavailable)]
    return (told or list(failures))[-1]


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
