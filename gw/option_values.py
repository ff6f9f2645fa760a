"""One TOML value turned into what an annotation asks for, or a problem that says what was found and what is allowed."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from gw.near import near
from gw.option_kinds import (
    LISTS,
    TABLES,
    bare,
    describe,
    dotted,
    found,
    is_size,
    is_table_class,
    members,
    without_none,
)
from gw.secret import Secret

Nested = Callable[[Any, Mapping[str, Any], str], tuple[Any, list[str]]]

_SIZE = r"(?i)(\d+(?:\.\d+)?)\s*(?:([KMG])(?:I?B)?|B)?\Z"
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


class Values:
    """Reads values and collects `problems`. `nested` reads a table as a dataclass: (object, its problems)."""

    def __init__(self, folder: Path | None, nested: Nested) -> None:
        self.problems: list[str] = []
        self._folder = folder
        self._nested = nested

    def read(self, kind: Any, value: object, path: str) -> Any:
        """The value as `kind`; where it does not fit, a problem and None."""
        if is_size(kind):
            return self._size(value, path)
        kind = bare(kind)
        reader = _SCALAR_READERS.get(kind)
        if reader is not None:
            return reader(self, value, path)
        origin = get_origin(kind)
        if origin is Literal:
            return self._choice(kind, value, path)
        if kind in LISTS or origin in LISTS:
            return self._list(kind, value, path)
        if kind in TABLES or origin in TABLES:
            return self._table(kind, value, path)
        if is_table_class(kind):
            return self._dataclass(kind, value, path)
        if members(kind) != [kind]:
            return self._union(kind, value, path)
        return value

    def _wrong(self, kind: Any, value: object, path: str) -> Any:
        self.problems.append(f"{path}: expected {describe(kind)}, found {found(value, secret=kind is Secret)}")
        return None

    def _bool(self, value: object, path: str) -> Any:
        return value if isinstance(value, bool) else self._wrong(bool, value, path)

    def _int(self, value: object, path: str) -> Any:
        return value if isinstance(value, int) and not isinstance(value, bool) else self._wrong(int, value, path)

    def _float(self, value: object, path: str) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        return self._wrong(float, value, path)

    def _str(self, value: object, path: str) -> Any:
        return value if isinstance(value, str) else self._wrong(str, value, path)

    def _path(self, value: object, path: str) -> Any:
        if isinstance(value, Path):
            return value
        if not isinstance(value, str) or not value or "\0" in value:
            return self._wrong(Path, value, path)
        place = Path(value).expanduser()
        return place if self._folder is None else self._folder / place

    def _secret(self, value: object, path: str) -> Any:
        if isinstance(value, Secret):
            return value
        return Secret(value) if isinstance(value, str) and value else self._wrong(Secret, value, path)

    def _date(self, value: object, path: str) -> Any:
        if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
            return value
        if isinstance(value, str):
            try:
                return datetime.date.fromisoformat(value)
            except ValueError:
                pass
        return self._wrong(datetime.date, value, path)

    def _size(self, value: object, path: str) -> Any:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        match = re.match(_SIZE, value.strip()) if isinstance(value, str) else None
        if match is not None:
            return int(float(match[1]) * _UNITS[(match[2] or "").upper()])
        self.problems.append(f'{path}: expected a size in bytes or such as "32MB", found {found(value)}')
        return None

    def _choice(self, kind: Any, value: object, path: str) -> Any:
        choices = get_args(kind)
        for choice in choices:
            if type(choice) is type(value) and choice == value:
                return choice
        hint = near(value, [choice for choice in choices if isinstance(choice, str)]) if isinstance(value, str) else ""
        allowed = ", ".join(json.dumps(choice) for choice in choices)
        self.problems.append(f"{path}: expected one of {allowed}, found {found(value)}{hint}")
        return None

    def _list(self, kind: Any, value: object, path: str) -> Any:
        if not isinstance(value, list | tuple | set | frozenset):
            return self._wrong(kind, value, path)
        arguments = get_args(kind)
        container = get_origin(kind) or kind
        if container is tuple and arguments and arguments[-1] is not Ellipsis:
            return self._fixed_tuple(kind, value, path)
        inner = arguments[0] if arguments else Any
        items = [self.read(inner, item, f"{path}[{index}]") for index, item in enumerate(value)]
        if isinstance(container, type) and issubclass(container, tuple | set | frozenset):
            return container(items)
        return items

    def _fixed_tuple(self, kind: Any, value: Any, path: str) -> Any:
        kinds = get_args(kind)
        if len(value) != len(kinds):
            self.problems.append(f"{path}: expected a list of {len(kinds)}, found one of {len(value)}")
            return None
        return tuple(
            self.read(inner, item, f"{path}[{i}]") for i, (inner, item) in enumerate(zip(kinds, value, strict=True))
        )

    def _table(self, kind: Any, value: object, path: str) -> Any:
        if not isinstance(value, Mapping):
            return self._wrong(kind, value, path)
        arguments = get_args(kind)
        inner = arguments[1] if len(arguments) == 2 else Any
        return {key: self.read(inner, item, dotted(path, key)) for key, item in value.items()}

    def _dataclass(self, kind: Any, value: object, path: str) -> Any:
        if isinstance(value, kind):
            return value
        if not isinstance(value, Mapping):
            return self._wrong(kind, value, path)
        made, problems = self._nested(kind, value, path)
        self.problems.extend(problems)
        return made

    def _union(self, kind: Any, value: object, path: str) -> Any:
        """The first member that fits; a path before a string, so that `str | Path` follows the file's folder."""
        if without_none(kind) is not kind:
            return self.read(without_none(kind), value, path)
        attempts = []
        for member in sorted(members(kind), key=lambda member: member is not Path):
            attempt = Values(self._folder, self._nested)
            result = attempt.read(member, value, path)
            if not attempt.problems:
                return result
            attempts.append((member, attempt.problems))
        alike = [problems for member, problems in attempts if _same_shape(member, value)]
        if len(alike) == 1:
            self.problems.extend(alike[0])
        else:
            self._wrong(kind, value, path)
        return None


def _same_shape(kind: Any, value: object) -> bool:
    """Whether a value is wrong only inside: a table for a table, a list for a list."""
    kind = bare(kind)
    origin = get_origin(kind) or kind
    if isinstance(value, Mapping):
        return origin in TABLES or is_table_class(kind)
    if isinstance(value, list | tuple):
        return origin in LISTS
    if origin is Literal:
        return type(value) in {type(choice) for choice in get_args(kind)}
    if isinstance(value, str):
        return kind in (str, Path, Secret, datetime.date)
    return kind in (int, float) and isinstance(value, int | float) and not isinstance(value, bool)


_SCALAR_READERS: dict[Any, Callable[[Values, object, str], Any]] = {
    bool: Values._bool,
    int: Values._int,
    float: Values._float,
    str: Values._str,
    Path: Values._path,
    Secret: Values._secret,
    datetime.date: Values._date,
}
