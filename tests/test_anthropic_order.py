"""Claude's thinking goes back where it stood among the texts and calls of its turn; what a codec knows of ends."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from gw.adapters.anthropic import Anthropic, AnthropicCodec
from gw.errors import UpstreamError, can_retry
from gw.message import Headers
from gw.signatures import MemorySignatures
from tests.anthropic_fakes import codec_of, ending, message_start, request_of, sse, text_events, user
from tests.recordings import read_chunks, read_completion

THOUGHTS = [{"type": "thinking", "thinking": f"Hm {at}.", "signature": f"sig-{at}"} for at in range(3)]
TEXT = {"type": "text", "text": "Let me see."}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}
OTHER = {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}}
TOOLS = [{"type": "function", "function": {"name": name}} for name in "fg"]
USAGE = {"input_tokens": 9, "output_tokens": 3}

TURNS = [
    [THOUGHTS[0], TEXT, CALL],
    [THOUGHTS[0], TEXT, THOUGHTS[1], CALL],
    [THOUGHTS[0], THOUGHTS[1], CALL],
    [THOUGHTS[0], TEXT, THOUGHTS[1], CALL, OTHER],
    [THOUGHTS[0], CALL, THOUGHTS[1], OTHER],
    [THOUGHTS[0], CALL, THOUGHTS[1], TEXT, THOUGHTS[2], OTHER],
]


def answered(codec: AnthropicCodec, content: list[dict[str, Any]], is_stream: bool) -> dict[str, Any]:
    """The assistant's message that a client would put into its next request."""
    if not is_stream:
        body = {
            "type": "message",
            "id": "m",
            "model": "c",
            "content": content,
            "stop_reason": "tool_use",
            "usage": USAGE,
        }
        message: dict[str, Any] = codec.complete(orjson.dumps(body)).peek()["choices"][0]["message"]
        return message
    events: list[dict[str, Any]] = [{"type": "message_start", "message": {"id": "m", "model": "c", "usage": USAGE}}]
    for index, block in enumerate(content):
        empty: dict[str, Any] = {
            "thinking": {"thinking": "", "signature": ""},
            "text": {"text": ""},
            "tool_use": {"input": {}},
        }
        deltas: list[dict[str, Any]]
        if block["type"] == "thinking":
            deltas = [
                {"type": "thinking_delta", "thinking": block["thinking"]},
                {"type": "signature_delta", "signature": block["signature"]},
            ]
        elif block["type"] == "text":
            deltas = [{"type": "text_delta", "text": block["text"]}]
        else:
            deltas = [{"type": "input_json_delta", "partial_json": orjson.dumps(block["input"]).decode()}]
        events.append({"type": "content_block_start", "index": index, "content_block": block | empty[block["type"]]})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    events += [
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": USAGE},
        {"type": "message_stop"},
    ]
    data = b"".join(b"event: %s\ndata: %s\n\n" % (event["type"].encode(), orjson.dumps(event)) for event in events)
    chunks = [chunk.peek() for chunk in (*codec.feed(data), *codec.finish())]
    details: list[Any] = []
    for chunk in chunks:
        for choice in chunk["choices"]:
            details += choice["delta"].get("reasoning_details") or ()
    reading = read_chunks(chunks)
    calls = [
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": orjson.dumps(arguments).decode()}}
        for call_id, name, arguments in reading.tool_calls
    ]
    return {"role": "assistant", "content": reading.text or None, "tool_calls": calls, "reasoning_details": details}


def sent_back(message: dict[str, Any], store: MemorySignatures) -> list[dict[str, Any]]:
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "42"} for call in message["tool_calls"]]
    chat = {"messages": [user(), message, *results], "tools": TOOLS, "reasoning_effort": "low"}
    body = orjson.loads(Anthropic(signatures=store).open(request_of(chat)).wire.content)
    turn: list[dict[str, Any]] = body["messages"][1]["content"]
    return turn


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("content", TURNS)
def test_a_turn_goes_back_in_the_order_in_which_it_was_written(content: list[dict[str, Any]], is_stream: bool) -> None:
    store = MemorySignatures()
    codec = codec_of({"messages": [user()], "tools": TOOLS, "stream": is_stream}, signatures=store)
    message = answered(codec, content, is_stream)
    assert sent_back(message, store) == content
    message.pop("reasoning_details", None)  # as most clients do
    message.pop("reasoning_content", None)
    assert sent_back(message, store) == content


@pytest.mark.parametrize("content", TURNS[:4])
def test_another_worker_finds_the_order_in_what_the_client_kept(content: list[dict[str, Any]]) -> None:
    message = answered(codec_of({"messages": [user()], "tools": TOOLS}), content, is_stream=False)
    assert sent_back(message, MemorySignatures()) == content


