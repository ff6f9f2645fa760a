"""The client's own deadline, `X-Gateway-Deadline-Ms`: split over attempts, and none is begun that cannot finish."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from gw.document import Chunk
from gw.errors import InvalidRequest, UpstreamTimeout
from gw.message import Exchange, Request
from gw.stream import Stream

HEADER = "X-Gateway-Deadline-Ms"
_DIGITS = re.compile(r"[1-9][0-9]{0,8}")

T = TypeVar("T")


class DeadlinePassed(UpstreamTimeout):
    """504: the client's deadline, not the provider's: it says nothing of the backend."""


class Deadline:
    """Until when a request must be answered. It runs from the moment at which the request's head had come."""

    __slots__ = ("_clock", "_ends", "milliseconds")

    def __init__(self, milliseconds: int, started: float, clock: Callable[[], float]) -> None:
        self.milliseconds = milliseconds
        self._clock = clock
        self._ends = started + milliseconds / 1000

    @property
    def left(self) -> float:
        """Seconds, negative when it has passed."""
        return self._ends - self._clock()

    def share(self, attempts: int, needed: float) -> float | None:
        """Seconds for the next of so many attempts, at least `needed` where that is left; None if it cannot finish."""
        left = self.left
        if left <= needed:
            return None
        return min(left, max(left / attempts, needed * 1.5))

    def missed(self, what: str) -> DeadlinePassed:
        """The failure that the client is told."""
        return DeadlinePassed(f"the deadline of {self.milliseconds} ms ({HEADER}) {what}: allow more time")

    async def within(self, seconds: float, work: Awaitable[T]) -> T:
        """The result of `work`, or DeadlinePassed where it takes longer; it is then cancelled."""
        try:
            async with asyncio.timeout(seconds) as scope:
                return await work
        except TimeoutError:
            if not scope.expired():
                raise
            raise self.missed(f"gave this attempt {seconds:.3g} s, and that was not enough") from None


def deadline_of(request: Request, clock: Callable[[], float]) -> Deadline | None:
    """The deadline that the client set, None without one. Raises InvalidRequest for what is no number."""
    text = request.headers.get(HEADER)
    if not text:
        return None
    if not _DIGITS.fullmatch(text):
        raise InvalidRequest(
            f"{HEADER} is milliseconds, a whole number of 1 to 9 digits that begins with no 0: found {text[:20]!r}",
            param=HEADER,
        )
    return Deadline(int(text), request.exchange.started, clock)


def tell_cancelled(exchange: Exchange, error: DeadlinePassed) -> None:
    """The attempt that was given up says so: nobody has hung up."""
    attempt = exchange.attempt
    if attempt is not None and isinstance(attempt.error, asyncio.CancelledError):
        attempt.error = error


class TimedStream(Stream):
    """A stream that breaks where the client's deadline passes."""

    __slots__ = ("_deadline", "_exchange", "_stream")

    def __init__(self, stream: Stream, deadline: Deadline, exchange: Exchange) -> None:
        self._stream = stream
        self._deadline = deadline
        self._exchange = exchange

    async def read(self) -> Sequence[Chunk]:
        try:
            async with asyncio.timeout(max(0.0, self._deadline.left)) as scope:
                return await self._stream.read()
        except TimeoutError:
            if not scope.expired():
                raise
            missed = self._deadline.missed("passed in the middle of the answer")
            tell_cancelled(self._exchange, missed)
            raise missed from None

    async def aclose(self) -> None:
        await self._stream.aclose()
