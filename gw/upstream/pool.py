"""The HTTP/1.1 transport to providers: kept connections, one exchange at a time on each, the latest used first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gw.adapter import WireRequest, WireResponse
from gw.burst import Burst
from gw.errors import UpstreamConnectionError
from gw.upstream.connection import READ, Connection
from gw.upstream.exchange import Exchange
from gw.upstream.failures import ca_failure, connect_failure, connect_timeout, silence
from gw.upstream.head import HeadWriter, Target, parse_target
from gw.upstream.tls import Contexts

IDLE_FOR = 60.0  # seconds that an idle connection is kept
MAX_IDLE = 256  # idle connections to one origin
MAX_BODY = 64 * 1024 * 1024  # bytes of a whole answer, and of what a compressed one grows to
_PERIOD = 0.05  # seconds between two looks at all connections: how late a deadline may be noticed
_MARGIN = 0.5  # seconds before the provider's own Keep-Alive timeout: a request needs some time to get there
_REMEMBERED = 1024  # URLs; some providers have the model in theirs
_WITH_BODY = frozenset(("POST", "PUT", "PATCH"))  # they say Content-Length: 0 too (RFC 9110 8.6)


@dataclass(slots=True, eq=False, repr=False)
class _Route:
    """Where a URL leads for one backend, and the idle connections that lead there."""

    target: Target
    ca_file: str | None
    idle: list[Connection]
    start: str  # the target's, as its authority below: they are asked for with every request
    authority: str


class HTTPTransport:
    """Sends a WireRequest and returns its WireResponse; a WireHandler, one per process, for one event loop.

    `ca_files` are extra certificate authorities by backend name, `contexts` what was read of them before; `max_idle`
    counts connections per origin; `idle_for` is in seconds, `max_body` in bytes; `clock` counts seconds. Raises
    UpstreamError for everything that goes wrong on the way, and ValueError for a request that HTTP cannot carry.
    Whoever gets an answer reads its body to the end or closes it. A request is sent again, once and on a new
    connection, where a kept one turns out to have been closed before any byte of the answer came.
    """

    def __init__(
        self,
        *,
        ca_files: Mapping[str, str] | None = None,
        max_idle: int = MAX_IDLE,
        idle_for: float = IDLE_FOR,
        max_body: int = MAX_BODY,
        contexts: Contexts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ca_files = dict(ca_files or {})
        self._max_idle = max_idle
        self._idle_for = idle_for
        self._max_body = max_body
        self._clock = clock
        self._contexts = contexts or Contexts()
        self._is_closed = False
        self._idle: dict[tuple[str, str, int, str | None], list[Connection]] = {}
        self._lost: asyncio.Event | None = None
        self._open: set[Connection] = set()
        self._routes: dict[tuple[str, str, str], _Route] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._writer = HeadWriter()
        self.burst = Burst()
        self.memory = memoryview(bytearray(READ))

    async def __call__(self, wire: WireRequest) -> WireResponse:
        """Send a request; returns when the head of its answer has arrived."""
        route = self._routes.get((wire.method, wire.url, wire.backend)) or self._find_route(wire)
        size = len(wire.content)
        length = size if size or wire.method in _WITH_BODY else None
        head = self._writer.write(route.start, wire.headers, length)
        limits = wire.timeouts
        now = self._clock()
        deadline = now + (limits.first_content if wire.stream else limits.total)
        connection = self._take(route.idle, now, size)
        is_kept = connection is not None
        while True:
            if connection is None:
                connection = await self._connect(route, wire, deadline)
            exchange = Exchange(connection, wire, route.authority, self._clock, deadline, self._max_body)
            if limits.first_byte is not None:
                exchange.hear_until(self._clock() + limits.first_byte)
            wire.is_sent = True
            connection.send(head, wire.content)
            await exchange.wait()
            try:
                return exchange.answer()
            except UpstreamConnectionError:
                if not is_kept or exchange.has_begun or self._is_closed:
                    raise
            connection, is_kept = None, False

    async def aclose(self) -> None:
        """Close every connection; what is still being read breaks. Returns when all are closed."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in list(self._open):
            if connection.exchange is not None:
                connection.exchange.close()
            connection.cut()
        self._lost = asyncio.Event()
        while self._open:
            self._lost.clear()
            await self._lost.wait()

    def _find_route(self, wire: WireRequest) -> _Route:
        target = parse_target(wire.method, wire.url)
        ca_file = self._ca_files.get(wire.backend) if target.scheme == "https" else None
        idle = self._idle.setdefault((target.scheme, target.host, target.port, ca_file), [])
        if len(self._routes) >= _REMEMBERED:
            self._routes.clear()
        route = _Route(target, ca_file, idle, target.start, target.authority)
        self._routes[wire.method, wire.url, wire.backend] = route
        return route

    async def _connect(self, route: _Route, wire: WireRequest, deadline: float) -> Connection:
        if self._is_closed:
            raise RuntimeError("this HTTPTransport is closed: make a new one")
        target, left = route.target, deadline - self._clock()
        is_connect_first = wire.timeouts.connect <= left
        limit = min(wire.timeouts.connect, left)
        try:
            context = self._contexts.get(route.ca_file) if target.scheme == "https" else None
        except OSError as error:
            raise ca_failure(wire, route.ca_file) from error
        try:
            async with asyncio.timeout(limit) as scope:
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self, route.idle),
                    target.host,
                    target.port,
                    ssl=context,
                    ssl_handshake_timeout=None if context is None else limit + 60,  # ours comes first
                )
        except (OSError, UnicodeError) as error:
            if not scope.expired():
                raise connect_failure(error, wire, target.authority) from error
            if is_connect_first:
                raise connect_timeout(wire, target.authority) from None
            raise silence(wire, is_committed=False) from None
        if self._is_closed or connection.transport.is_closing():
            connection.cut()
            raise connect_failure(ConnectionResetError(), wire, target.authority)
        # Not before: uvloop never calls connection_lost where create_connection is cancelled in its last moment.
        self._open.add(connection)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_PERIOD, self._tick)
        return connection

    # --- the connections at rest --------------------------------------------------------------------------------

    def _take(self, idle: list[Connection], now: float, size: int) -> Connection | None:
        while idle:
            connection = idle.pop()
            if now < connection.idle_until and connection.is_silent(size):
                return connection
            connection.cut()
        return None

    def give(self, connection: Connection, keep_for: float | None) -> None:
        """A connection is at rest, and all was in order: keep it for the next request, for no longer than its provider
        will, unless our own bytes are still to be sent on it."""
        seconds = self._idle_for if keep_for is None else min(self._idle_for, keep_for - _MARGIN)
        idle, transport = connection.idle, connection.transport
        is_full = self._is_closed or seconds <= 0 or len(idle) >= self._max_idle
        if is_full or transport.is_closing() or transport.get_write_buffer_size():
            connection.cut()
            return
        connection.idle_until = self._clock() + seconds
        idle.append(connection)

    def closed(self, connection: Connection) -> None:
        """A connection is gone, by whoever's will."""
        self._open.discard(connection)
        if connection in connection.idle:
            connection.idle.remove(connection)
        if self._lost is not None:
            self._lost.set()

    def _tick(self) -> None:
        # One coarse timer for all that waits and all that rests, while any connection is open.
        self._timer = None
        now = self._clock()
        for connection in list(self._open):
            exchange = connection.exchange
            if exchange is not None:
                if exchange.deadline <= now:
                    exchange.expire()
            elif connection.idle_until <= now:
                connection.cut()  # `closed` takes it from the list
        if self._open:
            self._timer = asyncio.get_running_loop().call_later(_PERIOD, self._tick)
