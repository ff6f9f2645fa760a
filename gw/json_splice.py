"""Small changes to the bytes of a JSON object, without writing the rest of it anew.

Exact or not at all: a member is replaced only where it is proven to be the object's own and the only one of its name,
so that no nested member is touched and no second one of the same name is left to win.
"""

from __future__ import annotations

import re
from typing import Any, AnyStr

import orjson

SCAN_LIMIT = 64 * 1024  # bytes that are scanned by a pattern in search of a member (about 1 ms)
_PARTS = 4096  # keys and values that are counted one by one (about 1 ms)
_HOPS = 2000  # occurrences of one byte that are found one by one (about 0.5 ms)

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\]]', re.DOTALL)
_COLON = re.compile(rb"\s*:\s*")
_SCALAR = re.compile(rb'\s*:\s*("(?:[^"\\]++|\\.)*+"|null|true|false|-?[0-9][0-9.eE+-]*)', re.DOTALL)  # behind a name
_QUOTE, _BACKSLASH = 0x22, 0x5C
_ESCAPED_LETTER = re.compile(rb"\\u00[4-7][0-9a-fA-F]")
_OPEN = b"{["


def replace_member(raw: bytes, name: bytes, value: bytes, is_there: bool = False) -> bytes | None:
    """The same JSON object with another value (JSON) for one top-level member; None where `find_member` finds none."""
    span = find_member(raw, name, is_there)
    if span is None:
        return None
    if len(raw) <= SCAN_LIMIT:
        return raw[: span[0]] + value + raw[span[1] :]
    view = memoryview(raw)  # a body may be large: it is copied once
    return b"".join((view[: span[0]], value, view[span[1] :]))


def find_member(raw: bytes, name: bytes, is_there: bool = False) -> tuple[int, int] | None:
    """Where the value of a top-level member stands that holds a string, number, bool or null.

    `raw` must be a valid JSON object, `name` plain ASCII letters. None where the member is missing, is there twice,
    holds an object or array, or stands too far in: then the object has to be written anew. `is_there`: who asks has
    read the object, and it has that member.
    """
    key = b'"' + name + b'"'
    if is_there and len(raw) <= SCAN_LIMIT and raw.count(key) == 1 and raw.find(b"\\u00") < 0:
        # It has to be written somewhere, and this is the only place that can be it.
        only = _SCALAR.match(raw, raw.find(key) + len(key))
        return only.span(1) if only is not None else None
    first = _find(raw, key)
    if first < 0:
        return None
    if _find(raw, key, first + len(key)) < 0:
        end = first + len(key)
        # The same name may be written with escapes further on; letters are \\u004x to \\u007x.
        if _find(raw, b"\\u00", end) >= 0 and _ESCAPED_LETTER.search(raw, end):
            return None
    else:
        end = len(raw)
    return _own_member(raw, key, end) if end <= SCAN_LIMIT else None


def _own_member(raw: bytes, key: bytes, end: int) -> tuple[int, int] | None:
    """Where the value of the only top-level member of that name stands."""
    depth = 0
    found: tuple[int, int] | None = None
    for token in _TOKEN.finditer(raw, 0, end):
        byte = raw[token.start()]
        if byte != _QUOTE:
            depth += 1 if byte in _OPEN else -1
        elif depth == 1 and _COLON.match(raw, token.end()):
            if _BACKSLASH in token[0] and orjson.loads(token[0]) == orjson.loads(key):
                return None  # the same name, written with escapes
            if token[0] == key:
                scalar = _SCALAR.match(raw, token.end())
                if scalar is None or found is not None:
                    return None
                found = scalar.span(1)
    return found


def has_duplicates(raw: bytes, value: dict[str, Any], written: bytes | None = None) -> bool:
    """Whether `value` lacks members of the JSON `raw` that it was read from, because a name is there twice.

    A reader that keeps the first of two members would see another request than the one that was checked here. Quotes
    are counted: each string has two, so a lost member shows. True also where that cannot be told. `written`: what
    orjson makes of `value`, from who has asked already.
    """
    if written is None and len(raw) > SCAN_LIMIT:
        quotes = _quotes(value)
        if quotes is not None:  # a few large strings: not worth a copy of them all
            return _find(raw, b"\\u0022") >= 0 or _count(raw, b'"') != quotes
    if written is None:
        written = orjson.dumps(value)
    if written == raw:  # most SDKs write as orjson does
        return False
    return raw.find(b"\\u0022") >= 0 or raw.count(b'"') != written.count(b'"')


def _quotes(value: Any) -> int | None:
    """How many quotes a value has as JSON; None where it has too many parts to be counted one by one."""
    quotes = parts = 0
    rest = [value]
    while rest:
        part = rest.pop()
        parts += 1
        if isinstance(part, str):
            quotes += 2 + _count(part, '"')
        elif isinstance(part, dict):
            rest += part.keys()
            rest += part.values()
        elif isinstance(part, list):
            rest += part
        if parts + len(rest) > _PARTS:
            return None
    return quotes


def _find(raw: bytes, pattern: bytes, start: int = 0) -> int:
    """`raw.find`. In something large one byte is searched ten times as fast as several: those before an image are few.

    5 MB took 4 ms, and nobody else was served meanwhile; with the first byte they take 0.3 ms.
    """
    if len(raw) > SCAN_LIMIT:
        for _ in range(_HOPS):
            start = raw.find(pattern[:1], start)
            if start < 0 or raw.startswith(pattern, start):
                return start
            start += 1
    return raw.find(pattern, start)


def _count(text: AnyStr, mark: AnyStr) -> int:
    """`text.count(mark)` of one character, likewise: the first few are found, not counted."""
    found, at = 0, -1
    if len(text) > SCAN_LIMIT:
        for found in range(_HOPS):
            at = text.find(mark, at + 1)
            if at < 0:
                return found
        found += 1
    return found + text.count(mark, at + 1)


def append_members(raw: bytes, members: dict[str, Any]) -> bytes:
    """The same JSON object with more members at its end. It must not have members of those names."""
    end = raw.rstrip()[:-1].rstrip()
    separator = b"" if end.endswith(b"{") else b","
    return b"".join((end, separator, orjson.dumps(members)[1:]))
