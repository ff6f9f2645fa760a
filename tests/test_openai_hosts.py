"""What compatible hosts do otherwise: whole answers to stream requests, no `functions`, twice-named members, advice."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.adapters.openai import OpenAI, OpenAICodec
from gw.adapters.openai.dialects import DIALECTS
from gw.errors import GatewayError, InvalidRequest, can_fall_back, can_retry
from gw.json_splice import has_duplicates
from gw.message import Headers
from gw.remote_media import Fetch
from tests.fakes import chunk, completion, sse
from tests.openai_requests import HI, send, told
from tests.recordings import check_laws, read_chunks, read_completion

CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
    {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
]
FUNCTION = {"name": "f", "description": "F", "parameters": {"type": "object", "properties": {}}}


def read(codec: OpenAICodec, *pieces: bytes) -> list[dict[str, Any]]:
    chunks = [chunk for piece in pieces for chunk in codec.feed(piece)]
    return [chunk.peek() for chunk in (*chunks, *codec.finish())]


# --- a whole answer to a request for a stream ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        orjson.dumps(completion("Hello!")),
        orjson.dumps(completion("Hello!"), option=orjson.OPT_INDENT_2) + b"\n",
        sse(completion("Hello!")),
        sse(completion("Hello!"), done=False),
        sse(chunk({"role": "assistant"}), chunk({"content": "Hello!"}), completion("Hello!")),
    ],
    ids=["bare", "indented", "event", "event without [DONE]", "behind its own chunks"],
)
def test_a_whole_answer_to_a_stream_request_becomes_a_stream(body: bytes) -> None:
    for size in (1, 7, len(body)):
        codec = send({"stream": True})
        chunks = read(codec, *(body[at : at + size] for at in range(0, len(body), size)))
        check_laws(chunks)
        reading = read_chunks(chunks)
        assert (reading.text, reading.finish_reason) == ("Hello!", "stop")
        assert reading.usage == completion()["usage"]
        assert codec.summary.finish_reason == "stop"


def test_a_whole_answer_with_calls_and_thoughts_becomes_a_stream_of_them() -> None:
    body = completion(None, tool_calls=CALLS, reasoning_content="Hm.", refusal=None)  # type: ignore[arg-type]
    body["choices"][0]["finish_reason"] = "tool_calls"
    chunks = read(send({"stream": True}), orjson.dumps(body))
    check_laws(chunks)
    reading = read_chunks(chunks)
    assert reading.tool_calls == [("c1", "f", {"a": 1}), ("c2", "g", {})]
    assert (reading.reasoning, reading.finish_reason) == ("Hm.", "tool_calls")


def test_a_whole_answer_that_was_cut_is_an_error() -> None:
    codec = send({"stream": True})
    assert not codec.feed(orjson.dumps(completion("Hello!"))[:-20])
    with pytest.raises(GatewayError):
        codec.finish()


# --- functions ----------------------------------------------------------------------------------------------------


def test_functions_are_passed_on_where_the_host_knows_them() -> None:
    raw = orjson.dumps({"model": "upstream", "messages": HI, "functions": [FUNCTION], "function_call": "auto"})
    assert send(raw, dialect="openai").wire.content == raw


def test_functions_become_tools_where_the_host_does_not_know_them() -> None:
    history = [
        *HI,
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "42"},
    ]
    codec = send({"messages": history, "functions": [FUNCTION], "function_call": {"name": "f"}}, dialect="vllm")
    sent = orjson.loads(codec.wire.content)
    assert sent["tools"] == [{"type": "function", "function": FUNCTION}]
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert sent["parallel_tool_calls"] is False
    assert "functions" not in sent
    assert "function_call" not in sent
    assert sent["messages"][1]["tool_calls"][0]["id"] == sent["messages"][2]["tool_call_id"]
    assert told(codec) == {("/functions", "emulated")}


def test_a_call_comes_back_as_the_function_call_that_the_client_reads() -> None:
    body = completion(None, tool_calls=CALLS)  # type: ignore[arg-type]
    body["choices"][0]["finish_reason"] = "tool_calls"
    answer = send({"functions": [FUNCTION]}, dialect="vllm").complete(orjson.dumps(body)).peek()
    assert answer["choices"][0]["message"]["function_call"] == {"name": "f", "arguments": '{"a":1}'}
    assert "tool_calls" not in answer["choices"][0]["message"]
    assert answer["choices"][0]["finish_reason"] == "function_call"


def test_a_streamed_call_comes_back_as_the_function_call_that_the_client_reads() -> None:
    def fragment(**fields: Any) -> dict[str, Any]:
        return chunk({"tool_calls": [{"index": 0, **fields}]})

    body = sse(
        chunk({"role": "assistant", "content": None}),
        fragment(id="c1", type="function", function={"name": "f", "arguments": ""}),
        *(fragment(function={"arguments": piece}) for piece in ('{"a"', ":1", "}")),
        chunk({}, "tool_calls"),
    )
    codec = send({"functions": [FUNCTION], "stream": True}, dialect="vllm")
    chunks = read(codec, body)
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    calls = [delta["function_call"] for delta in deltas if "function_call" in delta]
    assert calls[0]["name"] == "f"
    assert "".join(call["arguments"] for call in calls) == '{"a":1}'
    assert not any("tool_calls" in delta for delta in deltas)
    assert chunks[-1]["choices"][0]["finish_reason"] == codec.summary.finish_reason == "function_call"


# --- what was checked is what is sent -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"dear","messages":[],"model":"upstream"}',
        b'{"mod\\u0065l":"dear","messages":[],"model":"upstream"}',
        b'{"model":"a","messages":[{"role":"user","content":"evil"}],"messages":[]}',
        b'{"model":"a","messages":[{"role":"user","content":"evil","content":"Hi"}]}',
        b'{"model":"a","messages":[{"role":"user","content":"\\u0022\\u0022","role":"user"}]}',
        b'{"model":"upstream","messages":[],"backend2":"evil","backend2":1}',
    ],
)
def test_a_member_that_is_there_twice_is_sent_once_with_the_value_that_was_checked(raw: bytes) -> None:
    sent = send(raw).wire.content
    assert sent == orjson.dumps(orjson.loads(raw) | {"model": "upstream"})
    assert b"dear" not in sent
    assert b"evil" not in sent


_names = st.sampled_from(["a", "b", 'c"', "\\", "é"])
_leaf = st.none() | st.integers(-9, 9) | st.text(max_size=5) | st.sampled_from(['"', '\\"', "\\u0022"])
_members = st.recursive(
    _leaf,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(_names, inner), max_size=4).map(dict),
    max_leaves=9,
)


@given(st.dictionaries(_names, _members, max_size=4), st.booleans(), st.tuples(_names, _members))
def test_every_second_member_of_a_name_is_seen(value: dict[str, Any], indent: bool, more: tuple[str, Any]) -> None:
    raw = orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else None)
    if b"\\u0022" not in raw:
        assert not has_duplicates(raw, value)
    if value:
        name = next(iter(value))
        twice = raw.rstrip()[:-1] + b"," + orjson.dumps({name: more[1]})[1:]
        assert has_duplicates(twice, orjson.loads(twice))


# --- smaller departures -------------------------------------------------------------------------------------------


def test_mistral_gets_an_assistants_turn_between_a_result_and_a_user() -> None:
    turns = [
        *HI,
        {"role": "assistant", "tool_calls": CALLS[:1]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
        {"role": "user", "content": "And?"},
    ]
    codec = send({"messages": turns}, dialect="mistral")
    sent = orjson.loads(codec.wire.content)["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "assistant", "user"]
    assert sent[3]["content"] == "OK"
    assert ("/messages/3", "changed") in told(codec)
    assert len(orjson.loads(send({"messages": turns}, dialect="groq").wire.content)["messages"]) == 4


@pytest.mark.parametrize(
    ("status", "advice", "retried"),
    [(429, "false", False), (503, "false", False), (429, "true", True), (400, "true", True)],
)
def test_x_should_retry_has_the_last_word(status: int, advice: str, retried: bool) -> None:
    headers = Headers([(b"x-should-retry", advice.encode())])
    error = send({}).fail(status, headers, b'{"error":{"message":"no","type":"server_error"}}')
    assert can_retry(error) is retried
    assert can_fall_back(error)


def test_a_codec_is_done_when_nothing_more_can_matter() -> None:
    codec = send({"stream": True})
    codec.feed(sse(chunk({"role": "assistant", "content": "Hi"}), chunk({}, "stop"), done=False))
    assert not codec.is_done
    codec.feed(b"data: [DONE]\n\n")
    assert codec.is_done
    broken = send({"stream": True})
    assert broken.feed(sse(chunk({"role": "assistant", "content": "Hi"}), {"error": {"message": "no"}}, done=False))
    assert broken.is_done
    with pytest.raises(GatewayError):
        broken.feed(b"")


def test_only_a_host_that_follows_no_addresses_can_be_fetched_for() -> None:
    rules = Fetch(("images.test",))
    assert DIALECTS["ollama"].remote_images is False
    OpenAI(base_url="http://127.0.0.1:11434/v1", fetch=rules)
    with pytest.raises(ValueError, match="follows addresses itself"):
        OpenAI(fetch=rules)


def test_an_address_for_a_host_that_follows_none_is_refused_before_anything_is_sent() -> None:
    picture = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://images.test/a.png"}}]}
    with pytest.raises(InvalidRequest) as caught:
        send({"messages": [picture]}, dialect="ollama")
    assert caught.value.param == "messages[0].content[0].image_url.url"


def test_a_whole_answer_is_not_changed_by_being_read() -> None:
    raw = orjson.dumps(completion("Hello!", model="asked-for"))
    assert send({}).complete(raw).raw is raw
    assert read_completion(send({}).complete(raw).peek()).text == "Hello!"
