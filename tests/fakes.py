"""One fake per seam: a clock, workers' memory, a backend's wire, and a provider on loopback that speaks real HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from gw.adapter import WireRequest, WireResponse
from gw.adapters.faulty.server import Asked as Asked
from gw.adapters.faulty.server import RawServer
from gw.backend import Backend
from gw.document import Chunk, Completion, Document
from gw.errors import GatewayError
from gw.message import Headers, Request, Response, Summary, Usage
from gw.shared import LocalShared, Rows
from gw.stream import ListStream


class FakeClock:
    """A clock that goes when it is told to. `sleep` passes time at once and remembers how long."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.slept: list[float] = []
        self._looked = asyncio.Event()

    def __call__(self) -> float:
        self._looked.set()
        return self.now

    async def looked_at(self) -> None:
        """Wait until somebody has looked, and what he does about it is done."""
        self._looked.clear()
        async with asyncio.timeout(60):
            await self._looked.wait()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class OneOf(LocalShared):
    """What one of two workers sees of memory that both have."""

    def __init__(self, memory: dict[str, list[memoryview[float]]], worker: int, lock: threading.Lock) -> None:
        super().__init__()
        self._memory = memory
        self._worker = worker
        self._guard = lock

    def gauges(self, name: str, count: int = 1) -> Rows:
        return self._both("gauges " + name, count)

    def counters(self, name: str, count: int = 1) -> Rows:
        return self._both("counters " + name, count)

    def _both(self, name: str, count: int) -> Rows:
        rows = self._memory.setdefault(name, [memoryview(bytearray(8 * count)).cast("d") for _ in range(2)])
        return Rows(rows, self._worker, self._guard)


def chat_request(chat: dict[str, Any] | None = None, **fields: Any) -> Request:
    """A request whose body was read, as the layers behind `rate_limit` see it."""
    chat = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}]} | (chat or {})
    headers = Headers([(name.lower().encode(), value.encode()) for name, value in fields.pop("headers", {}).items()])
    request = Request(method="POST", path="/v1/chat/completions", id="req-1", headers=headers, client="127.0.0.1")
    request.document = Document(orjson.dumps(chat))
    request.operation = request.exchange.operation = "chat"
    request.exchange.request = request.document
    request.exchange.model = chat.get("model")
    request.exchange.stream = bool(chat.get("stream"))
    return request.replace(**fields)


def completion(text: str = "Hello!", model: str = "gpt-4", **message: Any) -> dict[str, Any]:
    """A whole answer in OpenAI's shape."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text} | message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    }


def chunk(delta: dict[str, Any], finish_reason: str | None = None, model: str = "gpt-4") -> dict[str, Any]:
    """One chunk in OpenAI's shape."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    }


def chunks(*texts: str, model: str = "gpt-4") -> list[dict[str, Any]]:
    """A whole stream: the role, the texts, the finish, the usage."""
    return [
        chunk({"role": "assistant", "content": ""}, model=model),
        *(chunk({"content": text}, model=model) for text in texts),
        chunk({}, "stop", model=model),
        chunk({}, model=model) | {"choices": [], "usage": completion()["usage"]},
    ]


@dataclass
class FakeProvider:
    """A backend that answers as told, in process: a dict is a whole answer, a list is a stream, an error is raised.

    Each entry of `answers` serves one request; the last one serves all that follow.
    """

    answers: list[dict[str, Any] | list[Any] | GatewayError]
    asked: list[Request] = field(default_factory=list)

    async def answer(self, request: Request) -> Response:
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, GatewayError):
            raise answer
        summary = Summary(model=request.candidate.model, usage=Usage(9, 3), finish_reason="stop")
        if isinstance(answer, list):
            error = answer[-1] if answer and isinstance(answer[-1], GatewayError) else None
            values = answer[:-1] if error else answer
            return Response(ListStream([Chunk(value=value) for value in values], error), summary=summary)
        return Response(Completion(value=answer), summary=summary)


def fake_backend(name: str = "fake", *answers: Any, **fields: Any) -> Backend:
    """A backend over a FakeProvider; its answers default to one whole completion."""
    provider = FakeProvider(list(answers) or [completion()])
    return Backend(name=name, kind=fields.pop("kind", "fake"), provider=provider, **fields)


class FakeBody:
    """A WireBody over a list of pieces; an exception among them is raised where it stands."""

    def __init__(self, pieces: Sequence[bytes | BaseException]) -> None:
        self._pieces = list(pieces)
        self.is_closed = False
        self.is_committed = False

    async def read(self) -> bytes:
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if isinstance(piece, BaseException):
            raise piece
        return piece

    def commit(self) -> None:
        self.is_committed = True

    async def aclose(self) -> None:
        self.is_closed = True


@dataclass
class FakeTransport:
    """The wire's far end, in process: answers in turn, the last one again and again; remembers what was sent."""

    answers: list[tuple[int, dict[str, str], Sequence[bytes | BaseException]] | Exception]
    sent: list[WireRequest] = field(default_factory=list)
    bodies: list[FakeBody] = field(default_factory=list)

    async def __call__(self, wire: WireRequest) -> WireResponse:
        self.sent.append(wire)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        status, headers, pieces = answer
        self.bodies.append(FakeBody(pieces))
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        return WireResponse(status, Headers(pairs), self.bodies[-1])


def sse(*values: Any, done: bool = True) -> bytes:
    """Values as an OpenAI event stream."""
    events = b"".join(b"data: " + orjson.dumps(value) + b"\n\n" for value in values)
    return events + (b"data: [DONE]\n\n" if done else b"")


# --- a provider on loopback --------------------------------------------------------------------------------------


Script = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


class LoopbackProvider(RawServer):
    """A provider that speaks real HTTP on 127.0.0.1, byte for byte as a script tells it.

    `script(asked, writer)` writes whatever it likes. `hangups` counts requests whose client left before the script
    had ended; `asked` keeps all requests.
    """

    def __init__(self, script: Script) -> None:
        super().__init__(self._run, self._note_hangup)
        self.script = script
        self.asked: list[Asked] = []
        self.hangups = 0
        self.hung_up = asyncio.Event()

    async def __aenter__(self) -> LoopbackProvider:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def _run(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        self.asked.append(asked)
        await self.script(asked, writer)

    def _note_hangup(self) -> None:
        self.hangups += 1
        self.hung_up.set()


def answers(body: bytes, *, status: int = 200, content_type: str = "application/json", **headers: str) -> Script:
    """A script that gives one answer with its length."""
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    return script


def streams(*pieces: bytes, cut: bool = False) -> Script:
    """A script that streams pieces as an event stream, one chunk each; `cut` drops the connection after the last."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in pieces:
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
        if cut:
            writer.close()
            return
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    return script


def by_turns(*scripts: Script) -> Script:
    """Each request gets the next script; the last one serves all that follow."""
    left = list(scripts)

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(asked, writer)

    return script


async def read_all(response: Response) -> AsyncIterator[Chunk]:
    """Every chunk of a streamed response."""
    assert not isinstance(response.content, bytes | Completion)
    async for piece in response.content:
        yield piece
