"""A server on loopback, a raw client whose every read has a timeout, and what the server is given to answer with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple, TypeVar

import orjson
import uvloop

from gw.errors import GatewayError
from gw.message import Request
from gw.server import AppHandler, Limits, Reply, Server

Http = Literal["auto", "h11"]
BOTH: tuple[Http, ...] = ("auto", "h11")
PATIENCE = 20.0  # seconds before a read counts as hanging
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine on uvloop, as the gateway does."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(main, 100))


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool = True

    @property
    def code(self) -> str:
        """The code of an error in OpenAI's shape; all four keys must be there."""
        error = orjson.loads(self.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return str(error["code"])


class Client:
    """A raw socket, read as HTTP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, method: str = "GET") -> Answer:
        """The next answer. `complete` tells whether its end was seen."""
        return await asyncio.wait_for(self._answer(method), PATIENCE)

    async def _answer(self, method: str) -> Answer:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = head[:-4].split("\r\n")
        version, status, _ = lines[0].split(" ", 2)
        assert version == "HTTP/1.1"
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, value = line.split(": ", 1)
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value
        if method == "HEAD" or status in ("100", "204", "304"):
            return Answer(int(status), headers, b"")
        if "content-length" in headers:
            return Answer(int(status), headers, await self.reader.readexactly(int(headers["content-length"])))
        if headers.get("transfer-encoding") == "chunked":
            return Answer(int(status), headers, *await self._chunks())
        return Answer(int(status), headers, *await self._to_the_end())

    async def _chunks(self) -> tuple[bytes, bool]:
        body = b""
        try:
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += await self.reader.readexactly(size)
                assert await self.reader.readexactly(2) == b"\r\n"
            assert await self.reader.readexactly(2) == b"\r\n"
        except (asyncio.IncompleteReadError, ConnectionError):
            return body, False
        return body, True

    async def _to_the_end(self) -> tuple[bytes, bool]:
        body = b""
        try:
            while data := await self.reader.read(65536):
                body += data
        except ConnectionError:
            return body, False
        return body, True

    async def read(self, size: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(size), PATIENCE)

    async def rest(self) -> bytes:
        """What comes until the server closes or resets the connection."""
        body, _ = await asyncio.wait_for(self._to_the_end(), PATIENCE)
        return body


class Running:
    """A server at work, its clients, and what it refused."""

    def __init__(self, server: Server, refusals: list[tuple[str, GatewayError]]) -> None:
        self.server = server
        self.refusals = refusals
        self._clients: list[Client] = []

    async def client(self, data: bytes = b"", *, limit: int = 2**16, address: str = "127.0.0.1") -> Client:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.server.port, limit=limit, local_addr=(address, 0)
        )
        client = Client(reader, writer)
        self._clients.append(client)
        if data:
            client.send(data)
        return client

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop turn until something has come about."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 what is waited for has no event of its own
                await asyncio.sleep(0.001)

    async def leave(self) -> None:
        for client in self._clients:
            client.writer.transport.abort()


@asynccontextmanager
async def serving(
    handler: AppHandler, *, limits: Limits | None = None, http: Http = "auto", ssl: Any = None
) -> AsyncIterator[Running]:
    """A server on a free port of loopback; when left it has no connection and nothing in flight."""
    refusals: list[tuple[str, GatewayError]] = []
    server = Server(
        handler, limits=limits, http=http, ssl=ssl, refused=lambda client, error, _: refusals.append((client, error))
    )
    await server.start("127.0.0.1", 0)
    running = Running(server, refusals)
    try:
        yield running
    finally:
        await running.leave()
        await server.close(grace=2.0)
        assert server.connections == 0
        assert server.in_flight == 0


async def mirror(request: Request) -> Reply:
    """Answers with what it was asked."""
    assert request.body is not None
    body = await request.body.read()
    seen = {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "id": request.id,
        "client": request.client,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers.pairs],
        "body": body.decode("latin-1"),
    }
    return Reply(200, [("Content-Type", "application/json")], orjson.dumps(seen))


def whole(body: bytes, *, status: int = 200, headers: list[tuple[str, str]] | None = None) -> AppHandler:
    """A handler with one answer."""

    async def handler(request: Request) -> Reply:
        return Reply(status, headers or [], body)

    return handler


class Pieces:
    """A stream of pieces, then its end: complete, an error, or never. It counts what is done to it."""

    def __init__(self, pieces: Sequence[bytes] = (), error: Exception | None = None, *, endless: bool = False) -> None:
        self.pieces = list(pieces)
        self.error = error
        self.endless = endless
        self.reads = 0
        self.closed = 0
        self.cancelled = 0

    async def read(self) -> bytes:
        self.reads += 1
        if self.pieces:
            return self.pieces.pop(0)
        if self.error is not None:
            raise self.error
        if self.endless:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return b""

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.closed += 1


def streaming(stream: Pieces, headers: Sequence[tuple[str, str]] = ()) -> AppHandler:
    async def handler(request: Request) -> Reply:
        return Reply(200, headers, stream)

    return handler
