"""JSON schemas made one: references put in their place, `allOf` joined, a choice between objects made one object.

For targets that have no word for it. What is made takes all that the schemas it was made of take; where it takes more,
or where two of them contradict each other, that is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from gw.losses import escape
from gw.message import Loss
from gw.schema_parts import MAX_DEPTH, References, Schema, is_number, resolve, several, table, without

_UNFOLDED = 500  # references put in their place in one schema: a small schema may unfold without end
_PRODUCT = 64  # branches of two choices that hold at once
# Keywords that bind no value.
_NOTES = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment"}
    | {"$schema", "$id", "$anchor", "$defs", "definitions"}
)
_SILENT = frozenset({"$schema", "$comment", "$id"})
_LEAST = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains"})
_MOST = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "maxContains"})
_OBJECT = frozenset({"properties", "required", "additionalProperties"})


class _ContradictionError(Exception):
    """Nothing is taken by both."""


_P = ParamSpec("_P")
_T = TypeVar("_T")


def _nested(method: Callable[Concatenate[Merging, _P], _T]) -> Callable[Concatenate[Merging, _P], _T]:
    """A method that may call itself, as often as `MAX_DEPTH` allows. ValueError beyond."""

    @wraps(method)
    def guarded(merging: Merging, /, *args: _P.args, **options: _P.kwargs) -> _T:
        merging.depth += 1
        try:
            if merging.depth > 2 * MAX_DEPTH:
                raise ValueError(f"the JSON schema is nested more than {MAX_DEPTH} deep")
            return method(merging, *args, **options)
        finally:
            merging.depth -= 1

    return guarded


class Merging:
    """What is made one inside of `root`, in which its references are looked up. Losses are told as they come."""

    __slots__ = ("_is_choosing", "_left", "_losses", "_references", "_root", "depth")

    def __init__(self, root: Schema, losses: list[Loss]) -> None:
        self._root = root
        self._losses = losses
        self.depth = 0
        self._left = _UNFOLDED
        self._references = References(root)
        self._is_choosing = False  # a contradiction is a branch the less, and no loss

    @_nested
    def folded(self, schema: Schema, pointer: str) -> Schema:
        """The schema without `allOf`, and without `$ref` where more than notes stands beside it.

        Raises ValueError where it unfolds without end.
        """
        parts = schema.get("allOf")
        if isinstance(parts, list):
            schema = without(schema, "allOf")
            for at, part in enumerate(parts):
                place = f"{pointer}/allOf/{at}"
                if isinstance(part, dict):
                    schema = self._both(schema, self.folded(part, place), place)
                elif part is False:
                    self._losses.append(Loss(place, "dropped", "a schema that allows nothing"))
        if "$ref" in schema and _binds(beside := without(schema, "$ref")):
            schema = self._both(beside, {"$ref": schema["$ref"]}, pointer)
        return schema

    def opened(self, schema: Schema, pointer: str) -> Schema:
        """The schema folded, and what it refers to in the place of its reference; for the top of a document only."""
        return self._opened(schema, pointer, ("#",))[0]

    def _opened(self, schema: Schema, pointer: str, seen: tuple[str, ...]) -> tuple[Schema, tuple[str, ...]]:
        """`seen` are the references in whose place it stands: one of them again says nothing new."""
        schema = self.folded(schema, pointer)
        while "$ref" in schema:
            reference = schema["$ref"]
            target = self._found(reference)
            if target is None:
                self._losses.append(Loss(f"{pointer}/$ref", "dropped", "it leads nowhere"))
            schema = without(schema, "$ref")
            if target is not None and reference not in seen:
                seen = (*seen, reference)
                schema = self._both(schema, self.folded(target, pointer), pointer)
        return schema, seen

    @_nested
    def flat(self, schema: Schema, pointer: str, seen: tuple[str, ...] = ("#",)) -> Schema:
        """One object in place of a choice between objects: all their properties, required only what all require.

        Of a property that a branch does not name it is taken to say nothing. For the top of a document only.
        """
        schema, seen = self._opened(schema, pointer, seen)
        for keyword in ("anyOf", "oneOf"):
            if keyword not in schema:
                continue
            place = f"{pointer}/{keyword}"
            branches = [
                self.flat(branch, f"{place}/{at}", seen)
                for at, branch in enumerate(several(schema[keyword]))
                if isinstance(branch, dict)
            ]
            objects = [branch for branch in branches if "object" in _kinds(branch.get("type", "object"))]
            self._losses.append(Loss(place, "changed", "flattened: no choice is allowed at the top"))
            schema = self._both(without(schema, keyword), _union(objects), place)
        return schema

    def distributed(self, schema: Schema, pointer: str) -> Schema:
        """A choice that stands beside the properties of an object as the choice between whole objects."""
        keywords = [name for name in ("anyOf", "oneOf") if isinstance(schema.get(name), list)]
        base = without(schema, *keywords)
        if not keywords or not (base.keys() & _OBJECT or "object" in _kinds(base.get("type"))):
            return schema
        notes = {name: value for name, value in base.items() if name in _NOTES}
        made: Any = [without(base, *notes)]
        for keyword in keywords:
            made = self._product(made, schema[keyword], f"{pointer}/{keyword}")
        return {**notes, "anyOf": made}

    def one_choice(self, schema: Schema, pointer: str) -> Schema:
        """`anyOf` in place of `oneOf`."""
        if "oneOf" not in schema:
            return schema
        branches = several(schema["oneOf"])
        if "anyOf" in schema:
            branches = self._product(several(schema["anyOf"]), branches, f"{pointer}/oneOf")
        return {**without(schema, "oneOf"), "anyOf": branches}

    # --- two schemas that both hold ----------------------------------------------------------------------------------

    @_nested
    def _both(self, first: Schema, second: Schema, pointer: str) -> Schema:
        """What both take; where there is no word for it, the first one's word stands, and that is told."""
        if "$ref" in second and _binds(first):
            second, first = self._target(second, first, pointer)
        elif "$ref" in first and _binds(second):
            first, second = self._target(first, second, pointer)
        made = dict(first)
        for keyword, value in second.items():
            if keyword not in made:
                made[keyword] = value
            elif made[keyword] == value or keyword in _SILENT:
                pass
            elif keyword == "properties" and isinstance(value, dict) and isinstance(made[keyword], dict):
                required = [*several(first.get("required")), *several(second.get("required"))]
                made[keyword] = self._properties(made[keyword], value, required, f"{pointer}/properties")
            else:
                made[keyword] = self._joined(keyword, made[keyword], value, f"{pointer}/{escape(keyword)}")
        return made

    def _target(self, schema: Schema, beside: Schema, pointer: str) -> tuple[Schema, Schema]:
        """What a schema refers to, and what holds beside it; the bare reference alone where it cannot be opened."""
        reference = schema["$ref"]
        target = self._found(reference)
        if target is not None and not self._references.leads_back(reference):
            self._left -= 1
            if self._left < 0:
                raise ValueError("the JSON schema unfolds without end")
            return self._both(without(schema, "$ref"), self.folded(target, pointer), pointer), beside
        lost = [name for name in beside if name not in _NOTES]
        self._losses.extend(Loss(f"{pointer}/{escape(name)}", "dropped", "not allowed beside $ref") for name in lost)
        return schema, without(beside, *lost)

    def _found(self, reference: Any) -> Schema | None:
        """What a reference leads to, without definitions: those are found where they stand."""
        target = resolve(self._root, reference)
        return None if target is None else without(target, "$defs", "definitions")

    def _joined(self, keyword: str, first: Any, second: Any, pointer: str) -> Any:
        """One value of a keyword for two that both hold."""
        if isinstance(first, dict) and isinstance(second, dict):
            if keyword in ("$defs", "definitions"):
                return {**second, **first}
            if keyword in ("items", "additionalProperties"):
                return self._both(first, second, pointer)
        elif isinstance(first, list) and isinstance(second, list):
            if keyword == "required":
                return [*first, *(name for name in second if name not in first)]
            if keyword in ("anyOf", "oneOf"):
                return self._product(first, second, pointer)
        if keyword == "additionalProperties" and (isinstance(first, bool) or isinstance(second, bool)):
            return first is not False and second is not False and (second if first is True else first)
        if keyword in _LEAST and is_number(first) and is_number(second):
            return max(first, second)
        if keyword in _MOST and is_number(first) and is_number(second):
            return min(first, second)
        both: Any = None
        if keyword == "type":
            both = _common_type(first, second)
        elif keyword == "enum" and isinstance(first, list) and isinstance(second, list):
            both = [value for value in first if value in second]
        if not both:
            if self._is_choosing and keyword in ("type", "enum", "const"):
                raise _ContradictionError
            self._losses.append(Loss(pointer, "dropped", "set twice, for the same value"))
        return both or first

    def _properties(self, first: Schema, second: Schema, required: list[Any], pointer: str) -> Schema:
        made = {**second, **first}
        for name in [name for name in first if name in second]:
            mine, other = first[name], second[name]
            if isinstance(mine, dict) and isinstance(other, dict) and mine != other:
                try:
                    made[name] = self._both(mine, other, f"{pointer}/{escape(name)}")
                except _ContradictionError:
                    if name in required:
                        raise
                    del made[name]  # nothing may be said there
            elif mine is True:
                made[name] = other
        return made

    def _product(self, first: list[Any], second: list[Any], pointer: str) -> list[Any]:
        """Two choices that both hold: each branch of one with each of the other that it does not contradict."""
        if len(first) * len(second) > _PRODUCT:
            self._losses.append(Loss(pointer, "dropped", "too many ways to choose at once"))
            return first
        made = []
        was, self._is_choosing = self._is_choosing, True
        for mine in first:
            for at, other in enumerate(second):
                told = len(self._losses)
                try:
                    if isinstance(mine, dict) and isinstance(other, dict):
                        place = f"{pointer}/{at}"
                        made.append(self._both(mine, self.folded(other, place), place))
                    elif mine is not False and other is not False:
                        made.append(other if mine is True else mine)
                except _ContradictionError:
                    del self._losses[told:]
        self._is_choosing = was
        if not made:
            self._losses.append(Loss(pointer, "dropped", "no branch fits what stands beside it"))
        return made or first


