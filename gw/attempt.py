"""The one end of a try at a backend, and the stream that it may answer with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from gw.adapter import Codec, WireBody, WireRequest
from gw.backend import IN_FLIGHT, Backend
from gw.document import Chunk, Chunks, Run, parts_of
from gw.errors import ClientGone, GatewayError, UpstreamProtocolError
from gw.message import Attempt, Exchange
from gw.stream import Observer, Outlet, Stream, is_finished, tell_end

logger = logging.getLogger("gw.translate")

MALFORMED = (KeyError, IndexError, TypeError, AttributeError, ValueError)
"""What reading an answer may raise that is not what the provider's API says."""


def not_understood(backend: Backend, error: Exception) -> UpstreamProtocolError:
    """The failure of an answer that its adapter could not read; the log has the reason."""
    logger.warning("backend %s sent what its adapter does not understand", backend.name, exc_info=error)
    return UpstreamProtocolError(f'backend "{backend.name}" sent an answer that is not what its API says')


def end_attempt(
    attempt: Attempt,
    backend: Backend,
    clock: Callable[[], float],
    error: BaseException | None,
    wire: WireRequest | None = None,
) -> None:
    """An attempt that was in flight is over: well, or with what broke it. Only the first call counts.

    `wire` is what went to the provider, where it went over HTTP.
    """
    if attempt.ended is not None:
        return
    backend.health.held[IN_FLIGHT] -= 1
    if backend.places is not None:
        backend.places.leave()
    attempt.ended, attempt.open = clock(), None
    summary = attempt.summary
    if error is not None:
        attempt.error = error
        if wire is not None:
            attempt.is_sent = wire.is_sent
        if summary.usage is None:
            return
    if summary.cost_usd is None:
        priced = backend.cost_of(summary.usage, attempt.model)
        if priced is not None:
            summary.cost_usd, summary.cost_source = priced


