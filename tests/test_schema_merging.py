"""What a client's schema takes, the schema that is sent takes too, however it was put together."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gw.adapters.gemini.openapi_schema import for_openapi
from gw.json_schema import Fitted, for_anthropic_input, for_anthropic_output, for_gemini
from gw.schema_check import misfit
from tests.anthropic_fakes import BUDGET, OLD, codec_of, encoded, function, pointers, user, whole

TEXT = {"type": "string"}
NUMBER = {"type": "integer"}


def thing(required: list[str] | None = None, /, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


def opened(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def strict(schema: dict[str, Any]) -> Fitted | None:
    """A strict tool's schema at Claude, as its adapter makes it."""
    fitted = for_anthropic_input(schema, "/s")
    made = for_anthropic_output(fitted.schema, "/s")
    return None if made is None else Fitted(made.schema, [*fitted.losses, *made.losses])


FITS: dict[str, Any] = {
    "input": lambda schema: for_anthropic_input(schema, "/s"),
    "strict": strict,
    "output": lambda schema: for_anthropic_output(schema, "/s"),
    "gemini": lambda schema: for_gemini(schema, "/s"),
    "openapi": lambda schema: for_openapi(schema, "/s"),
}
DEFS = {"A": opened(a=TEXT), "B": opened(b=NUMBER)}
A, B = {"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}
CASES: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "a reference at the top": ({**A, "$defs": DEFS}, [{"a": "x"}]),
    "references joined at the top": ({"allOf": [A, B], "$defs": DEFS}, [{"a": "x", "b": 1}]),
    "a reference and an object": ({"allOf": [A, opened(z=TEXT)], "$defs": DEFS}, [{"a": "x", "z": "y"}]),
    "an object joined below": (
        {**thing(p={"allOf": [A, opened(z=TEXT)]}), "$defs": DEFS},
        [{"p": {"a": "x", "z": "y"}}],
    ),
    "properties beside a reference": (
        {**thing(p={**A, "properties": {"z": TEXT}, "required": ["z"]}), "$defs": DEFS},
        [{"p": {"a": "x", "z": "y"}}],
    ),
    "a choice of references at the top": ({"anyOf": [A, B], "$defs": DEFS}, [{"a": "x"}, {"b": 1}]),
    "a choice told apart by a word": (
        {"oneOf": [thing(kind={"const": "a"}, x=TEXT), thing(kind={"const": "b"}, y=NUMBER)]},
        [{"kind": "a", "x": "x"}, {"kind": "b", "y": 1}],
    ),
    "one name of two types": ({"anyOf": [thing(v=TEXT), thing(v=NUMBER, w=TEXT)]}, [{"v": "x"}, {"v": 1, "w": "y"}]),
    "a choice inside of a choice": (
        {"anyOf": [{"oneOf": [A, B]}, thing(c=TEXT)], "$defs": DEFS},
        [{"a": "x"}, {"b": 1}, {"c": "x"}],
    ),
    "a choice of what is required": (
        {**opened(x=TEXT, y=TEXT), "required": [], "anyOf": [{"required": ["x"]}, {"required": ["y"]}]},
        [{"x": "1"}, {"y": "2"}, {"x": "1", "y": "2"}],
    ),
    "a choice beside properties below": (
        {**thing(p={**opened(a=TEXT), "anyOf": [opened(b=TEXT), opened(c=NUMBER), B]}), "$defs": DEFS},
        [{"p": {"a": "x", "b": "y"}}, {"p": {"a": "x", "c": 1}}, {"p": {"a": "x", "b": 1}}],
    ),
    "the same property twice": (
        {"allOf": [thing(["n"], n={"type": "number", "minimum": 1}, m=TEXT), opened(n={"type": "integer"})]},
        [{"n": 3}, {"n": 3, "m": "x"}],
    ),
    "two choices at once": (
        thing(p={"allOf": [{"anyOf": [thing(a=TEXT, k=TEXT), thing(a=NUMBER, k=TEXT)]}, opened(k={"enum": [*"uv"]})]}),
        [{"p": {"a": "x", "k": "u"}}, {"p": {"a": 1, "k": "v"}}],
    ),
    "one reference with words beside it": (
        {**thing(p={"allOf": [A], "description": "d"}, q={**A, "description": "e"}), "$defs": DEFS},
        [{"p": {"a": "x"}, "q": {"a": "y"}}],
    ),
}


@pytest.mark.parametrize("target", FITS)
@pytest.mark.parametrize("name", CASES)
def test_what_the_client_takes_may_be_answered(name: str, target: str) -> None:
    schema, values = CASES[name]
    fitted = FITS[target](schema)
    for value in values:
        assert misfit(value, schema) is None
        assert misfit(value, fitted.schema) is None, fitted.schema
    assert "allOf" not in repr(fitted.schema) or target == "input"
    assert not [loss for loss in fitted.losses if loss.kind == "dropped"]


@pytest.mark.parametrize("name", CASES)
def test_a_tools_schema_is_an_object_with_its_properties(name: str) -> None:
    schema, values = CASES[name]
    for target in ("input", "strict", "gemini"):
        made = FITS[target](schema).schema
        assert "$ref" not in made
        if target != "gemini":
            assert made["type"] == "object"
            assert {key for value in values for key in value} <= made["properties"].keys()
            assert not made.keys() & {"anyOf", "oneOf", "allOf"}


