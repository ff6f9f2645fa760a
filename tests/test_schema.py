"""A chat body is checked once at the edge: what is right passes untouched, what is wrong names its place and cure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gw import chat_checks, chat_objects
from gw.chat_objects import ChatRequest
from gw.errors import InvalidRequest
from gw.message_checks import MAX_MESSAGES, MAX_PARTS
from gw.schema import check_chat, decode_chat
from tests.recordings import Case, cases

HI = [{"role": "user", "content": "Hi"}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4", "messages": HI} | fields


def message(**fields: Any) -> dict[str, Any]:
    return chat(messages=[fields])


def part(**fields: Any) -> dict[str, Any]:
    return message(role="user", content=[fields])


def each(make: Callable[[Any], dict[str, Any]], param: str, *values: Any) -> list[tuple[dict[str, Any], str]]:
    """One body for each wrong value of one field."""
    return [(make(value), param) for value in values]


def refused(body: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        decode_chat(body if isinstance(body, bytes) else json.dumps(body).encode())
    assert caught.value.status == 400
    assert caught.value.type == "invalid_request_error"
    return caught.value


RIGHT: list[dict[str, Any]] = [
    {"messages": HI},
    chat(),
    chat(model=None, temperature=None, tools=None, stream=None, session_id=None, stop=None),
    chat(unheard_of={"deep": [1, 2]}, thinking={"type": "enabled"}, enable_thinking=True),
    *(chat(temperature=value) for value in (0, 1, 2, 0.7, 1e-9)),
    chat(top_p=1, n=3, max_tokens=150, max_completion_tokens=1, frequency_penalty=-2, presence_penalty=2.0),
    chat(top_k=-1, min_p=0.05, repetition_penalty=1.1, seed=-5, logprobs=True, top_logprobs=20),
    chat(seed=2**64, logit_bias={"50256": -100, "1": 1.5}),
    chat(stop="\n"),
    chat(stop=["a", "", "b", "c", "d", "e"]),
    chat(stream=True, stream_options={"include_usage": True, "include_obfuscation": None}),
    chat(tools=[TOOL, {"type": "custom", "custom": {"name": "x", "format": {"type": "text"}}}], tool_choice="required"),
    chat(tools=[{"function": {"name": "no_type", "description": None, "strict": None}}], tool_choice="any"),
    chat(tools=[{"type": "openrouter:web_search", "parameters": {}}]),
    chat(tools=["Read", "Bash(git log:*)"], working_directory="/srv/project", cli_tools=["Glob"], allowed_tools=[]),
    chat(tools=[], disallowed_tools=["Bash"]),
    chat(tool_choice={"type": "function", "function": {"name": "f"}}, parallel_tool_calls=False),
    chat(tool_choice={"type": "custom", "custom": {"name": "f"}}),
    chat(tool_choice={"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOL]}}),
    chat(functions=[{"name": "f", "parameters": {}}], function_call={"name": "f"}),
    chat(function_call="auto"),
    *(chat(response_format={"type": kind}) for kind in ("text", "json_object", "regex")),
    chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {}, "strict": True}}),
    *(chat(reasoning_effort=effort) for effort in ("none", "minimal", "xhigh", "max", "default")),
    chat(reasoning={"effort": "high", "max_tokens": 0}, verbosity="low", service_tier="on_demand"),
    chat(modalities=["text", "audio"], audio={"format": "wav", "voice": "alloy"}),
    chat(audio={"voice": {"id": "voice_1"}}, prediction={"type": "content", "content": [{"type": "text", "text": ""}]}),
    chat(metadata={"a": "b"}, user="u", safety_identifier="s", prompt_cache_key="k", store=False),
    chat(web_search_options={}, backend="gemini-1.5-pro", session_id="0f8fad5b-d9cb-469f-a165-70867728950e"),
    message(role="developer", content=""),
    message(role="system", content=[{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]),
    message(role="user", content=[]),
    message(role="user", content="x", name="Ann", unheard_of=1),
    message(role="assistant", content=None, tool_calls=[CALL, CALL | {"index": 1}]),
    message(role="assistant", tool_calls=[{"id": "c", "function": {"name": "f", "arguments": "not JSON"}}]),
    message(role="assistant", content="", tool_calls=[]),
    message(role="assistant", tool_calls=[{"id": "c", "type": "custom", "custom": {"name": "f", "input": ""}}]),
    message(role="assistant", content=None, refusal="no"),
    message(role="assistant", function_call={"name": "f", "arguments": "{}"}),
    message(role="assistant", content=None, audio={"id": "a1"}),
    message(role="assistant", content=None, reasoning_content="hm"),
    message(role="assistant", content=[{"type": "refusal", "refusal": "no"}, {"type": "thinking", "thinking": []}]),
    message(role="tool", content="sunny", tool_call_id="call_1"),
    message(role="tool", content=[{"type": "text", "text": "sunny"}], tool_call_id="call_1"),
    message(role="function", content=None, name="f"),
    part(type="image_url", image_url={"url": "https://example.org/a.jpg", "detail": "auto"}),
    part(type="image_url", image_url={"url": "data:image/png;base64,AAAA", "detail": None}),
    part(type="input_audio", input_audio={"data": "AAAA", "format": "wav"}),
    part(type="file", file={"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}),
    part(type="file", file={"file_id": "file-1"}),
    part(type="file_url", file_url={"url": "https://example.org/a.pdf"}),
    part(type="video_url", video_url="https://example.org/a.mp4"),
]


@pytest.mark.parametrize("body", RIGHT, ids=lambda body: str({**body, "model": "", "messages": ""})[:60])
def test_what_is_right_passes_and_keeps_its_bytes(body: dict[str, Any]) -> None:
    raw = json.dumps(body).encode()  # orjson would not write the huge seed
    document = decode_chat(raw)
    assert document.raw is raw
    assert document.peek() == orjson.loads(raw)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "messages"),
    (chat(messages=None), "messages"),
    *each(lambda value: chat(messages=value), "messages", [], {}, "Hi", 1, True),
    (chat(messages=[[]]), "messages[0]"),
    (chat(messages=["Hi"]), "messages[0]"),
    (chat(messages=[HI[0], {}]), "messages[1].role"),
    *each(lambda value: message(role=value, content="x"), "messages[0].role", "human", "", None, 1, ["user"], {}),
    *each(lambda value: message(role="user", content=value), "messages[0].content", None, 1, True, {"type": "text"}),
    (message(role="user"), "messages[0].content"),
    (message(role="assistant"), "messages[0].content"),
    (message(role="assistant", content=None), "messages[0].content"),
    (message(role="tool", content=None, tool_call_id="c"), "messages[0].content"),
    (message(role="tool", content="x"), "messages[0].tool_call_id"),
    *each(lambda value: message(role="tool", content="x", tool_call_id=value), "messages[0].tool_call_id", None, "", 7),
    (message(role="function", content="x"), "messages[0].name"),
    *each(lambda value: message(role="user", content="x", name=value), "messages[0].name", "", 1, "a\nb"),
    (message(role="assistant", content=None, refusal=1), "messages[0].refusal"),
    (message(role="assistant", content="", audio={}), "messages[0].audio.id"),
    (message(role="assistant", tool_calls={}), "messages[0].tool_calls"),
    (message(role="assistant", tool_calls=["x"]), "messages[0].tool_calls[0]"),
    (message(role="assistant", tool_calls=[{"type": "function"}]), "messages[0].tool_calls[0].id"),
    (message(role="assistant", tool_calls=[CALL | {"id": 1}]), "messages[0].tool_calls[0].id"),
    (message(role="assistant", tool_calls=[CALL | {"type": "x"}]), "messages[0].tool_calls[0].type"),
    (message(role="assistant", tool_calls=[CALL | {"function": None}]), "messages[0].tool_calls[0].function"),
    (message(role="assistant", tool_calls=[{"id": "c"}]), "messages[0].tool_calls[0].function"),
    (
        message(role="assistant", tool_calls=[CALL, CALL | {"function": {"name": "f"}}]),
        "messages[0].tool_calls[1].function.arguments",
    ),
    (
        message(role="assistant", tool_calls=[CALL | {"function": {"name": "f", "arguments": {"a": 1}}}]),
        "messages[0].tool_calls[0].function.arguments",
    ),
    (
        message(role="assistant", tool_calls=[CALL | {"function": {"name": "", "arguments": "{}"}}]),
        "messages[0].tool_calls[0].function.name",
    ),
    (
        message(role="assistant", tool_calls=[{"id": "c", "type": "custom", "custom": {"name": "f"}}]),
        "messages[0].tool_calls[0].custom.input",
    ),
    (message(role="user", content=["x"]), "messages[0].content[0]"),
    *each(lambda value: part(type=value), "messages[0].content[0].type", "banana", None, 1, ["text"]),
    (part(text="x"), "messages[0].content[0].type"),
    (part(type="text"), "messages[0].content[0].text"),
    (part(type="text", text=None), "messages[0].content[0].text"),
    (part(type="text", text="x", cache_control=1), "messages[0].content[0].cache_control"),
    (part(type="image_url"), "messages[0].content[0].image_url"),
    (part(type="image_url", image_url="https://x"), "messages[0].content[0].image_url"),
    (part(type="image_url", image_url={}), "messages[0].content[0].image_url.url"),
    (part(type="image_url", image_url={"url": ""}), "messages[0].content[0].image_url.url"),
    (part(type="image_url", image_url={"url": "x", "detail": "huge"}), "messages[0].content[0].image_url.detail"),
    (part(type="input_audio", input_audio={"data": "x"}), "messages[0].content[0].input_audio.format"),
    (part(type="input_audio", input_audio={"data": 1, "format": "wav"}), "messages[0].content[0].input_audio.data"),
    (part(type="file", file={}), "messages[0].content[0].file"),
    (part(type="file", file={"file_data": 1}), "messages[0].content[0].file.file_data"),
    (part(type="refusal", refusal=None), "messages[0].content[0].refusal"),
    (part(type="video_url", video_url=1), "messages[0].content[0].video_url"),
    *each(lambda value: chat(model=value), "model", "", 1, True, [], {}, "a\nb", "x" * 257),
    *each(lambda value: chat(temperature=value), "temperature", "1", -0.1, 2.1, True, [], {}, 1e308),
    *each(lambda value: chat(top_p=value), "top_p", -1, 1.01, "x", False),
    *each(lambda value: chat(n=value), "n", 0, -1, 1.5, "2", True, 129, 1.0, 2**64),
    *each(lambda value: chat(max_tokens=value), "max_tokens", 0, "9", 1.5),
    *each(lambda value: chat(max_completion_tokens=value), "max_completion_tokens", 0, "9", 1.5),
    (chat(frequency_penalty=-2.1), "frequency_penalty"),
    (chat(presence_penalty="x"), "presence_penalty"),
    *each(lambda value: chat(seed=value), "seed", 1.5, "1", True),
    *each(lambda value: chat(stop=value), "stop", 1, {}, True, ["a"] * 257),
    (chat(stop=["a", 1]), "stop[1]"),
    *each(lambda value: chat(logprobs=value), "logprobs", 1, 0, "true"),
    *each(lambda value: chat(top_logprobs=value), "top_logprobs", 21, -1, 2.5),
    (chat(logit_bias=[]), "logit_bias"),
    (chat(logit_bias={"1": 101}), "logit_bias.1"),
    *each(lambda value: chat(stream=value), "stream", 1, 0, "true", []),
    (chat(stream_options=True), "stream_options"),
    (chat(stream_options={"include_usage": "yes"}), "stream_options.include_usage"),
    *each(lambda value: chat(tools=value), "tools", {}, "Read", 1, True),
    (chat(tools=["Read", TOOL]), "tools"),
    (chat(tools=[TOOL, 1]), "tools[1]"),
    (chat(tools=[TOOL] * 1025), "tools"),
    (chat(tools=[""]), "tools[0]"),
    (chat(tools=["Read", "--dangerously-skip-permissions"]), "tools[1]"),
    (chat(tools=[{}]), "tools[0].function"),
    (chat(tools=[{"type": 1}]), "tools[0].type"),
    (chat(tools=[{"type": "function", "function": {}}]), "tools[0].function.name"),
    (chat(tools=[{"type": "function", "function": {"name": "f", "parameters": []}}]), "tools[0].function.parameters"),
    (chat(tools=[{"type": "function", "function": {"name": "f", "strict": 1}}]), "tools[0].function.strict"),
    (chat(tools=[{"type": "custom"}]), "tools[0].custom"),
    (chat(cli_tools="Read"), "cli_tools"),
    (chat(cli_tools=[TOOL]), "cli_tools[0]"),
    (chat(allowed_tools=[1]), "allowed_tools[0]"),
    *each(lambda value: chat(tool_choice=value), "tool_choice", "always", 1, [], True),
    *each(lambda value: chat(tool_choice=value), "tool_choice.type", {}, {"type": "x"}, {"type": ["function"]}),
    (chat(tool_choice={"type": "function"}), "tool_choice.function"),
    (chat(tool_choice={"type": "function", "function": {"name": 1}}), "tool_choice.function.name"),
    (
        chat(tool_choice={"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": "f"}}),
        "tool_choice.allowed_tools.tools",
    ),
    (chat(parallel_tool_calls=1), "parallel_tool_calls"),
    (chat(functions=[{}]), "functions[0].name"),
    (chat(function_call="f"), "function_call"),
    (chat(function_call={}), "function_call.name"),
    (chat(response_format="json"), "response_format"),
    (chat(response_format={}), "response_format.type"),
    (chat(response_format={"type": "xml"}), "response_format.type"),
    (chat(response_format={"type": "json_schema"}), "response_format.json_schema"),
    (chat(response_format={"type": "json_schema", "json_schema": {}}), "response_format.json_schema.name"),
    *each(lambda value: chat(reasoning_effort=value), "reasoning_effort", "hard", 3, True),
    (chat(reasoning={"max_tokens": "9"}), "reasoning.max_tokens"),
    (chat(verbosity="loud"), "verbosity"),
    (chat(modalities="text"), "modalities"),
    (chat(modalities=[]), "modalities"),
    (chat(modalities=["smell"]), "modalities[0]"),
    (chat(audio="wav"), "audio"),
    (chat(audio={"voice": 1}), "audio.voice"),
    (chat(prediction={"type": "content"}), "prediction.content"),
    (chat(prediction={"type": "content", "content": 1}), "prediction.content"),
    (chat(service_tier=1), "service_tier"),
    (chat(store="yes"), "store"),
    (chat(user=1), "user"),
    (chat(metadata=[]), "metadata"),
    (chat(metadata={"a": 1}), "metadata.a"),
    *each(lambda value: chat(backend=value), "backend", "", 1, ["a"], "a\0b"),
    *each(lambda value: chat(session_id=value), "session_id", "null", "", 1, ["x"], "--resume", "0f8fad5b"),
    *each(
        lambda value: chat(session_id=value),
        "session_id",
        "0F8FAD5B-D9CB-469F-A165-70867728950E",
        "0f8fad5b-d9cb-469f-a165-70867728950e\n",
        "0f8fad5bd9cb469fa16570867728950e",
    ),
    *each(lambda value: chat(working_directory=value), "working_directory", "", 1, "/a\0b", "x" * 4097),
    (chat(Model="other"), "model"),
    (chat(MESSAGES=[]), "messages"),
    (chat() | {"\u017ftream": True}, "stream"),  # its long s folds to an s
]


@pytest.mark.parametrize(("body", "param"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_wrong_is_told_with_its_place(body: dict[str, Any], param: str) -> None:
    error = refused(body)
    assert error.param == param
    assert error.code == "invalid_value"
    assert f"`{param}`" in error.message or f"write `{param}`" in error.message


def test_a_message_tells_the_cure() -> None:
    assert refused(chat(temperature="hot")).message == '`temperature` must be a number from 0 to 2, not "hot"'
    assert "leave it out to begin a session" in refused(chat(session_id="null")).message
    assert "put the names into `cli_tools`" in refused(chat(tools=["Read", TOOL])).message
    assert "a string of 5,000 characters" in refused(chat(reasoning_effort="x" * 5000)).message


@pytest.mark.parametrize("field", sorted(get_type_hints(ChatRequest)))
def test_every_field_of_the_canonical_request_is_checked(field: str) -> None:
    kinds: list[Any] = [1.5, "x\0", [1], {"a": 1}, True, 7]
    assert any(refusal(orjson.dumps(chat(**{field: kind}))) for kind in kinds)


def refusal(raw: bytes) -> InvalidRequest | None:
    try:
        decode_chat(raw)
    except InvalidRequest as error:
        return error
    return None


def test_the_roles_that_are_checked_are_those_of_the_canonical_form() -> None:
    for role in get_args(chat_objects.Role):
        decode_chat(orjson.dumps(message(role=role, content="x", name="n", tool_call_id="c")))


BAD_JSON = [
    *(b"", b" ", b"{", b"[", b'{"messages": [}', b"{'messages': 1}", b'{"a": NaN}', b'{"a": 1e999}', b"\xff\xfe{}"),
    *(b'{"a": "\xff"}', b'{"a": "\\ud800"}', b"\xef\xbb\xbf{}", b"{}{}", b"{} x", b'{"a": 01}', b'{"a": "\n"}'),
    b'{"a":' * 1100 + b"1" + b"}" * 1100,
]


@pytest.mark.parametrize("raw", BAD_JSON, ids=lambda raw: repr(raw[:20]))
def test_what_is_no_json_is_told_so_without_the_body(raw: bytes) -> None:
    error = refused(raw)
    assert error.code == "invalid_json"
    assert error.param is None
    assert error.__context__ is None  # orjson's error would keep the whole body alive


@pytest.mark.parametrize("raw", [b"[]", b"1", b"null", b'"x"', b"true"])
def test_what_is_no_object_is_told_so(raw: bytes) -> None:
    assert "must be a JSON object" in refused(raw).message


def nested(levels: int, size: int = 0) -> bytes:
    """A right body whose containers stand `levels` deep, and which has at least `size` bytes."""
    inner = b'{"a":' * (levels // 2) + b"[" * (levels - levels // 2 - 1)
    ends = b"]" * (levels - levels // 2 - 1) + b"}" * (levels // 2)
    return b'{"messages":[{"role":"user","content":"' + b"x" * size + b'"}],"extra":' + inner + b"1" * 1 + ends + b"}"


@pytest.mark.parametrize("size", [0, 10_000, 2_000_000])
def test_64_levels_pass_and_65_do_not(size: int) -> None:
    document = decode_chat(nested(64, size))
    assert orjson.dumps(document.data)
    assert "deeper than 64 levels" in refused(nested(65, size)).message
    assert "deeper than 64 levels" in refused(nested(300, size)).message


def test_brackets_in_texts_are_not_levels() -> None:
    decode_chat(orjson.dumps(message(role="user", content="[{" * 10_000)))
    decode_chat(orjson.dumps(chat(extra=[[]] * 5000)))


def test_too_many_messages_parts_or_tool_calls_are_refused() -> None:
    decode_chat(orjson.dumps(chat(messages=HI * MAX_MESSAGES)))
    assert refused(chat(messages=HI * (MAX_MESSAGES + 1))).param == "messages"
    text = {"type": "text", "text": "x"}
    decode_chat(orjson.dumps(message(role="user", content=[text] * MAX_PARTS)))
    assert refused(message(role="user", content=[text] * (MAX_PARTS + 1))).param == "messages[0].content"
    half = {"role": "user", "content": [text] * (MAX_PARTS // 2 + 1)}
    assert "content parts and tool calls: at most 10,000" in refused(chat(messages=[half, half])).message
    calls = message(role="assistant", content=None, tool_calls=[CALL] * (MAX_PARTS + 1))
    assert refused(calls).param == "messages[0].tool_calls"


@pytest.mark.parametrize("unit", [b"[],", b"{},"])
def test_a_large_body_of_nothing_but_structure_is_refused_before_it_is_built(unit: bytes) -> None:
    raw = b'{"messages":[],"x":[' + unit * (4_000_000 // len(unit))  # no JSON at all: nobody got so far as to see it
    assert "more than 500,000" in refused(raw).message


def test_a_large_image_passes() -> None:
    url = "data:image/png;base64," + "A" * 5_000_000
    raw = orjson.dumps(part(type="image_url", image_url={"url": url}))
    assert decode_chat(raw).raw is raw


@pytest.mark.parametrize("case", cases("openai-chat"), ids=lambda case: case.id)
def test_what_openai_compatible_providers_took_is_taken(case: Case) -> None:
    if case.request_body is not None:
        check_chat(case.request_body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
INNER = "type text role content name function id tool_calls arguments image_url url file".split()  # noqa: SIM905
WORDS = st.sampled_from("function custom text image_url file user tool assistant auto".split())  # noqa: SIM905
SHAPED = st.recursive(
    JSON | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(INNER), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(chat_checks._FIELDS)), SHAPED, max_size=5))
def test_any_json_is_taken_or_refused_and_what_is_taken_can_be_written(fields: dict[str, Any]) -> None:
    body = {"messages": HI} | fields
    if any(isinstance(value, float) and math.isinf(value) for value in fields.values()):
        return
    raw = orjson.dumps(body)
    error = refusal(raw)
    if error is None:
        assert orjson.loads(orjson.dumps(decode_chat(raw).data)) == orjson.loads(raw)
    else:
        assert error.param is not None
        assert orjson.dumps(error.body())


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.dictionaries(st.sampled_from(INNER), SHAPED, max_size=5), min_size=1, max_size=3))
def test_any_messages_are_taken_or_refused(messages: list[dict[str, Any]]) -> None:
    error = refusal(orjson.dumps(chat(messages=messages)))
    assert error is None or (error.param or "").startswith("messages[")
