"""A provider on loopback that misbehaves as it is told, in the dialect of OpenAI or of Anthropic.

A request names its fault in its model: `fault:cut_40`. Several, joined with `+`, are played in turn, the last one for
all that follow: `fault:error_500+fine` fails once. What each fault is, `FAULTS` says.
"""

from __future__ import annotations

import asyncio
import gzip
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Any

import orjson

from tests.fakes import Asked, LoopbackProvider, chunk, completion

TOKENS = [f"t{n} " for n in range(60)]
ANSWER = "".join(TOKENS)
USAGE = (9, 60)  # what the provider bills for a whole answer
SLOW = 0.15  # seconds: slow, but within every limit of the tests
HEART = 0.05  # seconds between keep-alive comments
_CALL = {"id": "call_1", "name": "look_up", "arguments": '{"what": "everything"}'}


class OpenAIDialect:
    """Its answers and events as OpenAI writes them."""

    keep_alive = b": ping\n\n"
    finish_at = 0  # which of the last events tells the finish reason

    def whole(self, text: str = ANSWER) -> bytes:
        usage = {"prompt_tokens": USAGE[0], "completion_tokens": USAGE[1], "total_tokens": sum(USAGE)}
        return orjson.dumps(completion(text, "real") | {"usage": usage})

    def filtered(self) -> bytes:
        answer = completion("", "real")
        answer["choices"][0]["finish_reason"] = "content_filter"
        return orjson.dumps(answer)

    def event(self, value: Any, name: str = "") -> bytes:
        return b"data: " + orjson.dumps(value) + b"\n\n"

    def begin(self) -> list[bytes]:
        return [self.event(chunk({"role": "assistant", "content": ""}, model="real"))]

    def text(self, token: str) -> bytes:
        return self.event(chunk({"content": token}, model="real"))

    def call(self) -> list[bytes]:
        head = {"index": 0, "id": _CALL["id"], "type": "function", "function": {"name": _CALL["name"], "arguments": ""}}
        more = {"index": 0, "function": {"arguments": _CALL["arguments"][:9]}}
        return [self.event(chunk({"tool_calls": [part]}, model="real")) for part in (head, more)]

    def finish(self, reason: str = "stop") -> list[bytes]:
        return [self.event(chunk({}, reason, model="real")), self.usage(), b"data: [DONE]\n\n"]

    def usage(self, *, without_choices: bool = False) -> bytes:
        usage = {"prompt_tokens": USAGE[0], "completion_tokens": USAGE[1], "total_tokens": sum(USAGE)}
        value = chunk({}, model="real") | {"choices": [], "usage": usage}
        if without_choices:
            del value["choices"]
        return self.event(value)

    def error(self, kind: str, message: str) -> dict[str, Any]:
        return {"error": {"message": message, "type": kind, "code": kind, "param": None}}

    def error_event(self) -> bytes:
        return self.event(self.error("server_error", "the engine fell over"))

    def too_long(self) -> dict[str, Any]:
        return self.error("context_length_exceeded", "This model's maximum context length is 10 tokens.")

    def refusal(self) -> dict[str, Any]:
        return self.error("content_filter", "The prompt was refused.")


