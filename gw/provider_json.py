"""JSON as providers write it: strict first, then with the two mistakes that are seen in the wild.

orjson reads an integer beyond 64 bits as a float, and cannot write one. In a tool's arguments such a number may be an
id that has to stay what it is: `read_exactly` and `write_exactly` keep it.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import orjson

from gw.errors import UpstreamProtocolError

# An escaped backslash, a pair of surrogates, or one without its other half (an emoji cut between two chunks).
_SURROGATES = re.compile(
    rb"\\\\|\\u[dD][89aAbB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


def parse(raw: bytes) -> tuple[Any, bool]:
    """The value, and whether the bytes may be passed on as they are.

    A lone surrogate becomes U+FFFD, NaN and Infinity become null; both would break the client's own parser. An integer
    beyond 64 bits is a float, as orjson reads it, so that the value can be written again. Raises ValueError for
    anything else that is not JSON.
    """
    try:
        return orjson.loads(raw), True
    except orjson.JSONDecodeError:
        return mended(raw, is_exact=False), False


def mended(raw: bytes, *, is_exact: bool = True) -> Any:
    """The value of what orjson does not take: see `parse`; where it is to be exact, with every integer as written."""
    whole = _SURROGATES.sub(lambda found: found[0] if len(found[0]) != 6 else rb"\ufffd", raw)
    try:
        return json.loads(
            whole.decode("utf-8-sig"),
            parse_float=_finite,
            parse_constant=lambda name: None,
            parse_int=int if is_exact else _integer,
        )
    except RecursionError:
        raise ValueError("nested too deep") from None


def read_exactly(raw: bytes | str) -> Any:
    """The value with every integer as it is written. Raises orjson.JSONDecodeError where orjson does not take it."""
    value = orjson.loads(raw)
    try:
        if b"e+" not in orjson.dumps(value):  # what became of such an integer, and seldom anything else
            return value
        return json.loads(raw)
    except (RecursionError, TypeError, ValueError):  # nested too deep, or a number of thousands of digits
        return value


def write_exactly(value: Any) -> bytes:
    """The value as JSON, whatever the size of its integers. Raises TypeError for what JSON does not have."""
    try:
        return orjson.dumps(value)
    except TypeError:
        try:
            return _compact(value).encode()
        except RecursionError:
            raise TypeError("nested too deep") from None


_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def written(value: Any) -> bytes:
    """A value's JSON. Raises UpstreamProtocolError for what was read but cannot be written: it nests too deep."""
    try:
        return orjson.dumps(value)
    except TypeError as error:
        raise UpstreamProtocolError(f"the provider sent what cannot be passed on: {error}") from None


def _integer(text: str) -> int | float | None:
    number = int(text)
    return number if -(2**63) <= number < 2**64 else _finite(text)


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None
