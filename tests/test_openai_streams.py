"""A stream comes out with one id, the role first and one end; where it breaks off or tells an error, it is an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from gw.errors import UpstreamError, UpstreamProtocolError, can_fall_back
from tests.fakes import chunk, chunks, completion, sse
from tests.openai_fakes import calls, codec, fragment, read, reading
from tests.recordings import read_chunks

# --- one id, role first, one end ----------------------------------------------------------------------------------


def test_ids_and_times_that_change_are_made_one() -> None:
    values = [value | {"id": f"id-{i}", "created": i + 1} for i, value in enumerate(chunks("a", "b", "c"))]
    found = read(sse(*values))
    assert {(value["id"], value["created"]) for value in found} == {("id-0", 1)}


def test_a_stream_without_ids_gets_one() -> None:
    values = [{name: field for name, field in value.items() if name not in ("id", "created")} for value in chunks("a")]
    found = read(sse(*values))
    assert found[0]["id"].startswith("chatcmpl-")
    assert found[0]["created"] > 0


def test_the_role_comes_first_and_once() -> None:
    found = read(sse(*(chunk({"role": "assistant", "content": text}) for text in ("a", "b")), chunk({}, "stop")))
    assert [value["choices"][0]["delta"].get("role") for value in found] == ["assistant", None, None]
    assert reading(chunk({"content": "a"}), chunk({}, "stop")).text == "a"


def test_a_verdict_on_the_prompt_rides_on_the_first_chunk_that_counts() -> None:
    first = {"choices": [], "id": "", "created": 0, "model": "", "object": "", "prompt_filter_results": [{"x": 1}]}
    found = read(sse(first, *chunks("a")))
    assert found[0]["prompt_filter_results"] == [{"x": 1}]
    assert sum("prompt_filter_results" in value for value in found) == 1


def test_a_second_finish_reason_is_not_passed_on() -> None:
    last = chunk({"content": ""}, "stop") | {"usage": completion()["usage"]}
    found = read(sse(chunk({"content": "a"}), chunk({}, "stop"), last))
    assert [value["choices"] for value in found][-1] == []
    assert found[-1]["usage"] == completion()["usage"]


@pytest.mark.parametrize(
    ("native", "finish"),
    [("stop", "stop"), ("eos", "stop"), ("model_length", "length"), ("sensitive", "content_filter"), ("odd", "stop")],
)
def test_finish_reasons_are_openais_with_the_native_one_kept(native: str, finish: str) -> None:
    opened = codec()
    found = [*opened.feed(sse(chunk({"content": "a"}), chunk({}, native))), *opened.finish()]
    last = found[-1].peek()["choices"][0]
    assert last["finish_reason"] == finish
    assert last.get("native_finish_reason", native) == native
    assert (opened.summary.finish_reason, opened.summary.native_finish_reason) == (finish, native)


@pytest.mark.parametrize("native", ["error", "abort", "network_error", "insufficient_system_resource"])
def test_an_end_that_is_a_failure_is_no_end(native: str) -> None:
    opened = codec()
    opened.feed(sse(chunk({"content": "a"}), done=False))
    with pytest.raises(UpstreamError) as failed:
        opened.feed(sse(chunk({}, native)))
    assert can_fall_back(failed.value)


def test_several_choices_are_kept_apart() -> None:
    def of(index: int, value: dict[str, Any]) -> dict[str, Any]:
        return value | {"choices": [value["choices"][0] | {"index": index}]}

    values = [of(i, chunk({"content": text})) for text in "abc" for i in (0, 1)]
    found = read(sse(*values, of(1, chunk({}, "stop")), of(0, chunk({}, "length"))))
    assert read_chunks(found).n_choices == 2
    assert read_chunks(found).text == "abc"
    with pytest.raises(UpstreamProtocolError):
        read(sse(*values, of(1, chunk({}, "stop")), done=False))


# --- ends and breaks ----------------------------------------------------------------------------------------------


def test_a_finish_reason_without_done_is_complete() -> None:
    assert reading(*chunks("a"), done=False).finish_reason == "stop"


def test_done_without_a_finish_reason_is_complete() -> None:
    assert reading(chunk({"content": "a"})).finish_reason == "stop"
    assert calls(fragment("{}", name="f", index=0, id="x"), finish="").finish_reason == "tool_calls"


def test_a_stream_that_stops_in_the_middle_is_an_error() -> None:
    opened = codec()
    opened.feed(sse(*chunks("a")[:-2], done=False))
    with pytest.raises(UpstreamProtocolError, match='backend "b" broke its stream off'):
        opened.finish()


@pytest.mark.parametrize(
    "content", [b"", b"data: [DONE]\n\n", b": ping\n\n", b"<html>oops</html>", sse(chunk({"role": "assistant"}))]
)
def test_a_stream_without_an_answer_is_an_error(content: bytes) -> None:
    opened = codec()
    with pytest.raises(UpstreamProtocolError):
        [*opened.feed(content), *opened.finish()]


def test_nothing_counts_after_done() -> None:
    assert read_chunks(read(sse(*chunks("a")) + sse(*chunks("b")))).text == "a"


def test_events_that_are_none_of_ours_are_skipped() -> None:
    noise = b': hello\n\nevent: ping\ndata: {"type":"ping"}\n\ndata:\n\nevent: vertex_event\ndata: {}\n\n'
    assert read_chunks(read(noise + sse(*chunks("a")[:2], done=False) + noise + sse(*chunks("b")[1:]))).text == "ab"


ERRORS: Sequence[tuple[bytes, int, str]] = [
    (b'data: {"error":{"message":"boom","code":502}}\n\n', 502, "server"),
    (b'event: error\ndata: {"error":{"message":"boom","status_code":400}}\n\n', 400, "refused"),
    (b'event: error\ndata: {"message":"boom","type":"overloaded_error"}\n\n', 502, "overload"),
    (b'data: {"object":"error","message":"boom","code":429}\n\n', 429, "rate_limit"),
    (b'{"error":{"message":"boom","status":"UNAVAILABLE","code":503}}\n\n', 502, "overload"),
    (b'data: [{"error":{"message":"boom","code":429,"status":"RESOURCE_EXHAUSTED"}}]\n\n', 429, "rate_limit"),
    (b'data: {"error":"boom"}\n\n', 502, "server"),
    (b'data: {"choices":[{"index":0,"delta":{},"error":{"message":"boom","code":502}}]}\n\n', 502, "server"),
    (b'data: {"choices":[],"x_groq":{"error":{"message":"boom","code":"rate_limit_exceeded"}}}\n\n', 429, "rate_limit"),
]


@pytest.mark.parametrize(("event", "status", "fault"), ERRORS)
def test_an_error_inside_a_stream_is_an_error(event: bytes, status: int, fault: str) -> None:
    opened = codec()
    opened.feed(sse(*chunks("a")[:2], done=False))
    with pytest.raises(UpstreamError, match="boom") as failed:
        opened.feed(event)
    assert (failed.value.status, failed.value.fault) == (status, fault)


@pytest.mark.parametrize("event", [event for event, _, _ in ERRORS])
def test_an_error_event_that_the_stream_ends_in_is_an_error(event: bytes) -> None:
    opened = codec()
    opened.feed(sse(*chunks("a")[:2], done=False) + event.rstrip())
    with pytest.raises(UpstreamError, match="boom"):
        opened.finish()


def test_what_came_before_an_error_in_the_same_piece_is_given_out_first() -> None:
    opened = codec()
    found = opened.feed(sse(*chunks("a")[:2], done=False) + b'data: {"error":{"message":"boom"}}\n\n')
    assert read_chunks([one.peek() for one in found]).text == "a"
    with pytest.raises(UpstreamError, match="boom"):
        opened.finish()


def test_an_error_before_any_content_is_raised_at_once() -> None:
    with pytest.raises(UpstreamError, match="boom"):
        codec().feed(sse(chunk({"role": "assistant"}), {"error": {"message": "boom"}}, done=False))


def test_an_event_that_cannot_be_written_again_breaks_the_stream_behind_what_came_before_it() -> None:
    opened = codec()
    deep = sse(chunk({"content": "b"}, "eos"), done=False).replace(
        b"{", b'{"deep":' + b"[" * 300 + b"]" * 300 + b",", 1
    )
    assert len(opened.feed(sse(chunk({"content": "a"}), done=False) + deep)) == 1
    with pytest.raises(UpstreamProtocolError, match="cannot be passed on"):
        opened.feed(sse(chunk({}, "stop")))


def test_an_event_that_is_not_json_is_garbage() -> None:
    opened = codec()
    with pytest.raises(UpstreamProtocolError, match="not JSON"):
        opened.feed(b'data: {"id":"x","choices":[{]}\n\n')


def test_a_second_answer_behind_the_first_is_an_error() -> None:
    opened = codec()
    opened.feed(sse(*chunks("a"), done=False))
    with pytest.raises(UpstreamProtocolError, match="two answers"):
        opened.feed(sse(*chunks("b"), done=False))


def test_a_second_answer_in_the_middle_of_the_first_is_an_error() -> None:
    opened = codec()
    opened.feed(sse(*chunks("a", "b")[:3], done=False))
    with pytest.raises(UpstreamProtocolError, match="second answer"):
        opened.feed(sse(*(value | {"id": "other"} for value in chunks("c")), done=False))


def test_an_endless_event_is_refused() -> None:
    opened = codec()
    for _ in range(15):
        opened.feed(b"x" * 1_000_000)
    with pytest.raises(UpstreamProtocolError, match="too much"):
        opened.feed(b"x" * 3_000_000)
