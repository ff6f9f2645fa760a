"""Parts of JSON schemas, and the references among them."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import Any

Schema = dict[str, Any]
MAX_DEPTH = 64  # of nested schemas; deeper ones are an attack or a mistake
_VISITED = 10_000  # sub-schemas looked through for references


def resolve(root: Schema, reference: Any) -> Schema | None:
    """What a reference inside the same document points at (RFC 6901); None for anything else."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return root if reference == "#" else None
    found: Any = root
    for step in reference.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and step.isdecimal() and int(step) < len(found):
            found = found[int(step)]
        elif isinstance(found, dict) and step in found:
            found = found[step]
        else:
            return None
    return found if isinstance(found, dict) else None


def is_number(value: Any) -> bool:
    """Whether JSON would call it a number: no boolean is one."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def table(value: Any) -> dict[str, Any]:
    """A keyword's value where it must be an object; what is none counts for nothing."""
    return value if isinstance(value, dict) else {}


def several(value: Any) -> list[Any]:
    """A keyword's value where it must be a list; what is none counts for nothing."""
    return value if isinstance(value, list) else []


def without(schema: Schema, *keywords: str) -> Schema:
    return {name: value for name, value in schema.items() if name not in keywords}


class References:
    """Which references in a document lead to which."""

    __slots__ = ("_found", "_left", "_root")

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._left = _VISITED
        self._found: dict[str, list[str]] = {}

    def is_recursive(self) -> bool:
        """Whether one leads back to itself; also where there are too many schemas to find out."""
        todo = self._within(self._root)
        while todo:
            todo += [below for below in self._below(todo.pop()) if below not in self._found]
        try:
            TopologicalSorter(self._found).prepare()
        except CycleError:
            return True
        return self._left < 0

    def leads_back(self, reference: str) -> bool:
        """Whether what it refers to has the same reference in it, or in what that refers to."""
        seen: set[str] = set()
        todo = [reference]
        while todo and reference not in seen:
            new = [below for below in self._below(todo.pop()) if below not in seen]
            seen.update(new)
            todo += new
        return reference in seen or self._left < 0

    def _below(self, reference: str) -> list[str]:
        found = self._found.get(reference)
        if found is None:
            found = self._found[reference] = self._within(resolve(self._root, reference))
        return found

    def _within(self, schema: Any) -> list[str]:
        """The references in a schema, its definitions not counted."""
        found: list[str] = []
        todo = [schema]
        while todo and self._left >= 0:
            self._left -= 1
            one = todo.pop()
            if isinstance(one, list):
                todo += one
            elif isinstance(one, dict):
                if isinstance(one.get("$ref"), str):
                    found.append(one["$ref"])
                for keyword, value in one.items():
                    if keyword == "properties" and isinstance(value, dict):
                        todo += value.values()
                    elif keyword not in ("$defs", "definitions"):
                        todo.append(value)
        return found
