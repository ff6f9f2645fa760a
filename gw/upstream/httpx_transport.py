"""The transport of backends that need a proxy or HTTP/2: httpx, imported when the first request is sent.

It costs many times what `HTTPTransport` does. Connections are not kept: httpx hands what a provider sends behind one
answer to the next request on the same connection, which may be somebody else's.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from gw.adapter import WireRequest, WireResponse
from gw.errors import UpstreamConnectionError, UpstreamError, UpstreamProtocolError
from gw.message import Headers
from gw.upstream.body import Inflate
from gw.upstream.failures import ca_failure, connect_failure, connect_timeout, silence
from gw.upstream.head import HeadWriter, Malformed, parse_target
from gw.upstream.pool import MAX_BODY
from gw.upstream.tls import make_context

if TYPE_CHECKING:
    import httpx


class HTTPXTransport:
    """Sends a WireRequest and returns its WireResponse, as HTTPTransport does; one per backend that asks for it.

    `proxy` is an http or https URL, with user name and password where the proxy wants them: nothing is taken from the
    environment. `ca_file` adds certificate authorities. Redirects are returned, not followed. HTTP/2 is spoken where
    the package h2 is installed. Raises UpstreamError, and ValueError for a request that HTTP cannot carry.
    """

    def __init__(
        self,
        *,
        proxy: str | None = None,
        ca_file: str | None = None,
        max_body: int = MAX_BODY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if proxy is not None and (urlsplit(proxy).scheme not in ("http", "https") or not urlsplit(proxy).hostname):
            raise ValueError('proxy must be "http://host:port" or "https://host:port"')  # its value may hold a password
        self._proxy = proxy
        self._ca_file = ca_file
        self._max_body = max_body
        self._clock = clock
        self._is_closed = False
        self._transport: httpx.AsyncHTTPTransport | None = None
        self._writer = HeadWriter()

    async def __call__(self, wire: WireRequest) -> WireResponse:
        """Send a request; returns when the head of its answer has arrived."""
        target = parse_target(wire.method, wire.url)
        self._writer.write(target.start, wire.headers, None)  # the same checks on every transport
        transport = self._transport or self._open(wire)
        limits = wire.timeouts
        deadline = self._clock() + (limits.first_content if wire.stream else limits.total)
        usual, unheard = deadline - self._clock(), limits.first_byte
        is_heard = unheard is None or usual <= unheard
        wire.is_sent = True  # or nearly so: httpx does not tell when
        try:
            async with asyncio.timeout(usual if is_heard else unheard):
                response = await transport.handle_async_request(_request(wire))
        except TimeoutError:
            raise silence(wire, is_committed=False, is_heard=is_heard) from None
        except Exception as error:
            raise _told(error, wire, target.authority, has_begun=False) from error
        body = _Body(response, wire, target.authority, deadline, self._max_body, self._clock)
        try:
            return WireResponse(response.status_code, Headers(body.open()), body)
        except BaseException:
            await body.aclose()
            raise

    async def aclose(self) -> None:
        """Close every connection."""
        self._is_closed = True
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    def _open(self, wire: WireRequest) -> httpx.AsyncHTTPTransport:
        import httpx

        if self._is_closed:
            raise RuntimeError("this HTTPXTransport is closed: make a new one")
        try:
            context = make_context(self._ca_file, ["http/1.1"])
        except OSError as error:
            raise ca_failure(wire, self._ca_file) from error
        self._transport = httpx.AsyncHTTPTransport(
            verify=context,
            trust_env=False,
            http2=find_spec("h2") is not None,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            proxy=self._proxy,
        )
        return self._transport


class _Body:
    """The WireBody of an answer that httpx reads."""

    def __init__(
        self,
        response: httpx.Response,
        wire: WireRequest,
        authority: str,
        deadline: float,
        limit: int,
        clock: Callable[[], float],
    ) -> None:
        self._authority = authority
        self._clock = clock
        self._deadline = deadline
        self._error: UpstreamError | None = None
        self._inflate: Inflate | None = None
        self._is_closed = False
        self._is_committed = False
        self._is_whole = False
        self._left = limit
        self._pieces: AsyncGenerator[bytes, None] | None = None
        self._response = response
        self._wire = wire

    def open(self) -> list[tuple[bytes, bytes]]:
        """The headers to pass on. Raises UpstreamProtocolError for a body that cannot be read."""
        pairs = [(name.lower(), value) for name, value in self._response.headers.raw]
        names = {name for name, _ in pairs}
        if b"content-length" in names and b"transfer-encoding" in names:
            raise self._broken("its answer has both a Content-Length and a Transfer-Encoding")
        encoding = self._response.headers.get("content-encoding", "").strip().lower()
        has_body = self._wire.method != "HEAD" and self._response.status_code not in (204, 304)
        if encoding in ("", "identity") or not has_body:
            return pairs
        try:
            self._inflate = Inflate(encoding.encode("latin-1"), self._left)
        except Malformed as problem:
            raise self._broken(str(problem)) from None
        return [pair for pair in pairs if pair[0] not in (b"content-encoding", b"content-length")]

    async def read(self) -> bytes:
        """The next piece; b"" is the complete end. Raises UpstreamError where it broke."""
        if self._error is not None:
            raise self._error
        try:
            while not self._is_whole:
                data = await self._next()
                if data is None:
                    self._end()
                elif data := self._decode(data):
                    return data
        except Malformed as problem:
            self._error = self._broken(str(problem))
            await self._close()
            raise self._error from None
        except UpstreamError as error:
            self._error = error
            await self._close()
            raise
        except BaseException:  # cancelled
            await self.aclose()
            raise
        await self._close()
        return b""

    def _decode(self, data: bytes) -> bytes:
        if self._inflate is not None:
            data = self._inflate.feed(data)
        if not self._wire.stream:
            self._left -= len(data)
            if self._left < 0:
                raise Malformed("its answer is over the limit")
        return data

    def _end(self) -> None:
        if self._inflate is not None:
            self._inflate.finish()
        self._is_whole = True

    async def _next(self) -> bytes | None:
        """What httpx reads next; None at the complete end."""
        if self._pieces is None:
            self._pieces = cast("AsyncGenerator[bytes, None]", self._response.aiter_raw())
        left = self._deadline - self._clock()
        try:
            async with asyncio.timeout(left):
                return await anext(self._pieces, None)
        except TimeoutError:
            raise silence(self._wire, is_committed=self._is_committed) from None
        except Exception as error:
            raise _told(error, self._wire, self._authority, has_begun=True) from error

    def commit(self) -> None:
        """Content of a stream has been seen: the next has to come within `idle`."""
        if self._wire.stream:
            self._is_committed = True
            self._deadline = self._clock() + self._wire.timeouts.idle

    async def aclose(self) -> None:
        """Close the connection. Never raises."""
        if not self._is_whole and self._error is None:
            self._error = UpstreamConnectionError(
                f'the answer of backend "{self._wire.backend}" was closed by its reader'
            )
        await self._close()

    async def _close(self) -> None:
        import httpx

        if not self._is_closed:
            self._is_closed = True
            with suppress(httpx.TransportError, OSError):
                if self._pieces is not None:
                    await self._pieces.aclose()
                await self._response.aclose()

    def _broken(self, problem: str) -> UpstreamProtocolError:
        return UpstreamProtocolError(f'backend "{self._wire.backend}": {self._authority} broke off: {problem}')


def _request(wire: WireRequest) -> httpx.Request:
    import httpx

    limits = {"connect": wire.timeouts.connect, "read": None, "write": None, "pool": None}
    headers = [*wire.headers, ("Accept-Encoding", "identity")]
    return httpx.Request(wire.method, wire.url, headers=headers, content=wire.content, extensions={"timeout": limits})


def _told(error: Exception, wire: WireRequest, authority: str, *, has_begun: bool) -> UpstreamError:
    """What a failure of httpx means. None of the provider's own words are in it."""
    import httpx

    who = f'backend "{wire.backend}": {authority}'
    if isinstance(error, httpx.ConnectTimeout):
        return connect_timeout(wire, authority)
    if isinstance(error, httpx.ProxyError):
        return UpstreamConnectionError(f"{who}: the proxy would not connect to it: check proxy and what it allows")
    if isinstance(error, httpx.ConnectError):
        return connect_failure(_root(error), wire, authority)
    if isinstance(error, httpx.RemoteProtocolError):
        return UpstreamProtocolError(f"{who} gave an answer that is not valid HTTP, or cut it short")
    if isinstance(error, httpx.TransportError):
        when = "in the middle of its answer" if has_begun else "before it answered"
        return UpstreamConnectionError(f"{who} closed the connection {when}")
    raise error


def _root(error: BaseException) -> BaseException:
    """The failure of the system that lies behind one of httpx."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, (socket.gaierror, ssl.SSLError)) or (isinstance(cause, OSError) and cause.errno):
            return cause
    return causes[-1]


def _causes(error: BaseException) -> Iterator[BaseException]:
    yield error
    inner = [cause for cause in (error.__cause__, error.__context__) if cause is not None]
    if isinstance(error, BaseExceptionGroup):
        inner.extend(error.exceptions)
    for cause in dict.fromkeys(inner):
        yield from _causes(cause)
