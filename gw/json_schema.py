"""JSON Schema cut to what each provider takes, with every change told.

    for_gemini             parametersJsonSchema and responseJsonSchema (Gemini 2.0 and later)
    for_anthropic_input    a tool's input_schema: an object at the top
    for_anthropic_output   output_config.format and strict tools

Another target is a `Rule` for `walk`, which cuts one schema at a time; Gemini's older OpenAPI subset is made so.
A schema that fits comes back as the very same object. What a target cannot check is moved into the description, so
that the model still reads it, and is told as `emulated`; what has no words is `dropped`; what was rewritten to mean
the same is no loss. Keep the client's own schema for validation.

Sources: google-genai 3.4.0 `FunctionDeclaration`, `Schema` and the notes at `response_json_schema`; Anthropic's
structured outputs, which refuse `allOf` with a reference in it and references that lead back to themselves
(egonSchiele/agency-lang#487); what recorded requests were accepted with.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import orjson

from gw.losses import escape
from gw.message import Loss
from gw.schema_merging import Merging
from gw.schema_parts import MAX_DEPTH, References, Schema, table, without


class Fitted(NamedTuple):
    """A schema for one target and what it lost on the way."""

    schema: Schema
    losses: list[Loss]


def for_gemini(schema: Schema, pointer: str) -> Fitted:
    """The schema as Gemini's `parametersJsonSchema` and `responseJsonSchema` take it. ValueError where it is too deep.

    `$ref` and `$defs` stay, `definitions` are renamed, `const` becomes `enum`, `nullable` a second type.
    """
    losses: list[Loss] = []
    merging = Merging(schema, losses)
    if "$ref" in schema:  # at the top an object is wanted, not a way to one
        schema = merging.opened(schema, pointer)
    return Fitted(walk(schema, pointer, losses, partial(_gemini, merging), 0), losses)


def for_anthropic_input(schema: Schema, pointer: str) -> Fitted:
    """The schema as a Claude tool's `input_schema`: `type: object` at the top, no choice between schemas there.

    A top-level `anyOf`, `oneOf` or `allOf` is flattened into one object whose properties are all of theirs.
    ValueError where it unfolds without end.
    """
    losses: list[Loss] = []
    if may_be_input(schema):
        return Fitted(schema, losses)
    if not schema.keys().isdisjoint(_COMPOSED):
        schema = Merging(schema, losses).flat(schema, pointer)
    if schema.get("type") != "object":
        schema = {**schema, "type": "object"}
    return Fitted(schema, losses)


def may_be_input(schema: Schema) -> bool:
    """Whether a schema may be a Claude tool's `input_schema` as it is."""
    return schema.get("type") == "object" and schema.keys().isdisjoint(_COMPOSED)


def for_anthropic_output(schema: Schema, pointer: str) -> Fitted | None:
    """The schema as Claude's structured outputs and strict tools take it: every object closed, few constraints.

    None where it needs what they have not: an object of any keys, or a schema inside of itself. ValueError where it is
    too deep or unfolds without end.
    """
    losses: list[Loss] = []
    fitted = walk(schema, pointer, losses, partial(_anthropic, Merging(schema, losses)), 0)
    if any(loss.pointer.endswith("/additionalProperties") for loss in losses):
        return None
    if b'"$ref"' in orjson.dumps(fitted) and References(fitted).is_recursive():
        return None
    return Fitted(fitted, losses)


# --- the walk -------------------------------------------------------------------------------------------------------

Rule = Callable[[Schema, str, list[Loss]], Schema]

_COMPOSED = frozenset({"$ref", "anyOf", "oneOf", "allOf"})
_MAPS = ("properties", "$defs", "definitions")  # keyword -> {name: schema}
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")  # keyword -> [schema]
_SINGLE = ("items", "additionalProperties")  # keyword -> schema


