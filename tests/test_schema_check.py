"""Answers held to the client's schema: what is checked agrees with the reference validator, and nothing hangs."""

from __future__ import annotations

import time
import warnings
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gw.errors import UpstreamProtocolError, can_fall_back, can_retry
from gw.schema_check import answer_problem, misfit
from tests.codecs import codec_of
from tests.recordings import read_chunks

POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": 0}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}}},
    "required": ["x"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "schema", "problem"),
    [
        ({"x": 1, "tags": ["a"]}, POINT, None),
        ({"x": 1.0}, POINT, None),
        ({"x": True}, POINT, '/x does not fit type "integer"'),
        ({"x": -1}, POINT, "/x does not fit minimum 0"),
        ({"x": 1, "tags": ["a", "c"]}, POINT, '/tags/1 does not fit enum ["a","b"]'),
        ({}, POINT, "/x is missing"),
        ({"x": 1, "y/z": 2}, POINT, "/y~1z may not be there"),
        ([], POINT, '/ does not fit type "object"'),
        (1, {"anyOf": [{"type": "string"}, {"const": 1}]}, None),
        (2, {"anyOf": [{"type": "string"}, {"const": 1}]}, "/ fits none of its anyOf"),
        (2, {"oneOf": [{"type": "integer"}, {"minimum": 1}]}, "/ fits 2 of its oneOf"),
        (
            {"a": {"a": {"a": 1}}},
            {"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"a": {"$ref": "#/$defs/n"}}}}},
            None,
        ),
        ({"a": {"a": 1}}, {"properties": {"a": {"$ref": "#"}}, "type": "object"}, '/a/a does not fit type "object"'),
        ([], {"contains": True}, "/ does not fit contains"),
        ([1], {"contains": True}, None),
        ("aaa", {"pattern": "^b"}, None),  # not checked
        (1, {"minimum": "nonsense", "type": 7, "properties": [], "anyOf": {}, "required": 1}, None),
    ],
)
def test_the_first_misfit_is_told_with_its_place(value: Any, schema: dict[str, Any], problem: str | None) -> None:
    assert misfit(value, schema) == problem


def test_what_is_not_json_does_not_fit() -> None:
    assert answer_problem("```json\n{}\n```", {}) == "it is not JSON"
    assert answer_problem(" {} ", {}) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"allOf": [{"$ref": "#"}, {"$ref": "#"}], "not": {"$ref": "#"}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"items": {"anyOf": [{"$ref": "#"}, {"not": {"$ref": "#"}}, {"$ref": "#"}]}},
    ],
)
def test_a_schema_without_end_ends(schema: dict[str, Any]) -> None:
    value: Any = []
    for _ in range(200):
        value = [value, value]
        if len(orjson.dumps(value)) > 5000:
            break
    begun = time.process_time()
    misfit(value, schema)
    assert time.process_time() - begun < 2


SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, "", "a", "bc"])
VALUES = st.recursive(
    SCALARS,
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.sampled_from("abc"), one, max_size=3),
    max_leaves=6,
)
TYPES = ["object", "array", "string", "boolean", "null", "number", "integer"]
KEYWORDS: dict[str, st.SearchStrategy[Any]] = {
    "type": st.sampled_from(TYPES) | st.lists(st.sampled_from(TYPES), min_size=1, max_size=2, unique=True),
    "enum": st.lists(VALUES, min_size=1, max_size=3),
    "const": VALUES,
    "minimum": st.integers(-2, 2),
    "maximum": st.integers(-2, 2),
    "exclusiveMinimum": st.integers(-2, 2),
    "exclusiveMaximum": st.integers(-2, 2),
    "multipleOf": st.sampled_from([0.5, 1, 2]),
    "minLength": st.integers(0, 2),
    "maxLength": st.integers(0, 2),
    "minItems": st.integers(0, 2),
    "maxItems": st.integers(0, 2),
    "uniqueItems": st.booleans(),
    "minProperties": st.integers(0, 2),
    "maxProperties": st.integers(0, 2),
    "required": st.lists(st.sampled_from("abc"), max_size=2, unique=True),
}