@pytest.mark.parametrize(
    ("message", "headers"),
    [
        ("Quota exceeded for online prediction input tokens per minute", []),
        ("Request Entity Too Large", [(b"retry-after", b"3")]),
    ],
)
def test_a_413_that_is_a_rate_limit_is_told_as_one(message: str, headers: list[tuple[bytes, bytes]]) -> None:
    body = orjson.dumps({"error": {"code": 413, "message": message}})
    error = codec_of().fail(413, Headers(headers), body)
    assert (error.status, error.fault) == (429, "rate_limit")
    assert can_retry(error)


def test_a_413_of_a_request_that_is_too_large_stays_one() -> None:
    body = orjson.dumps({"type": "error", "error": {"type": "request_too_large", "message": "Request too large"}})
    assert codec_of().fail(413, Headers(), body).status == 413


def test_a_paused_turn_says_that_there_is_more_to_come() -> None:
    body = orjson.dumps({"type": "message", "content": [TEXT], "stop_reason": "pause_turn", "usage": USAGE})
    choice = codec_of().complete(body).peek()["choices"][0]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == ("length", "pause_turn")
    codec = codec_of({"messages": [user()], "stream": True})
    chunks = [*codec.feed(body), *codec.finish()]
    assert read_chunks([orjson.loads(chunk.raw) for chunk in chunks]).finish_reason == "length"
    assert codec.summary.native_finish_reason == "pause_turn"


def test_a_codec_is_done_at_message_stop_or_at_an_error() -> None:
    def event(**value: Any) -> bytes:
        return b"data: " + orjson.dumps(value) + b"\n\n"

    codec = codec_of({"messages": [user()], "stream": True})
    codec.feed(event(type="message_start", message={"usage": USAGE}))
    codec.feed(event(type="message_delta", delta={"stop_reason": "end_turn"}))
    assert not codec.is_done
    codec.feed(event(type="message_stop"))
    assert codec.is_done
    broken = codec_of({"messages": [user()], "stream": True})
    error = event(type="error", error={"type": "overloaded_error", "message": "no"})
    assert broken.feed(event(type="message_start", message={"usage": USAGE}) + error)
    assert broken.is_done
    with pytest.raises(UpstreamError):
        broken.finish()


LATE: list[dict[str, Any]] = [
    {"type": "message_stop"},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "late"}},
    {"type": "message_start", "message": {"usage": USAGE}},
    {"type": "error", "error": {"type": "overloaded_error", "message": "late"}},
]


@pytest.mark.parametrize("late", [*([one] for one in LATE), LATE], ids=[*(one["type"] for one in LATE), "all"])
@pytest.mark.parametrize("is_cut", [False, True])
def test_what_follows_the_end_is_nothing_whenever_it_comes(late: list[dict[str, Any]], is_cut: bool) -> None:
    told = sse(message_start(), *text_events(0, "A", "B", "C"), *ending())
    alone, codec = (codec_of({"messages": [user()], "stream": True}) for _ in range(2))
    wanted = [chunk.raw for chunk in (*alone.feed(told), *alone.finish())]
    pieces = [told, sse(*late)] if is_cut else [told + sse(*late)]
    assert [chunk.raw for piece in pieces for chunk in codec.feed(piece)] == wanted
    assert list(codec.finish()) == []
    assert codec.summary == alone.summary


# --- in one piece -------------------------------------------------------------------------------------------------

CITED = {"type": "text", "text": "It is.", "citations": [{"url": "https://a.example/", "title": "A"}]}
WHOLES = {
    "a text": ([{"type": "text", "text": "Hello!"}], "end_turn"),
    "a call": ([*THOUGHTS[:1], TEXT, CALL, OTHER], "tool_use"),
    "a hidden thought": ([{"type": "redacted_thinking", "data": "x"}, TEXT], "max_tokens"),
    "citations": ([TEXT, CITED], "stop_sequence"),
    "nothing": ([], "refusal"),
}


@pytest.mark.parametrize("cut", [1, 7, 100_000])
@pytest.mark.parametrize("name", WHOLES)
def test_a_whole_message_in_reply_to_a_stream_request_becomes_a_stream_of_it(name: str, cut: int) -> None:
    content, stop = WHOLES[name]
    message = {"type": "message", "id": "m", "role": "assistant", "model": "c", "content": content}
    raw = json.dumps(message | {"stop_reason": stop, "usage": USAGE}, indent=cut % 3).encode()
    chat = {"messages": [user()], "tools": TOOLS}
    whole, codec = codec_of(chat), codec_of(chat | {"stream": True})
    chunks = [one for at in range(0, len(raw), cut) for one in codec.feed(raw[at : at + cut])]
    chunks += codec.finish()
    expected = read_completion(orjson.loads(whole.complete(raw).raw))
    assert read_chunks([orjson.loads(chunk.raw) for chunk in chunks]) == expected
    assert codec.summary == whole.summary


def test_a_whole_message_that_was_cut_is_an_error() -> None:
    codec = codec_of({"messages": [user()], "stream": True})
    raw = orjson.dumps({"type": "message", "content": [TEXT], "stop_reason": "end_turn"})
    with pytest.raises(UpstreamError, match="not JSON"):  # noqa: PT012 (whichever of the two finds it out)
        codec.feed(raw[:-10])
        codec.finish()
