"""The body of a request: there already, or read when the handler asks for it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from gw.errors import GatewayError, InvalidRequest
from gw.server.head import malformed
from gw.server.limits import Limits

HELD = 64 * 1024  # what may wait unread before the client is paused
SLICE = 4 * 1024  # chunked bytes decoded at one go: at the worst 680 chunks of one byte


class WholeBody:
    """A body that came together with its head: `whole` is all of it, for who would not wait for nothing."""

    __slots__ = ("whole",)

    def __init__(self, data: bytes) -> None:
        self.whole = data

    async def read(self) -> bytes:
        """The whole body, at once."""
        return self.whole


NO_BODY = WholeBody(b"")


class Source(Protocol):
    """What a body needs of its connection."""

    def pause(self) -> None:
        """Take no more bytes from the client."""

    def resume(self) -> None:
        """Take bytes again."""

    def send_continue(self) -> None:
        """Tell the client that its body is wanted."""

    def wait_for_body(self, seconds: float) -> None:
        """Call `fail` on the body when so much time has gone by."""

    def stop_waiting(self) -> None:
        """The body has gone on: no deadline until the next wait."""

    def body_ended(self, surplus: bytes) -> None:
        """The body is complete; `surplus` belongs to the next request."""


class Framing(Protocol):
    """Finds the end of a body."""

    @property
    def done(self) -> bool:
        """Whether the end was seen."""

    @property
    def keep_alive(self) -> bool:
        """Whether another request may follow; known when `done`."""

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits to be asked for the body."""

    @property
    def step(self) -> int:
        """How many bytes may be fed at one go without holding up everybody else; 0: any number."""

    def feed(self, data: bytes, pieces: list[bytes]) -> bytes:
        """Append what belongs to the body to `pieces`; give back what comes after it. Raises InvalidRequest."""


class Counted:
    """A body with a Content-Length whose head was plain."""

    __slots__ = ("_left",)
    keep_alive = True
    expects_continue = False
    step = 0

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def done(self) -> bool:
        return self._left == 0

    def feed(self, data: bytes, pieces: list[bytes]) -> bytes:
        surplus = data[self._left :]
        if surplus:
            data = data[: self._left]
        self._left -= len(data)
        pieces.append(data)
        return surplus


class IncomingBody:
    """A body that is still on its way. It is decoded when the handler reads it; until then at most 64 KB wait."""

    __slots__ = ("_error", "_framing", "_held", "_limits", "_pieces", "_received", "_source", "_waiter", "_wire")

    def __init__(self, source: Source, framing: Framing, limits: Limits) -> None:
        self._source = source
        self._framing = framing
        self._limits = limits
        self._wire: deque[bytes] = deque()  # not decoded
        self._held = 0
        self._received = 0
        self._pieces: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._error: GatewayError | None = None

    @property
    def is_complete(self) -> bool:
        return self._framing.done

    @property
    def keep_alive(self) -> bool:
        """Whether another request may follow this one, as far as its body has been read."""
        return self._framing.done and self._framing.keep_alive

    async def read(self) -> bytes:
        """The whole body. Raises InvalidRequest: 400 for bad framing, 408 too slow, 413 too large."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        if self._framing.expects_continue and not self._received and self._error is None:
            self._source.send_continue()
        while not self._framing.done:
            if self._wire:
                self._decode()
                if self._wire:
                    await asyncio.sleep(0)  # the others' turn
                continue
            if self._error is not None:
                raise self._error
            allowed = self._limits.body_timeout + self._received / self._limits.min_rate
            self._source.wait_for_body(started + allowed - loop.time())
            self._source.resume()
            self._waiter = loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
                self._source.stop_waiting()
        if len(self._pieces) != 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0]

    def arrived(self, data: bytes) -> None:
        """Take what the client sent."""
        step = self._framing.step or len(data)
        self._wire.extend(data[start : start + step] for start in range(0, len(data), step))
        self._held += len(data)
        self._received += len(data)
        if self._held > HELD:
            self._source.pause()
        self._wake()

    def settle(self) -> None:
        """Decode what is here if that takes no time worth speaking of: a body need not be read to be over.

        Raises InvalidRequest where its framing is wrong.
        """
        if self._error is None and (not self._framing.step or self._held <= SLICE):
            if not self._wire and not self._framing.done:
                self._wire.append(b"")  # h11 finds the end of an empty body when it is asked
            while self._wire and not self._framing.done:
                self._decode()

    def fail(self, error: GatewayError) -> None:
        """The rest will not come; what came is read first."""
        if not self._framing.done and self._error is None:
            self._error = error
            self._wake()

    def cut_short(self) -> None:
        """The client ended its sending."""
        self.fail(malformed("the body ends before it is complete"))

    def expire(self) -> None:
        """The client took too long."""
        limits = self._limits
        self.fail(
            InvalidRequest(
                f"the body did not come within {limits.body_timeout:g} s and 1 s for each {limits.min_rate} bytes",
                status=408,
                code="request_timeout",
            )
        )

    def _decode(self) -> None:
        data = self._wire.popleft()
        self._held -= len(data)
        try:
            surplus = self._framing.feed(data, self._pieces)
        except GatewayError as error:
            self._error = error
            self._wire.clear()
            raise
        if self._framing.done:
            surplus += b"".join(self._wire)
            self._wire.clear()
            self._source.body_ended(surplus)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
