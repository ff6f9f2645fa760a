"""The server: listens, keeps the one clock of all its connections, and ends without cutting anybody off."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING, Literal

from gw.errors import ConfigError
from gw.server.acceptor import Acceptor, bound_sockets
from gw.server.connection import Connection
from gw.server.limits import Limits
from gw.server.response import AppHandler
from gw.server.state import Refused, State

if TYPE_CHECKING:
    import ssl as tls

_LAST_SECOND = 1.0  # what aborted requests get to clean up


class Server:
    """An HTTP/1.1 server for one handler.

    `http`: "auto" matches plain heads by itself and gives all others to h11, "h11" gives everything to h11.
    `refused` is told the client's address, the error and the id of each exchange that never reached the handler.
    """

    def __init__(
        self,
        handler: AppHandler,
        *,
        limits: Limits | None = None,
        http: Literal["auto", "h11"] = "auto",
        ssl: tls.SSLContext | None = None,
        refused: Refused | None = None,
    ) -> None:
        limits = limits or Limits()
        self._state = State(handler, limits, matches_plain=http == "auto", refused=refused)
        self._ssl = ssl
        self._acceptors: list[Acceptor] = []
        self._timer: asyncio.TimerHandle | None = None
        self._port = 0
        shortest = min(limits.head_timeout, limits.body_timeout, limits.write_timeout, limits.idle_timeout)
        self._tick = min(1.0, max(0.01, min(shortest / 8, limits.linger_timeout / 2)))

    def connect(self) -> Connection:
        """The protocol of a new connection: what the event loop is given."""
        return Connection(self._state)

    async def start(self, host: str, port: int, *, reuse_port: bool = False, sock: socket.socket | None = None) -> None:
        """Listen on host and port, or on a socket that is bound already. Raises ConfigError with the cure."""
        limits = self._state.limits
        try:
            sockets = [sock] if sock is not None else await _bind(host, port, reuse_port=reuse_port)
            for listening in sockets:
                self._acceptors.append(
                    Acceptor(
                        listening,
                        self.connect,
                        ssl=self._ssl,
                        handshake=limits.head_timeout,
                        shutdown=limits.linger_timeout,
                    )
                )
        except OSError as error:
            raise ConfigError([_why_not(host, port, error)]) from error
        self._port = sockets[0].getsockname()[1]
        self._check_deadlines()

    @property
    def port(self) -> int:
        """The port that is listened on; of use where 0 was asked for."""
        return self._port

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._state.connections)

    @property
    def in_flight(self) -> int:
        """Requests whose handler or stream is at work."""
        return self._state.in_flight

    @property
    def is_aborting(self) -> bool:
        """Whether requests are being broken off because the grace is over: it is not their clients that leave."""
        return self._state.aborting

    async def close(self, grace: float = 30.0) -> None:
        """Stop listening, close idle connections, let requests finish for `grace` seconds, then break what is left."""
        state = self._state
        state.draining = True
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors.clear()
        for connection in list(state.connections):
            connection.drain()
        quiet = state.quiet()
        await asyncio.wait([quiet], timeout=grace)
        if not quiet.done():
            state.aborting = True
            for connection in list(state.connections):
                connection.abort()
            await asyncio.wait([quiet], timeout=_LAST_SECOND)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_deadlines(self) -> None:
        """One timer for all: a timer per request would cost 0.8 us each, and this 1.5 ms a second for 10 000 idle."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in [each for each in self._state.connections if each.deadline <= now]:
            connection.expire()
        self._timer = loop.call_later(self._tick, self._check_deadlines)


async def _bind(host: str, port: int, *, reuse_port: bool) -> list[socket.socket]:
    """A socket for each address that a name has."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    return bound_sockets(list(dict.fromkeys((each[0], each[4]) for each in found)), reuse_port=reuse_port)


def _why_not(host: str, port: int, error: OSError) -> str:
    where = f"cannot listen on {host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where}: the port is taken by another program: stop that one, or choose another with --port"
    if error.errno == errno.EACCES:
        return f"{where}: this user may not use the port: choose one above 1023 with --port"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"{where}: this machine has no such address: choose another with --host, such as 127.0.0.1"
    return f"{where}: {error.strerror or error}: choose another address with --host and --port"
