"""What the openai adapter makes of answers that are not quite OpenAI's: repaired where it can, a failure where not."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gw.adapters.openai import OpenAICodec
from gw.errors import UpstreamError, UpstreamProtocolError
from tests.fakes import chunk, completion, sse
from tests.openai_fakes import codec, read, reading
from tests.openai_requests import send
from tests.recordings import read_chunks, read_completion


def whole(value: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = orjson.loads(codec(stream=False).complete(orjson.dumps(value)).raw)
    return answer


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


@pytest.mark.parametrize("usage", [{"total_tokens": 9}, {"prompt_tokens": "9"}, {"completion_tokens": -1}])
def test_usage_that_counts_nothing_is_not_reported(usage: dict[str, Any]) -> None:
    opened = codec(stream=False)
    opened.complete(orjson.dumps(completion() | {"usage": usage | {"cost": 0.5}}))
    assert opened.summary.usage is None
    assert opened.summary.cost_usd == 0.5


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


def test_signed_thoughts_of_a_stream_have_an_index_each_as_every_list_that_clients_put_together() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": text}], "signature": text * 3} for text in ("a", "b")
    ]
    found = read(sse(*(chunk({"content": [part]}) for part in parts), chunk({}, "stop")))
    details = [detail for one in found for detail in one["choices"][0]["delta"].get("reasoning_details", ())]
    assert [(one["index"], one["signature"]) for one in details] == [(0, "aaa"), (1, "bbb")]
    assert all("text" not in one for one in details)  # it is in pieces, of which these may be the last
    answer = whole(completion() | {"choices": [completion()["choices"][0] | {"message": {"content": parts}}]})
    texts = [one | {"text": text} for one, text in zip(details, "ab", strict=True)]
    assert answer["choices"][0]["message"]["reasoning_details"] == texts


# --- whole answers ------------------------------------------------------------------------------------------------


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
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": ""}


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


def test_a_message_beside_an_empty_delta_is_a_whole_answer() -> None:
    whole = completion("All of it")
    whole["choices"][0]["delta"] = {"role": "assistant", "content": ""}
    opened = codec()
    found = [*opened.feed(sse(whole)), *opened.finish()]
    result = read_chunks([one.peek() for one in found])
    assert (result.text, result.finish_reason) == ("All of it", "stop")


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


def test_a_refusal_is_held_to_no_schema() -> None:
    message = {"role": "assistant", "content": None, "refusal": "I cannot."}
    refused = completion() | {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    assert asked_for_json().complete(orjson.dumps(refused)).peek()["choices"][0]["message"] == message
    opened = asked_for_json(stream=True)
    events = [chunk({"role": "assistant"}), chunk({"refusal": "I "}), chunk({"refusal": "cannot."}), chunk({}, "stop")]
    found = [one.peek() for one in [*opened.feed(sse(*events)), *opened.finish()]]
    assert read_chunks(found).finish_reason == "stop"


# --- what can be read but not written -----------------------------------------------------------------------------

DEEP = "[" * 300 + "]" * 300  # orjson reads it, and writes less than that


def test_an_answer_that_nests_too_deep_to_be_repaired_is_a_failure_and_one_that_needs_no_repair_passes() -> None:
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    called = orjson.dumps(completion(tool_calls=[call])).decode().replace('"{}"', DEEP)
    fine = orjson.dumps(completion()).decode().replace('"id"', f'"deep":{DEEP},"id"', 1)
    assert DEEP.encode() in codec(stream=False).complete(fine.encode()).raw
    for broken in (fine.replace('"stop"', '"eos"'), called):
        with pytest.raises(UpstreamProtocolError, match="cannot be passed on"):
            codec(stream=False).complete(broken.encode())


def test_an_answer_that_had_to_be_mended_keeps_its_numbers_as_far_as_json_holds_them() -> None:
    numbers = "[18446744073709551615,-9223372036854775808,18446744073709551616,-1e400,123456789012345678901234567890]"
    raw = orjson.dumps(completion()).decode().replace('"id"', f'"nan":NaN,"numbers":{numbers},"id"', 1)
    value = orjson.loads(codec(stream=False).complete(raw.encode()).raw)
    assert value["numbers"] == [2**64 - 1, -(2**63), float(2**64), None, 123456789012345678901234567890.0]
