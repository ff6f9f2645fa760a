"""The faulty provider's own HTTP: a server on 127.0.0.1 that writes whatever an act writes, byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from gw.adapters.faulty.acts import ACTS
from gw.adapters.faulty.exchange import Exchange


class Asked(NamedTuple):
    """One request as the provider read it. `json` is its body."""

    path: str
    headers: dict[str, str]
    json: dict[str, Any]


class FaultyServer:
    """Answers each request with the act (a name of `ACTS`) that `choose` names for it."""

    def __init__(self, choose: Callable[[Asked], str]) -> None:
        self.choose = choose
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it listens, once it does."""
        if self._server is None:
            raise LookupError("the faulty provider listens from `start` on")
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
                first = await self._play(asked, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or we do
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _play(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Answer; gives back what was read of the next request while watching for the client's leaving."""
        act = ACTS[self.choose(asked)]
        playing = asyncio.ensure_future(act(Exchange(asked.path, asked.json, writer)))
        watching = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({playing, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done() and not playing.done() and not watching.result():
                raise ConnectionResetError("the client hung up")
            await playing
            return await watching
        finally:
            playing.cancel()
            watching.cancel()
            await asyncio.gather(playing, watching, return_exceptions=True)


async def _read_request(reader: asyncio.StreamReader, first: bytes) -> Asked:
    head = first + await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    path = lines[0].split(" ")[1]
    pairs = (line.partition(":") for line in lines[1:-2])
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(path, headers, orjson.loads(body))
