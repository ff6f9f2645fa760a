"""The provider on loopback that plays scripts, a request to it, and a transport that asks it."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TypeVar

from gw.adapter import WireRequest, WireResponse
from gw.backend import Timeouts
from gw.upstream import HTTPTransport, HTTPXTransport

Closable = TypeVar("Closable", HTTPTransport, HTTPXTransport)
Script = Callable[["Peer"], Awaitable[None]]
SOON = 20.0  # seconds: what a test waits at most for something that comes at once


class Peer:
    """One connection as the provider sees it."""

    def __init__(self, provider: Provider, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.provider = provider
        self.reader = reader
        self.writer = writer
        self.number = len(provider.peers)
        self.gone = asyncio.Event()  # the gateway closed it

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until_gone(self) -> None:
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass
        self.gone.set()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Provider:
    """A server on loopback. Each request is answered by the next script; the last one answers all that follow."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.peers: list[Peer] = []
        self.requests: list[tuple[int, bytes, bytes]] = []  # number of the connection, head, body
        self.asked = asyncio.Event()
        self.happened = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something that requests or closed connections bring about."""
        async with asyncio.timeout(SOON):
            while not is_so():
                self.happened.clear()
                await self.happened.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(self, reader, writer)
        self.peers.append(peer)
        try:
            while not writer.is_closing():
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                    low = head.lower()
                    at = low.find(b"content-length:")
                    size = int(low[at + 15 : low.find(b"\r", at)]) if at >= 0 else 0
                    body = await reader.readexactly(size)
                except (asyncio.IncompleteReadError, ConnectionError):
                    peer.gone.set()
                    self.happened.set()
                    break
                self.requests.append((peer.number, head, body))
                self.asked.set()
                self.happened.set()
                await (self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0])(peer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()


def says(*pieces: bytes) -> Script:
    """Write these pieces, each by itself, and go on to the next request."""

    async def script(peer: Peer) -> None:
        for piece in pieces:
            await peer.write(piece)
            await asyncio.sleep(0)

    return script


def says_and_closes(*pieces: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await says(*pieces)(peer)
        peer.writer.close()

    return script


def says_and_hangs(*pieces: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await says(*pieces)(peer)
        await peer.until_gone()

    return script


def says_and_resets(*pieces: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await says(*pieces)(peer)
        peer.reset()

    return script


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SECOND = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"


def wire(
    provider: Provider,
    *,
    method: str = "POST",
    path: str = "/v1/chat?key=hidden",
    headers: list[tuple[str, str]] | None = None,
    content: bytes = b"{}",
    stream: bool = False,
    timeouts: Timeouts = Timeouts(),  # noqa: B008 (frozen)
) -> WireRequest:
    url = f"http://127.0.0.1:{provider.port}{path}"
    return WireRequest(method, url, headers or [], content, stream, "acme", timeouts=timeouts)


async def whole(answer: WireResponse) -> bytes:
    pieces = []
    while piece := await answer.body.read():
        pieces.append(piece)
    return b"".join(pieces)


async def gone(peer: Peer) -> None:
    async with asyncio.timeout(SOON):
        await peer.gone.wait()


@asynccontextmanager
async def playing(transport: Closable, *scripts: Script) -> AsyncIterator[tuple[Provider, Closable]]:
    """A provider that plays these scripts, and the transport to ask it by; both are closed."""
    provider = Provider(*scripts)
    await provider.open()
    try:
        yield provider, transport
    finally:
        await transport.aclose()
        await provider.close()


def scene(
    *scripts: Script, clock: Callable[[], float] = time.monotonic
) -> AbstractAsyncContextManager[tuple[Provider, HTTPTransport]]:
    return playing(HTTPTransport(clock=clock), *scripts)
