"""What one turn of the event loop writes goes out in a burst at its end, not in between the work on many requests.

A write wakes whoever sleeps at the other end of the socket, and that costs more than the write itself. In a burst the
one who was woken by the first is still awake for those that follow.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

LARGE = 64 * 1024  # bytes: more is not held back, and not copied to stand behind what is


class Held(Protocol):
    """What holds back what it has to send until it is told to."""

    def flush(self) -> None: ...


class Burst:
    """The transports of one event loop that have something to send. Each turn ends with the writes of all of them."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Held] = []

    def add(self, transport: Held, loop: asyncio.AbstractEventLoop) -> None:
        """Have `transport` sent when the callbacks that are ready now have run."""
        # The loop comes along, since to ask for the running one asks the system for the process's number.
        if not self._waiting:
            loop.call_soon(self._send)
        self._waiting.append(transport)

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for transport in waiting:
            transport.flush()


class Gathering(asyncio.Transport):
    """A transport that holds back what is written to it until the end of the turn, 64 KB at most.

    Whatever else is asked of it happens behind what was written before.
    """

    __slots__ = ("_burst", "_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, burst: Burst) -> None:
        self._burst = burst
        self._held = b""
        self._loop = asyncio.get_running_loop()
        self._transport = transport

    def write(self, data: bytes | bytearray | memoryview, behind: bytes = b"") -> None:
        """Send `data`, and `behind` after it."""
        held = self._held
        if len(held) + len(data) + len(behind) > LARGE:
            self.flush()
            self._transport.write(data)
            if behind:
                self._transport.write(behind)
        else:
            self._held = held + data + behind
            if not held:
                self._burst.add(self, self._loop)

    def write_at_once(self, data: bytes) -> None:
        """Write without waiting for the end of the turn, unless something waits for it already."""
        if self._held:
            self.write(data)
        elif not self._transport.is_closing():
            self._transport.write(data)

    def flush(self) -> None:
        """Send what was held back, unless the connection is gone."""
        held = self._held
        if held:
            self._held = b""
            if not self._transport.is_closing():
                self._transport.write(held)

    def write_eof(self) -> None:
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        self.flush()
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        """Bytes that the system has not taken yet."""
        self.flush()
        return self._transport.get_write_buffer_size()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def can_write_eof(self) -> bool:
        return self._transport.can_write_eof()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()