def walk(schema: Any, pointer: str, losses: list[Loss], rule: Rule, depth: int) -> Schema:
    """The schema with `rule` applied to it and to all below it; the same object where nothing changed."""
    if depth > MAX_DEPTH:
        raise ValueError(f"the JSON schema is nested more than {MAX_DEPTH} deep")
    if not isinstance(schema, dict):  # true and false are schemas: anything, nothing
        if schema is not True:
            losses.append(Loss(pointer, "changed", "the schema that allows nothing became one that allows anything"))
        return {}
    schema = rule(schema, pointer, losses)
    changed: Schema | None = None
    for keyword, value in schema.items():
        if keyword in _MAPS:
            new: Any = _walk_map(value, f"{pointer}/{keyword}", losses, rule, depth)
        elif keyword in _LISTS:
            new = _walk_list(value, f"{pointer}/{keyword}", losses, rule, depth)
        elif keyword in _SINGLE and not isinstance(value, bool):
            new = walk(value, f"{pointer}/{keyword}", losses, rule, depth + 1)
        else:
            continue
        if new is not value:
            if changed is None:
                changed = dict(schema)
            changed[keyword] = new
    return schema if changed is None else changed


def _walk_map(value: Any, pointer: str, losses: list[Loss], rule: Rule, depth: int) -> Any:
    if not isinstance(value, dict):
        return value
    new = {name: walk(below, f"{pointer}/{escape(name)}", losses, rule, depth + 1) for name, below in value.items()}
    return value if all(new[name] is below for name, below in value.items()) else new


def _walk_list(value: Any, pointer: str, losses: list[Loss], rule: Rule, depth: int) -> Any:
    if not isinstance(value, list):
        return value
    new = [walk(below, f"{pointer}/{at}", losses, rule, depth + 1) for at, below in enumerate(value)]
    return value if all(one is below for one, below in zip(new, value, strict=True)) else new


_SILENT = frozenset({"$schema", "$comment"})  # they bind nothing: their absence is no loss
_SHOWN = 200  # characters of a constraint that go into a description


def move_to_description(schema: Schema, keywords: list[str], pointer: str, losses: list[Loss]) -> Schema:
    """The schema without these keywords, which its description names instead."""
    kept = {name: value for name, value in schema.items() if name not in keywords}
    notes = []
    for keyword in keywords:
        if keyword in _SILENT:
            continue
        text = orjson.dumps(schema[keyword]).decode()
        if len(text) <= _SHOWN:
            notes.append(f"{keyword}: {text}")
            losses.append(Loss(f"{pointer}/{escape(keyword)}", "emulated", "moved into the description"))
        else:
            losses.append(Loss(f"{pointer}/{escape(keyword)}", "dropped", "too long for a description"))
    if notes:
        words = str(kept.get("description") or "")
        kept["description"] = f"{words} ({', '.join(notes)})" if words else ", ".join(notes)
    return kept


# --- what means the same, for all -------------------------------------------------------------------------------------


def const_as_enum(schema: Schema) -> Schema:
    """`const` as an `enum` of one, where its value is text or a number; any other stays for the caller to move."""
    value = schema.get("const")
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        return schema
    return {**without(schema, "const"), "enum": [value]}


# --- Gemini -----------------------------------------------------------------------------------------------------------

_GEMINI = frozenset(
    {"$id", "$defs", "$ref", "$anchor", "type", "format", "title", "description", "enum", "items"}
    | {"prefixItems", "minItems", "maxItems", "minimum", "maximum", "anyOf", "oneOf", "properties"}
    | {"additionalProperties", "required", "propertyOrdering"}
)


