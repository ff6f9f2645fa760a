"""The arguments of a function call that Vertex sends in pieces: values by JSON path, put together into one object.

https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/function-calling (streamFunctionCallArguments)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# The part of RFC 9535 that names one place: .name, [0], ['name'], ["name"].
_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d{1,6})\]|\['((?:[^'\\]|\\.)*)'\]|\["((?:[^"\\]|\\.)*)"\]""")
_ESCAPED = re.compile(r"\\(.)")


class PartialArguments:
    """One call's arguments while they arrive."""

    __slots__ = ("_continues", "value")

    def __init__(self) -> None:
        self.value: dict[str, Any] = {}
        self._continues: set[str] = set()  # paths whose text goes on

    def add(self, pieces: Sequence[Mapping[str, Any]]) -> None:
        """Put pieces in their places; text of a path that continues is appended. ValueError for an impossible path."""
        for piece in pieces:
            path = piece.get("jsonPath")
            if not isinstance(path, str):
                raise ValueError("a piece of arguments without a jsonPath")
            value = _value_of(piece)
            steps = _steps(path)
            if path in self._continues and isinstance(value, str):
                value = str(_get(self.value, steps) or "") + value
            _put(self.value, steps, value)
            (self._continues.add if piece.get("willContinue") else self._continues.discard)(path)


def _value_of(piece: Mapping[str, Any]) -> Any:
    if "stringValue" in piece:
        return piece["stringValue"]
    if "numberValue" in piece:
        number = piece["numberValue"]
        is_whole = isinstance(number, float) and number.is_integer() and abs(number) < 2**53
        return int(number) if is_whole else number
    return piece.get("boolValue")


def _steps(path: str) -> list[str | int]:
    steps: list[str | int] = []
    at = 1
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None:
            break
        name, number, single, double = found.groups()
        steps.append(int(number) if number is not None else name or _ESCAPED.sub(r"\1", single or double or ""))
        at = found.end()
    if not path.startswith("$") or at < len(path) or not steps:
        raise ValueError(f"cannot read the path {path[:80]!r}")
    return steps


def _get(holder: Any, steps: Sequence[str | int]) -> Any:
    for step in steps:
        try:
            holder = holder[step]
        except (KeyError, IndexError, TypeError):
            return None
    return holder


def _put(holder: Any, steps: Sequence[str | int], value: Any) -> None:
    for at, step in enumerate(steps):
        is_last = at == len(steps) - 1
        new = value if is_last else [] if isinstance(steps[at + 1], int) else {}
        if isinstance(step, int):
            if not isinstance(holder, list) or step > len(holder):
                raise ValueError(f"no place for item {step}")
            if step == len(holder):
                holder.append(new)
            elif is_last:
                holder[step] = new
        else:
            if not isinstance(holder, dict):
                raise ValueError(f"no place for {step!r}")
            if is_last or step not in holder:
                holder[step] = new
        holder = holder[step]
