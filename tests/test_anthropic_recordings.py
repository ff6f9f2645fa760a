"""What Anthropic and Vertex AI really sent, read by the adapter whole, byte by byte and cut anywhere."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import orjson
import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from gw.adapters.anthropic import Anthropic, AnthropicCodec
from gw.errors import UpstreamError, UpstreamProtocolError, UpstreamRefused
from gw.message import Request
from gw.signatures import MemorySignatures
from tests.anthropic_fakes import codec_of, request_of, user
from tests.recordings import Case, Reading, cases, check, check_laws, cuts, read_chunks, read_completion

CASES = cases("anthropic-messages")
STREAMS = [case for case in CASES if case.stream and not case.is_error]
ANSWERS = [case for case in CASES if not case.stream and not case.is_error]
FAILURES = [case for case in CASES if case.is_error]


STRIDE = 97
ADAPTER = Anthropic(signatures=MemorySignatures())


@cache
def request_for(model: str, is_stream: bool) -> Request:
    return request_of({"messages": [user()], "stream": is_stream}, model or "claude-opus-5")


def codec_for(case: Case) -> AnthropicCodec:
    return ADAPTER.open(request_for(case.model, case.stream))


def read_in(case: Case, *pieces: bytes) -> tuple[list[dict[str, Any]], AnthropicCodec]:
    codec = codec_for(case)
    chunks = [chunk for piece in pieces for chunk in codec.feed(piece)]
    return [chunk.peek() for chunk in (*chunks, *codec.finish())], codec


def check_case(reading: Reading, codec: AnthropicCodec, case: Case) -> None:
    # of redacted thinking `expect` keeps 16 characters
    reading.signatures = [text[:25] if text.startswith("redacted:") else text for text in reading.signatures]
    check(reading, case.expect)
    assert codec.summary.native_finish_reason == case.expect["native_finish_reason"]
    assert codec.summary.finish_reason == reading.finish_reason
    assert codec.summary.usage is not None
    assert codec.summary.usage.cache_written == (case.expect["usage"].get("cache_write_tokens") or 0)


@pytest.mark.parametrize("case", STREAMS, ids=repr)
def test_a_recorded_stream_reads_as_expected(case: Case) -> None:
    chunks, codec = read_in(case, case.body)
    check_laws(chunks)
    check_case(read_chunks(chunks), codec, case)


@pytest.mark.parametrize("case", STREAMS, ids=repr)
def test_openais_own_client_puts_a_recorded_stream_together_and_sends_it_back(case: Case) -> None:
    chunks, _ = read_in(case, case.body)
    state = ChatCompletionStreamState()
    for chunk in chunks:
        list(state.handle_chunk(ChatCompletionChunk.model_validate(chunk)))
    message: dict[str, Any] = state.get_final_completion().choices[0].message.to_dict()
    reading = read_chunks(chunks)
    assert (message.get("content") or "") == reading.text
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert (message["annotations"] or []) == [one for delta in deltas for one in delta.get("annotations", ())]

    codec = codec_of({"messages": [user(), {name: message[name] for name in message.keys() - {"tool_calls"}}, user()]})
    blocks = [block for turn in orjson.loads(codec.wire.content)["messages"] for block in turn["content"]]
    thoughts = [block for block in blocks if "thinking" in block["type"]]
    signatures = [f"redacted:{one['data']}" if "data" in one else one["signature"] for one in thoughts]
    assert signatures == reading.signatures
    assert "".join(one.get("thinking", "") for one in thoughts) == reading.reasoning
    assert [loss.pointer for loss in codec.losses if loss.pointer != "/messages/1"] == []


@pytest.mark.parametrize("case", STREAMS, ids=repr)
def test_a_recorded_stream_reads_the_same_byte_by_byte(case: Case) -> None:
    chunks, _ = read_in(case, *(case.body[at : at + 1] for at in range(len(case.body))))
    assert chunks == read_in(case, case.body)[0]


@pytest.mark.parametrize("case", STREAMS, ids=repr)
def test_a_recorded_stream_reads_the_same_wherever_it_is_cut(case: Case) -> None:
    whole = read_in(case, case.body)[0]
    places = list(cuts(case.body))
    # Each place is a cut of one run; the others of that run are so far away that no event is cut in three often.
    for first in range(STRIDE):
        ends = [0, *places[first::STRIDE], len(case.body)]
        pieces = [case.body[start:end] for start, end in pairwise(ends)]
        assert read_in(case, *pieces)[0] == whole, f"cut at every {STRIDE}th place from {first} on"


@pytest.mark.parametrize("case", STREAMS, ids=repr)
def test_a_recorded_stream_that_breaks_off_never_looks_complete(case: Case) -> None:
    end = case.body.index(b'"message_stop"', case.body.rindex(b"data: "))
    for place in [place for place in cuts(case.body) if place <= end][::13]:
        codec = codec_for(case)
        chunks = [chunk.peek() for chunk in codec.feed(case.body[:place])]
        with pytest.raises(UpstreamProtocolError):
            codec.finish()
        assert all(choice["finish_reason"] is None for chunk in chunks for choice in chunk["choices"])


@pytest.mark.parametrize("case", ANSWERS, ids=repr)
def test_a_recorded_answer_reads_as_expected(case: Case) -> None:
    codec = codec_for(case)
    completion = codec.complete(case.body).peek()
    assert completion["object"] == "chat.completion"
    check_case(read_completion(completion), codec, case)


@pytest.mark.parametrize("case", FAILURES, ids=repr)
def test_a_recorded_failure_keeps_the_providers_message(case: Case) -> None:
    error = codec_for(case).fail(case.status, case.headers, case.body)
    assert isinstance(error, UpstreamError)
    assert error.upstream_status == case.expect["upstream_status"]
    assert case.expect["message_contains"] in error.message
    assert set(error.body()["error"]) == {"message", "type", "param", "code"}
    if case.status == 429:
        assert (error.status, error.type, error.code) == (429, "rate_limit_error", "rate_limit_exceeded")
    else:
        assert isinstance(error, UpstreamRefused)
