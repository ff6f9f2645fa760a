"""Laws that every dialect keeps: garbage is told in short, a longer conversation begins with the same bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gw.adapter import Adapter, Codec
from gw.adapters.anthropic import Anthropic
from gw.adapters.gemini import Gemini
from gw.adapters.ollama import Ollama
from gw.adapters.openai import OpenAI
from gw.adapters.openrouter import OpenRouter
from gw.adapters.vertex_anthropic import VertexAnthropic
from gw.adapters.vertex_gemini import VertexGemini
from gw.backend import Backend
from gw.errors import GatewayError, UpstreamError, UpstreamProtocolError
from gw.message import Candidate, Headers
from gw.remote_media import Fetch
from gw.secret import Secret
from tests.fakes import chat_request

ADAPTERS: dict[str, Callable[[], Adapter]] = {
    "openai": OpenAI,
    "groq": lambda: OpenAI(base_url="https://api.groq.com/openai/v1"),
    "mistral": lambda: OpenAI(base_url="https://api.mistral.ai/v1"),
    "deepseek": lambda: OpenAI(base_url="https://api.deepseek.com"),
    "openrouter": OpenRouter,
    "anthropic": Anthropic,
    "vertex-anthropic": lambda: VertexAnthropic(project="p", token_env="GW_TEST_NO_TOKEN"),
    "gemini": Gemini,
    "vertex-gemini": lambda: VertexGemini(project="p", token_env="GW_TEST_NO_TOKEN"),
    "ollama": Ollama,
}
MODELS = {
    "anthropic": "claude-sonnet-4-5",
    "vertex-anthropic": "claude-sonnet-4-5",
    "gemini": "gemini-2.5-flash",
    "vertex-gemini": "gemini-2.5-flash",
}
KEY = "canary-5d41402abc4b2a76b9719d911017c592"  # has no prefix by which a key is known
PAGE = b"<html><head><title>502</title><style>x{}</style></head><body><h1>Bad gateway</h1> " + KEY.encode()
GARBAGE = {
    "a web page": PAGE + b"</body></html>",
    "nothing": b"",
    "blanks": b" \r\n\r\n ",
    "words": b"upstream connect error, key " + KEY.encode(),
    "another shape": b'{"hello": "world", "key": "' + KEY.encode() + b'"}',
    "a list": b'["' + KEY.encode() + b'"]',
    "a number": b"42",
    "binary": bytes(range(256)) * 4 + KEY.encode(),
    "half a JSON object": b'{"choices": [{"message": {"content": "Hi',
    "five megabytes": PAGE + b"x" * 5_000_000,
}


def codec_of(name: str, chat: dict[str, Any] | None = None) -> Codec:
    request = chat_request({"model": "asked-for"} | (chat or {}))
    backend = Backend(name=name, kind=name)
    candidate = Candidate(backend, MODELS.get(name, "some-model"), "asked-for", key=Secret(KEY))
    return ADAPTERS[name]().open(request.replace(candidates=(candidate,)))


def check_told(error: GatewayError, name: str) -> None:
    assert error.status == 502
    assert KEY not in error.message
    assert name in error.message  # which backend
    assert len(error.message) < 500
    assert "<h" not in error.message
    assert all(character >= " " for character in error.message)


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("name", ADAPTERS)
def test_garbage_instead_of_an_answer_is_a_502_with_a_short_quote(name: str, garbage: str) -> None:
    with pytest.raises(UpstreamProtocolError) as caught:
        codec_of(name).complete(GARBAGE[garbage])
    check_told(caught.value, name)


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("name", ADAPTERS)
def test_garbage_instead_of_a_stream_is_a_502_with_a_short_quote(name: str, garbage: str) -> None:
    codec = codec_of(name, {"stream": True})
    with pytest.raises(UpstreamProtocolError) as caught:  # noqa: PT012 (whichever of the two finds it out)
        assert not codec.feed(GARBAGE[garbage])
        codec.finish()
    check_told(caught.value, name)


@pytest.mark.parametrize("status", [404, 500, 502])
@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("name", ADAPTERS)
def test_garbage_with_an_error_status_is_told_in_short(name: str, garbage: str, status: int) -> None:
    error = codec_of(name).fail(status, Headers(), GARBAGE[garbage])
    assert isinstance(error, UpstreamError)
    assert KEY not in error.message
    assert len(error.message) < 500
    assert error.upstream_status == status
    assert error.status == 502


# --- prompt caching -----------------------------------------------------------------------------------------------

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
TOOLS = [
    {"type": "function", "function": {"name": "look up.it", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "g", "description": "G"}},
]
PICTURE: dict[str, Any] = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}


def call(at: int) -> dict[str, Any]:
    return {"id": f"call:{at}", "type": "function", "function": {"name": "look up.it", "arguments": '{"a": "x"}'}}


LOOK: list[dict[str, Any]] = [{"type": "text", "text": "Look"}, PICTURE]


def turn(*messages: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in messages]


TALK = [
    turn(("system", "Be brief."), ("user", "Hi")),
    turn(("assistant", "Hello!"), ("user", LOOK)),
    [{"role": "assistant", "content": "Hm.", "reasoning_content": "Hm."}, *turn(("user", "And now?"))],
    turn(("assistant", "Now?"), ("developer", "Be polite."), ("user", "Well?")),
]
LOOP: list[dict[str, Any]] = [
    {"role": "assistant", "content": None, "tool_calls": [call(1), call(2)]},
    {"role": "tool", "tool_call_id": "call:1", "content": "42"},
    {"role": "tool", "tool_call_id": "call:2", "content": ""},
]
SCENES: dict[str, tuple[list[list[dict[str, Any]]], dict[str, Any]]] = {
    "talk": (TALK, {}),
    "tools": ([*TALK[:2], LOOP, *TALK[2:]], {"tools": TOOLS}),
    "json": (TALK, {"response_format": {"type": "json_object"}}),
}
_HOLDER = {"gemini": b'"contents":[', "vertex-gemini": b'"contents":['}


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("name", ADAPTERS)
def test_one_turn_more_begins_with_the_same_bytes(name: str, scene: str) -> None:
    """What was sent before, up to the end of its last message, is sent again to the byte, or no cache would hit."""
    before: bytes | None = None
    messages: list[dict[str, Any]] = []
    turns, more = SCENES[scene]
    for new in turns:
        messages = [*messages, *new]
        content = codec_of(name, {"messages": messages} | more).wire.content
        if before is not None:
            assert content.startswith(before), f"{name}: {before[-80:]!r}"
        start = content.index(_HOLDER.get(name, b'"messages":['))
        before = content[: _end_of_array(content, start)]


def _end_of_array(content: bytes, start: int) -> int:
    """Where the last message of the array that begins at `start` still lacks the end of what may be added to it."""
    depth, quoted, escaped = 0, False, False
    for at in range(content.index(b"[", start), len(content)):
        byte = content[at : at + 1]
        if quoted:
            quoted = escaped or byte != b'"'
            escaped = byte == b"\\" and not escaped
        elif byte == b'"':
            quoted = True
        elif byte in b"[{":
            depth += 1
        elif byte in b"]}":
            depth -= 1
            if depth == 0:
                return at - 2  # a further part may be added to the last message: `]}` of its content stay open
    raise AssertionError("no array")


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_same_request_gives_the_same_bytes_every_time(name: str) -> None:
    turns, more = SCENES["tools"]
    chat = {"messages": [message for each in turns for message in each]} | more
    assert codec_of(name, chat).wire.content == codec_of(name, chat).wire.content


# --- addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "adapter",
    [
        Gemini(fetch=Fetch(("localhost:1",))),
        Ollama(fetch=Fetch(("localhost:1",))),
        OpenAI(base_url="http://127.0.0.1:11434/v1", fetch=Fetch(("localhost:1",))),
        VertexAnthropic(project="p", token_env="GW_TEST_NO_TOKEN", fetch=Fetch(("localhost:1",))),
    ],
    ids=lambda adapter: type(adapter).__name__,
)
def test_every_adapter_that_fetches_keeps_to_public_addresses(adapter: Any) -> None:

    picture = {"type": "image_url", "image_url": {"url": "http://localhost:1/a.png"}}
    with pytest.raises(GatewayError, match="no public address") as caught:
        asyncio.run(adapter.prepare(chat_request({"messages": [{"role": "user", "content": [picture]}]})))
    assert caught.value.status == 400
