"""What the tests of Gemini's adapter share: codecs, what they send and lose, events and answers written by hand."""

from __future__ import annotations

import warnings
from typing import Any

import orjson

from gw.adapters.gemini import Gemini, GeminiCodec
from gw.backend import Backend
from gw.message import Candidate
from gw.secret import Secret
from gw.signatures import MemorySignatures
from tests.codecs import opened_untouched
from tests.fakes import chat_request

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
USER: dict[str, Any] = {"role": "user", "content": "Hi"}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
}
WEB: dict[str, Any] = {"web_search_options": {}}


# --- requests -----------------------------------------------------------------------------------------------------


def open_codec(
    chat: dict[str, Any], model: str = "gemini-2.5-flash", adapter: Gemini | None = None, **options: Any
) -> GeminiCodec:
    adapter = adapter or Gemini(signatures=MemorySignatures(), **options)
    backend = Backend(name="google", kind="gemini", adapter=adapter)
    request = chat_request(chat, candidates=(Candidate(backend, model, "asked", key=Secret("AIza-canary")),))
    return opened_untouched(adapter, request)


def sent(chat: dict[str, Any], model: str = "gemini-2.5-flash", **options: Any) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(open_codec(chat, model, **options).wire.content)
    validate(body)
    return body


def losses(chat: dict[str, Any], model: str = "gemini-2.5-flash", **options: Any) -> dict[str, str]:
    return {loss.pointer: loss.kind for loss in open_codec(chat, model, **options).losses}


def validate(body: dict[str, Any]) -> None:
    """The body's tables against Google's own types, where their package is installed; unknown keys are errors there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from google.genai import types
        except ImportError:
            return
    kinds: dict[str, Any] = {
        "systemInstruction": types.Content,
        "toolConfig": types.ToolConfig,
        "generationConfig": types.GenerationConfig,
    }
    lists: dict[str, Any] = {"contents": types.Content, "tools": types.Tool, "safetySettings": types.SafetySetting}
    for name, value in body.items():
        if name in kinds:
            kinds[name].model_validate(value)
        elif name in lists:
            for item in value:
                lists[name].model_validate(item)
        else:
            assert name in ("serviceTier", "labels", "cachedContent"), name


def contents(messages: list[dict[str, Any]], model: str = "gemini-2.5-flash", **chat: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sent({"messages": messages, **chat}, model)["contents"]
    return found


def call(call_id: str, name: str = "f", arguments: str = '{"a":1}', **fields: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}, **fields}


def result(call_id: str, content: Any = "ok", **fields: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content, **fields}


def detail(data: str, **fields: Any) -> dict[str, Any]:
    return {"type": "reasoning.encrypted", "data": data, "format": "google-gemini-v1", **fields}


# --- answers ------------------------------------------------------------------------------------------------------


def codec(
    chat: dict[str, Any] | None = None,
    *,
    model: str = "gemini-2.5-flash",
    store: MemorySignatures | None = None,
    timestamp: float = 1_700_000_000.25,
) -> GeminiCodec:
    adapter = Gemini(signatures=store if store is not None else MemorySignatures())
    backend = Backend(name="google", kind="gemini", adapter=adapter)
    key = Secret("AIzaSECRET-canary-0123456789")
    request = chat_request(chat, candidates=(Candidate(backend, model, "asked", key=key),))
    request.exchange.timestamp = timestamp
    return adapter.open(request)


def stream_codec(chat: dict[str, Any] | None = None, **options: Any) -> GeminiCodec:
    return codec({"stream": True, **(chat or {})}, **options)


def sse(*events: dict[str, Any] | str) -> bytes:
    return b"".join(
        b"data: " + (event.encode() if isinstance(event, str) else orjson.dumps(event)) + b"\r\n\r\n"
        for event in events
    )


def part_event(*parts: dict[str, Any], finish: str | None = None, **fields: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate | fields]}


def answer(*parts: dict[str, Any], finish: str = "STOP", **fields: Any) -> dict[str, Any]:
    content = orjson.dumps(part_event(*parts, finish=finish, **fields))
    value: dict[str, Any] = orjson.loads(codec().complete(content).raw)
    return value