# --- parts of schemas -------------------------------------------------------------------------------------------------


def _binds(schema: Schema) -> bool:
    """Whether there is more in a schema than notes."""
    return not schema.keys() <= _NOTES


def _kinds(kind: Any) -> Sequence[Any]:
    return kind if isinstance(kind, list) else [kind]


def _common_type(first: Any, second: Any) -> Any:
    """The types that are in both, an integer being a number; None where there is none."""
    mine, others = _kinds(first), _kinds(second)
    both = [kind for kind in mine if kind in others or (kind == "integer" and "number" in others)]
    both += [kind for kind in others if kind == "integer" and "number" in mine and kind not in mine]
    return both[0] if len(both) == 1 else both or None


def _union(objects: list[Schema]) -> Schema:
    """An object that takes what each of these takes."""
    named: dict[str, list[Any]] = {}
    for one in objects:
        for name, value in table(one.get("properties")).items():
            known = named.setdefault(name, [])
            if value not in known:
                known.append(value)
    lists = [several(one.get("required")) for one in objects]
    made: Schema = {"properties": {name: _either(schemas) for name, schemas in named.items()}}
    if required := [name for name in (lists[0] if lists else ()) if all(name in names for names in lists)]:
        made["required"] = required
    if objects and all(one.get("additionalProperties") is False for one in objects):
        made["additionalProperties"] = False
    return made


def _either(schemas: list[Any]) -> Any:
    """A schema for what one of these takes: constants are one `enum`, as they tell the branches of a choice apart."""
    if len(schemas) == 1:
        return schemas[0]
    if all(isinstance(one, dict) and ("const" in one or isinstance(one.get("enum"), list)) for one in schemas):
        rests = [without(one, "const", "enum") for one in schemas]
        if all(rest == rests[0] for rest in rests):
            values = [value for one in schemas for value in ([one["const"]] if "const" in one else one["enum"])]
            return {**rests[0], "enum": [value for at, value in enumerate(values) if value not in values[:at]]}
    return {"anyOf": schemas}
