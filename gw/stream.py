"""Answers that arrive piece by piece: pulled, observed, and always ended exactly once.

A stream is a class with `aclose`, never a bare async generator that owns a resource: closing a generator that has not
started runs none of its `finally` blocks, and the provider's connection would leak.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from gw.document import Chunk
from gw.errors import ClientGone, GatewayError, UpstreamProtocolError

logger = logging.getLogger("gw.stream")


class Stream:
    """Chunks of one answer, pulled. It ends in exactly one of {complete, error}, and its holder closes it.

    A subclass has `read` and `aclose`. No ABC: every layer asks what an answer is, and `isinstance` would cost 0.4 us.
    """

    __slots__ = ()

    async def read(self) -> Sequence[Chunk]:
        """Everything that has arrived, at least one chunk; an empty sequence is the complete end.

        Raises GatewayError where the stream broke: what came before stands, and no end was seen.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `async def read`")

    async def aclose(self) -> None:
        """Give up what is left and free the provider's connection. May be called twice; never raises."""
        raise NotImplementedError(f"{type(self).__name__} has no `async def aclose`")

    def pass_on_to(self, take: Callable[[Sequence[Chunk]], object], outlet: Outlet) -> None:
        """Let what comes while somebody waits in `read` go to `take` while `outlet` takes more, and not wake him.

        Only a stream that can does so. The end, and what breaks it, come from `read` as ever.
        """

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        while chunks := await self.read():
            for chunk in chunks:
                yield chunk

    def map(self, change: Callable[[Chunk], Chunk | None]) -> Stream:
        """The same stream with each chunk passed through `change`; None drops it."""
        return _Mapped(self, change)

    def observed(self, observer: Observer) -> Stream:
        """The same stream, with `observer` told of each piece and of its one end."""
        return _Observed(self, observer)


class Outlet(Protocol):
    """Where a stream goes out in the end: it takes more while `writable` is None."""

    @property
    def writable(self) -> object | None: ...


class ByteStream(Protocol):
    """Bytes of one answer, pulled: what the server writes. Its holder closes it.

    Where it has a `pass_on_to` like `Stream`'s, the server tells it where to write.
    """

    async def read(self) -> bytes:
        """What is there to be written now, at least one byte; b"" is the complete end.

        An exception means that the end must not look complete: the server breaks the connection.
        """

    async def aclose(self) -> None:
        """Give up what is left. May be called twice; never raises."""


class Observer(Protocol):
    """Somebody who watches a stream: log, metrics, cost, cache."""

    def chunks(self, chunks: Sequence[Chunk], /) -> None:
        """Some chunks are about to be passed on. Read them by `peek` or `raw`."""

    def end(self, error: BaseException | None, /) -> None:
        """The one end: None for complete, ClientGone where the reader left, else what broke it."""


def tell_end(observer: Observer, error: BaseException | None) -> None:
    """Tell it of the end. What it raises is logged: anybody's observer must not keep a stream from being closed."""
    try:
        observer.end(error)
    except Exception:
        logger.exception("an observer failed at the end of a stream")


class ListStream(Stream):
    """A stream of chunks that are already there, and then, if given, the error that ends it."""

    __slots__ = ("_chunks", "_error")

    def __init__(self, chunks: Sequence[Chunk], error: GatewayError | None = None) -> None:
        self._chunks: Sequence[Chunk] = chunks
        self._error = error

    async def read(self) -> Sequence[Chunk]:
        chunks, self._chunks = self._chunks, ()
        if not chunks and self._error is not None:
            raise self._error
        return chunks

    async def aclose(self) -> None:
        self._chunks, self._error = (), None


class IteratorStream(Stream):
    """A stream over anybody's async iterator, such as a custom backend's generator."""

    __slots__ = ("_iterator",)

    def __init__(self, iterator: AsyncIterator[Chunk]) -> None:
        self._iterator = iterator

    async def read(self) -> Sequence[Chunk]:
        try:
            return (await anext(self._iterator),)
        except StopAsyncIteration:
            return ()

    async def aclose(self) -> None:
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()


class _Mapped(Stream):
    __slots__ = ("_change", "_stream")

    def __init__(self, stream: Stream, change: Callable[[Chunk], Chunk | None]) -> None:
        self._stream = stream
        self._change = change

    async def read(self) -> Sequence[Chunk]:
        while chunks := await self._stream.read():
            changed = [new for chunk in chunks if (new := self._change(chunk)) is not None]
            for new in changed:
                if not isinstance(new, Chunk):
                    found = type(new).__name__
                    raise TypeError(f"the function of `map` gave {found}: let it return a Chunk, or None to drop it")
            if changed:
                return changed
        return ()

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Observed(Stream):
    __slots__ = ("_ended", "_observer", "_stream")

    def __init__(self, stream: Stream, observer: Observer) -> None:
        self._stream = stream
        self._observer = observer
        self._ended = False

    async def read(self) -> Sequence[Chunk]:
        try:
            chunks = await self._stream.read()
        except BaseException as error:
            self._end(error)
            raise
        if chunks:
            self._observer.chunks(chunks)
        else:
            self._end(None)
        return chunks

    async def aclose(self) -> None:
        self._end(ClientGone("the client hung up"))
        await self._stream.aclose()

    def _end(self, error: BaseException | None) -> None:
        if not self._ended:
            self._ended = True
            tell_end(self._observer, error)


class _Begun(Stream):
    __slots__ = ("_prefix", "_stream")

    def __init__(self, prefix: Sequence[Chunk], stream: Stream) -> None:
        self._prefix = prefix
        self._stream = stream

    async def read(self) -> Sequence[Chunk]:
        if self._prefix:
            prefix, self._prefix = self._prefix, ()
            return prefix
        return await self._stream.read()

    async def aclose(self) -> None:
        self._prefix = ()
        await self._stream.aclose()


async def begun(stream: Stream) -> Stream:
    """Read ahead until content has arrived: the commit point, and the only place that knows it.

    Returns a stream that has begun, so that whoever retries or falls back needs no stream code. A stream that fails
    before its first content raises here and is closed; so does one that ends without anything that a client could
    use: neither content nor a finish reason.
    """
    prefix: list[Chunk] = []
    try:
        while True:
            chunks = await stream.read()
            if not chunks:
                if any(is_finished(chunk) for chunk in prefix):
                    return ListStream(prefix)
                raise UpstreamProtocolError("the provider ended its stream without an answer")
            prefix.extend(chunks)
            if any(chunk.has_content() for chunk in chunks):
                return _Begun(prefix, stream)
    except BaseException:
        await stream.aclose()
        raise


def is_finished(chunk: Chunk) -> bool:
    """Whether it has a finish reason."""
    return any(choice.get("finish_reason") for choice in chunk.peek().get("choices") or ())
