"""Laws that every dialect keeps: garbage is told in short, a longer conversation begins with the same bytes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gw.adapters.gemini import Gemini
from gw.adapters.ollama import Ollama
from gw.adapters.openai import OpenAI
from gw.adapters.vertex_anthropic import VertexAnthropic
from gw.errors import GatewayError, UpstreamError, UpstreamProtocolError
from gw.message import Headers
from gw.remote_media import Fetch
from tests.codecs import ADAPTERS, KEY, codec_of
from tests.conversations import SCENES
from tests.fakes import chat_request

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
