"""Claude's JSON with mistakes, and with integers beyond 64 bits: the answer arrives, and no digit is lost."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gw.errors import UpstreamProtocolError
from gw.provider_json import read_exactly
from tests.anthropic_fakes import (
    OLD,
    called,
    codec_of,
    ending,
    message_of,
    message_start,
    result,
    sse,
    text_events,
    user,
)
from tests.recordings import read_chunks

ID = 12345678901234567890123
CUT = rb"\ud83d"  # half an emoji, as Claude cuts it now and then


def live() -> Any:
    return codec_of({"messages": [user()], "stream": True})


def chunks_of(codec: Any, body: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(chunk.raw) for chunk in (*codec.feed(body), *codec.finish())]


def test_half_an_emoji_ends_no_stream() -> None:
    events = sse(message_start(), *text_events(0, "Hello ", "HALF", "."), *ending()).replace(b"HALF", CUT)
    assert read_chunks(chunks_of(live(), events)).text == "Hello \ufffd."


def test_half_an_emoji_ends_no_whole_answer() -> None:
    block = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": "HALF"}}
    body = message_of([{"type": "text", "text": "HALF"}, block], "tool_use").replace(b"HALF", CUT)
    message = orjson.loads(codec_of({"messages": [user()]}).complete(body).raw)["choices"][0]["message"]
    assert message["content"] == "\ufffd"
    assert message["tool_calls"][0]["function"]["arguments"] == '{"a":"\ufffd"}'


def test_not_a_number_in_an_event_is_no_garbage() -> None:
    events = sse(message_start(), *text_events(0, "A"), *ending()).replace(b'"text":"A"', b'"text":"A","score":NaN')
    assert read_chunks(chunks_of(live(), events)).text == "A"


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_tools_input_keeps_its_integers(is_stream: bool) -> None:
    block = {"type": "tool_use", "id": "t1", "name": "f", "input": {"id": 7}}
    body = message_of([block], "tool_use").replace(b'"id":7', b'"id":%d' % ID)
    codec = codec_of({"messages": [user()], "stream": is_stream})
    if is_stream:
        body = b"event: message\ndata: " + body + b"\n\n"
        call = read_chunks(chunks_of(codec, body)).tool_calls[0]
        assert call == ("t1", "f", {"id": ID})
    else:
        message = orjson.loads(codec.complete(body).raw)["choices"][0]["message"]
        assert message["tool_calls"][0]["function"]["arguments"] == f'{{"id":{ID}}}'


def test_an_answer_by_way_of_a_tool_keeps_its_integers() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}}
    codec = codec_of({"messages": [user()], "response_format": form}, OLD)
    block = {"type": "tool_use", "id": "t1", "name": "json_answer", "input": {"answer": 7}}
    body = message_of([block], "tool_use").replace(b'"answer":7', b'"answer":%d' % ID)
    assert orjson.loads(codec.complete(body).raw)["choices"][0]["message"]["content"] == str(ID)


def test_the_arguments_of_earlier_calls_keep_their_integers() -> None:
    history = [user(), called(("t1", "f", f'{{"id":{ID},"text":"\u00e9"}}')), result("t1")]
    codec = codec_of({"messages": history, "tools": [{"type": "function", "function": {"name": "f"}}]})
    assert b'"input":{"id":%d,"text":"\xc3\xa9"}' % ID in codec.wire.content
    assert read_exactly(codec.wire.content)["messages"][1]["content"][0]["input"]["id"] == ID
    assert list(codec.losses) == []


@pytest.mark.parametrize("depth", [300, 900])
def test_input_that_is_nested_deep_arrives_or_is_garbage(depth: int) -> None:
    block = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": "DEEP"}}
    body = message_of([block], "tool_use").replace(b'"DEEP"', b"[" * depth + b"]" * depth)
    try:
        completion = codec_of({"messages": [user()]}).complete(body)
    except UpstreamProtocolError:
        return
    call = orjson.loads(completion.raw)["choices"][0]["message"]["tool_calls"][0]
    assert call["function"]["arguments"] == '{"a":' + "[" * depth + "]" * depth + "}"
