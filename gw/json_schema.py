"""JSON Schema cut to what each provider takes, with every change told.

    for_gemini             parametersJsonSchema and responseJsonSchema (Gemini 2.0 and later)
    for_anthropic_input    a tool's input_schema: an object at the top
    for_anthropic_output   output_config.format and strict tools

Another target is a `Rule` for `walk`, which cuts one schema at a time; Gemini's older OpenAPI subset is made so.
A schema that fits comes back as the very same object. What a target cannot check is moved into the description, so
that the model still reads it, and is told as `emulated`; what has no words is `dropped`; what was rewritten to mean
the same is no loss. Keep the client's own schema for validation.

Sources: google-genai 3.4.0 `FunctionDeclaration`, `Schema` and the notes at `response_json_schema`; Anthropic's
structured outputs; what recorded requests were accepted with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from gw.message import Loss

MAX_DEPTH = 64  # of nested schemas; deeper ones are an attack or a mistake

Schema = dict[str, Any]


class Fitted(NamedTuple):
    """A schema for one target and what it lost on the way."""

    schema: Schema
    losses: list[Loss]


def for_gemini(schema: Schema, pointer: str) -> Fitted:
    """The schema as Gemini's `parametersJsonSchema` and `responseJsonSchema` take it. ValueError where it is too deep.

    `$ref` and `$defs` stay, `definitions` are renamed, `const` becomes `enum`, `nullable` a second type.
    """
    losses: list[Loss] = []
    target = resolve(schema, schema["$ref"]) if isinstance(schema.get("$ref"), str) else None
    if target is not None and "$ref" not in target:  # at the top an object is wanted, not a way to one
        schema = {**target, **without(schema, "$ref")}
    return Fitted(walk(schema, pointer, losses, _gemini, 0), losses)


def for_anthropic_input(schema: Schema, pointer: str) -> Fitted:
    """The schema as a Claude tool's `input_schema`: `type: object` at the top, no choice between schemas there.

    A top-level `anyOf`, `oneOf` or `allOf` is flattened into one object whose properties are all of theirs.
    """
    losses: list[Loss] = []
    if any(name in schema for name in _CHOICES):
        schema = _flatten(schema, pointer, losses)
    if schema.get("type") != "object":
        schema = {**schema, "type": "object"}
    return Fitted(schema, losses)


def for_anthropic_output(schema: Schema, pointer: str) -> Fitted:
    """The schema as Claude's structured outputs and strict tools take it: every object closed, few constraints.

    ValueError where it is too deep.
    """
    losses: list[Loss] = []
    return Fitted(walk(schema, pointer, losses, _anthropic, 0), losses)


# --- the walk -------------------------------------------------------------------------------------------------------

Rule = Callable[[Schema, str, list[Loss]], Schema]

_CHOICES = ("anyOf", "oneOf", "allOf")
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


def escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1") if "~" in name or "/" in name else name


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


def table(value: Any) -> dict[str, Any]:
    """A keyword's value where it must be an object; what is none counts for nothing."""
    return value if isinstance(value, dict) else {}


def several(value: Any) -> list[Any]:
    """A keyword's value where it must be a list; what is none counts for nothing."""
    return value if isinstance(value, list) else []


def without(schema: Schema, *keywords: str) -> Schema:
    return {name: value for name, value in schema.items() if name not in keywords}


# --- what means the same, for all -------------------------------------------------------------------------------------


def const_as_enum(schema: Schema) -> Schema:
    """`const` as an `enum` of one, where its value is text or a number; any other stays for the caller to move."""
    value = schema.get("const")
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        return schema
    return {**without(schema, "const"), "enum": [value]}


def merge_all_of(schema: Schema, pointer: str, losses: list[Loss]) -> Schema:
    """`allOf` as one schema: properties and required joined; another keyword that two of them set is told."""
    merged = without(schema, "allOf")
    for at, part in enumerate(schema["allOf"]):
        if not isinstance(part, dict):
            continue
        for keyword, value in part.items():
            if keyword not in merged:
                merged[keyword] = value
            elif keyword in _MAPS and isinstance(value, dict) and isinstance(merged[keyword], dict):
                merged[keyword] = {**value, **merged[keyword]}
            elif keyword == "required" and isinstance(value, list) and isinstance(merged[keyword], list):
                merged[keyword] = [*merged[keyword], *(name for name in value if name not in merged[keyword])]
            elif merged[keyword] != value:
                losses.append(Loss(f"{pointer}/allOf/{at}/{escape(keyword)}", "dropped", "set twice in allOf"))
    return merged


