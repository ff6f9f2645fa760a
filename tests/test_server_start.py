"""A server on loopback and a raw client whose every read has a timeout; and the laws of starting and listening."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple, TypeVar, cast

import orjson
import pytest
import uvloop

from gw.errors import ConfigError, GatewayError
from gw.message import Request
from gw.server import AppHandler, Limits, Reply, Server
from gw.server.acceptor import BURST, Acceptor, bound_sockets

Http = Literal["auto", "h11"]
BOTH: tuple[Http, ...] = ("auto", "h11")
PATIENCE = 20.0  # seconds before a read counts as hanging
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


def test_a_taken_port_names_the_port_and_the_cure() -> None:
    async def main() -> None:
        async with serving(mirror) as running:
            second = Server(mirror)
            with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{running.server.port}: the port is taken .*--port"):
                await second.start("127.0.0.1", running.server.port)
            await second.close(0)

    run(main())


def test_a_host_that_is_not_ours_names_the_cure() -> None:
    async def main() -> None:
        server = Server(mirror)
        with pytest.raises(ConfigError, match="--host"):
            await server.start("192.0.2.1", 0)  # TEST-NET-1 of RFC 5737: nobody's
        await server.close(0)

    run(main())


def test_an_inherited_socket_is_served() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = Server(mirror)
            await server.start("", 0, sock=listener)
            assert server.port == listener.getsockname()[1]
            running = Running(server, [])
            client = await running.client(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await client.answer()).status == 200
            await running.leave()
            await server.close(1)

    run(main())


def test_two_servers_share_a_port_with_reuse_port() -> None:
    async def main() -> None:
        first, second = Server(mirror), Server(mirror)
        await first.start("127.0.0.1", 0, reuse_port=True)
        await second.start("127.0.0.1", first.port, reuse_port=True)
        assert first.port == second.port
        await first.close(0)
        await second.close(0)

    run(main())


@pytest.mark.parametrize("factory", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_no_event_loop_delays_small_writes(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    seen: list[int] = []

    class Looking(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            endpoint = transport.get_extra_info("socket")
            seen.append(endpoint.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            transport.close()

    async def main() -> None:
        (listening,) = bound_sockets([(socket.AF_INET, ("127.0.0.1", 0))], reuse_port=False)
        acceptor = Acceptor(listening, Looking, ssl=None, handshake=1, shutdown=1)
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        writer.close()
        acceptor.close()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    assert seen[0] != 0


def test_the_server_runs_on_the_event_loop_of_the_standard_library() -> None:
    async def main() -> None:
        async with serving(mirror) as running:
            client = await running.client(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi" * 2)
            for _ in range(2):
                answer = await client.answer()
                assert orjson.loads(answer.body)["body"] == "hi"

    asyncio.run(main())


@pytest.mark.parametrize("factory", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_who_waits_at_the_door_is_let_in_together(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    made: list[asyncio.BaseTransport] = []

    class Counting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)

    async def main() -> None:
        (listening,) = bound_sockets([(socket.AF_INET, ("127.0.0.1", 0))], reuse_port=False)
        acceptor = Acceptor(listening, Counting, ssl=None, handshake=1, shutdown=1)
        waiting = [socket.create_connection(listening.getsockname()) for _ in range(BURST)]
        for _ in range(5):  # one turn takes them, the next ones make their transports
            await asyncio.sleep(0)
        assert len(made) == BURST
        acceptor.close()
        for transport in made:
            transport.close()
        for each in waiting:
            each.close()
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def test_without_room_for_another_connection_the_others_go_on_and_it_is_taken_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Full(socket.socket):
        refusals = 2

        def accept(self) -> tuple[socket.socket, Any]:
            if self.refusals:
                self.refusals -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    class Greeting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            cast(asyncio.Transport, transport).write(b"in")
            transport.close()

    async def main() -> None:
        listening = Full(socket.AF_INET, socket.SOCK_STREAM)
        listening.bind(("127.0.0.1", 0))
        acceptor = Acceptor(listening, Greeting, ssl=None, handshake=1, shutdown=1, pause=0.01)
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b"in"
        writer.close()
        acceptor.close()

    run(main())
    assert [record.message for record in caplog.records] == [
        "no new connection can be taken: Too many open files: raise the limit of open files"
    ] * 2
