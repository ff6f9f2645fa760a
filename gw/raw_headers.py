"""Header fields that are looked up in the raw head and only split into pairs when somebody wants them all."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from gw.message import Headers

T = TypeVar("T")

_FIELD = re.compile(rb"([^:\r\n]+): ?([^\r\n]*)\r\n")
_NEEDLES: dict[str, bytes] = {}  # "host" -> b"\nhost:"; names come from code and config, so they are few


class RawHeaders(Headers):
    """The fields of a canonical head, request or response: `head` as it came, `low` the same in lower case.

    A look-up is one search in bytes: who handles a message asks for a few of the 17 fields that an SDK sends, or the 25
    of a provider, and most of the others are never looked at.
    """

    __slots__ = ("_head", "_low", "_pairs")
    _pairs: Sequence[tuple[bytes, bytes]]

    # Neither class has a __getattr__ for what is made when it is asked for: with one, each look at any attribute and
    # method costs six times as much.

    def __init__(self, head: bytes, low: bytes) -> None:
        self._head = head
        self._low = low

    @property
    def pairs(self) -> Sequence[tuple[bytes, bytes]]:
        try:
            return self._pairs
        except AttributeError:
            start = self._head.find(b"\n") + 1
            self._pairs = [(key.lower(), value.rstrip(b" ")) for key, value in _FIELD.findall(self._head, start)]
            return self._pairs

    @pairs.setter
    def pairs(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        self._pairs = pairs

    def get(self, name: str, default: str = "") -> str:
        needle = _NEEDLES.get(name) or _needle(name)
        start = self._lower().find(needle)
        if start < 0:
            return default
        start += len(needle)
        return self._head[start : self._head.find(b"\r", start)].strip(b" ").decode("latin-1")

    def __contains__(self, name: str) -> bool:
        return self._lower().find(_NEEDLES.get(name) or _needle(name)) >= 0

    def may_name(self, part: bytes) -> bool:
        return self._lower().find(part) >= 0

    def _lower(self) -> bytes:
        try:
            return self._low
        except AttributeError:  # a head that has come before is hardly ever asked for anything new
            self._low = self._head.lower()
            return self._low


class KnownHeaders(RawHeaders):
    """The fields of a head that has come before, the value of Content-Length aside: `memory` is what was asked then.

    It is common to all heads of that text, and never holds anything of Content-Length.
    """

    __slots__ = ("_memory",)

    def __init__(self, head: bytes, memory: dict[object, Any]) -> None:
        self._head = head
        self._memory = memory

    def get(self, name: str, default: str = "") -> str:
        found = self._memory.get(name, _NEW)
        if found is _NEW:
            found = self._remember(name, super().get(name, _ABSENT))
        return default if found is _ABSENT else found

    def about(self, question: Callable[[Headers], T]) -> T:
        found = self._memory.get(question, _NEW)
        if found is _NEW:
            found = self._remember(question, question(self))
        answer: T = found
        return answer

    def _remember(self, question: object, answer: Any) -> Any:
        if len(self._memory) < _MEMORIES and not (isinstance(question, str) and question.lower() == "content-length"):
            self._memory[question] = answer
        return answer


_NEW = object()
_ABSENT = "\0"  # no field has this value
_MEMORIES = 64  # of one head; what is asked for is named in code and configuration


def _needle(name: str) -> bytes:
    needle = b"\n" + name.lower().encode("latin-1") + b":"
    if len(_NEEDLES) < 1024:
        _NEEDLES[name] = needle
    return needle
