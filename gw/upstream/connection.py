"""One connection to a provider: a socket that serves one exchange at a time, and closes on bytes nobody asked for."""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Protocol, cast

from gw.burst import Burst, Gathering

if TYPE_CHECKING:
    from gw.upstream.exchange import Exchange


class Keeper(Protocol):
    """Who owns the connections: told when one is gone, and handed those that can serve again."""

    burst: Burst

    def closed(self, connection: Connection, /) -> None: ...

    def give(self, connection: Connection, keep_for: float | None, /) -> None: ...


class Connection(asyncio.Protocol):
    """A socket to one origin, with at most one exchange at a time. Bytes that nobody asked for close it."""

    __slots__ = ("_keeper", "_poll", "exchange", "idle", "idle_until", "transport")

    def __init__(self, keeper: Keeper, idle: list[Connection]) -> None:
        self.exchange: Exchange | None = None
        self.idle = idle  # where its origin's idle connections lie
        self.idle_until = 0.0  # the clock's seconds
        self._keeper = keeper
        self._poll: select.poll | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = Gathering(cast(asyncio.Transport, transport), self._keeper.burst)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None or exchange.is_whole:
            self.cut()
        else:
            exchange.receive(data)

    def eof_received(self) -> None:
        # Over TLS, uvloop calls this for TLS's own goodbye only, and asyncio's loop for every end.
        if self.exchange is not None:
            self.exchange.eof()

    def connection_lost(self, error: Exception | None) -> None:
        exchange, self.exchange = self.exchange, None
        self._keeper.closed(self)
        if exchange is not None:
            exchange.lost()

    def is_silent(self) -> bool:
        """Whether an idle connection is open and holds nothing unread, not even in the kernel.

        What lies there would be a second answer behind the first, or the provider's close on its way to us.
        """
        if self.transport.is_closing():
            return False
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not self._poll.poll(0)

    def give_back(self, keep_for: float | None) -> None:
        """The exchange is over and all was in order: another may follow, unless our own bytes are still to be sent."""
        self.exchange = None
        if self.transport.is_closing() or self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self._keeper.give(self, keep_for)

    def cut(self) -> None:
        """Close it now, whatever is under way."""
        self.transport.abort()
