"""An answer held to the JSON schema that was asked for, where the provider itself does not hold to it.

Checked are the keywords of JSON Schema 2020-12 that bind a value and its parts, with references inside the schema. Not
checked are `pattern` and `patternProperties` (an expression by a client over a text by a model may take for ever),
`format`, `unevaluated*` and references to elsewhere: what cannot be judged is let through.
https://json-schema.org/draft/2020-12/json-schema-validation
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from gw.losses import escape
from gw.schema_parts import Schema, is_number, resolve

MAX_REFERENCES = 32  # followed for one value: a cycle that takes nothing of the value would never end
MAX_DEPTH = 128  # of nested values; what lies deeper is let through
MAX_STEPS = 30_000  # of one answer; a schema that branches without end is let through then


def answer_problem(text: str, schema: Schema) -> str | None:
    """What is wrong with an answer that shall be JSON of this schema; None where it fits."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return "it is not JSON"
    return misfit(value, schema)


def misfit(value: Any, schema: Any) -> str | None:
    """The first thing in a value that its schema does not allow, with its JSON pointer; None where it fits."""
    return _Checker(schema if isinstance(schema, dict) else {}).check(value, schema, "", 0)


class _Checker:
    __slots__ = ("_depth", "_left", "_root")

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._depth = 0
        self._left = MAX_STEPS

    def check(self, value: Any, schema: Any, place: str, references: int) -> str | None:
        if schema is False:
            return f"{place or '/'} may not be there"
        if not isinstance(schema, dict) or self._depth > MAX_DEPTH or self._left <= 0:
            return None
        self._left -= 1
        self._depth += 1
        try:
            return self._check(value, schema, place, references)
        finally:
            self._depth -= 1

    def _check(self, value: Any, schema: Schema, place: str, references: int) -> str | None:
        if isinstance(schema.get("$ref"), str) and references < MAX_REFERENCES:
            target = resolve(self._root, schema["$ref"])
            if target is not None and (found := self.check(value, target, place, references + 1)):
                return found
        for keyword, holds in _PLAIN.items():
            if keyword in schema and not _holds(holds, value, schema[keyword]):
                return f"{place or '/'} does not fit {keyword} {_shown(schema[keyword])}"
        found = self._check_choices(value, schema, place, references)
        if found is None and isinstance(value, dict):
            found = self._check_object(value, schema, place)
        if found is None and isinstance(value, list):
            found = self._check_list(value, schema, place)
        return found

    def _check_choices(self, value: Any, schema: Schema, place: str, references: int) -> str | None:
        def fits(branch: Any) -> bool:
            return self.check(value, branch, place, references + 1) is None

        if references >= MAX_REFERENCES:
            return None
        for branch in _listed(schema, "allOf"):
            if found := self.check(value, branch, place, references + 1):
                return found
        for keyword in ("anyOf", "oneOf"):
            branches = _listed(schema, keyword)
            count = sum(map(fits, branches)) if branches else 1
            if count < 1 or (count > 1 and keyword == "oneOf"):
                return f"{place or '/'} fits {count or 'none'} of its {keyword}"
        if "not" in schema and fits(schema["not"]):
            return f"{place or '/'} fits what it must not"
        if "if" in schema:
            return self.check(value, schema.get("then" if fits(schema["if"]) else "else"), place, references + 1)
        return None

    def _check_object(self, value: Mapping[str, Any], schema: Schema, place: str) -> str | None:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        for name in _listed(schema, "required"):
            if name not in value:
                return f"{place}/{escape(str(name))} is missing"
        others = schema.get("additionalProperties") if "patternProperties" not in schema else None
        for name, below in value.items():
            if found := self.check(below, properties.get(name, others), f"{place}/{escape(name)}", 0):
                return found
        return None

    def _check_list(self, value: list[Any], schema: Schema, place: str) -> str | None:
        first = _listed(schema, "prefixItems")
        rest = schema.get("items")
        for at, below in enumerate(value):
            if found := self.check(below, first[at] if at < len(first) else rest, f"{place}/{at}", 0):
                return found
        if "contains" in schema:
            wanted = schema["contains"]  # true asks for any element, and an empty list has none
            if all(self.check(below, wanted, place, 0) is not None for below in value):
                return f"{place or '/'} does not fit contains"
        return None


def _listed(schema: Schema, keyword: str) -> list[Any]:
    value = schema.get(keyword)
    return value if isinstance(value, list) else []


# --- one keyword, one value -----------------------------------------------------------------------------------------


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": is_number,
    "integer": lambda value: is_number(value) and value == int(value),
}


def _is_type(value: Any, kind: Any) -> bool:
    kinds = kind if isinstance(kind, list) else [kind]
    return any(name not in _TYPES or _TYPES[name](value) for name in kinds)


def _same(value: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1, 1.0 is 1."""
    if isinstance(value, bool) or isinstance(other, bool):
        return value is other
    if isinstance(value, list) and isinstance(other, list):
        return len(value) == len(other) and all(map(_same, value, other))
    if isinstance(value, dict) and isinstance(other, dict):
        return value.keys() == other.keys() and all(_same(below, other[name]) for name, below in value.items())
    return bool(value == other)


def _is_multiple(value: float, step: float) -> bool:
    ratio = value / step
    return abs(ratio - round(ratio)) < 1e-9


def _is_unique(value: Any, wanted: Any) -> bool:
    return not wanted or len({orjson.dumps(one, option=orjson.OPT_SORT_KEYS) for one in value}) == len(value)


_PLAIN: Mapping[str, tuple[type | tuple[type, ...], Callable[[Any, Any], bool]]] = {
    "type": (object, _is_type),
    "enum": (object, lambda value, allowed: any(_same(value, one) for one in allowed)),
    "const": (object, _same),
    "minimum": ((int, float), lambda value, limit: value >= limit),
    "maximum": ((int, float), lambda value, limit: value <= limit),
    "exclusiveMinimum": ((int, float), lambda value, limit: value > limit),
    "exclusiveMaximum": ((int, float), lambda value, limit: value < limit),
    "multipleOf": ((int, float), _is_multiple),
    "minLength": (str, lambda value, limit: len(value) >= limit),
    "maxLength": (str, lambda value, limit: len(value) <= limit),
    "minItems": (list, lambda value, limit: len(value) >= limit),
    "maxItems": (list, lambda value, limit: len(value) <= limit),
    "uniqueItems": (list, _is_unique),
    "minProperties": (dict, lambda value, limit: len(value) >= limit),
    "maxProperties": (dict, lambda value, limit: len(value) <= limit),
}
"""Keyword -> the types of values that it binds, and whether a value fits what it says."""


def _holds(rule: tuple[type | tuple[type, ...], Callable[[Any, Any], bool]], value: Any, said: Any) -> bool:
    kinds, fits = rule
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds == (int, float)):
        return True
    try:
        return fits(value, said)
    except (TypeError, ZeroDivisionError, OverflowError):  # the schema says nonsense here
        return True


def _shown(said: Any) -> str:
    text = orjson.dumps(said).decode()
    return text if len(text) <= 80 else text[:80] + "..."
