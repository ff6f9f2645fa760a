"""JSON as providers write it: strict first, then with the two mistakes that are seen in the wild; and written again."""

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

    A lone surrogate becomes U+FFFD, NaN and Infinity become null; both would break the client's own parser.
    Raises ValueError for anything else that is not JSON.
    """
    try:
        return orjson.loads(raw), True
    except orjson.JSONDecodeError:
        return mended(raw), False


def mended(raw: bytes) -> Any:
    """The value of what orjson does not take: see `parse`."""
    whole = _SURROGATES.sub(lambda found: found[0] if len(found[0]) != 6 else rb"\ufffd", raw)
    try:
        return json.loads(
            whole.decode("utf-8-sig"), parse_float=_finite, parse_constant=lambda name: None, parse_int=_integer
        )
    except RecursionError:
        raise ValueError("nested too deep") from None


def _integer(text: str) -> int | float:
    """A number as orjson reads it: one that 64 bits do not hold is a float, which can be written again."""
    number = int(text) if len(text) <= _DIGITS else float(text)
    return number if -(2**63) <= number < 2**64 else float(number)


_DIGITS = 20  # of the largest number in 64 bits, or the smallest one with its sign


def written(value: Any) -> bytes:
    """A value's JSON. Raises UpstreamProtocolError for what was read but cannot be written: it nests too deep."""
    try:
        return orjson.dumps(value)
    except TypeError as error:
        raise UpstreamProtocolError(f"the provider sent what cannot be passed on: {error}") from None


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None