class AnswerStream(Stream):
    """A provider's bytes, read through a codec: `begin` it before anything else. Its end is that of its attempt.

    Reading ahead, the attempt and the observers are all here, because each layer of streams costs 1.5 us an event.
    """

    __slots__ = (
        "_attempt",
        "_backend",
        "_body",
        "_clock",
        "_codec",
        "_has_begun",
        "_is_read",
        "_observers",
        "_prefix",
        "_take",
    )

    _take: Callable[[Sequence[Chunk]], object]

    def __init__(
        self, backend: Backend, codec: Codec, body: WireBody, attempt: Attempt, clock: Callable[[], float]
    ) -> None:
        self._attempt = attempt
        self._backend = backend
        self._body = body
        self._clock = clock
        self._codec = codec
        self._has_begun = False
        self._is_read = False  # to its end
        self._observers: list[Observer] = []
        self._prefix: list[Run | Chunk] = []  # what was read ahead

    async def begin(self) -> None:
        """Read ahead until content has arrived. Raises what breaks it before that: then it is closed."""
        while chunks := await self.read():
            parts = parts_of(chunks)
            self._prefix += parts
            if any(isinstance(part, Run) or part.has_content() for part in parts):
                break
        attempt = self._attempt
        attempt.first_content = self._clock()
        if attempt.ended is None:
            attempt.open = self
        self._has_begun = True
        self._body.commit()

    async def read(self) -> Sequence[Chunk]:
        chunks: Sequence[Chunk] = ()
        if self._has_begun:
            if self._prefix:
                chunks, self._prefix = Chunks(self._prefix), []
            else:
                self._body.commit()  # `idle` counts from here on, and no keep-alive of the provider resets it
        try:
            while not chunks and not self._is_read:
                # Whoever has said its last word is not waited for, even if it keeps its connection open.
                data = b"" if self._codec.is_done else await self._body.read()
                if data:
                    chunks = self._feed(data)
                else:
                    self._is_read = True
                    chunks = self._finish()
                if self._is_read:
                    await self._body.aclose()
            if not chunks and not self._has_begun and not any(map(is_finished, Chunks(self._prefix))):
                raise UpstreamProtocolError("the provider ended its stream without an answer")
            if chunks:
                for observer in self._observers:
                    observer.chunks(chunks)
        except BaseException as error:
            self.end(error)
            await self._body.aclose()
            raise
        if not chunks:
            self.end(None)
        return chunks

    def pass_on_to(self, take: Callable[[Sequence[Chunk]], object], outlet: Outlet) -> None:
        self._take = take
        if (pass_on_to := getattr(self._body, "pass_on_to", None)) is not None:
            pass_on_to(self._pass_on, outlet)

    def _pass_on(self, data: bytes) -> bool | None:
        """What `read` would do, for bytes that come while it waits for some; whether that was content, or the last."""
        try:  # as in _feed: to call it would cost an event 2 % more
            chunks = self._codec.feed(data)
        except MALFORMED as error:
            raise not_understood(self._backend, error) from error
        is_plain = type(chunks) is Run  # nearly always, and then more is to come
        if not is_plain and not chunks:
            return False if self._codec.is_done else None
        for observer in self._observers:
            observer.chunks(chunks)
        self._take(chunks)
        return is_plain or not self._codec.is_done

    async def aclose(self) -> None:
        self._is_read = True
        self._prefix = []
        self._take = _nobody  # as in the exchange
        if self._attempt.ended is None:
            self.end(ClientGone("the client hung up"))
        await self._body.aclose()

    def observed(self, observer: Observer) -> Stream:
        self._observers.append(observer)
        return self

    def _feed(self, data: bytes) -> Sequence[Chunk]:
        try:
            return self._codec.feed(data)
        except MALFORMED as error:
            raise not_understood(self._backend, error) from error

    def _finish(self) -> Sequence[Chunk]:
        try:
            return self._codec.finish()
        except MALFORMED as error:
            raise not_understood(self._backend, error) from error

    def end(self, error: BaseException | None) -> None:
        if self._attempt.ended is None:
            end_attempt(self._attempt, self._backend, self._clock, error, self._codec.wire)
            for observer in self._observers:
                tell_end(observer, error)


def _nobody(chunks: Sequence[Chunk]) -> None:
    """Takes what is passed on when all is over."""


class TriedStream(Stream):
    """A stream that has begun, of a backend that answers by itself. Its end is that of its attempt."""

    __slots__ = ("_attempt", "_backend", "_clock", "_observers", "_stream")

    def __init__(self, stream: Stream, attempt: Attempt, backend: Backend, clock: Callable[[], float]) -> None:
        self._attempt = attempt
        self._backend = backend
        self._clock = clock
        self._observers: list[Observer] = []
        self._stream = stream
        attempt.open = self

    async def read(self) -> Sequence[Chunk]:
        try:
            chunks = await self._stream.read()
            for observer in self._observers if chunks else ():
                observer.chunks(chunks)
        except BaseException as error:
            self.end(error)
            await self._stream.aclose()
            raise
        if not chunks:
            self.end(None)
        return chunks

    async def aclose(self) -> None:
        self.end(ClientGone("the client hung up"))
        await self._stream.aclose()

    def observed(self, observer: Observer) -> Stream:
        self._observers.append(observer)
        return self

    def end(self, error: BaseException | None) -> None:
        if self._attempt.ended is None:
            end_attempt(self._attempt, self._backend, self._clock, error)
            for observer in self._observers:
                tell_end(observer, error)


async def close_open(exchange: Exchange, error: BaseException | None) -> None:
    """End and free what its attempts still answer with: some middleware neither passed it on nor closed it."""
    for attempt in exchange.attempts:
        answer, attempt.open = attempt.open, None
        if answer is not None:
            answer.end(error or GatewayError("a middleware dropped the answer"))
            try:
                await answer.aclose()
            except Exception:  # anybody's backend; the others have to be freed too
                logger.exception("an answer failed while it was closed")
