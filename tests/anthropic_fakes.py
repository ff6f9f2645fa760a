"""What the tests of Claude's adapters share: a request, a codec, a stream written by hand, what a body means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from gw.adapters.anthropic import Anthropic, AnthropicCodec
from gw.backend import Backend
from gw.message import Candidate, Loss, Request
from gw.secret import Secret
from gw.signatures import MemorySignatures
from tests.fakes import chat_request

BUDGET = "claude-sonnet-4-5"  # thinks by budget, samples, takes prefills and schemas
ADAPTIVE = "claude-opus-5"  # thinks by effort, takes system messages anywhere
ALWAYS = "claude-opus-5-5"  # always thinks, cannot be forced to call a tool
OLD = "claude-3-5-sonnet"  # neither thinks nor takes schemas
MIXED = "claude-sonnet-4-6"  # thinks both ways


def request_of(chat: dict[str, Any], model: str = BUDGET, key: str | None = "sk-ant-test") -> Request:
    """A chat request on its way to a backend that runs `model`."""
    request = chat_request({"model": "asked-for"} | chat)
    request.exchange.timestamp = 1_700_000_000.5
    secret = None if key is None else Secret(key)
    return request.replace(candidates=(Candidate(Backend("claude", "anthropic"), model, "asked-for", key=secret),))


def codec_of(chat: dict[str, Any] | None = None, model: str = BUDGET, **options: Any) -> AnthropicCodec:
    """The codec for a request, of an adapter with these options and a signature store of its own."""
    options = {"signatures": MemorySignatures()} | options
    return Anthropic(**options).open(request_of(chat or {}, model))


def encoded(chat: dict[str, Any], model: str = BUDGET, **options: Any) -> tuple[dict[str, Any], list[Loss]]:
    """The body that goes out, and what was lost on the way."""
    codec = codec_of(chat, model, **options)
    return orjson.loads(codec.wire.content), list(codec.losses)


def body_of(chat: dict[str, Any], model: str = BUDGET, **options: Any) -> dict[str, Any]:
    """The body that goes out, where nothing may be lost."""
    body, losses = encoded(chat, model, **options)
    assert losses == []
    return body


def pointers(losses: Sequence[Loss]) -> list[tuple[str, str]]:
    """Losses without their explanations."""
    return [(loss.pointer, loss.kind) for loss in losses]


def user(content: Any = "Hi") -> dict[str, Any]:
    """A user message."""
    return {"role": "user", "content": content}


def called(*calls: tuple[str, str, str], **fields: Any) -> dict[str, Any]:
    """An assistant message with tool calls: (id, name, arguments)."""
    listed = [{"id": i, "type": "function", "function": {"name": name, "arguments": text}} for i, name, text in calls]
    return {"role": "assistant", "content": None, "tool_calls": listed} | fields


def result(call_id: str, content: Any = "ok", **fields: Any) -> dict[str, Any]:
    """A tool message."""
    return {"role": "tool", "tool_call_id": call_id, "content": content} | fields


def function(name: str = "look", parameters: Any = None, **fields: Any) -> dict[str, Any]:
    """A tool definition."""
    return {"type": "function", "function": {"name": name, "parameters": parameters or {}} | fields}


def sse(*events: dict[str, Any]) -> bytes:
    """Events framed as Anthropic frames them."""
    return b"".join(
        b"event: " + event["type"].encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n" for event in events
    )


def message_start(**usage: int) -> dict[str, Any]:
    """The first event of a stream."""
    message = {"id": "msg_1", "model": "claude-x", "role": "assistant", "content": [], "usage": usage}
    return {"type": "message_start", "message": message}


def block_events(index: int, block: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    """All events of one content block."""
    return [
        {"type": "content_block_start", "index": index, "content_block": block},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text_events(index: int, *texts: str) -> list[dict[str, Any]]:
    """All events of a text block."""
    return block_events(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": t} for t in texts))


def tool_events(index: int, call_id: str, name: str, *pieces: str) -> list[dict[str, Any]]:
    """All events of a tool_use block whose JSON arrives in these pieces."""
    block = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
    return block_events(index, block, *({"type": "input_json_delta", "partial_json": piece} for piece in pieces))


def ending(stop_reason: str = "end_turn", stop_details: Any = None, **usage: Any) -> list[dict[str, Any]]:
    """The last two events of a stream."""
    delta = {"stop_reason": stop_reason, "stop_details": stop_details}
    return [{"type": "message_delta", "delta": delta, "usage": usage}, {"type": "message_stop"}]


def streamed(codec: AnthropicCodec, *events: dict[str, Any]) -> list[dict[str, Any]]:
    """What a client gets of a whole stream."""
    return [chunk.peek() for chunk in (*codec.feed(sse(*events)), *codec.finish())]


def message_of(content: list[dict[str, Any]], stop_reason: str = "end_turn", **fields: Any) -> bytes:
    """A whole answer's body."""
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": content}
    usage = {"input_tokens": 5, "output_tokens": 7}
    return orjson.dumps(message | {"stop_reason": stop_reason, "usage": usage} | fields)


def whole(codec: AnthropicCodec, content: list[dict[str, Any]], stop_reason: str = "end_turn", **fields: Any) -> Any:
    """The one choice that a client gets of a whole answer."""
    return codec.complete(message_of(content, stop_reason, **fields)).peek()["choices"][0]


def meaning(body: dict[str, Any]) -> dict[str, Any]:
    """A Messages request without what clients add of their own: roles, texts, tools, their choice, stop."""
    ids: dict[str, int] = {}
    turns = []
    for turn in body["messages"]:
        content = turn["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        turns.append((turn["role"], [_meaning_of_block(block, ids) for block in blocks]))
    system = body.get("system") or []
    return {
        "system": system if isinstance(system, str) else "\n\n".join(block["text"] for block in system),
        "turns": turns,
        "tools": {tool["name"]: _fields(tool["input_schema"]) for tool in body.get("tools") or []},
        "choice": _choice(body),
        "stop": body.get("stop_sequences") or [],
        "stream": bool(body.get("stream")),
    }


def _meaning_of_block(block: dict[str, Any], ids: dict[str, int]) -> Any:
    kind = block["type"]
    if kind == "text":
        return kind, block["text"]
    if kind == "tool_use":
        return kind, ids.setdefault(block["id"], len(ids)), block["name"], block["input"]
    if kind == "tool_result":
        content = block.get("content") or []
        parts = content if isinstance(content, str) else [_meaning_of_block(part, ids) for part in content]
        text = parts if isinstance(parts, str) else "".join(part[1] for part in parts)
        return kind, ids.setdefault(block["tool_use_id"], len(ids)), text
    return kind, block.get("source")


def _fields(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: value.get("type") for name, value in (schema.get("properties") or {}).items()}


def _choice(body: dict[str, Any]) -> tuple[str, str | None]:
    choice = body.get("tool_choice") or {"type": "auto"}
    return choice["type"], choice.get("name")
