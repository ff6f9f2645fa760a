"""Where the time of one request goes: `python -m benchmarks.budget`.

CPU of the event loop's thread in microseconds, each part by itself and warm, the best of many short runs. In a gateway
under load the parts push each other out of the caches and share a core's units with its neighbour: there the sum costs
about half as much again, and sockets come on top.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import uvloop

from benchmarks.harness.load import REQUEST
from benchmarks.harness.processes import ANSWER
from gw.adapter import Adapter, WholeBody, WireRequest, WireResponse
from gw.app import App
from gw.backend import Timeouts
from gw.document import Completion
from gw.gateway import GatewayServer
from gw.message import Exchange, Headers, Request, Response
from gw.server import Limits, Reply
from gw.server.body import WholeBody as RequestBody
from gw.server.connection import Connection
from gw.server.state import State
from gw.upstream.connection import Connection as UpstreamConnection
from gw.upstream.pool import HTTPTransport

RUNS, TIMES = 150, 100
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:3456\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer sk-client\r\nUser-Agent: OpenAI/Python\r\nAccept: application/json\r\n"
    b"Content-Length: %d\r\n\r\n" % len(REQUEST)
)
PAIRS = [(b"host", b"127.0.0.1:3456"), (b"content-type", b"application/json"), (b"user-agent", b"OpenAI/Python")]
ANSWERED = (
    b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: keep-alive\r\n\r\n" % len(ANSWER)
) + ANSWER


async def cost(once: Callable[[], Awaitable[object]]) -> float:
    """Microseconds of CPU for one call, at best."""
    best = float("inf")
    for _ in range(RUNS):
        began = time.thread_time()
        for _ in range(TIMES):
            await once()
        best = min(best, time.thread_time() - began)
        await asyncio.sleep(0)
    return best / TIMES * 1e6


class Socket:
    """A transport that keeps nothing. `answers` is called for each write."""

    def __init__(self, answers: Callable[[], object] | None = None, endpoint: socket.socket | None = None) -> None:
        self._answers = answers
        self._endpoint = endpoint

    def get_extra_info(self, name: str, default: object = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else self._endpoint

    def write(self, data: bytes) -> None:
        if self._answers is not None:
            asyncio.get_running_loop().call_soon(self._answers)

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        """Nothing."""


def request_of() -> Request:
    """A request whose head was read."""
    return Request(
        method="POST",
        path="/v1/chat/completions",
        headers=Headers(PAIRS),
        client="127.0.0.1",
        id="r",
        body=RequestBody(REQUEST),
    )


async def server_edge() -> float:
    """Bytes of a request in, a task, bytes of an answer out."""
    reply = Reply(200, [("Content-Type", "application/json"), ("X-RateLimit-Limit", "60")], ANSWER)

    async def handler(_: Request) -> Reply:
        return reply

    connection = Connection(State(handler, Limits(), matches_plain=True, refused=None))
    connection.connection_made(cast(asyncio.Transport, Socket()))

    async def once() -> None:
        connection.data_received(HEAD + REQUEST)
        await asyncio.sleep(0)

    return await cost(once)


async def upstream_edge() -> float:
    """A wire request out, a future, the answer's head and body in."""
    transport = HTTPTransport()
    wire = WireRequest(
        "POST",
        "http://127.0.0.1:9/v1/chat/completions",
        [("accept", "application/json")],
        REQUEST,
        False,
        "b",
        "r",
        Timeouts(),
    )
    route = transport._find_route(wire)
    connection = UpstreamConnection(transport, route.idle)
    ours, theirs = socket.socketpair()  # nothing ever comes over it: what is asked is whether anything has

    def answer() -> None:
        connection.get_buffer(0)[: len(ANSWERED)] = ANSWERED
        connection.buffer_updated(len(ANSWERED))

    connection.connection_made(cast(asyncio.Transport, Socket(answer, ours)))
    connection.idle_until = float("inf")
    route.idle.append(connection)

    async def once() -> None:
        answer = await transport(wire)
        while await answer.body.read():
            pass
        await answer.body.aclose()

    try:
        return await cost(once)
    finally:
        ours.close()
        theirs.close()