def _gemini(merging: Merging, schema: Schema, pointer: str, losses: list[Loss]) -> Schema:
    if "$ref" not in schema and "enum" not in schema and schema.keys() <= _GEMINI:
        return schema
    if "$ref" in schema or "allOf" in schema:
        schema = merging.folded(schema, pointer)
        if "$ref" in schema:
            return _gemini_reference(schema, pointer, losses)
    if "definitions" in schema:
        schema = {**without(schema, "definitions", "$defs"), "$defs": _definitions(schema)}
    schema = const_as_enum(schema)
    if "enum" in schema:
        schema = _gemini_enum(schema, pointer, losses)
    if schema.get("nullable") is True and isinstance(schema.get("type"), str):
        schema = {**without(schema, "nullable"), "type": [schema["type"], "null"]}
    foreign = [name for name in schema if name not in _GEMINI]
    return move_to_description(schema, foreign, pointer, losses) if foreign else schema


def _definitions(schema: Schema) -> Any:
    return {**table(schema.get("definitions")), **table(schema.get("$defs"))}


def _gemini_reference(schema: Schema, pointer: str, losses: list[Loss]) -> Schema:
    """Beside `$ref` only `$` keys may stand: notes that are there move out, around an `anyOf` of the one reference."""
    reference = schema["$ref"]
    if isinstance(reference, str) and reference.startswith("#/definitions/"):
        reference = "#/$defs/" + reference.removeprefix("#/definitions/")
        schema = {**schema, "$ref": reference}
    foreign = [name for name in schema if name not in _GEMINI and name != "definitions"]
    if "definitions" in schema:
        schema = {**without(schema, "definitions", "$defs"), "$defs": _definitions(schema)}
    if foreign:
        schema = move_to_description(schema, foreign, pointer, losses)
    if all(name.startswith("$") for name in schema):
        return schema
    return {**without(schema, "$ref"), "anyOf": [{"$ref": reference}]}


def _gemini_enum(schema: Schema, pointer: str, losses: list[Loss]) -> Schema:
    """`enum` holds strings and numbers only: null becomes a branch, anything else words."""
    values = schema["enum"]
    if not isinstance(values, list):
        return move_to_description(schema, ["enum"], pointer, losses)
    plain = [value for value in values if isinstance(value, (str, int, float)) and not isinstance(value, bool)]
    if len(plain) == len(values):
        return schema
    if values == [None]:
        return {**without(schema, "enum"), "type": "null"}
    if len(plain) == len(values) - 1 and None in values and "anyOf" not in schema:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((one for one in kind if one != "null"), "string")
        branch = {"enum": plain} if kind is None else {"type": kind, "enum": plain}
        return {**without(schema, "enum", "type"), "anyOf": [branch, {"type": "null"}]}
    if set(map(type, values)) == {bool} and "type" not in schema:
        schema = {**schema, "type": "boolean"}
        if len(set(values)) == 2:
            return without(schema, "enum")
    return move_to_description(schema, ["enum"], pointer, losses)


# --- Anthropic --------------------------------------------------------------------------------------------------------

_ANTHROPIC_REFUSES = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"}
    | {"maxItems", "uniqueItems", "contains", "minContains", "maxContains", "prefixItems", "pattern"}
    | {"patternProperties", "propertyNames", "minProperties", "maxProperties", "if", "then", "else"}
    | {"not", "dependentRequired", "dependentSchemas", "unevaluatedProperties", "unevaluatedItems"}
)


def _anthropic(merging: Merging, schema: Schema, pointer: str, losses: list[Loss]) -> Schema:
    if not schema.keys().isdisjoint(_COMPOSED):
        schema = merging.distributed(merging.folded(schema, pointer), pointer)
        schema = merging.one_choice(schema, pointer)
    foreign = [name for name in schema if name in _ANTHROPIC_REFUSES]
    if isinstance(schema.get("minItems"), int) and schema["minItems"] > 1:
        foreign.append("minItems")
    if foreign:
        schema = move_to_description(schema, foreign, pointer, losses)
    kind = schema.get("type")
    is_object = kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema
    if is_object and schema.get("additionalProperties") is not False:
        if schema.get("additionalProperties", "properties" not in schema):
            losses.append(Loss(f"{pointer}/additionalProperties", "changed", "every object is closed there"))
        schema = {**schema, "additionalProperties": False}
    return schema