def schemas(below: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(below, min_size=1, max_size=2)
    more = {
        **KEYWORDS,
        "properties": st.dictionaries(st.sampled_from("abc"), below, max_size=2),
        "additionalProperties": below,
        "items": below,
        "prefixItems": several,
        "contains": below,
        **dict.fromkeys(("anyOf", "oneOf", "allOf"), several),
        **dict.fromkeys(("not", "if", "then", "else"), below),
    }
    return st.fixed_dictionaries({}, optional=more)


SCHEMAS = st.recursive(st.booleans() | st.fixed_dictionaries({}, optional=KEYWORDS), schemas, max_leaves=4)


@settings(max_examples=100, deadline=None)
@given(VALUES, SCHEMAS)
def test_the_reference_validator_agrees(value: Any, schema: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jsonschema = pytest.importorskip("jsonschema")
    assert (misfit(value, schema) is None) == jsonschema.Draft202012Validator(schema).is_valid(value)


# --- through the codecs -------------------------------------------------------------------------------------------


def asked(provider: str, is_stream: bool, **form: Any) -> dict[str, Any]:
    chat: dict[str, Any] = {"stream": is_stream, "response_format": {"type": "json_schema", "json_schema": form}}
    if provider == "gemini":  # beside tools 2.5 takes no schema: it is put into words
        return chat | {"tools": [{"type": "function", "function": {"name": "f"}}]}
    return chat


def answer(name: str, text: str, is_stream: bool, finish: str = "") -> bytes:
    if name == "gemini":
        part = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": finish or "STOP"}
        raw = orjson.dumps({"candidates": [part]})
        return b"data: " + raw + b"\n\n" if is_stream else raw
    content = [{"type": "text", "text": text}]
    message = {"type": "message", "id": "m", "model": "c", "content": content, "stop_reason": finish or "end_turn"}
    return orjson.dumps(message)  # to a stream request as well: it is read as the stream of it


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", ["anthropic", "gemini"])
class TestStrict:
    """A schema with `strict` that the provider is not held to: the gateway holds the answer to it."""

    def read(self, name: str, is_stream: bool, text: str, finish: str = "", **form: Any) -> str:
        codec = codec_of(name, asked(name, is_stream, name="p", **form))
        raw = answer(name, text, is_stream, finish)
        if not is_stream:
            return str(codec.complete(raw).peek()["choices"][0]["message"]["content"])
        return read_chunks([orjson.loads(chunk.raw) for chunk in (*codec.feed(raw), *codec.finish())]).text

    def test_an_answer_that_fits_passes(self, name: str, is_stream: bool) -> None:
        assert self.read(name, is_stream, '{"x":1}', schema=POINT, strict=True) == '{"x":1}'

    @pytest.mark.parametrize("text", ['{"x":-1}', "Sure! {}", '```json\n{"x":1}\n```'])
    def test_an_answer_that_does_not_fit_is_an_upstream_error(self, name: str, is_stream: bool, text: str) -> None:
        with pytest.raises(UpstreamProtocolError, match="does not fit the schema") as caught:
            self.read(name, is_stream, text, schema=POINT, strict=True)
        assert can_retry(caught.value)
        assert can_fall_back(caught.value)

    def test_without_strict_nothing_is_held_to_it(self, name: str, is_stream: bool) -> None:
        assert self.read(name, is_stream, "Sure!", schema=POINT) == "Sure!"

    def test_an_answer_that_was_cut_by_its_limit_is_told_as_cut(self, name: str, is_stream: bool) -> None:
        finish = "MAX_TOKENS" if name == "gemini" else "max_tokens"
        assert self.read(name, is_stream, '{"x":', finish, schema=POINT, strict=True) == '{"x":'


def test_a_schema_that_the_provider_keeps_itself_is_not_checked_again() -> None:
    closed = {
        "type": "object",
        "properties": {"x": {"type": "integer"}},
        "required": ["x"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "p", "schema": closed, "strict": True}}
    for name in ("anthropic", "gemini"):
        codec = codec_of(name, {"response_format": form})
        assert codec.losses == []
        assert codec.complete(answer(name, "Sure!", False)).peek()["choices"][0]["message"]["content"] == "Sure!"


def test_what_is_only_put_into_words_says_whether_it_is_checked() -> None:
    for is_strict in (False, True):
        codec = codec_of("gemini", asked("gemini", False, name="p", schema=POINT, strict=is_strict))
        (told,) = codec.losses
        assert (told.pointer, told.kind) == ("/response_format", "emulated")
        assert ("not checked" in told.detail) is not is_strict
