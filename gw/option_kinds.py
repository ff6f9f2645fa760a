"""The kinds of value that an option may have, and the words for them."""

from __future__ import annotations

import datetime
import json
import re
import types
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, Union, get_args, get_origin

from gw.secret import Secret


class Alias:
    """Other names of an option: `queue_size: Annotated[int, Alias("queueSize", "maxQueue")]`."""

    __slots__ = ("names",)

    def __init__(self, *names: str) -> None:
        self.names = names


class _Bytes:
    """Marks an int that may be written as "32MB"."""


Size = Annotated[int, _Bytes()]
"""A number of bytes: 1048576, or "1MB". K, M and G are powers of 1024, with or without B or iB."""

SCALARS: dict[Any, tuple[str, str]] = {
    bool: ("true or false", "true or false"),
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    str: ("a string", "strings"),
    Path: ("a path", "paths"),
    Secret: ("a secret string", "secret strings"),
    datetime.date: ("a date such as 2027-01-31", "dates such as 2027-01-31"),
}
LISTS: frozenset[Any] = frozenset({list, tuple, set, frozenset, Sequence, Collection, Iterable, AbstractSet})
TABLES: frozenset[Any] = frozenset({dict, Mapping})
_ANYTHING = (Any, object)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")
_LONGEST_QUOTE = 60


def dotted(path: str, key: str) -> str:
    """A TOML path with one more key, quoted where TOML would want it: `backends."gemini-1.5-pro"`."""
    key = key if _BARE_KEY.match(key) else json.dumps(key, ensure_ascii=False)
    return f"{path}.{key}" if path else key


def members(kind: Any) -> list[Any]:
    """The members of a union without None; a list of one for any other kind."""
    if get_origin(kind) in (Union, types.UnionType):
        return [member for member in get_args(kind) if member is not types.NoneType]
    return [kind]


def without_none(kind: Any) -> Any:
    """`T` for `T | None`, anything else as it is."""
    inner = members(kind)
    return inner[0] if len(inner) == 1 else kind


def bare(kind: Any) -> Any:
    """A kind without its name (NewType) and its annotations."""
    while True:
        if isinstance(kind, NewType):
            kind = kind.__supertype__
        elif get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        else:
            return kind


def is_size(kind: Any) -> bool:
    """Whether a kind is `Size`."""
    return get_origin(kind) is Annotated and any(isinstance(extra, _Bytes) for extra in get_args(kind)[1:])


def is_table_class(kind: Any) -> bool:
    """Whether a kind is a dataclass: a table with keys of its own."""
    return isinstance(kind, type) and is_dataclass(kind)


def can_come_from_toml(kind: Any) -> bool:
    """Whether some TOML value could be of this kind."""
    kind = bare(kind)
    if kind in _ANYTHING or kind in SCALARS or kind in LISTS or kind in TABLES or is_table_class(kind):
        return True
    origin = get_origin(kind)
    if origin is Literal:
        return True
    if origin in LISTS or origin in TABLES:
        return all(argument is Ellipsis or can_come_from_toml(argument) for argument in get_args(kind))
    inner = members(kind)
    return inner != [kind] and any(can_come_from_toml(member) for member in inner)


def describe(kind: Any) -> str:
    """What is allowed, in words: `a list of strings`, `one of "text", "json"`."""
    if is_size(kind):
        return 'a size in bytes or such as "32MB"'
    kind = bare(kind)
    if kind in SCALARS:
        return SCALARS[kind][0]
    origin = get_origin(kind)
    if origin is Literal:
        return "one of " + ", ".join(json.dumps(choice) for choice in get_args(kind))
    if kind in LISTS or origin in LISTS:
        return "a list" + _of(get_args(kind)[:1])
    if kind in TABLES or origin in TABLES:
        return "a table" + _of(get_args(kind)[1:])
    if is_table_class(kind):
        return "a table"
    inner = members(kind)
    return " or ".join(dict.fromkeys(describe(member) for member in inner)) if inner != [kind] else "a value"


def _of(arguments: Sequence[Any]) -> str:
    if not arguments or bare(arguments[0]) in _ANYTHING:
        return ""
    plural = SCALARS.get(arguments[0])
    return f" of {plural[1]}" if plural else f", each {describe(arguments[0])}"


def found(value: object, *, secret: bool = False) -> str:
    """What stands there, short enough for a message; of a secret only its type."""
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if secret:
        return f"a value of type {type(value).__name__}" if value != "" else "an empty one"
    if isinstance(value, str):
        text = value if len(value) <= _LONGEST_QUOTE else value[:_LONGEST_QUOTE] + "..."
        return json.dumps(text, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
