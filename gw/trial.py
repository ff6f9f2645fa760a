"""One try at a backend, from its start to its one end, and the stream that it may answer with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from gw.adapter import Codec, WireBody, WireRequest
from gw.backend import Backend
from gw.document import Chunk, Chunks, parts_of
from gw.errors import ClientGone, UpstreamProtocolError
from gw.message import Attempt
from gw.stream import Observer, Stream, is_finished

logger = logging.getLogger("gw.translate")

MALFORMED = (KeyError, IndexError, TypeError, AttributeError, ValueError)
"""What reading an answer may raise that is not what the provider's API says."""


def not_understood(backend: Backend, error: Exception) -> UpstreamProtocolError:
    """The failure of an answer that its adapter could not read; the log has the reason."""
    logger.warning("backend %s sent what its adapter does not understand", backend.name, exc_info=error)
    return UpstreamProtocolError(f'backend "{backend.name}" sent an answer that is not what its API says')


class Trial:
    """An attempt's bookkeeping: in flight from here on, until `end` is called for the first time."""

    __slots__ = ("_backend", "_clock", "attempt", "is_over", "wire")

    def __init__(self, backend: Backend, attempt: Attempt, clock: Callable[[], float]) -> None:
        self._backend = backend
        self._clock = clock
        self.attempt = attempt
        self.is_over = False
        self.wire: WireRequest | None = None  # what goes to the provider, where it goes over HTTP
        backend.health.in_flight += 1

    def has_content(self) -> None:
        """The first content is here."""
        self.attempt.first_content = self._clock()

    def end(self, error: BaseException | None) -> None:
        """It is over: well, or with what broke it. Only the first call counts."""
        if self.is_over:
            return
        self.is_over = True
        backend, attempt = self._backend, self.attempt
        backend.health.in_flight -= 1
        if backend.places is not None:
            backend.places.leave()
        attempt.ended = self._clock()
        attempt.error = error
        if error is not None and self.wire is not None:
            attempt.is_sent = self.wire.is_sent
        summary = attempt.summary
        if summary.cost_usd is None and (error is None or summary.usage is not None):
            priced = backend.cost_of(summary.usage, attempt.model)
            if priced is not None:
                summary.cost_usd, summary.cost_source = priced


class AnswerStream(Stream):
    """A provider's bytes, read through a codec: `begin` it before anything else. Its end is that of its trial.

    Reading ahead, the trial and the observers are all here, because each layer of streams costs 1.5 us an event.
    """

    __slots__ = ("_backend", "_body", "_codec", "_has_begun", "_is_read", "_observers", "_prefix", "_take", "_trial")

    _take: Callable[[Sequence[Chunk]], object]

    def __init__(self, backend: Backend, codec: Codec, body: WireBody, trial: Trial) -> None:
        self._backend = backend
        self._body = body
        self._codec = codec
        self._has_begun = False
        self._is_read = False  # to its end
        self._observers: list[Observer] = []
        self._prefix: list[bytes | Chunk] = []  # what was read ahead
        self._trial = trial

    async def begin(self) -> None:
        """Read ahead until content has arrived. Raises what breaks it before that: then it is closed."""
        while chunks := await self.read():
            parts = parts_of(chunks)
            self._prefix += parts
            if any(isinstance(part, bytes) or part.has_content() for part in parts):
                break
        self._trial.has_content()
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
            self._end(error)
            await self._body.aclose()
            raise
        if not chunks:
            self._end(None)
        return chunks

    def pass_on_to(self, take: Callable[[Sequence[Chunk]], object], is_ready: Callable[[], bool]) -> None:
        self._take = take
        if (pass_on_to := getattr(self._body, "pass_on_to", None)) is not None:
            pass_on_to(self._pass_on, is_ready)

    def _pass_on(self, data: bytes) -> bool:
        """What `read` would do, for bytes that come while it waits for some. Whether more of them are wanted."""
        chunks = self._feed(data)
        is_plain = type(chunks) is Chunks and chunks.is_plain  # nearly always, and then more is to come
        if is_plain or chunks:
            for observer in self._observers:
                observer.chunks(chunks)
            self._body.commit()
            self._take(chunks)
        return is_plain or not self._codec.is_done

    async def aclose(self) -> None:
        self._is_read = True
        self._prefix = []
        if not self._trial.is_over:
            self._end(ClientGone("the client hung up"))
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

    def _end(self, error: BaseException | None) -> None:
        if not self._trial.is_over:
            self._trial.end(error)
            for observer in self._observers:
                observer.end(error)


class TriedStream(Stream):
    """A stream that has begun, of a backend that answers by itself. Its end is that of its trial."""

    __slots__ = ("_stream", "_trial")

    def __init__(self, stream: Stream, trial: Trial) -> None:
        self._stream = stream
        self._trial = trial

    async def read(self) -> Sequence[Chunk]:
        try:
            chunks = await self._stream.read()
        except BaseException as error:
            self._trial.end(error)
            await self._stream.aclose()
            raise
        if not chunks:
            self._trial.end(None)
        return chunks

    async def aclose(self) -> None:
        self._trial.end(ClientGone("the client hung up"))
        await self._stream.aclose()