class AnthropicDialect(OpenAIDialect):
    """The same in the Messages API."""

    keep_alive = b'event: ping\ndata: {"type": "ping"}\n\n'
    finish_at = 1

    def whole(self, text: str = ANSWER) -> bytes:
        return orjson.dumps(self._message([{"type": "text", "text": text}], "end_turn"))

    def filtered(self) -> bytes:
        return orjson.dumps(self._message([], "refusal"))

    @staticmethod
    def _message(content: list[Any], reason: str | None) -> dict[str, Any]:
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "real",
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": {"input_tokens": USAGE[0], "output_tokens": USAGE[1] if reason else 1},
        }

    def event(self, value: Any, name: str = "") -> bytes:
        return f"event: {value.get('type', name)}\n".encode() + super().event(value)

    def begin(self) -> list[bytes]:
        return [
            self.event({"type": "message_start", "message": self._message([], None)}),
            self.event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        ]

    def text(self, token: str) -> bytes:
        return self.event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": token}})

    def call(self) -> list[bytes]:
        block = {"type": "tool_use", "id": _CALL["id"], "name": _CALL["name"], "input": {}}
        delta = {"type": "input_json_delta", "partial_json": _CALL["arguments"][:9]}
        return [
            self.event({"type": "content_block_stop", "index": 0}),
            self.event({"type": "content_block_start", "index": 1, "content_block": block}),
            self.event({"type": "content_block_delta", "index": 1, "delta": delta}),
        ]

    def finish(self, reason: str = "end_turn") -> list[bytes]:
        return [
            self.event({"type": "content_block_stop", "index": 0}),
            self.usage(),
            self.event({"type": "message_stop"}),
        ]

    def usage(self, *, without_choices: bool = False) -> bytes:
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        return self.event({"type": "message_delta", "delta": delta, "usage": {"output_tokens": USAGE[1]}})

    def error(self, kind: str, message: str) -> dict[str, Any]:
        kinds = {"server_error": "api_error", "overloaded": "overloaded_error", "rate_limit": "rate_limit_error"}
        return {"type": "error", "error": {"type": kinds.get(kind, kind), "message": message}}

    def too_long(self) -> dict[str, Any]:
        return self.error("invalid_request_error", "prompt is too long: 300000 tokens > 200000 maximum")


