"""One client's socket: when it may send, how fast it must read, how long it may take, and how it ends."""

from __future__ import annotations

import asyncio
import socket
import struct
from math import inf
from typing import Literal, cast

from gw.burst import Gathering
from gw.server.response import CONTINUE
from gw.server.state import State

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: the close is a reset

Waiting = Literal["", "idle", "head", "body", "write", "linger"]  # what the deadline is for
Stage = Literal["none", "stream", "over"]  # how far the answer to the request in hand has come


class Wire(asyncio.Protocol):
    """The part of a connection that knows no requests. `deadline` is the loop time at which its time is up."""

    __slots__ = (
        "_discarded",
        "_is_paused",
        "_loop",
        "_state",
        "_transport",
        "_waiting",
        "address",
        "deadline",
        "has_ended",
        "is_closing",
        "is_lost",
        "is_old",
        "stage",
        "writable",
    )

    _loop: asyncio.AbstractEventLoop
    _transport: Gathering

    def __init__(self, state: State) -> None:
        self._state = state
        self.address = ""
        self.deadline = inf
        self._waiting: Waiting = ""
        self._is_paused = False
        self._discarded = 0
        self.has_ended = False  # the client will send no more
        self.is_closing = False  # the last answer is out: what comes now is thrown away
        self.is_lost = False
        self.is_old = False  # HTTP/1.0: no chunks, no interim answers
        self.stage: Stage = "none"
        self.writable: asyncio.Future[None] | None = None  # exists while the client does not read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._loop = asyncio.get_running_loop()
        transport = cast(asyncio.Transport, transport)
        # What the system does not take at once is enough for a client that reads slowly. With 0 TLS would always pause.
        transport.set_write_buffer_limits(1)
        self._transport = Gathering(transport, self._state.burst)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else ""

    # --- reading ------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Take no more bytes from the client."""
        if not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Take bytes again."""
        if self._is_paused and not self.has_ended:
            self._is_paused = False
            self._transport.resume_reading()

    def discard(self, size: int) -> None:
        """Throw away what comes behind the last answer, up to a limit."""
        self._discarded += size
        if self._discarded > self._state.limits.linger_bytes:
            self.close()

    # --- writing ------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Write `data`, unless the client is gone."""
        if not self.is_lost:
            self._transport.write(data)

    def send_continue(self) -> None:
        """Tell the client that its body is wanted."""
        if self.stage == "none":
            self.send(CONTINUE)

    def stimulate(self) -> None:
        """Send bytes that change nothing: a client that is gone answers them with a reset.

        Before the answer that is an interim one (RFC 9110 15.2), within a stream a leading zero of the next chunk's
        size (RFC 9112 7.1).
        """
        if self.is_old or self.writable is not None:
            return
        if self.stage == "none":
            self.send(CONTINUE)
        elif self.stage == "stream":
            self.send(b"0")

    def pause_writing(self) -> None:
        self.writable = self._loop.create_future()
        self.wait("write", self._write_allowance())

    def resume_writing(self) -> None:
        if self.writable is not None and not self.writable.done():
            self.writable.set_result(None)
        self.writable = None
        if self._waiting == "write" and not self.is_closing:
            self.stop_waiting()

    def _write_allowance(self) -> float:
        limits = self._state.limits
        return limits.write_timeout + self._transport.get_write_buffer_size() / limits.min_rate

    # --- the clock ----------------------------------------------------------------------------------------------

    def wait(self, waiting: Waiting, seconds: float) -> None:
        """Begin a deadline; there is one at a time."""
        self._waiting = waiting
        self.deadline = self._loop.time() + seconds

    def wait_for_body(self, seconds: float) -> None:
        """Begin the deadline of the body."""
        self.wait("body", seconds)

    def stop_waiting(self) -> None:
        """No deadline until the next wait."""
        self._waiting = ""
        self.deadline = inf

    # --- the end ------------------------------------------------------------------------------------------------

    def linger(self) -> None:
        """Let the client read the last answer: closing while it still sends would reset it away (RFC 9112 9.6)."""
        self.is_closing = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self.resume()
        seconds = self._state.limits.linger_timeout
        if self._transport.get_write_buffer_size():
            seconds += self._write_allowance()
        self.wait("linger", seconds)

    def close(self) -> None:
        """Close when everything is sent; a client that does not take it is cut off."""
        self.is_closing = True
        if not self.is_lost and not self._transport.is_closing():
            self._transport.close()
            if self._transport.get_write_buffer_size():
                self.wait("write", self._write_allowance())
            else:
                self.stop_waiting()

    def abort(self) -> None:
        """Break the connection: what was not sent is lost, and the client sees it."""
        if not self.is_lost:
            endpoint = self._transport.get_extra_info("socket")
            if endpoint is not None:
                endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()
