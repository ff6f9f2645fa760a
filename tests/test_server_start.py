"""Starting and listening: what cannot be had names its cure, and whoever waits at the door is let in."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any, cast

import orjson
import pytest
import uvloop

from gw.errors import ConfigError
from gw.server import Server
from gw.server.acceptor import BURST, Acceptor, bound_sockets
from tests.serving import PATIENCE, Running, mirror, run, serving


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
