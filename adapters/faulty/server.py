"""A provider's own HTTP: a server on 127.0.0.1 that writes whatever it is told to write, byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson

from gw.adapters.faulty.acts import ACTS
from gw.adapters.faulty.exchange import Exchange


@dataclass(slots=True)
class Asked:
    """One request as the provider read it."""

    method: str
    path: str
    headers: dict[str, str]  # lower-case names
    body: bytes

    @property
    def json(self) -> Any:
        """The body's value."""
        return orjson.loads(self.body)


class RawServer:
    """Reads requests and leaves each answer to `play(asked, writer)`. `left` is called where a client leaves first."""

    def __init__(
        self, play: Callable[[Asked, asyncio.StreamWriter], Awaitable[None]], left: Callable[[], None] | None = None
    ) -> None:
        self._play = play
        self._left = left
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it listens, once it does."""
        if self._server is None:
            raise LookupError("the provider listens from `start` on")
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)

    async def close(self) -> None:
        """Drop every connection."""
        if self._server is None:
            return
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        first = b""
        try:
            while True:
                asked = await _read_request(reader, first)
                first = await self._answer(asked, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or we do
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Answer; gives back what was read of the next request while watching for the client's leaving."""
        playing = asyncio.ensure_future(self._play(asked, writer))
        watching = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({playing, watching}, return_when=asyncio.FIRST_COMPLETED)
            if playing.done():  # it may be the first to notice
                has_left = not playing.cancelled() and isinstance(playing.exception(), ConnectionError)
            else:
                has_left = bool(watching.exception()) or not watching.result()
            if has_left:
                if self._left is not None:
                    self._left()
                raise ConnectionResetError("the client hung up")
            await playing
            return await watching
        finally:
            playing.cancel()
            watching.cancel()
            await asyncio.gather(playing, watching, return_exceptions=True)


class FaultyServer(RawServer):
    """Answers each request with the act (a name of `ACTS`) that `choose` names for it."""

    def __init__(self, choose: Callable[[Asked], str]) -> None:
        super().__init__(self._act)
        self.choose = choose

    async def _act(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        await ACTS[self.choose(asked)](Exchange(asked.path, asked.json, writer))


async def _read_request(reader: asyncio.StreamReader, first: bytes) -> Asked:
    head = first + await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    method, path, _ = lines[0].split(" ")
    pairs = (line.partition(":") for line in lines[1:-2])
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, path, headers, body)