def _flatten(schema: Schema, pointer: str, losses: list[Loss]) -> Schema:
    """One object in place of a choice between objects: all their properties, required only what all require."""
    flat = without(schema, *_CHOICES)
    properties: dict[str, Any] = dict(table(flat.get("properties")))
    required: list[str] = list(several(flat.get("required")))
    for keyword in _CHOICES:
        branches = [branch for branch in several(schema.get(keyword)) if isinstance(branch, dict)]
        for branch in branches:
            for name, value in table(branch.get("properties")).items():
                properties.setdefault(name, value)
        lists = [several(branch.get("required")) for branch in branches]
        for name in lists[0] if lists else ():
            if name not in required and (keyword == "allOf" or all(name in names for names in lists)):
                required.append(name)
        if keyword == "allOf":
            required += [name for names in lists[1:] for name in names if name not in required]
        if keyword in schema:
            losses.append(Loss(f"{pointer}/{keyword}", "changed", "flattened: no choice is allowed at the top"))
    flat["properties"] = properties
    if required:
        flat["required"] = required
    return flat


def resolve(root: Schema, reference: str) -> Schema | None:
    """What a reference inside the same document points at (RFC 6901); None for anything else."""
    if not reference.startswith("#/"):
        return root if reference == "#" else None
    found: Any = root
    for step in reference.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or step not in found:
            return None
        found = found[step]
    return found if isinstance(found, dict) else None


# --- Gemini -----------------------------------------------------------------------------------------------------------

_GEMINI = frozenset(
    {"$id", "$defs", "$ref", "$anchor", "type", "format", "title", "description", "enum", "items"}
    | {"prefixItems", "minItems", "maxItems", "minimum", "maximum", "anyOf", "oneOf", "properties"}
    | {"additionalProperties", "required", "propertyOrdering"}
)


def _gemini(schema: Schema, pointer: str, losses: list[Loss]) -> Schema:
    if "$ref" in schema:
        return _gemini_reference(schema, pointer, losses)
    if schema.keys() <= _GEMINI and "enum" not in schema:
        return schema
    if "allOf" in schema and isinstance(schema["allOf"], list):
        schema = merge_all_of(schema, pointer, losses)
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
    """Beside `$ref` only `$` keys may stand: what else is there moves out, around an `anyOf` of the one reference."""
    reference = schema["$ref"]
    if isinstance(reference, str) and reference.startswith("#/definitions/"):
        schema = {**schema, "$ref": "#/$defs/" + reference.removeprefix("#/definitions/")}
    beside = [name for name in schema if not name.startswith("$")]
    if not beside and schema.keys() <= _GEMINI:
        return schema
    around = without(schema, "$ref")
    if around.keys() & {"anyOf", "oneOf", "allOf", "properties", "items", "enum", "const"}:
        losses.extend(Loss(f"{pointer}/{escape(name)}", "dropped", "not allowed beside $ref") for name in beside)
        return {name: value for name, value in schema.items() if name in ("$ref", "$defs")}
    around["anyOf"] = [{"$ref": schema["$ref"]}]
    return _gemini(around, pointer, losses)


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


def _anthropic(schema: Schema, pointer: str, losses: list[Loss]) -> Schema:
    if "oneOf" in schema:
        branches = [*several(schema.get("anyOf")), *several(schema["oneOf"])]
        if "anyOf" in schema:
            losses.append(Loss(f"{pointer}/oneOf", "changed", "joined with anyOf"))
        schema = {**without(schema, "oneOf"), "anyOf": branches}
    foreign = [name for name in schema if name in _ANTHROPIC_REFUSES]
    if isinstance(schema.get("minItems"), int) and schema["minItems"] > 1:
        foreign.append("minItems")
    if foreign:
        schema = move_to_description(schema, foreign, pointer, losses)
    kind = schema.get("type")
    is_object = kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema
    if is_object and schema.get("additionalProperties") is not False:
        if "additionalProperties" in schema:
            losses.append(Loss(f"{pointer}/additionalProperties", "changed", "every object is closed there"))
        schema = {**schema, "additionalProperties": False}
    return schema
