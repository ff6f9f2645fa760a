"""Claude's answers, streamed, whole and failed, in the corners that recordings do not reach."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gw.errors import UpstreamError, UpstreamProtocolError, can_fall_back, can_retry
from gw.message import Headers
from tests.anthropic_fakes import (
    block_events,
    body_of,
    codec_of,
    ending,
    message_of,
    message_start,
    sse,
    streamed,
    text_events,
    tool_events,
    user,
    whole,
)
from tests.recordings import check_laws, read_chunks

TEXT = {"type": "text", "text": "A"}


def live() -> Any:
    return codec_of({"messages": [user()], "stream": True})


def test_every_chunk_bears_the_same_id_time_and_model() -> None:
    codec = live()
    chunks = streamed(codec, message_start(input_tokens=3), *text_events(0, "He", "llo"), *ending(output_tokens=2))
    check_laws(chunks)
    assert chunks[0]["id"] == "chatcmpl-req-1"
    assert chunks[0]["created"] == 1_700_000_000
    assert chunks[0]["model"] == "asked-for"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert read_chunks(chunks).text == "Hello"
    assert chunks[-2]["choices"][0] == {
        "index": 0,
        "delta": {},
        "finish_reason": "stop",
        "native_finish_reason": "end_turn",
    }
    assert chunks[-1]["choices"] == []
    assert (codec.summary.model, codec.summary.upstream_id) == ("claude-x", "msg_1")


def test_tools_are_counted_anew_and_text_between_them_is_kept() -> None:
    chunks = streamed(
        live(),
        message_start(),
        *text_events(0, "One."),
        *tool_events(1, "t1", "a", "", '{"x":', "1}"),
        *text_events(2, "Two."),
        *tool_events(3, "t2", "b"),
        *ending("tool_use"),
    )
    check_laws(chunks)
    reading = read_chunks(chunks)
    assert reading.text == "One.Two."
    assert reading.tool_calls == [("t1", "a", {"x": 1}), ("t2", "b", {})]
    assert reading.finish_reason == "tool_calls"


def test_input_that_comes_with_the_start_of_a_call_is_kept() -> None:
    block = {"type": "tool_use", "id": "t1", "name": "a", "input": {"x": 1}}
    chunks = streamed(live(), message_start(), *block_events(0, block), *ending("tool_use"))
    assert read_chunks(chunks).tool_calls == [("t1", "a", {"x": 1})]


def test_pings_unknown_events_and_server_tools_are_nothing_to_the_client() -> None:
    server = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}
    chunks = streamed(
        live(),
        {"type": "vertex_event"},
        message_start(),
        {"type": "ping"},
        *block_events(0, server, {"type": "input_json_delta", "partial_json": '{"q":1}'}),
        *block_events(1, {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}),
        *block_events(2, {"type": "something_new"}, {"type": "something_delta"}),
        *text_events(3, "A"),
        *ending(),
    )
    assert len(chunks) == 4
    reading = read_chunks(chunks)
    assert (reading.text, reading.tool_calls, reading.finish_reason) == ("A", [], "stop")


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "length"),
        ("brand_new", "stop"),
    ],
)
def test_stop_reasons_are_translated_and_kept(native: str, reason: str) -> None:
    codec = codec_of({"messages": [user()]})
    choice = whole(codec, [TEXT], native)
    assert (choice["finish_reason"], choice["native_finish_reason"]) == (reason, native)
    assert (codec.summary.finish_reason, codec.summary.native_finish_reason) == (reason, native)
    chunks = streamed(live(), message_start(), *text_events(0, "A"), *ending(native))
    assert (chunks[-2]["choices"][0]["finish_reason"], chunks[-2]["choices"][0]["native_finish_reason"]) == (
        reason,
        native,
    )


def test_calls_end_in_tool_calls_whatever_the_stop_reason_says() -> None:
    codec = codec_of({"messages": [user()]})
    assert whole(codec, [{"type": "tool_use", "id": "t", "name": "a", "input": {}}])["finish_reason"] == "tool_calls"


def test_a_refusal_says_why() -> None:
    why = {"type": "refusal", "category": "cyber", "explanation": "Not this."}
    choice = whole(codec_of({"messages": [user()]}), [], "refusal", stop_details=why)
    assert choice["message"] == {"role": "assistant", "content": "", "refusal": "Not this."}
    chunks = streamed(live(), message_start(), *ending("refusal", why))
    assert read_chunks(chunks).refusal == "Not this."
    assert chunks[-2]["choices"][0]["finish_reason"] == "content_filter"


CITATION = {"type": "web_search_result_location", "url": "https://a.example", "title": "A", "cited_text": "..."}


def test_citations_with_an_address_are_annotations_of_their_text() -> None:
    place = {"type": "char_location", "document_index": 0}
    blocks: list[dict[str, Any]] = [TEXT, {"type": "text", "text": "cited", "citations": [CITATION, place]}]
    wanted = {"start_index": 1, "end_index": 6, "url": "https://a.example", "title": "A"}
    message = whole(codec_of({"messages": [user()]}), blocks)["message"]
    assert message["annotations"] == [{"type": "url_citation", "url_citation": wanted}]
    events = block_events(
        1,
        {"type": "text", "text": "", "citations": []},
        {"type": "citations_delta", "citation": CITATION},
        {"type": "citations_delta", "citation": place},
        {"type": "text_delta", "text": "cited"},
    )
    chunks = streamed(live(), message_start(), *text_events(0, "A"), *events, *ending())
    found = [c["delta"]["annotations"] for chunk in chunks for c in chunk["choices"] if "annotations" in c["delta"]]
    assert found == [[{"index": 0, "type": "url_citation", "url_citation": wanted}]]


def test_an_answer_with_citations_comes_back_without_loss() -> None:
    blocks = [{"type": "text", "text": "cited", "citations": [CITATION]}]
    message = whole(codec_of({"messages": [user()]}), blocks)["message"]
    body = body_of({"messages": [user(), message, user()]})
    assert body["messages"][1]["content"] == [{"type": "text", "text": "cited"}]


# --- usage --------------------------------------------------------------------------------------------------------


def test_usage_counts_cache_reads_and_writes_into_the_prompt() -> None:
    raw = {
        "input_tokens": 10,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 1000,
        "output_tokens": 7,
        "output_tokens_details": {"thinking_tokens": 3},
    }
    completion = codec_of({"messages": [user()]}).complete(message_of([TEXT], usage=raw)).peek()
    assert completion["usage"] == {
        "prompt_tokens": 1110,
        "completion_tokens": 7,
        "total_tokens": 1117,
        "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 1000},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }


def test_streamed_usage_is_cumulative_and_the_newer_figure_wins() -> None:
    codec = live()
    start = message_start(input_tokens=10, cache_read_input_tokens=5, output_tokens=1)
    events = [start, *text_events(0, "A"), {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 4}}]
    chunks = streamed(codec, *events, *ending(input_tokens=12, output_tokens=9, cache_creation_input_tokens=None))
    assert chunks[-1]["usage"]["prompt_tokens"] == 17
    assert chunks[-1]["usage"]["completion_tokens"] == 9
    assert codec.summary.usage is not None
    assert codec.summary.usage.total == 26


def test_iterations_are_summed() -> None:
    rounds = [{"input_tokens": 10, "output_tokens": 1}, {"input_tokens": 20, "output_tokens": 2}]
    usage = {"input_tokens": 20, "output_tokens": 2, "iterations": rounds}
    completion = codec_of({"messages": [user()]}).complete(message_of([TEXT], usage=usage)).peek()
    assert (completion["usage"]["prompt_tokens"], completion["usage"]["completion_tokens"]) == (30, 3)


def test_usage_that_nobody_reported_is_not_made_up() -> None:
    codec = codec_of({"messages": [user()]})
    assert "usage" not in codec.complete(message_of([TEXT], usage=None)).peek()
    assert codec.summary.usage is None
    codec = live()
    start = {"type": "message_start", "message": {"id": "msg_1"}}
    end: list[dict[str, Any]] = [
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    ]
    chunks = streamed(codec, start, *text_events(0, "A"), *end)
    assert codec.summary.usage is None
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_what_a_broken_stream_cost_is_known_so_far() -> None:
    codec = live()
    codec.feed(sse(message_start(input_tokens=10), *text_events(0, "A")))
    assert codec.summary.usage.prompt == 10
    assert codec.summary.output_characters == 1


# --- failures -----------------------------------------------------------------------------------------------------

OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


def test_an_error_event_is_raised_after_what_came_before_it() -> None:
    codec = live()
    chunks = codec.feed(sse(message_start(), *text_events(0, "A"), OVERLOADED))
    assert [c.peek()["choices"][0]["delta"].get("content") for c in chunks] == ["", "A"]
    with pytest.raises(UpstreamError, match="Overloaded") as caught:
        codec.finish()
    assert caught.value.fault == "overload"
    with pytest.raises(UpstreamError, match="Overloaded"):
        codec.feed(b"")


@pytest.mark.parametrize(
    "body",
    [
        sse(OVERLOADED),
        b'event: error\ndata: {"error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n',
        b'[{"error": {"code": 503, "message": "Overloaded", "status": "UNAVAILABLE"}}]\n\n',
    ],
)
def test_an_error_in_place_of_a_stream_is_an_error(body: bytes) -> None:
    with pytest.raises(UpstreamError, match="Overloaded") as caught:
        live().feed(body)
    assert caught.value.fault == "overload"


@pytest.mark.parametrize(
    "events",
    [
        [message_start(), message_start()],
        [*text_events(0, "A")],
        [message_start(), {"type": "content_block_stop", "index": 0}],
        [message_start(), {"type": "content_block_delta", "index": 4, "delta": {"type": "input_json_delta"}}],
        [message_start(), {"type": "message_stop"}],
        [message_start(), {"type": "message_delta", "delta": "x"}],
        [
            message_start(),
            {"type": "content_block_start", "index": 0, "content_block": []},
            {"type": "content_block_delta", "index": 0, "delta": "x"},
        ],
    ],
)
def test_an_order_or_shape_that_the_api_does_not_have_is_garbage(events: list[dict[str, Any]]) -> None:
    codec = live()
    with pytest.raises(UpstreamProtocolError):
        [codec.feed(sse(event)) for event in events]


@pytest.mark.parametrize("body", [b"data: {oops\n\n", b"event: message_start\ndata: <html>\n\n"])
def test_events_that_are_not_json_are_garbage(body: bytes) -> None:
    with pytest.raises(UpstreamProtocolError, match="not JSON"):
        live().feed(body)


@pytest.mark.parametrize(
    "body", [b"", b"<html>Bad</html>", b"[]", b"{}", b'{"content": "x"}', b'{"content": [7], "usage": 3}']
)
def test_an_answer_that_is_no_message_is_garbage(body: bytes) -> None:
    with pytest.raises(UpstreamProtocolError) as caught:
        codec_of({"messages": [user()]}).complete(body)
    assert caught.value.status == 502
    assert len(caught.value.message) < 400


def test_an_error_in_a_200_is_an_error() -> None:
    with pytest.raises(UpstreamError, match="Overloaded"):
        codec_of({"messages": [user()]}).complete(orjson.dumps(OVERLOADED))


def failure(status: int, kind: str, message: str, **headers: str) -> UpstreamError:
    fields = Headers([(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()])
    body = orjson.dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"})
    codec = codec_of({"messages": [user()]})
    error = codec.fail(status, fields, body)
    assert message in error.message
    if "request_id" in headers:
        assert codec.summary.upstream_id == headers["request_id"]
    return error


@pytest.mark.parametrize(
    ("status", "kind", "message", "wanted", "code", "fault"),
    [
        (400, "invalid_request_error", "messages: bad", 400, None, "refused"),
        (400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum",
         400, "context_length_exceeded", "context_length"),
        (400, "invalid_request_error", "Output blocked by content filtering policy",
         400, "content_policy_violation", "content_filter"),
        (400, "invalid_request_error", "Your credit balance is too low", 429, "insufficient_quota", "quota"),
        (401, "authentication_error", "invalid x-api-key", 502, "upstream_auth_error", "dead_key"),
        (402, "billing_error", "pay first", 429, "insufficient_quota", "quota"),
        (403, "permission_error", "not yours", 502, "upstream_auth_error", "dead_key"),
        (404, "not_found_error", "model: claude-x", 404, "model_not_found", "refused"),
        (413, "request_too_large", "too many bytes", 413, None, "refused"),
        (429, "rate_limit_error", "slow down", 429, "rate_limit_exceeded", "rate_limit"),
        (500, "api_error", "oh", 502, "upstream_error", "server"),
        (504, "timeout_error", "late", 504, "upstream_timeout", "timeout"),
        (529, "overloaded_error", "busy", 502, "upstream_error", "overload"),
    ],
)  # fmt: skip
def test_anthropics_errors_in_openais_words(
    status: int, kind: str, message: str, wanted: int, code: str | None, fault: str
) -> None:
    error = failure(status, kind, message, request_id="req_9")
    assert (error.status, error.code, error.fault, error.upstream_status) == (wanted, code, fault, status)


def test_retry_after_is_read_from_a_failure() -> None:
    assert failure(429, "rate_limit_error", "slow down", retry_after="7").retry_after == 7


def test_the_providers_advice_on_retrying_is_followed() -> None:
    error = failure(529, "overloaded_error", "busy", x_should_retry="false")
    assert (can_retry(error), can_fall_back(error)) == (False, True)
    assert can_retry(failure(400, "invalid_request_error", "hiccup", x_should_retry="true"))
