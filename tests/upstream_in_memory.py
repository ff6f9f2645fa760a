"""An exchange with a provider whose socket and whose keeper of connections are in memory."""

from __future__ import annotations

import asyncio
import time

from gw.burst import Burst
from gw.upstream.connection import READ, Connection
from gw.upstream.exchange import Exchange
from tests.scripted_provider import Provider, wire


class Socket(asyncio.Transport):
    """A transport in memory: what it did, and what has arrived and was not read."""

    def __init__(self) -> None:
        super().__init__()
        self.did: list[str] = []
        self.unread = b""
        self._is_paused = False
        self._connection: Connection

    def connect(self, connection: Connection) -> None:
        self._connection = connection
        connection.connection_made(self)

    def arrive(self, data: bytes, *, anyway: bool = False) -> None:
        """Have it read, unless nobody reads; `anyway` as TLS does it, paused or not, with what is decrypted already."""
        self.unread += data
        while self.unread and (anyway or not self._is_paused):
            buffer = self._connection.get_buffer(256 * 1024)
            size = min(len(buffer), len(self.unread))
            buffer[:size], self.unread = self.unread[:size], self.unread[size:]
            self._connection.buffer_updated(size)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.did.append("write")

    def pause_reading(self) -> None:
        self.did.append("pause")
        self._is_paused = True

    def resume_reading(self) -> None:
        self.did.append("resume")
        self._is_paused = False
        asyncio.get_running_loop().call_soon(self.arrive, b"")

    def abort(self) -> None:
        self.did.append("abort")

    def is_closing(self) -> bool:
        return "abort" in self.did

    def get_write_buffer_size(self) -> int:
        return 0


class Shelf:
    """A keeper of connections that takes whatever it is given."""

    def __init__(self) -> None:
        self.burst = Burst()
        self.memory = memoryview(bytearray(READ))
        self.given: list[Connection] = []

    def closed(self, connection: Connection) -> None: ...

    def give(self, connection: Connection, keep_for: float | None) -> None:
        self.given.append(connection)


def exchange_in_memory(*, stream: bool = False) -> tuple[Exchange, Connection, Socket, Shelf]:
    shelf, socket, nobody = Shelf(), Socket(), Provider()
    nobody.port = 1
    connection = Connection(shelf, [])
    socket.connect(connection)
    exchange = Exchange(connection, wire(nobody, stream=stream), "a", time.monotonic, 0.0, 100_000)
    connection.send(b"a request", b"")
    connection.flush()
    return exchange, connection, socket, shelf
