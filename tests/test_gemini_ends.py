"""How Gemini's answers end: finish reasons in both words, and cuts, garbage and failures as the errors they mean."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gw.errors import UpstreamError, UpstreamProtocolError, can_fall_back, can_retry
from gw.message import Headers
from tests.codecs import read_all
from tests.gemini_fakes import answer, codec, part_event, sse, stream_codec
from tests.recordings import check_laws, read_chunks

# --- finish reasons and failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("CONTINUATION", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
        ("OTHER", "stop"),
        ("SOMETHING_NEW", "stop"),
        (2, "length"),
        (3, "content_filter"),
    ],
)
def test_a_finish_reason_is_told_in_both_words(native: Any, reason: str) -> None:
    choice = orjson.loads(codec().complete(orjson.dumps(part_event({"text": "a"}, finish=native))).raw)["choices"][0]
    assert choice["finish_reason"] == reason
    assert isinstance(choice["native_finish_reason"], str)
    chunks, error = read_all(stream_codec(), [sse(part_event({"text": "a"}, finish=native))])
    assert error is None
    assert read_chunks(chunks).finish_reason == reason


def test_a_call_makes_stop_into_tool_calls_even_where_stop_comes_later() -> None:
    events = [part_event({"functionCall": {"name": "f", "args": {}}}), part_event({"text": ""}, finish="STOP")]
    reader = stream_codec()
    chunks, _ = read_all(reader, [sse(*events)])
    assert read_chunks(chunks).finish_reason == "tool_calls"
    assert reader.summary.finish_reason == "tool_calls"
    assert reader.summary.native_finish_reason == "STOP"


def test_a_call_that_was_cut_by_the_limit_finishes_as_length() -> None:
    choice = answer({"functionCall": {"name": "f", "args": {}}}, finish="MAX_TOKENS")["choices"][0]
    assert choice["finish_reason"] == "length"


def test_a_blocked_prompt_is_a_content_filter_without_content() -> None:
    body = b'{"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 7}}'
    reader = codec()
    completion = orjson.loads(reader.complete(body).raw)
    assert completion["choices"][0]["message"] == {"role": "assistant", "content": "", "refusal": None}
    assert completion["choices"][0]["finish_reason"] == "content_filter"
    assert completion["usage"]["prompt_tokens"] == 7
    assert reader.summary.native_finish_reason == "PROHIBITED_CONTENT"
    chunks, error = read_all(stream_codec(), [b"data: " + body + b"\r\n\r\n"])
    assert error is None
    check_laws(chunks)
    assert read_chunks(chunks).finish_reason == "content_filter"


@pytest.mark.parametrize("name", ["MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "TOO_MANY_TOOL_CALLS"])
def test_a_failure_of_the_model_without_content_is_an_upstream_error_that_may_be_retried(name: str) -> None:
    value = {"candidates": [{"content": {}, "finishReason": name, "finishMessage": "bad call: f("}]}
    with pytest.raises(UpstreamError, match="bad call: f") as raised:
        codec().complete(orjson.dumps(value))
    assert can_retry(raised.value)
    _, error = read_all(stream_codec(), [sse(value)])
    assert isinstance(error, UpstreamError)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body><h1>502 Bad Gateway</h1></body></html>",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"candidates": []}',
        b'{"candidates": [{"content": {"parts": [7]}}]}',
        b'{"candidates": [{"content": {"parts": [{"text": 7}]}}]}',
        b'{"candidates": [{"content": {"parts": [{"functionCall": "f"}]}}]}',
    ],
)
def test_garbage_in_a_200_is_a_protocol_error_that_names_the_backend(body: bytes) -> None:
    with pytest.raises(UpstreamProtocolError, match="google"):
        codec().complete(body)
    _, error = read_all(stream_codec(), [body])
    assert isinstance(error, UpstreamProtocolError)


def test_half_a_pair_of_surrogates_in_a_text_breaks_nothing() -> None:
    body = b'{"candidates": [{"content": {"parts": [{"text": "Hi \\ud83d"}]}, "finishReason": "STOP"}]}'
    assert orjson.loads(codec().complete(body).raw)["choices"][0]["message"]["content"] == "Hi \ufffd"
    chunks, error = read_all(stream_codec(), [sse(part_event({"text": "Oh. "}), body.decode())])
    assert error is None
    assert read_chunks(chunks).text == "Oh. Hi \ufffd"


def test_numbers_that_json_cannot_hold_are_garbage_and_tokens_of_that_size_are_none() -> None:
    call = b'{"content": {"parts": [{"functionCall": {"name": "f"}}]}, "finishReason": "STOP", "index": 0}'
    body = b'{"candidates": [' + call + b'], "usageMetadata": {"promptTokenCount": 123456789012345678901}}'
    assert orjson.loads(codec().complete(body).raw)["usage"]["total_tokens"] == 0
    chunks, error = read_all(stream_codec(), [sse(body.decode())])
    assert error is None
    assert chunks[-1]["usage"]["total_tokens"] == 0
    body = body.replace(b'"index": 0', b'"index": 123456789012345678901')
    with pytest.raises(UpstreamProtocolError, match="google"):
        codec().complete(body)
    assert isinstance(read_all(stream_codec(), [sse(body.decode())])[1], UpstreamProtocolError)


def test_a_stream_that_is_not_json_is_a_protocol_error() -> None:
    _, error = read_all(stream_codec(), [sse("not json")])
    assert isinstance(error, UpstreamProtocolError)


def test_an_error_in_a_200_is_the_error_it_means() -> None:
    body = b'[{"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}]'
    with pytest.raises(UpstreamError) as raised:
        codec().complete(body)
    assert raised.value.fault == "rate_limit"


@pytest.mark.parametrize("framing", ["sse", "array", "stray"])
def test_an_error_after_the_finish_reason_still_breaks_the_stream(framing: str) -> None:
    good = part_event({"text": "a"}, finish="STOP")
    bad = {"error": {"code": 503, "message": "high demand", "status": "UNAVAILABLE"}}
    body = {
        "sse": sse(good, bad),
        "array": orjson.dumps([good, bad]),
        "stray": sse(good) + orjson.dumps(bad, option=orjson.OPT_INDENT_2) + b"\r\n",
    }[framing]
    chunks, error = read_all(stream_codec(), [body])
    assert error is not None
    assert error.fault == "overload"
    assert read_chunks(chunks).finish_reason is None


def test_an_array_that_ends_inside_an_element_was_cut() -> None:
    body = orjson.dumps([part_event({"text": "a"}, finish="STOP"), part_event({"text": "b"})])
    _, error = read_all(stream_codec(), [body[:-10]])
    assert isinstance(error, UpstreamProtocolError)


def test_a_stream_where_one_candidate_has_no_end_was_cut() -> None:
    events = [
        {"candidates": [{"index": 0, "content": {"parts": [{"text": "a"}]}}]},
        {"candidates": [{"index": 1, "content": {"parts": [{"text": "b"}]}, "finishReason": "STOP"}]},
    ]
    assert isinstance(read_all(stream_codec({"n": 2}), [sse(*events)])[1], UpstreamProtocolError)


# --- errors -------------------------------------------------------------------------------------------------------


def test_a_wrong_key_is_a_400_there_and_a_dead_key_here() -> None:
    body = orjson.dumps(
        {
            "error": {
                "code": 400,
                "message": "API key not valid: AIzaSECRET-canary-0123456789",
                "status": "INVALID_ARGUMENT",
                "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
            }
        }
    )
    error = codec().fail(400, Headers(), body)
    assert error.fault == "dead_key"
    assert error.status == 502
    assert error.code == "upstream_auth_error"
    assert can_fall_back(error)
    assert "canary" not in error.message


def test_the_delay_in_an_array_wrapped_429_is_retry_after() -> None:
    body = orjson.dumps(
        [
            {
                "error": {
                    "code": 429,
                    "message": "You exceeded your current quota. Please retry in 34.4s.",
                    "status": "RESOURCE_EXHAUSTED",
                    "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"}],
                }
            }
        ]
    )
    error = codec().fail(429, Headers(), body)
    assert error.fault == "rate_limit"
    assert error.retry_after is not None
    assert 34.4 <= error.retry_after <= 35