async def pipeline(folder: Path) -> list[tuple[str, float]]:
    """What stands between the two edges, layer by layer."""
    tables: dict[str, Any] = {
        "server": {"port": 0, "log_level": "warn"},
        "middleware": {"rate_limit": {"max": 100_000, "window": 0.5}, "log": {"path": str(folder / "log.db")}},
        "backends": {"p": {"adapter": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key": "sk-bench"}},
    }
    async with GatewayServer(tables, environ={}) as gateway:
        assert gateway._current is not None
        app = gateway._current.app
        layers = dict(app._layers)
        answered = Response(Completion(ANSWER))

        async def answer(_: Request) -> Response:
            return answered

        async def wire(_: WireRequest) -> WireResponse:
            return WireResponse(200, Headers([(b"content-type", b"application/json")]), WholeBody(ANSWER, "provider"))

        found: list[tuple[str, float]] = []

        async def layer(name: str, once: Callable[[], Awaitable[object]]) -> None:
            found.append((name, await cost(once)))

        plain = request_of()
        plain.operation = plain.exchange.operation = "chat"
        await layer("request and its record", lambda: _nothing(request_of))
        await layer("auth", lambda: layers["auth"](plain, answer))
        await layer("rate_limit", lambda: layers["rate_limit"](plain, answer))

        async def decode() -> None:
            plain.body = RequestBody(REQUEST)
            app._chat.decode_at_once(plain)

        await layer("the body read and checked", decode)

        async def remember(passed: Request) -> Response:
            plain.candidates = passed.candidates
            return answered

        await layers["route"](plain, remember)
        await layer("route", lambda: layers["route"](plain, answer))
        await layer("fallback", lambda: _clear(plain, layers["fallback"](plain, answer)))
        await layer("log", lambda: _clear(plain, layers["log"](plain, answer)))
        translate = layers["translate"]
        await layer("translate, with the adapter", lambda: _clear(plain, translate(plain, wire)))
        adapter = cast(Adapter, plain.candidate.backend.adapter)
        await layer("  of which the adapter's request", lambda: _nothing(lambda: adapter.open(plain)))
        codec = adapter.open(plain)
        await layer("  of which the adapter's answer", lambda: _nothing(lambda: codec.complete(ANSWER)))
        response = await translate(plain, wire)
        await layer(
            "the answer put together", lambda: _nothing(lambda: app._chat.encode(plain.exchange, response, _end))
        )
        plain.exchange.status, plain.exchange.ended = 200, plain.exchange.started + 0.01
        await layer("metrics, and the row handed over", lambda: _recorded(app, plain))
        app._terminal = partial(translate, call_next=wire)
        handle = app._compose("chat")
        await layer("all of the pipeline at once", lambda: handle(request_with_operation()))
        return found


def request_with_operation() -> Request:
    request = request_of()
    request.operation = request.exchange.operation = "chat"
    return request


def _end(_: Exchange, __: BaseException | None) -> None:
    """Nothing."""


async def _nothing(call: Callable[[], object]) -> None:
    call()


async def _clear(request: Request, work: Awaitable[object]) -> None:
    await work
    request.exchange.attempts.clear()
    request.exchange.attributes.clear()
    request.exchange.response.clear()


async def _recorded(app: App, request: Request) -> None:
    app._record(request.exchange)
    request.exchange.attributes.clear()


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        parts = [
            ("server edge, with a task", await server_edge()),
            *await pipeline(Path(folder)),
            ("upstream edge, with a future", await upstream_edge()),
        ]
    print(f"{'us of CPU for one request':40}")
    for name, microseconds in parts:
        print(f"  {name:38}{microseconds:7.1f}")


if __name__ == "__main__":
    uvloop.run(main())
