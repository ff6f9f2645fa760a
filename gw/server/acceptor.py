"""Takes new connections from a listening socket: many at a time, so that a busy gateway keeps nobody at the door.

uvloop's own server takes one connection in each turn of its loop. Where a turn answers a hundred requests, the
hundredth new client would wait for seconds.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl as tls

logger = logging.getLogger("gw.server")

BACKLOG = 2048
BURST = 64  # connections in one turn of the loop: about 3 ms
PAUSE = 1.0  # seconds without taking any, where the process or the system has no room for more
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# What the kernel may hold of an answer that it has not sent, for each connection (they inherit it from the listener).
# Without it a client that does not read makes Linux grow the buffer to 4 MB. macOS has the option, too.
_UNSENT = 32 * 1024
_NOTSENT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)


class Acceptor:
    """Listens on a bound socket, which is its own from here on, until `close`."""

    def __init__(
        self,
        listening: socket.socket,
        connect: Callable[[], asyncio.Protocol],
        *,
        ssl: tls.SSLContext | None,
        handshake: float,
        shutdown: float,
        pause: float = PAUSE,
    ) -> None:
        """`connect` makes the protocol of a connection; `handshake` and `shutdown` are TLS's, in seconds."""
        self._pause = pause
        self._connect = connect
        self._handshake = handshake if ssl is not None else None
        self._shutdown = shutdown if ssl is not None else None
        self._ssl = ssl
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._paused: asyncio.TimerHandle | None = None
        self._socket = listening
        listening.setblocking(False)
        if _NOTSENT is not None:
            listening.setsockopt(socket.IPPROTO_TCP, _NOTSENT, _UNSENT)
        listening.listen(BACKLOG)
        self._loop.add_reader(listening.fileno(), self._accept)

    def close(self) -> None:
        """Take no more; what was taken goes on."""
        if self._paused is not None:
            self._paused.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _accept(self) -> None:
        for _ in range(BURST):
            try:
                client, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue  # the client left while it waited
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                logger.error("no new connection can be taken: %s: raise the limit of open files", error.strerror)
                self._loop.remove_reader(self._socket.fileno())
                self._paused = self._loop.call_later(self._pause, self._go_on)
                return
            task = self._loop.create_task(self._open(client))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def _go_on(self) -> None:
        self._paused = None
        self._loop.add_reader(self._socket.fileno(), self._accept)

    async def _open(self, client: socket.socket) -> None:
        try:
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio's loop leaves that to its own server
            await self._loop.connect_accepted_socket(
                self._connect,
                client,
                ssl=self._ssl,
                ssl_handshake_timeout=self._handshake,
                ssl_shutdown_timeout=self._shutdown,
            )
        except OSError as error:  # TLS's own are among them; the transport has closed the socket
            logger.debug("a connection did not come about: %s", error)


def bound_sockets(
    addresses: list[tuple[socket.AddressFamily, tuple[object, ...]]], *, reuse_port: bool
) -> list[socket.socket]:
    """A socket for each address of one name. OSError where one cannot be had, and then none is."""
    found: list[socket.socket] = []
    try:
        for family, address in addresses:
            found.append(bound_socket(family, address, reuse_port=reuse_port, only_v6=family == socket.AF_INET6))
    except OSError:
        for each in found:
            each.close()
        raise
    return found


def bound_socket(family: int, address: tuple[object, ...], *, reuse_port: bool, only_v6: bool = False) -> socket.socket:
    """A socket that may listen there. OSError where the address cannot be had."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if only_v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
