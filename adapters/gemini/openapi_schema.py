"""JSON Schema as Gemini's older OpenAPI 3.0 subset: what `parameters` and `responseSchema` of Gemini 1.x take.

Source: google-genai 3.4.0 `Schema`; the API refuses every other keyword with `Unknown name`.
"""

from __future__ import annotations

from typing import Any

from gw.json_schema import Fitted, const_as_enum, move_to_description, walk
from gw.losses import escape
from gw.message import Loss
from gw.schema_merging import Merging
from gw.schema_parts import MAX_DEPTH, Schema, resolve, without

_MAX_INLINE = 2_000  # sub-schemas after references are put in place: a small schema may unfold without end


def for_openapi(schema: Schema, pointer: str) -> Fitted:
    """The schema with references put in place, no `$` keys and `nullable` in place of the type null.

    ValueError where it is too deep or unfolds without end.
    """
    losses: list[Loss] = []
    unfolded = _Unfolding(schema, losses).unfold(schema, pointer, ())
    return Fitted(walk(unfolded, pointer, losses, _openapi, 0), losses)


_OPENAPI = frozenset(
    {"type", "format", "title", "description", "nullable", "enum", "items", "minItems", "maxItems"}
    | {"properties", "minProperties", "maxProperties", "required", "minimum", "maximum", "minLength"}
    | {"maxLength", "pattern", "example", "anyOf", "default", "propertyOrdering"}
)
_FORMATS = ("float", "double", "int32", "int64", "enum", "date-time")


def _openapi(schema: Schema, pointer: str, losses: list[Loss]) -> Schema:
    if not schema.keys().isdisjoint(("allOf", "anyOf", "oneOf")):
        merging = Merging(schema, losses)
        schema = merging.distributed(merging.folded(schema, pointer), pointer)
        if "oneOf" in schema and "anyOf" not in schema:
            schema = {**without(schema, "oneOf"), "anyOf": schema["oneOf"]}
    if isinstance(schema.get("type"), list):
        schema = _types_as_choice(schema)
    if isinstance(schema.get("anyOf"), list):
        schema = _null_as_nullable(schema)
    schema = const_as_enum(schema)
    if "enum" in schema:
        schema = _openapi_enum(schema, pointer, losses)
    if "type" not in schema and "anyOf" not in schema:
        schema = {**schema, "type": "object" if "properties" in schema else "array" if "items" in schema else "string"}
    if schema.get("type") == "array" and not isinstance(schema.get("items"), dict):
        schema = {**schema, "items": {"type": "string"}}
    foreign = [name for name in schema if name not in _OPENAPI]
    if schema.get("additionalProperties") is False:  # its default there, so that nothing is lost
        foreign.remove("additionalProperties")
        schema = without(schema, "additionalProperties")
    if "format" in schema and schema["format"] not in _FORMATS:
        foreign.append("format")
    return move_to_description(schema, foreign, pointer, losses) if foreign else schema


def _types_as_choice(schema: Schema) -> Schema:
    kinds = [kind for kind in schema["type"] if kind != "null"]
    rest = without(schema, "type")
    if len(kinds) < len(schema["type"]):
        rest["nullable"] = True
    if len(kinds) == 1:
        return {**rest, "type": kinds[0]}
    if not kinds:
        return {**rest, "type": "string"}
    return {**rest, "anyOf": [{"type": kind} for kind in kinds]}


def _null_as_nullable(schema: Schema) -> Schema:
    branches = [branch for branch in schema["anyOf"] if branch != {"type": "null"}]
    if len(branches) == len(schema["anyOf"]):
        return schema
    rest = {**without(schema, "anyOf"), "nullable": True}
    if len(branches) == 1 and isinstance(branches[0], dict):
        return {**branches[0], **rest}
    return {**rest, "anyOf": branches}


def _openapi_enum(schema: Schema, pointer: str, losses: list[Loss]) -> Schema:
    """`enum` holds strings only, none of them empty; null makes the schema nullable."""
    values = schema["enum"] if isinstance(schema["enum"], list) else []
    if None in values:
        schema = {**schema, "nullable": True}
    words = [value for value in values if isinstance(value, str) and value]
    if len(words) == len([value for value in values if value is not None]) and words:
        return {**schema, "enum": words, "type": "string"}
    return move_to_description(schema, ["enum"], pointer, losses)


class _Unfolding:
    """Puts references in place of themselves; one that leads back to itself becomes a plain object."""

    def __init__(self, root: Schema, losses: list[Loss]) -> None:
        self._root = root
        self._losses = losses
        self._count = 0

    def unfold(self, schema: Any, pointer: str, seen: tuple[str, ...]) -> Any:
        """The schema without `$ref`, `$defs` and `definitions`. `seen` are the references it stands inside of."""
        if isinstance(schema, list):
            return [self.unfold(below, f"{pointer}/{at}", seen) for at, below in enumerate(schema)]
        if not isinstance(schema, dict):
            return schema
        self._count += 1
        if self._count > _MAX_INLINE or pointer.count("/") > 4 * MAX_DEPTH:
            raise ValueError("the JSON schema unfolds without end")
        reference = schema.get("$ref")
        if isinstance(reference, str):
            beside = {name: self.unfold(value, pointer, seen) for name, value in schema.items() if name[:1] != "$"}
            target = resolve(self._root, reference)
            if reference in seen or target is None:
                why = "it leads back to itself" if target is not None else "it leads nowhere"
                self._losses.append(Loss(f"{pointer}/$ref", "changed", f"became any object: {why}"))
                return {"type": "object", **beside}
            return {**self.unfold(target, pointer, (*seen, reference)), **beside}
        return {
            name: self.unfold(value, f"{pointer}/{escape(name)}", seen)
            for name, value in schema.items()
            if name not in ("$defs", "definitions")
        }
