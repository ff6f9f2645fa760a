"""JSON Schema cut to what each provider takes: what stays, what is rewritten, what is told."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gw.adapters.gemini.openapi_schema import for_openapi
from gw.json_schema import Fitted, for_anthropic_input, for_anthropic_output, for_gemini

TEXT = {"type": "string"}
TREE = {
    "type": "object",
    "properties": {"left": {"$ref": "#/$defs/Node"}},
    "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}},
}


def told(fitted: Fitted) -> dict[str, str]:
    return {loss.pointer: loss.kind for loss in fitted.losses}


# --- Gemini -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "properties": {"a": TEXT}, "required": ["a"], "additionalProperties": False},
        {"type": ["string", "null"], "enum": ["a", "b", 3, 1.5], "description": "d", "title": "t"},
        {"type": "array", "items": TEXT, "prefixItems": [TEXT], "minItems": 1, "maxItems": 2},
        {"anyOf": [TEXT, {"type": "null"}], "oneOf": [TEXT]},
        {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 9}},
        TREE,
    ],
    ids=lambda schema: orjson.dumps(schema).decode()[:50],
)
def test_what_gemini_takes_stays_the_same_object(schema: dict[str, Any]) -> None:
    fitted = for_gemini(schema, "/s")
    assert fitted.schema is schema
    assert fitted.losses == []


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        ({"$schema": "https://json-schema.org/draft/2020-12/schema", "$comment": "c", **TEXT}, TEXT),
        ({"const": "a"}, {"enum": ["a"]}),
        ({"const": 3, "type": "integer"}, {"type": "integer", "enum": [3]}),
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        ({"enum": [None]}, {"type": "null"}),
        ({"enum": [True, False]}, {"type": "boolean"}),
        (
            {"type": ["string", "null"], "enum": ["a", None], "description": "d"},
            {"description": "d", "anyOf": [{"type": "string", "enum": ["a"]}, {"type": "null"}]},
        ),
        (
            {"allOf": [{"properties": {"a": TEXT}, "required": ["a"]}, {"properties": {"b": TEXT}, "required": ["b"]}]},
            {"properties": {"b": TEXT, "a": TEXT}, "required": ["a", "b"]},
        ),
        (
            {"definitions": {"A": TEXT}, "properties": {"a": {"$ref": "#/definitions/A"}}},
            {"$defs": {"A": TEXT}, "properties": {"a": {"$ref": "#/$defs/A"}}},
        ),
        ({"items": {"allOf": [{"$ref": "#/$defs/A"}]}}, {"items": {"$ref": "#/$defs/A"}}),
        (
            {"items": {"$ref": "#/$defs/A", "description": "d"}},
            {"items": {"description": "d", "anyOf": [{"$ref": "#/$defs/A"}]}},
        ),
        ({"properties": {"anything": True}}, {"properties": {"anything": {}}}),
        ({"properties": {"pattern": TEXT, "const": TEXT}}, {"properties": {"pattern": TEXT, "const": TEXT}}),
    ],
    ids=lambda schema: orjson.dumps(schema).decode()[:50],
)
def test_what_gemini_knows_by_another_name_is_rewritten_without_loss(schema: Any, wanted: Any) -> None:
    before = orjson.dumps(schema)
    fitted = for_gemini(schema, "/s")
    assert fitted.schema == wanted
    assert fitted.losses == []
    assert orjson.dumps(schema) == before


def test_what_gemini_cannot_check_is_said_in_the_description() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a~/b": {"type": "string", "description": "A code", "pattern": "^x$", "maxLength": 3},
            "n": {"type": "number", "exclusiveMinimum": 0, "default": None},
        },
        "not": {"required": ["n"]},
    }
    fitted = for_gemini(schema, "/s")
    assert fitted.schema == {
        "type": "object",
        "properties": {
            "a~/b": {"type": "string", "description": 'A code (pattern: "^x$", maxLength: 3)'},
            "n": {"type": "number", "description": "exclusiveMinimum: 0, default: null"},
        },
        "description": 'not: {"required":["n"]}',
    }
    assert told(fitted) == {
        "/s/not": "emulated",
        "/s/properties/a~0~1b/pattern": "emulated",
        "/s/properties/a~0~1b/maxLength": "emulated",
        "/s/properties/n/exclusiveMinimum": "emulated",
        "/s/properties/n/default": "emulated",
    }


def test_a_constraint_too_long_for_a_description_is_told_as_dropped() -> None:
    fitted = for_gemini({"pattern": "x" * 300}, "/s")
    assert fitted.schema == {}
    assert told(fitted) == {"/s/pattern": "dropped"}


def test_a_reference_at_the_top_is_put_in_its_place() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/definitions/Node"}}}
    fitted = for_gemini({"$ref": "#/definitions/Node", "definitions": {"Node": node}, "$schema": "s"}, "/s")
    there = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}
    assert fitted.schema == {**there, "$defs": {"Node": there}}
    assert fitted.losses == []


def test_a_choice_beside_a_reference_is_told_as_dropped() -> None:
    fitted = for_gemini({"items": {"$ref": "#/$defs/A", "anyOf": [TEXT]}}, "/s")
    assert fitted.schema == {"items": {"$ref": "#/$defs/A"}}
    assert told(fitted) == {"/s/items/anyOf": "dropped"}


def test_keywords_that_all_of_sets_twice_are_told() -> None:
    fitted = for_gemini({"allOf": [{"type": "string", "title": "a"}, {"title": "b"}]}, "/s")
    assert fitted.schema == {"type": "string", "title": "a"}
    assert told(fitted) == {"/s/allOf/1/title": "dropped"}


def test_the_schema_that_allows_nothing_is_told() -> None:
    fitted = for_gemini({"properties": {"never": False}}, "/s")
    assert fitted.schema == {"properties": {"never": {}}}
    assert told(fitted) == {"/s/properties/never": "changed"}


def nested(depth: int, inner: Any) -> Any:
    for _ in range(depth):
        inner = {"type": "array", "items": inner}
    return inner


@pytest.mark.parametrize("fit", [for_gemini, for_anthropic_output, for_openapi])
def test_a_schema_that_is_too_deep_is_refused(fit: Any) -> None:
    assert fit(nested(30, TEXT), "/s").schema
    with pytest.raises(ValueError, match=r"deep|end"):
        fit(nested(500, TEXT), "/s")


# --- Gemini before 2.0 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        ({"type": ["string", "null"]}, {"nullable": True, "type": "string"}),
        ({"type": ["string", "integer"]}, {"anyOf": [{"type": "string"}, {"type": "integer"}]}),
        ({"anyOf": [TEXT, {"type": "null"}], "title": "t"}, {"type": "string", "title": "t", "nullable": True}),
        (
            {"anyOf": [TEXT, {"type": "integer"}, {"type": "null"}]},
            {"nullable": True, "anyOf": [TEXT, {"type": "integer"}]},
        ),
        ({"oneOf": [TEXT, {"type": "integer"}]}, {"anyOf": [TEXT, {"type": "integer"}]}),
        ({"const": "a"}, {"enum": ["a"], "type": "string"}),
        ({"enum": ["a", None]}, {"enum": ["a"], "nullable": True, "type": "string"}),
        ({"properties": {"a": {}}}, {"properties": {"a": {"type": "string"}}, "type": "object"}),
        ({"type": "array"}, {"type": "array", "items": {"type": "string"}}),
        ({"type": "object", "additionalProperties": False, "$schema": "s"}, {"type": "object"}),
        (
            {"$defs": {"A": TEXT}, "type": "object", "properties": {"a": {"$ref": "#/$defs/A", "description": "d"}}},
            {"type": "object", "properties": {"a": {"type": "string", "description": "d"}}},
        ),
    ],
    ids=lambda schema: orjson.dumps(schema).decode()[:50],
)
def test_the_openapi_subset_says_the_same_in_its_own_words(schema: Any, wanted: Any) -> None:
    before = orjson.dumps(schema)
    fitted = for_openapi(schema, "/s")
    assert fitted.schema == wanted
    assert fitted.losses == []
    assert orjson.dumps(schema) == before


@pytest.mark.parametrize(
    ("schema", "wanted", "losses"),
    [
        (
            {"type": "integer", "enum": [1, 2]},
            {"type": "integer", "description": "enum: [1,2]"},
            {"/s/enum": "emulated"},
        ),
        (
            {"type": "string", "format": "email"},
            {"type": "string", "description": 'format: "email"'},
            {"/s/format": "emulated"},
        ),
        ({"$ref": "#/$defs/Gone"}, {"type": "object"}, {"/s/$ref": "changed"}),
        ({"$ref": "https://example.com/schema"}, {"type": "object"}, {"/s/$ref": "changed"}),
    ],
    ids=lambda value: orjson.dumps(value).decode()[:50],
)
def test_what_the_openapi_subset_cannot_say_is_told(schema: Any, wanted: Any, losses: dict[str, str]) -> None:
    fitted = for_openapi(schema, "/s")
    assert fitted.schema == wanted
    assert told(fitted) == losses


def test_a_reference_that_leads_back_to_itself_ends() -> None:
    fitted = for_openapi(TREE, "/s")
    assert fitted.schema["properties"]["left"]["properties"]["next"] == {"type": "object"}
    assert told(fitted) == {"/s/properties/left/properties/next/$ref": "changed"}


def test_references_that_unfold_without_end_are_refused() -> None:
    names = "abcdefghijklmnop"
    defs: dict[str, Any] = {
        name: {"properties": {side: {"$ref": f"#/$defs/{after}"} for side in ("x", "y", "z")}}
        for name, after in pairwise(names)
    }
    with pytest.raises(ValueError, match="without end"):
        for_openapi({"$defs": {**defs, names[-1]: TEXT}, "$ref": "#/$defs/a"}, "/s")


# --- Anthropic ----------------------------------------------------------------------------------------------------


def test_an_input_schema_that_fits_stays_the_same_object() -> None:
    schema = {"type": "object", "properties": {"a": {"pattern": "x"}}}
    assert for_anthropic_input(schema, "/s").schema is schema


def test_an_input_schema_is_an_object_without_a_choice_at_the_top() -> None:
    assert for_anthropic_input({"properties": {"a": TEXT}}, "/s").schema == {
        "type": "object",
        "properties": {"a": TEXT},
    }
    schema = {
        "anyOf": [
            {"type": "object", "properties": {"a": TEXT, "b": TEXT}, "required": ["a", "b"]},
            {"type": "object", "properties": {"b": TEXT, "c": TEXT}, "required": ["b", "c"]},
        ]
    }
    fitted = for_anthropic_input(schema, "/s")
    assert fitted.schema == {"type": "object", "properties": {"a": TEXT, "b": TEXT, "c": TEXT}, "required": ["b"]}
    assert told(fitted) == {"/s/anyOf": "changed"}


def test_an_output_schema_closes_every_object_and_drops_what_cannot_be_enforced() -> None:
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 1},
            "list": {"type": "array", "items": {"type": "object", "properties": {}}, "minItems": 1},
            "pair": {"type": "array", "items": TEXT, "minItems": 2},
            "either": {"oneOf": [TEXT, {"type": "null"}]},
        },
    }
    fitted = for_anthropic_output(schema, "/s")
    assert fitted is not None
    closed = {"type": "object", "properties": {}, "additionalProperties": False}
    assert fitted.schema == {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "description": "minimum: 1"},
            "list": {"type": "array", "items": closed, "minItems": 1},
            "pair": {"type": "array", "items": TEXT, "description": "minItems: 2"},
            "either": {"anyOf": [TEXT, {"type": "null"}]},
        },
        "additionalProperties": False,
    }
    assert told(fitted) == {
        "/s/properties/n/minimum": "emulated",
        "/s/properties/pair/minItems": "emulated",
    }


@pytest.mark.parametrize("open_", [{"type": "object"}, {"type": "object", "additionalProperties": TEXT}])
def test_an_object_of_any_keys_is_no_output_schema(open_: Any) -> None:
    assert for_anthropic_output({"type": "object", "properties": {"a": open_}}, "/s") is None


@pytest.mark.parametrize("schema", [TREE, {"type": "object", "properties": {"next": {"$ref": "#"}}}])
def test_a_schema_inside_of_itself_is_no_output_schema(schema: Any) -> None:
    assert for_anthropic_output(schema, "/s") is None
    assert for_anthropic_input(schema, "/s").schema is schema


# --- whatever comes -----------------------------------------------------------------------------------------------

KEYWORDS = st.sampled_from(
    ["type", "enum", "const", "pattern", "minimum", "minItems", "title", "description", "default", "format", "nullable"]
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=3), st.lists(st.text(max_size=2)))
SCHEMAS = st.recursive(
    st.one_of(st.booleans(), st.dictionaries(KEYWORDS, LEAVES, max_size=4)),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.one_of(LEAVES, st.dictionaries(st.text(max_size=3), inner, max_size=3)),
            "items": st.one_of(LEAVES, inner),
            "additionalProperties": inner,
            "anyOf": st.one_of(LEAVES, st.lists(inner, max_size=3)),
            "allOf": st.one_of(LEAVES, st.lists(inner, max_size=3)),
            "oneOf": st.one_of(LEAVES, st.lists(inner, max_size=3)),
            "$ref": st.sampled_from(["#", "#/$defs/A", "#/definitions/A", "x"]),
            "$defs": st.one_of(LEAVES, st.dictionaries(st.just("A"), inner)),
            "definitions": st.one_of(LEAVES, st.dictionaries(st.just("A"), inner)),
            "type": LEAVES,
            "enum": LEAVES,
            "minItems": LEAVES,
            "required": LEAVES,
        },
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(SCHEMAS.filter(lambda schema: isinstance(schema, dict)))
def test_no_schema_however_odd_breaks_the_cutting_or_is_changed_in_place(schema: dict[str, Any]) -> None:
    before = orjson.dumps(schema)
    for fit in (for_gemini, for_anthropic_input, for_anthropic_output, for_openapi):
        fitted = fit(schema, "/s") or Fitted({}, [])
        orjson.dumps(fitted.schema)
        assert all(loss.pointer.startswith("/s") for loss in fitted.losses)
        assert orjson.dumps(schema) == before


@settings(max_examples=100, deadline=None)
@given(SCHEMAS)
def test_cutting_for_gemini_a_second_time_changes_nothing(inner: Any) -> None:
    once = for_gemini({"items": inner}, "/s").schema
    assert for_gemini(once, "/s").schema == once


def test_the_openapi_subset_is_what_googles_own_type_takes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        types = pytest.importorskip("google.genai.types", exc_type=ImportError)
    schema = {
        "$schema": "s",
        "type": "object",
        "properties": {
            "a": {"type": ["string", "null"], "pattern": "x", "examples": ["x"]},
            "b": {"$ref": "#/$defs/B"},
            "c": {"allOf": [{"type": "integer", "exclusiveMinimum": 0}]},
            "d": {"type": "object", "patternProperties": {"^x": {}}, "propertyNames": {}, "additionalProperties": {}},
        },
        "$defs": {"B": {"const": 1, "uniqueItems": True, "if": {}, "then": {}}},
        "unevaluatedProperties": False,
    }
    types.Schema.model_validate(for_openapi(schema, "/s").schema)
    with pytest.raises(ValueError, match="exclusiveMinimum"):
        types.Schema.model_validate({"exclusiveMinimum": 1})
