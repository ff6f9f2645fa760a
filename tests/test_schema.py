"""A chat body is checked once at the edge: what is right passes untouched, what is wrong names its place and cure."""

from __future__ import annotations

import json
import math
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
from tests.chat_bodies import CALL, HI, RIGHT, TOOL, WRONG, chat, message, part
from tests.recordings import Case, cases


def refused(body: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        decode_chat(body if isinstance(body, bytes) else json.dumps(body).encode())
    assert caught.value.status == 400
    assert caught.value.type == "invalid_request_error"
    return caught.value


@pytest.mark.parametrize("body", RIGHT, ids=lambda body: str({**body, "model": "", "messages": ""})[:60])
def test_what_is_right_passes_and_keeps_its_bytes(body: dict[str, Any]) -> None:
    raw = json.dumps(body).encode()  # orjson would not write the huge seed
    document = decode_chat(raw)
    assert document.raw is raw
    assert document.peek() == orjson.loads(raw)


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