NAMES = st.sampled_from(["a", "b", "c", "k"])
SIMPLE = st.sampled_from([TEXT, NUMBER, {"type": "number"}, {"const": "u"}, {"const": "v"}, {"enum": ["u", "v"]}])
OBJECTS = st.dictionaries(NAMES, SIMPLE, max_size=3).flatmap(
    lambda properties: st.builds(
        lambda required: {"type": "object", "properties": properties, "required": sorted(required)},
        st.sets(st.sampled_from(sorted(properties)) if properties else st.nothing()),
    )
)
COMPOSED = st.recursive(
    st.one_of(OBJECTS, st.sampled_from([A, B])),
    lambda inner: st.builds(
        lambda base, keyword, parts: {**base, keyword: parts},
        st.one_of(st.just({}), OBJECTS, st.just(A)),
        st.sampled_from(["allOf", "anyOf"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=5,
)
VALUES = st.dictionaries(NAMES, st.sampled_from(["u", "v", "x", 1, 2]), max_size=4)


def named(schema: Any) -> set[str]:
    """The properties that a schema names, wherever in it."""
    if isinstance(schema, list):
        return set().union(*map(named, schema))
    if not isinstance(schema, dict):
        return set()
    return set(schema.get("properties", ())) | set().union(*map(named, schema.values()))


@settings(max_examples=300, deadline=None)
@given(COMPOSED, st.lists(VALUES, min_size=5, max_size=10), st.sampled_from(["gemini", "openapi", "output"]))
def test_whatever_was_composed_takes_what_it_took(composed: Any, values: list[Any], target: str) -> None:
    schema = {"type": "object", "properties": {"p": composed}, "required": ["p"], "$defs": DEFS}
    fitted = FITS[target](schema)
    if fitted is None or any(loss.kind == "dropped" for loss in fitted.losses):
        return
    for value in values:
        # Structured outputs close every object, so that a value holds no more than its own branch names.
        least = {"p": {key: one for key, one in value.items() if key in named(fitted.schema)}}
        if target != "output" and misfit(least, schema) is None:
            assert misfit(least, fitted.schema) is None, fitted.schema
        if target != "openapi" and misfit(least, fitted.schema) is None and not fitted.losses:
            assert misfit(least, schema) is None, fitted.schema


def test_constraints_of_both_hold() -> None:
    schema = thing(n={"allOf": [{"type": "number", "minimum": 1, "maximum": 9}, {"type": "integer", "minimum": 3}]})
    fitted = for_gemini(schema, "/s")
    assert fitted.schema["properties"]["n"] == {"type": "integer", "minimum": 3, "maximum": 9}
    assert fitted.losses == []


def test_a_part_that_allows_nothing_is_told_and_one_that_allows_everything_is_no_loss() -> None:
    fitted = for_anthropic_input({"type": "object", "allOf": [True, False]}, "/s")
    assert fitted.schema == {"type": "object"}
    assert [(loss.pointer, loss.kind) for loss in fitted.losses] == [("/s/allOf/1", "dropped")]


def test_a_contradiction_is_told_and_the_first_word_stands() -> None:
    fitted = for_gemini(thing(n={"allOf": [TEXT, NUMBER]}), "/s")
    assert fitted.schema["properties"]["n"] == TEXT
    assert [(loss.pointer, loss.kind) for loss in fitted.losses] == [("/s/properties/n/allOf/1/type", "dropped")]


@pytest.mark.parametrize("fit", FITS.values(), ids=list(FITS))
def test_references_that_unfold_without_end_are_refused_or_left(fit: Any) -> None:
    names = [f"D{at}" for at in range(40)]
    both = [{"allOf": [{"$ref": f"#/$defs/{name}"}, {"properties": {"x": TEXT}}]} for name in names[1:]]
    defs = {name: {"properties": {"l": one, "r": one}} for name, one in zip(names, both, strict=False)}
    began = time.monotonic()
    with contextlib.suppress(ValueError):
        fit({"type": "object", "properties": {"p": both[0]}, "$defs": defs})
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("fit", FITS.values(), ids=list(FITS))
def test_a_schema_joined_with_itself_ends(fit: Any) -> None:
    node = {"type": "object", "properties": {"next": {"allOf": [{"$ref": "#/$defs/N"}, {"required": ["x"]}]}}}
    fitted = fit({"$ref": "#/$defs/N", "$defs": {"N": node}})
    if fitted is not None:
        assert misfit({"next": {"next": {"x": 1}, "x": 1}}, fitted.schema) is None


# --- at Claude --------------------------------------------------------------------------------------------------------

TREE = {
    "$ref": "#/$defs/N",
    "$defs": {"N": thing(v=TEXT, next={"anyOf": [{"$ref": "#/$defs/N"}, {"type": "null"}]})},
}


def test_a_recursive_strict_tool_keeps_its_schema_and_loses_its_strictness() -> None:
    body, losses = encoded({"messages": [user()], "tools": [function("f", TREE, strict=True)]}, BUDGET)
    (tool,) = body["tools"]
    assert "strict" not in tool
    assert misfit({"v": "x", "next": {"v": "y", "next": None}}, tool["input_schema"]) is None
    assert misfit({}, tool["input_schema"]) is not None
    assert pointers(losses) == [("/tools/0/function/strict", "dropped")]


@pytest.mark.parametrize("schema", [TREE, {"anyOf": [A, B], "$defs": DEFS, "type": "object"}], ids=["tree", "choice"])
def test_a_schema_that_no_input_may_be_is_wrapped_with_its_references(schema: Any) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    codec = codec_of({"messages": [user()], "response_format": form}, OLD)
    body, _ = encoded({"messages": [user()], "response_format": form}, OLD)
    sent = body["tools"][0]["input_schema"]
    value = {"v": "x", "next": {"v": "y", "next": None}} if schema is TREE else {"b": 1}
    assert misfit({"answer": value}, sent) is None
    assert misfit({"answer": {"v": "x", "next": 7}}, sent) is not None
    block = {"type": "tool_use", "id": "t", "name": "json_answer", "input": {"answer": value}}
    assert whole(codec, [block], "tool_use")["message"]["content"].startswith("{")
