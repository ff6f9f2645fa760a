"""What the openai adapter makes of answers: untouched where they are OpenAI's, repaired where a provider errs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.adapters.openai import OpenAI, OpenAICodec
from gw.backend import Backend
from gw.errors import UpstreamError, UpstreamProtocolError, can_fall_back
from gw.message import Candidate
from tests.fakes import chat_request, chunk, chunks, completion, sse
from tests.recordings import Reading, check_laws, read_chunks, read_completion
from tests.test_openai_adapter import send


def codec(stream: bool = True, model: str = "gpt-4") -> OpenAICodec:
    adapter = OpenAI(base_url="http://127.0.0.1:8000/v1")
    backend = Backend(name="b", kind="openai", adapter=adapter)
    request = chat_request({"stream": stream}, candidates=(Candidate(backend, "upstream", model),))
    return adapter.open(request)


def read(*pieces: bytes, model: str = "gpt-4") -> list[dict[str, Any]]:
    """The canonical chunks of a stream; they keep the laws."""
    opened = codec(model=model)
    found = [one for piece in pieces for one in opened.feed(piece)]
    values = [orjson.loads(one.raw) for one in (*found, *opened.finish())]
    check_laws(values)
    return values


def reading(*values: dict[str, Any], done: bool = True) -> Reading:
    return read_chunks(read(sse(*values, done=done)))


def calls(*fragments: dict[str, Any], finish: str = "tool_calls") -> Reading:
    """A stream of tool call fragments, one a chunk, and its end."""
    return reading(*(chunk({"tool_calls": [fragment]}) for fragment in fragments), chunk({}, finish))


def fragment(arguments: Any = "", *, name: str | None = None, **fields: Any) -> dict[str, Any]:
    function = {"arguments": arguments} | ({"name": name} if name is not None else {})
    return {"function": function, **fields}


def whole(value: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = orjson.loads(codec(stream=False).complete(orjson.dumps(value)).raw)
    return answer


# --- bytes --------------------------------------------------------------------------------------------------------


def test_chunks_pass_in_the_providers_own_bytes_but_for_the_model() -> None:
    texts = ["a", "b", 'c "quoted" \\ \n', "é", "\U0001f600", "", "model", '"model":"x"']
    pieces = [sse(value, done=False) for value in chunks(*texts, model="their-own")[:-1]]
    opened = codec(model="asked for")
    raws = [one.raw for piece in pieces for one in opened.feed(piece)]
    assert raws == [piece[6:-2].replace(b'"model":"their-own"', b'"model":"asked for"') for piece in pieces]


def test_the_model_is_found_wherever_a_chunk_has_it() -> None:
    def value(place: int) -> dict[str, Any]:
        fields = list(
            (chunk({"content": "a"}, model="theirs") | {"t": "x" * place, "logprobs": {"model": place}}).items()
        )
        return dict(fields[place % 6 :] + fields[: place % 6])

    values = [chunk({"role": "assistant", "content": ""}, model="theirs"), *(value(i) for i in range(30))]
    opened = codec(model="asked")
    found = [orjson.loads(one.raw) for each in values for one in opened.feed(sse(each, done=False))]
    assert found == [each | {"model": "asked"} for each in values]


def test_chunks_under_the_right_name_already_are_not_changed_at_all() -> None:
    pieces = [sse(value, done=False).replace(b":", b" : ").replace(b"data :", b"data:") for value in chunks("a", "b")]
    opened = codec()
    assert [one.raw for piece in pieces[:-1] for one in opened.feed(piece)] == [
        piece.removeprefix(b"data: ").strip() for piece in pieces[:-1]
    ]


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=12), st.booleans())
def test_the_short_way_reads_the_same_as_the_long_one(texts: list[str], ascii_only: bool) -> None:
    events = [
        b"data: " + json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":")).encode() + b"\n\n"
        for value in chunks(*texts, model="theirs")
    ]
    short = read_chunks(read(*events))
    assert short.text == "".join(texts)
    assert short == read_chunks(read(b"".join(events)))
    # CRLF is never read by the short way.
    assert short == read_chunks(read(*(event.replace(b"\n\n", b"\r\n\r\n") for event in events)))


def test_the_short_way_serves_reasoning_text_and_arguments() -> None:
    values: list[dict[str, Any]] = [chunk({"role": "assistant", "content": ""})]
    values += [chunk({"reasoning": f" r{i}"}) for i in range(9)]
    values += [chunk({"content": f" c{i}"}) for i in range(9)]
    values += [chunk({"tool_calls": [fragment("", name="f", index=0, id="x", type="function")]})]
    values += [
        chunk({"tool_calls": [fragment(text, index=0)]}) for text in ('{"a":[', *(f"{i}," for i in range(9)), "1]}")
    ]
    opened = codec(model="asked")
    found = [one for value in [*values, chunk({}, "tool_calls")] for one in opened.feed(sse(value, done=False))]
    result = read_chunks([one.peek() for one in (*found, *opened.finish())])
    assert (result.text, result.reasoning) == (
        "".join(f" c{i}" for i in range(9)),
        "".join(f" r{i}" for i in range(9)),
    )
    assert result.tool_calls == [("x", "f", {"a": [0, 1, 2, 3, 4, 5, 6, 7, 8, 1]})]
    assert opened.filled > 20
    assert opened.summary.output_characters == len(result.text) + len(result.reasoning) + 27


def test_the_short_way_goes_on_where_a_network_cuts_an_event() -> None:
    stream = sse(*(chunk({"content": f" c{i}"}) for i in range(100)), done=False)
    at_once, cut = codec(model="asked"), codec(model="asked")
    at_once.feed(stream)
    for place in range(0, len(stream), 4096):
        cut.feed(stream[place : place + 4096])
    assert cut.filled == at_once.filled > 90


def test_padding_that_hides_lengths_does_not_hinder_the_short_way() -> None:
    opened = codec(model="asked")
    for place, padding in enumerate(("aB3", "x", "Zz99")):
        value = chunk({"content": "t"} if place else {"role": "assistant", "content": ""}) | {"obfuscation": padding}
        (one,) = opened.feed(sse(value, done=False))
        assert one.peek() == value | {"model": "asked"}
    value = chunk({"content": "u"}) | {"obfuscation": "q"}
    assert opened.feed(sse(value, done=False))[0].peek() == value | {"model": "asked"}
    assert opened.filled == 2


@pytest.mark.parametrize("text", [b"\\ud83d", b"\x01", b"\\x", b"\xff", b'"', b"\\"])
def test_the_short_way_takes_no_text_that_is_no_json(text: bytes) -> None:
    opened = codec()
    for value in chunks("a", "b")[:-2]:
        opened.feed(sse(value, done=False))
    event = sse(chunk({"content": "MARK"}), done=False).replace(b"MARK", text)
    if text == b"\\ud83d":  # half an emoji: told as the replacement character, which every parser takes
        assert opened.feed(event)[0].peek()["choices"][0]["delta"]["content"] == "�"
    else:
        with pytest.raises(UpstreamProtocolError):
            opened.feed(event)


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


# --- tool calls ---------------------------------------------------------------------------------------------------


def test_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    found = calls(fragment('{"a":1}', name="f", id="x"), fragment('{"b":2}', name="f", id="y"))
    assert found.tool_calls == [("x", "f", {"a": 1}), ("y", "f", {"b": 2})]


def test_calls_that_share_an_index_are_told_apart_by_their_ids() -> None:
    found = calls(
        fragment('{"a"', name="f", id="x", index=0),
        fragment(":1}", index=0),
        fragment("", name="g", id="y", index=0),
        fragment('{"b"', index=0),
        fragment(":2}", index=0),
    )
    assert found.tool_calls == [("x", "f", {"a": 1}), ("y", "g", {"b": 2})]


def test_calls_without_ids_are_told_apart_by_their_names_and_then_by_being_whole() -> None:
    found = calls(
        fragment("{", name="f", index=0),
        fragment("}", index=0),
        fragment("{}", name="g", index=0),
        fragment('{"a":1}', name="g", index=0),
    )
    assert [(name, arguments) for _, name, arguments in found.tool_calls] == [("f", {}), ("g", {}), ("g", {"a": 1})]
    assert len({call_id for call_id, _, _ in found.tool_calls}) == 3


def test_a_name_and_an_id_that_are_repeated_begin_no_new_call() -> None:
    found = calls(
        fragment('{"a"', name="f", id="x", index=0),
        fragment(":", name="f", id="x", index=0),
        fragment("1}", name="", id="x", index=0),
    )
    assert found.tool_calls == [("x", "f", {"a": 1})]


def test_indexes_are_counted_anew_from_zero() -> None:
    found = calls(fragment("{}", name="f", id="x", index=3), fragment("{}", name="g", id="y", index=7))
    assert [name for _, name, _ in found.tool_calls] == ["f", "g"]


def test_interleaved_calls_are_kept_apart() -> None:
    found = calls(
        fragment("", name="f", id="x", index=0),
        fragment("", name="g", id="y", index=1),
        fragment('{"a":', index=0),
        fragment('{"b":', index=1),
        fragment("1}", index=0),
        fragment("2}", index=1),
    )
    assert found.tool_calls == [("x", "f", {"a": 1}), ("y", "g", {"b": 2})]


@pytest.mark.parametrize("arguments", ["", None])
def test_a_call_without_arguments_gets_an_empty_object(arguments: str | None) -> None:
    assert calls(fragment(arguments, name="f", id="x", index=0)).tool_calls == [("x", "f", {})]


def test_a_call_without_arguments_that_comes_with_the_end_gets_an_empty_object() -> None:
    begins = fragment("", name="g", id="y", index=1, type="function")
    found = reading(
        chunk({"tool_calls": [fragment("", name="f", id="x", index=0, type="function")]}),
        chunk({"tool_calls": [begins]}, "tool_calls"),
    )
    assert found.tool_calls == [("x", "f", {}), ("y", "g", {})]
    only = chunk({"role": "assistant", "content": None, "tool_calls": [begins | {"index": 0}]}, "tool_calls")
    assert reading(only).tool_calls == [("y", "g", {})]


def test_arguments_as_an_object_become_text() -> None:
    assert calls(fragment({"a": [1]}, name="f", id="x", index=0)).tool_calls == [("x", "f", {"a": [1]})]


def test_stop_becomes_tool_calls_where_calls_were_made() -> None:
    assert calls(fragment("{}", name="f", id="x", index=0), finish="stop").finish_reason == "tool_calls"


def test_a_piece_of_a_call_that_nobody_began_is_garbage() -> None:
    with pytest.raises(UpstreamProtocolError, match="before its name"):
        calls(fragment("{}", index=0))


def test_an_empty_list_of_calls_is_dropped() -> None:
    found = read(sse(chunk({"content": "a", "tool_calls": []}), chunk({}, "stop")))
    assert "tool_calls" not in found[0]["choices"][0]["delta"]


# --- usage, reasoning and content ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "last",
    [
        [chunk({}, "stop"), chunk({}) | {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}],
        [chunk({}, "stop") | {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}],
        [chunk({}, "stop") | {"x_groq": {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}}],
        [chunk({}, "stop"), {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}],
        [
            chunk({"content": ""}) | {"usage": {"prompt_tokens": 9, "completion_tokens": 9}},
            chunk({}, "stop") | {"usage": {"prompt_tokens": 1, "completion_tokens": 2}},
        ],
    ],
)
def test_usage_is_read_wherever_it_stands_and_told_last(last: list[dict[str, Any]]) -> None:
    opened = codec()
    found = [*opened.feed(sse(chunk({"content": "a"}), *last)), *opened.finish()]
    values = [one.peek() for one in found]
    assert (values[-1]["choices"], values[-1]["usage"]) == ([], {"prompt_tokens": 1, "completion_tokens": 2})
    assert not any(value.get("usage") for value in values[:-1])
    usage = opened.summary.usage
    assert usage is not None
    assert (usage.prompt, usage.completion, usage.source) == (1, 2, "reported")


@pytest.mark.parametrize("fields", [{"prompt_cache_hit_tokens": 4}, {"cached_tokens": 4}])
def test_cached_tokens_are_told_where_openai_tells_them(fields: dict[str, int]) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10, **fields}
    assert whole(completion() | {"usage": usage})["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}


def test_a_reported_cost_is_the_cost() -> None:
    opened = codec(stream=False)
    usage: dict[str, Any] = {"prompt_tokens": 9, "completion_tokens": 1, "cost": 0.5}
    opened.complete(orjson.dumps(completion() | {"usage": usage}))
    assert (opened.summary.cost_usd, opened.summary.cost_source) == (0.5, "reported")
    opened = codec(stream=False)
    usage |= {"is_byok": True, "cost": 0.01, "cost_details": {"upstream_inference_cost": 0.25}}
    opened.complete(orjson.dumps(completion() | {"usage": usage}))
    assert opened.summary.cost_usd == pytest.approx(0.26)


def test_parts_of_usage_never_exceed_the_whole() -> None:
    opened = codec(stream=False)
    usage = {"prompt_tokens": 7, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 161}}
    opened.complete(orjson.dumps(completion() | {"usage": usage}))
    assert opened.summary.usage is not None
    assert opened.summary.usage.cached == 7


def test_reasoning_is_readable_under_both_its_names() -> None:
    message = whole(completion(reasoning="because"))["choices"][0]["message"]
    assert (message["reasoning"], message["reasoning_content"]) == ("because", "because")
    delta = read(sse(chunk({"reasoning": "because"}), chunk({}, "stop")))[0]["choices"][0]["delta"]
    assert (delta["reasoning"], delta["reasoning_content"]) == ("because", "because")


def test_a_list_of_content_becomes_text_and_reasoning() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "so"}], "signature": "sig"},
        {"type": "text", "text": "then"},
    ]
    found = read_completion(
        whole(completion() | {"choices": [completion()["choices"][0] | {"message": {"content": parts}}]})
    )
    assert (found.text, found.reasoning, found.signatures) == ("then", "so", ["sig"])
    streamed = reading(chunk({"content": parts}), chunk({}, "stop"))
    assert (streamed.text, streamed.reasoning) == ("then", "so")


# --- whole answers ------------------------------------------------------------------------------------------------


def test_a_whole_answer_passes_in_the_providers_own_bytes_but_for_the_model() -> None:
    came = orjson.dumps(
        completion(model="theirs", content='"model":"theirs"') | {"x": {"model": "theirs"}}, option=orjson.OPT_INDENT_2
    )
    answer = codec(stream=False).complete(came)
    head, _, tail = came.partition(b'"model": "theirs"')
    assert answer.raw == head + b'"model": "gpt-4"' + tail


def test_a_whole_answer_under_the_right_name_is_the_very_same_object() -> None:
    came = orjson.dumps(completion())
    assert codec(stream=False).complete(came).raw is came


def test_a_whole_answers_tool_calls_are_made_openais() -> None:
    tool_calls = [
        {"function": {"name": "f", "arguments": {"a": 1}}},
        {"id": "x", "type": "function", "function": {"name": "g", "arguments": ""}},
        {"id": "y", "type": "function", "function": {"name": "h"}},
    ]
    found = read_completion(whole(completion(tool_calls=tool_calls)))
    assert [(name, arguments) for _, name, arguments in found.tool_calls] == [("f", {"a": 1}), ("g", {}), ("h", {})]
    assert all(call_id for call_id, _, _ in found.tool_calls)
    assert found.finish_reason == "tool_calls"


def test_a_choice_without_a_message_gets_one() -> None:
    answer = whole(completion() | {"choices": [{"index": 0, "finish_reason": "content_filter"}]})
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": None}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"  \n",
        b"<html><body>502 Bad Gateway</body></html>",
        b"upstream connect error",
        b"[]",
        b"null",
        b"{}",
        b'{"choices":[]}',
        b'{"choices":null}',
        b'{"id":"x","choices":[{"mess',
        b"data: {}\n\n",
    ],
)
def test_a_200_that_is_no_answer_is_garbage(content: bytes) -> None:
    with pytest.raises(UpstreamProtocolError) as failed:
        codec(stream=False).complete(content)
    assert failed.value.status == 502
    assert '"b"' in failed.value.message
    assert len(failed.value.message) < 400


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b'{"error":{"message":"boom","code":429}}', "rate_limit"),
        (b'{"error":{"code":400,"message":"boom","type":"exceed_context_size_error"}}', "context_length"),
        (b'[{"error":{"message":"boom","code":503,"status":"UNAVAILABLE"}}]', "overload"),
        (b'{"choices":[{"error":{"message":"boom","code":502},"finish_reason":"error"}]}', "server"),
        (b'{"object":"error","message":"boom","code":400}', "refused"),
    ],
)
def test_an_error_inside_a_200_is_an_error(content: bytes, fault: str) -> None:
    with pytest.raises(UpstreamError, match="boom") as failed:
        codec(stream=False).complete(content)
    assert failed.value.fault == fault


# --- a schema that the provider does not know -------------------------------------------------------------------


SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


CUT = {"choices": [{"index": 0, "message": {"role": "assistant", "content": '{"age":'}, "finish_reason": "length"}]}


def asked_for_json(*, strict: bool | None = True, stream: bool = False) -> OpenAICodec:
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": strict}}
    return send({"response_format": wanted, "stream": stream}, dialect="deepseek")


@pytest.mark.parametrize("text", ['{"age":"old"}', "{}", "no JSON"])
def test_an_answer_that_does_not_fit_a_strict_schema_told_in_words_is_a_failure(text: str) -> None:
    with pytest.raises(UpstreamProtocolError, match="does not fit the schema asked for with strict"):
        asked_for_json().complete(orjson.dumps(completion(text)))
    asked_for_json(strict=None).complete(orjson.dumps(completion(text)))


def test_an_answer_that_fits_or_was_cut_by_a_limit_passes() -> None:
    asked_for_json().complete(orjson.dumps(completion('{"age":7}')))
    asked_for_json().complete(orjson.dumps(completion('{"age":') | CUT))


@pytest.mark.parametrize(("text", "fits"), [('{"age":7}', True), ('{"age":"7"}', False)])
def test_a_streamed_answer_that_does_not_fit_has_no_end(text: str, fits: bool) -> None:
    opened = asked_for_json(stream=True)
    events = [chunk({"role": "assistant"}), *(chunk({"content": letter}) for letter in text), chunk({}, "stop")]
    found = [one for event in events for one in opened.feed(sse(event, done=False))]
    read = read_chunks([one.peek() for one in found])
    assert read.text == text
    assert read.finish_reason == ("stop" if fits else None)
    if fits:
        opened.feed(b"data: [DONE]\n\n")
        opened.finish()
    else:
        assert opened.is_done
        with pytest.raises(UpstreamProtocolError, match="/age"):
            opened.finish()


def test_a_message_beside_an_empty_delta_is_a_whole_answer() -> None:
    whole = completion("All of it")
    whole["choices"][0]["delta"] = {"role": "assistant", "content": ""}
    opened = codec()
    found = [*opened.feed(sse(whole)), *opened.finish()]
    result = read_chunks([one.peek() for one in found])
    assert (result.text, result.finish_reason) == ("All of it", "stop")