class Exchange:
    """One request, and what may be written to it."""

    def __init__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        self.json: dict[str, Any] = asked.json
        self.is_stream = bool(self.json.get("stream"))
        is_anthropic = asked.path.endswith("/messages")
        self.dialect = AnthropicDialect() if is_anthropic else OpenAIDialect()
        self._writer = writer

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, body: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
        headers = {"content_type": "application/json"} | headers
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        length = len(body) if length is None else length
        await self.write(f"HTTP/1.1 {status} X\r\n{lines}content-length: {length}\r\n\r\n".encode() + body)

    async def refuse(self, status: int, error: dict[str, Any], **headers: str) -> None:
        await self.answer(orjson.dumps(error), status, None, **headers)

    async def open(self) -> None:
        await self.write(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            await self.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")

    async def close(self) -> None:
        await self.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Reset the connection: a plain close would look like an end to some."""
        transport: Any = self._writer.transport
        transport.abort()

    async def stream(self, *pieces: bytes) -> None:
        await self.open()
        await self.send(*pieces)
        await self.close()

    async def begin(self, tokens: int) -> None:
        """A stream up to so many tokens."""
        await self.open()
        await self.send(*self.dialect.begin(), *(self.dialect.text(token) for token in TOKENS[:tokens]))

    async def half(self) -> None:
        """The first half of a whole answer."""
        body = self.dialect.whole()
        head = f"HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        await self.write(head.encode() + body[: len(body) * 2 // 3])

    @staticmethod
    async def silence() -> None:
        await asyncio.Event().wait()


async def fine(x: Exchange) -> None:
    if x.is_stream:
        await x.begin(60)
        await x.send(*x.dialect.finish())
        await x.close()
    else:
        await x.answer(x.dialect.whole())


async def going_on(x: Exchange) -> None:
    """Goes on from a prefix, token by token; without one it begins."""
    last = x.json["messages"][-1]
    content = last["content"] if last["role"] == "assistant" else ""
    text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    rest = ANSWER[len(text.rstrip()) :] if text else ANSWER
    if not x.is_stream:
        await x.answer(x.dialect.whole(rest))
        return
    await x.stream(*x.dialect.begin(), x.dialect.text(rest[:7]), x.dialect.text(rest[7:]), *x.dialect.finish())


async def refuses_prefill(x: Exchange) -> None:
    if x.json["messages"][-1]["role"] == "assistant":
        message = "This model does not support assistant message prefill."
        await x.refuse(400, x.dialect.error("invalid_request_error", message))
    else:
        await fine(x)


async def begins_again(x: Exchange) -> None:
    await fine(x)


async def limited(x: Exchange) -> None:
    await x.refuse(429, x.dialect.error("rate_limit", "slow down"), retry_after="1")


async def limited_without_a_word(x: Exchange) -> None:
    await x.refuse(429, x.dialect.error("rate_limit", "slow down"))


async def no_quota(x: Exchange) -> None:
    await x.refuse(429, x.dialect.error("insufficient_quota", "You exceeded your current quota."))


async def error_500(x: Exchange) -> None:
    await x.refuse(500, x.dialect.error("server_error", "boom"))


async def overload_503(x: Exchange) -> None:
    await x.refuse(503, x.dialect.error("overloaded", "busy"))


async def overload_529(x: Exchange) -> None:
    await x.refuse(529, x.dialect.error("overloaded", "Overloaded"))


async def dead_key(x: Exchange) -> None:
    await x.refuse(401, x.dialect.error("authentication_error", "invalid x-api-key"))


async def bad_request(x: Exchange) -> None:
    await x.refuse(422, x.dialect.error("invalid_request_error", "temperature must be less than 2"))


async def too_long(x: Exchange) -> None:
    await x.refuse(400, x.dialect.too_long())


async def content_filter(x: Exchange) -> None:
    await x.refuse(400, x.dialect.refusal())


async def filtered_answer(x: Exchange) -> None:
    await x.answer(x.dialect.filtered())


async def reset(x: Exchange) -> None:
    x.cut()


async def silence(x: Exchange) -> None:
    await x.silence()


async def slow_first(x: Exchange) -> None:
    await asyncio.sleep(SLOW)
    await fine(x)


async def steady(x: Exchange) -> None:
    """Slow, but never silent for long; longer in all than any silence may be."""
    if not x.is_stream:
        await fine(x)
        return
    await x.begin(10)
    for at in range(10, 60, 10):
        await asyncio.sleep(SLOW)
        await x.send(*(x.dialect.text(token) for token in TOKENS[at : at + 10]))
    await x.send(*x.dialect.finish())
    await x.close()


async def cut_40(x: Exchange) -> None:
    await (x.begin(40) if x.is_stream else x.half())
    x.cut()


async def stall_40(x: Exchange) -> None:
    await (x.begin(40) if x.is_stream else x.half())
    await x.silence()


async def closed_40(x: Exchange) -> None:
    """The body ends in due form, but the answer in it does not."""
    if x.is_stream:
        await x.begin(40)
        await x.close()
    else:
        await x.answer(x.dialect.whole()[:200])


async def malformed_event(x: Exchange) -> None:
    if x.is_stream:
        await x.open()
        await x.send(*x.dialect.begin(), b'data: {"choices": [{"delta"\n\n')
        await x.close()
    else:
        await x.answer(b'{"choices": [{"message"')


async def malformed_40(x: Exchange) -> None:
    if x.is_stream:
        await x.begin(40)
        await x.send(b'data: {"choices": [{"delta"\n\n')
        await x.close()
    else:
        await malformed_event(x)


async def missing_done(x: Exchange) -> None:
    if x.is_stream:
        await x.begin(60)
        await x.send(*x.dialect.finish()[:-1])
        await x.close()
    else:
        await fine(x)


async def error_before(x: Exchange) -> None:
    if x.is_stream:
        await x.stream(*x.dialect.begin(), x.dialect.error_event())
    else:
        await x.answer(orjson.dumps(x.dialect.error("server_error", "the engine fell over")))


async def error_after(x: Exchange) -> None:
    if x.is_stream:
        await x.begin(40)
        await x.send(x.dialect.error_event())
        await x.close()
    else:
        await error_before(x)


async def cut_in_tool(x: Exchange) -> None:
    if x.is_stream:
        await x.begin(3)
        await x.send(*x.dialect.call())
        x.cut()
    else:
        await cut_40(x)


async def cut_in_character(x: Exchange) -> None:
    if x.is_stream:
        await x.begin(3)
        await x.send(x.dialect.text("né").partition("é".encode())[0] + b"\xc3")
        x.cut()
    else:
        body = x.dialect.whole("né" * 50)
        await x.answer(body[: body.rindex(b"\xc3") + 1], length=len(body))
        x.cut()


async def keep_alives_only(x: Exchange) -> None:
    await x.open()
    while True:
        await x.send(x.dialect.keep_alive)
        await asyncio.sleep(HEART)


async def keep_alives_after_40(x: Exchange) -> None:
    if not x.is_stream:
        await keep_alives_only(x)
    await x.begin(40)
    while True:
        await x.send(x.dialect.keep_alive)
        await asyncio.sleep(HEART)


async def empty_200(x: Exchange) -> None:
    await x.answer(b"", content_type="text/event-stream" if x.is_stream else "application/json")


async def html_200(x: Exchange) -> None:
    await x.answer(b"<html><body>Please log in</body></html>", content_type="text/html")


async def false_length(x: Exchange) -> None:
    """Promises more than it sends."""
    if x.is_stream:
        events = b"".join([*x.dialect.begin(), *(x.dialect.text(token) for token in TOKENS[:40])])
        await x.answer(events, length=len(events) + 1000, content_type="text/event-stream")
    else:
        body = x.dialect.whole()
        await x.answer(body[:-20], length=len(body) + 100)
    x.cut()


async def gzip_body(x: Exchange) -> None:
    """Compressed, though nobody asked for it."""
    if x.is_stream:
        events = [*x.dialect.begin(), *(x.dialect.text(token) for token in TOKENS), *x.dialect.finish()]
        body, kind = b"".join(events), "text/event-stream"
    else:
        body, kind = x.dialect.whole(), "application/json"
    await x.answer(gzip.compress(body), content_type=kind, content_encoding="gzip")


async def duplicate_finish(x: Exchange) -> None:
    if x.is_stream:
        await x.begin(60)
        events = x.dialect.finish()
        at = x.dialect.finish_at
        await x.send(*events[: at + 1], *events[at:])
        await x.close()
    else:
        await fine(x)


async def usage_without_choices(x: Exchange) -> None:
    if x.is_stream:
        await x.begin(60)
        first, _, *rest = x.dialect.finish()
        await x.send(first, x.dialect.usage(without_choices=True), *rest)
        await x.close()
    else:
        await fine(x)


async def drip(x: Exchange) -> None:
    """One byte at a time, all of it."""
    if x.is_stream:
        data = b"".join([*x.dialect.begin(), *(x.dialect.text(t) for t in ("a", "b")), *x.dialect.finish()])
        await x.open()
        await x.send(*(data[at : at + 1] for at in range(len(data))))
        await x.close()
    else:
        body = x.dialect.whole("ab")
        await x.answer(body[:1], length=len(body))
        for at in range(1, len(body)):
            await x.write(body[at : at + 1])
            await asyncio.sleep(0)


async def drip_for_ever(x: Exchange) -> None:
    """One byte now and then: no read is ever silent for long, and nothing ever comes."""
    await x.open()
    while True:
        await x.send(b":")
        await asyncio.sleep(HEART)


async def closes_behind(x: Exchange) -> None:
    """A keep-alive connection that is closed right behind the answer: the next request must not stumble over it."""
    await fine(x)
    x.cut()


async def second_response(x: Exchange) -> None:
    """Another answer behind the first: nobody may ever read it."""
    await fine(x)
    body = b'{"choices":[{"message":{"role":"assistant","content":"POISON"},"finish_reason":"stop"}]}'
    await x.answer(body)


Fault = Callable[[Exchange], Awaitable[None]]
FAULTS: dict[str, Fault] = {
    name: value
    for name, value in list(globals().items())
    if asyncio.iscoroutinefunction(value) and value.__module__ == __name__
}


class FaultyProvider:
    """A `LoopbackProvider` whose script is `FAULTS`. `times` are the monotonic seconds of each request, by fault."""

    def __init__(self) -> None:
        self.loopback = LoopbackProvider(self._play)
        self.times: dict[str, list[float]] = defaultdict(list)
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []

    def reset(self) -> None:
        self.times.clear()
        self.bodies.clear()
        self.keys.clear()
        self.loopback.hangups = 0
        self.loopback.hung_up.clear()

    def gaps(self, model: str) -> Sequence[float]:
        """Seconds between the attempts at one model."""
        times = self.times[model]
        return [later - earlier for earlier, later in pairwise(times)]

    async def _play(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        exchange = Exchange(asked, writer)
        model = str(exchange.json["model"])
        times = self.times[model]
        names = model.removeprefix("fault:").split("+")
        name = names[min(len(times), len(names) - 1)]
        times.append(time.monotonic())
        self.bodies.append(exchange.json)
        self.keys.append(asked.headers.get("authorization", "").removeprefix("Bearer ") or asked.headers["x-api-key"])
        await FAULTS[name](exchange)
