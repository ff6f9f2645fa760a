"""The real Claude program, where it is installed, and the Messages API on loopback that it is to talk to."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from gw.adapters.claude_cli.program import find_program
from tests.fakes import Asked

PROGRAM = find_program(None, {"PATH": "/nonexistent"})


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: ".encode() + orjson.dumps({"type": kind, **fields}) + b"\n\n"


def message(*parts: tuple[dict[str, Any], list[dict[str, Any]]], stop: str = "end_turn") -> bytes:
    """A Messages API stream: content blocks, each with its deltas."""
    usage = {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 1}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-mock", "content": []}
    events = [event("message_start", message=head | {"stop_reason": None, "usage": usage})]
    for index, (block, deltas) in enumerate(parts):
        events.append(event("content_block_start", index=index, content_block=block))
        events += [event("content_block_delta", index=index, delta=delta) for delta in deltas]
        events.append(event("content_block_stop", index=index))
    events.append(
        event("message_delta", delta={"stop_reason": stop, "stop_sequence": None}, usage={"output_tokens": 4})
    )
    return b"".join([*events, event("message_stop")])


def says(*texts: str) -> bytes:
    return message(({"type": "text", "text": ""}, [{"type": "text_delta", "text": text} for text in texts]))


def calls(*tools: tuple[str, dict[str, Any]]) -> bytes:
    parts = []
    for number, (name, arguments) in enumerate(tools):
        block = {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": {}}
        parts.append((block, [{"type": "input_json_delta", "partial_json": orjson.dumps(arguments).decode()}]))
    return message(*parts, stop="tool_use")


class Anthropic:
    """The Messages API on loopback. A request is answered by what its last user text says."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []  # what a prompt with "tool" in it makes the model do
        self.headers: list[dict[str, str]] = []

    async def __call__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.method != "POST":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            return
        self.bodies.append(asked.json)
        self.headers.append(dict(asked.headers))
        text = last_text(asked.json)
        if "limit" in text:
            content = orjson.dumps({"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}})
            writer.write(b"HTTP/1.1 429 X\r\nContent-Type: application/json\r\nretry-after: 0\r\n")
            writer.write(f"Content-Length: {len(content)}\r\n\r\n".encode() + content)
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        results = tool_results(asked.json)
        if "hang" in text:
            await self._write(writer, says("half")[:-200])
            await asyncio.Event().wait()
        elif results:
            await self._write(writer, says("RESULT ", "\n".join(results)))
        elif "tool" in text:
            await self._write(writer, calls(*self.calls))
        else:
            await self._write(writer, says("Hello ", "from ", "the mock"))
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    @staticmethod
    async def _write(writer: asyncio.StreamWriter, content: bytes) -> None:
        writer.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        await writer.drain()


def blocks(turn: dict[str, Any]) -> list[dict[str, Any]]:
    content = turn["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def last_text(body: dict[str, Any]) -> str:
    texts = [
        block["text"]
        for turn in body["messages"]
        if turn["role"] == "user"
        for block in blocks(turn)
        if "text" in block
    ]
    return str(texts[-1]) if texts else ""


def tool_results(body: dict[str, Any]) -> list[str]:
    return [
        orjson.dumps(block.get("content")).decode()
        for turn in body["messages"]
        for block in blocks(turn)
        if block["type"] == "tool_result"
    ]
