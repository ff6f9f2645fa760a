"""A client that is cheap enough to load a gateway with, and that sees exactly how an answer ends."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import Any, cast

import orjson

PATIENCE = 60.0  # seconds: an answer that takes longer hangs
_RESET = struct.pack("ii", 1, 0)


class Answer:
    """What came back. Times are seconds of the monotonic clock."""

    __slots__ = ("_raw", "began", "ended", "first", "headers", "is_left", "is_whole", "status")

    def __init__(self, began: float) -> None:
        self.began = self.first = self.ended = began
        self.status = 0  # none came
        self.headers: dict[str, str] = {}
        self.is_whole = False  # its framing said that it had ended
        self.is_left = False  # by us
        self._raw: list[bytes] = []

    @property
    def body(self) -> bytes:
        """Without chunks' framing."""
        raw = b"".join(self._raw)
        return _unframed(raw) if "chunked" in self.headers.get("transfer-encoding", "") else raw

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def json(self) -> Any:
        try:
            return orjson.loads(self.body)
        except ValueError:
            return None

    @property
    def has_done(self) -> bool:
        return self.body.endswith(b"data: [DONE]\n\n")

    @property
    def error(self) -> dict[str, Any] | None:
        """The error object: of a refusal, or the last event of a stream."""
        body = self.body
        if "event-stream" in self.headers.get("content-type", ""):
            body = body.rpartition(b"data: ")[2]
        try:
            found = orjson.loads(body)
        except ValueError:
            return None
        error = found.get("error") if isinstance(found, dict) else None
        return error if isinstance(error, dict) else None

    @property
    def is_good(self) -> bool:
        """A whole answer: 200 and, for a stream, its [DONE]."""
        if self.status != 200 or not self.is_whole:
            return False
        return self.has_done if "event-stream" in self.headers.get("content-type", "") else bool(self._raw)

    @property
    def is_openai_error(self) -> bool:
        """A refusal in OpenAI's shape, or a stream that ends with one; nothing may come behind it."""
        error = self.error
        return self.is_whole and error is not None and "message" in error and "code" in error


def _unframed(raw: bytes) -> bytes:
    found, at = [], 0
    while (end := raw.find(b"\r\n", at)) >= 0:
        size = int(raw[at:end] or b"0", 16)
        found.append(raw[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(found)


class Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._head = b""
        self._left = -1  # bytes of a body with a length
        self._tail = b""
        self.answer = Answer(0.0)
        self.done: asyncio.Future[Answer] = self._loop.create_future()
        self.begun: asyncio.Future[None] = self._loop.create_future()  # the head of an answer is here
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def send(self, request: bytes) -> asyncio.Future[Answer]:
        """Ask; the future is done when the answer or the connection has ended."""
        self._head, self._left, self._tail = b"", -1, b""
        self.answer = Answer(time.monotonic())
        self.done = self._loop.create_future()
        self.begun = self._loop.create_future()
        if self.is_open:
            self.transport.write(request)
        else:
            self._finish()
        return self.done

    def data_received(self, data: bytes) -> None:
        answer = self.answer
        if not answer.status:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            status, *lines = head.decode("latin-1").split("\r\n")
            answer.status = int(status.split(" ")[1])
            if answer.status == 100:
                answer.status, self._head = 0, b""
                self.data_received(data)
                return
            answer.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            answer.first = time.monotonic()
            self._left = int(answer.headers.get("content-length", -1))
            if not self.begun.done():
                self.begun.set_result(None)
        if data:
            answer._raw.append(data)
        if self._left >= 0:
            self._left -= len(data)
            answer.is_whole = self._left == 0
        else:
            self._tail = (self._tail + data)[-7:]
            answer.is_whole = self._tail.endswith(b"\r\n0\r\n\r\n")
        if answer.is_whole:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._finish()

    def _finish(self) -> None:
        if self.done.done():  # a kept connection has closed: its last answer had ended long before
            return
        self.answer.ended = time.monotonic()
        self.done.set_result(self.answer)
        if not self.begun.done():
            self.begun.set_result(None)

    def hang_up(self, *, rudely: bool = False) -> float:
        """Leave; the time at which it was done."""
        if rudely and self.is_open:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.answer.is_left = True
        self.transport.abort()
        return time.monotonic()


class Client:
    """Asks one gateway over as many kept connections as it needs."""

    def __init__(self, port: int, key: str = "") -> None:
        self.port = port
        self._key = key
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()

    def request(self, model: str, *, stream: bool = False, id: str = "", path: str = "", **headers: str) -> bytes:
        """The bytes of a chat request; `id` is its X-Request-ID and its `user`."""
        body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "Say some words, please."}]}
        if stream:
            body["stream"] = True
        if id:
            body["user"] = headers["x-request-id"] = id
        return self.raw("POST", path or "/v1/chat/completions", orjson.dumps(body), **headers)

    def raw(self, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
        """The bytes of any request."""
        headers = {"Host": f"127.0.0.1:{self.port}", "Content-Type": "application/json"} | headers
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        return f"{method} {path} HTTP/1.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def connect(self, source: str | None = None) -> Connection:
        """A connection of one's own. Raises OSError."""
        local = (source, 0) if source else None
        _, connection = await asyncio.get_running_loop().create_connection(
            Connection, "127.0.0.1", self.port, local_addr=local
        )
        self._all.add(connection)
        return connection

    def forget(self, connection: Connection) -> None:
        """A connection that is over."""
        self._all.discard(connection)

    async def send(self, request: bytes, patience: float = PATIENCE) -> Answer:
        """Ask over a kept connection. What takes longer than `patience` is an answer that is not whole."""
        connection = self._idle.pop() if self._idle else None
        if connection is None or not connection.is_open:
            connection = await self.connect()
        future = connection.send(request)
        await asyncio.wait([future], timeout=patience)
        answer = connection.answer
        if future.done() and answer.is_whole and connection.is_open and answer.headers.get("connection") != "close":
            self._idle.append(connection)
        else:
            connection.transport.abort()
            answer.ended = time.monotonic()
            self._all.discard(connection)
        return answer

    async def chat(self, model: str, *, stream: bool = False, id: str = "", **headers: str) -> Answer:
        """Ask for a completion."""
        return await self.send(self.request(model, stream=stream, id=id, **headers))

    async def get(self, path: str) -> Answer:
        """Ask for a page."""
        return await self.send(self.raw("GET", path))

    def close(self) -> None:
        """Drop all connections."""
        for connection in self._all:
            connection.transport.abort()
        self._all.clear()
        self._idle.clear()
