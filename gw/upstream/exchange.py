"""One request to a provider and its answer: bytes out, a head and a body back, and exactly one end.

The state belongs to the exchange. Its connection is given back only once the whole answer has arrived, nothing trails
and the reader is done with it; in every other case it is cut, at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from functools import partial

from gw.adapter import WholeBody, WireRequest, WireResponse
from gw.errors import UpstreamConnectionError, UpstreamError, UpstreamProtocolError
from gw.message import Headers
from gw.stream import Outlet
from gw.upstream.body import Framing, Inflate, framing
from gw.upstream.connection import Connection
from gw.upstream.failures import silence
from gw.upstream.head import Head, HeadReader, Malformed, match_head

HIGH_WATER = 16 * 1024  # bytes that wait for the reader; above, the provider is paused


class Exchange:
    """One request and its answer; the WireBody of an answer that is not whole when it is given."""

    __slots__ = (
        "_authority",
        "_body",
        "_clock",
        "_connection",
        "_error",
        "_head",
        "_idle",
        "_inflate",
        "_is_committed",
        "_is_paused",
        "_left",
        "_once_heard",
        "_outlet",
        "_pieces",
        "_reader",
        "_take",
        "_unread",
        "_waiter",
        "_wire",
        "deadline",
        "is_whole",
    )

    def __init__(
        self,
        connection: Connection,
        wire: WireRequest,
        authority: str,
        clock: Callable[[], float],
        deadline: float,
        limit: int,
    ) -> None:
        self.deadline = deadline  # the clock's seconds; it counts while somebody waits
        self.is_whole = False  # the whole answer has arrived
        self._authority = authority
        self._clock = clock
        self._connection: Connection | None = connection
        self._error: UpstreamError | None = None
        self._head: Head | None = None
        self._inflate: Inflate | None = None
        self._is_committed = False
        self._is_paused = False
        self._left = limit  # bytes that the body of a whole answer may still have
        self._once_heard: float | None = None  # the deadline from the first byte on, where that is another one
        self._pieces: list[bytes] = []
        self._reader: HeadReader | None = None  # where the head is not canonical or comes in pieces
        self._take: Callable[[bytes], bool | None] | None = None  # what comes goes there while the reader waits
        self._unread = 0  # bytes in _pieces
        self._waiter: asyncio.Future[bool] | None = None
        self._wire = wire
        connection.exchange = self

    # --- for whoever asked --------------------------------------------------------------------------------------

    def hear_until(self, moment: float) -> None:
        """The first byte of the answer has to come by then; once it has, the usual deadline counts."""
        if moment < self.deadline:
            self._once_heard, self.deadline = self.deadline, moment

    def answer(self) -> WireResponse:
        """What has been waited for. One that is whole gives the connection back at once. Raises UpstreamError."""
        head = self._head
        if head is None:
            assert self._error is not None
            raise self._error
        headers = head.headers
        if self._inflate is not None:  # undone here: nobody else shall undo it again
            done = (b"content-encoding", b"content-length")
            headers = Headers(pair for pair in headers.pairs if pair[0] not in done)
        if not self.is_whole:
            return WireResponse(head.status, headers, self)
        self._release()
        return WireResponse(head.status, headers, WholeBody(b"".join(self._pieces), self._wire.backend))

    @property
    def has_begun(self) -> bool:
        """Whether any byte of an answer came."""
        return self._head is not None or self._reader is not None

    async def read(self) -> bytes:
        """What has arrived, at least one byte; b"" is the complete end. Raises UpstreamError where it broke."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self.is_whole:
                self._release()
                return b""
            if await self.wait():
                return b""
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._unread = 0
        if self._is_paused:
            self._resume()
        return data

    def pass_on_to(self, take: Callable[[bytes], bool | None], outlet: Outlet) -> None:
        """Let what comes while somebody waits in `read` go to `take` while `outlet` takes more, and not wake him.

        `take` returns True where it was content (see `commit`), None where it was not, and False where it wants no
        more: then `read` returns b"" as at the end. What it raises, `read` raises.
        """
        run: Callable[..., bool | None] = copy_context().run  # its reader's context, as if he had been woken
        self._take = partial(run, take)
        self._outlet = outlet
        self._idle = self._wire.timeouts.idle

    def commit(self) -> None:
        """Content of a stream has been seen: the next has to come within `idle`."""
        if self._wire.stream:
            self._is_committed = True
            self.deadline = self._clock() + self._wire.timeouts.idle

    async def aclose(self) -> None:
        """Free the connection: kept if the whole answer has arrived and nothing trails, else cut. Never raises."""
        self._take = None  # it holds its reader, who holds this: only the collector would free them
        if self._pieces or not self.is_whole:
            self._pieces.clear()
            self._fail(
                UpstreamConnectionError(f'the answer of backend "{self._wire.backend}" was closed by its reader')
            )
        self._release()

    async def wait(self) -> bool:
        """Wait for the head or for more; where a whole answer was asked for, for all that comes without being read.

        True where whoever takes what comes wants no more of it. Raises what he raises.
        """
        if self._waiter is not None:
            raise RuntimeError("an answer has one reader: await one read() at a time")
        assert self._connection is not None, "nothing comes any more"
        self._waiter = self._connection.loop.create_future()
        try:
            return await self._waiter
        except Exception:
            raise
        except BaseException:  # cancelled
            self._fail(UpstreamConnectionError(f'the answer of backend "{self._wire.backend}" was given up'))
            self._cut()  # even if the end has come just now: nobody is left to give the connection back
            raise
        finally:
            self._waiter = None

    def _release(self) -> None:
        connection = self._connection
        if connection is not None:
            if self._is_paused:
                self._resume()
            self._connection = connection.exchange = None
            connection.keeper.give(connection, self._head.keep_for if self._head is not None else None)

    def _resume(self) -> None:
        connection = self._connection
        if connection is not None and not connection.transport.is_closing():
            connection.transport.resume_reading()
        self._is_paused = False

    # --- for the connection and the clock -----------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Bytes of the answer have come."""
        try:
            if self._head is None:
                rest = self._receive_head(data)
                if rest is None:
                    return
                data = rest
            body = self._body
            data = body.feed(data)
            if self._inflate is not None:
                data = self._inflate.feed(data)
            if data:
                take, waiter = self._take, self._waiter
                if take is None or waiter is None or self._outlet.writable is not None or waiter.done():
                    self._keep(data)
                else:
                    try:
                        more = take(data)
                        if more:
                            self.deadline = self._clock() + self._idle
                        elif more is False:
                            waiter.set_result(True)
                    except Exception as error:
                        waiter.set_exception(error)
                        waiter.exception()  # a reader who is cancelled in this moment never asks for it
            if body.is_whole:
                self._end()
                self._wake()
        except Malformed as problem:
            self._fail(self._malformed(problem))

    def _receive_head(self, data: bytes) -> bytes | None:
        """What follows the head; None where that is not whole, or where the body is, too."""
        if self._once_heard is not None:
            self.deadline = self._once_heard
            self._once_heard = None
        reader = self._reader
        if reader is None:
            method = self._wire.method
            head = match_head(data) if method != "HEAD" else None
            if head is not None:
                rest = head.rest
                if head.length == len(rest) <= self._left:
                    # Most whole answers come in one read: no decoder is needed for them.
                    self._head = head
                    if rest:
                        self._pieces.append(rest)
                    self.is_whole = True
                    self._wake()
                    return None
                self._begin(head)
                head.rest = b""  # it may be large, and the head stays
                return rest
            reader = self._reader = HeadReader(method)
        head = reader.feed(data)
        if head is None:
            return None
        self._begin(head)
        rest, reader.rest = reader.rest, b""
        return rest

    def _begin(self, head: Head) -> None:
        if head.length > self._left and not self._wire.stream:
            raise Malformed(f"its answer of {head.length} bytes is over the limit")
        if head.encoding and head.encoding != b"identity":
            self._inflate = Inflate(head.encoding, self._left)
        self._body: Framing = framing(head.length)
        self._head = head
        if self._wire.stream:
            self._wake()

    def _keep(self, data: bytes) -> None:
        """Have it ready for the reader, who waits for all of an answer that is no stream, or is not ready for more."""
        self._pieces.append(data)
        self._unread += len(data)
        if not self._wire.stream:
            self._left -= len(data)
            if self._left < 0:
                raise Malformed("its answer is over the limit")
        connection = self._connection
        if self._unread > HIGH_WATER and not self._is_paused and not self._body.is_whole and connection is not None:
            self._is_paused = True
            connection.transport.pause_reading()
        if self._wire.stream or self._is_paused:
            self._wake()

    def _end(self) -> None:
        if self._inflate is not None:
            self._inflate.finish()
        self.is_whole = True
        if self._body.has_surplus or (self._head is not None and not self._head.is_reusable):
            self._cut()

    def eof(self) -> None:
        """The provider has closed the connection in due form."""
        if self.is_whole:
            return
        if self._head is None or not self._body.eof():
            self.lost()
            return
        try:
            self._end()
        except Malformed as problem:
            self._fail(self._malformed(problem))
        self._wake()

    def lost(self) -> None:
        """The connection is gone."""
        if not self.is_whole:
            when = "in the middle of its answer" if self.has_begun else "before it answered"
            self._fail(UpstreamConnectionError(f"{self._who} closed the connection {when}"))

    def expire(self) -> None:
        """The deadline has passed."""
        waiter = self._waiter
        if waiter is None or self.is_whole:
            return
        if waiter.done() and self._is_committed:  # it has come just now, and nobody has seen it yet
            return
        self._fail(silence(self._wire, is_committed=self._is_committed, is_heard=self._once_heard is None))

    def close(self) -> None:
        """The transport is being closed."""
        if not self.is_whole:
            self._fail(UpstreamConnectionError(f'the transport to backend "{self._wire.backend}" was closed'))

    @property
    def _who(self) -> str:
        return f'backend "{self._wire.backend}": {self._authority}'

    def _malformed(self, problem: Malformed) -> UpstreamProtocolError:
        return UpstreamProtocolError(f"{self._who} broke off: {problem}")

    def _fail(self, error: UpstreamError) -> None:
        """It ends here, unless it has ended already; whoever waits is told."""
        if self._error is None:
            self._error = error
        if not self.is_whole:
            self._cut()
        self._wake()

    def _cut(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.exchange = None
            connection.cut()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(False)
