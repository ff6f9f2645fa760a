"""The ids of sessions: in the order of time, and nobody guesses another one's."""

from __future__ import annotations

import os
from math import floor


def new_id(now: float) -> str:
    """A UUID of version 7 (RFC 9562): `now` (Unix seconds) in milliseconds, then 74 random bits.

    In the order of time, because the log keeps an index by session: with a wholly random id (version 4) each row
    rewrites a page of that index that no other row of its batch needs, which was half of what the log's thread cost.
    """
    try:
        ending = _endings.pop()
    except IndexError:
        *further, ending = _new_endings()
        _endings.extend(further)
    return floor(now * 1000.0).to_bytes(6).hex("-", -4) + ending  # `int` of a float costs three times as much


def _new_endings() -> list[str]:
    """The random parts of the next ids: to ask the system for each alone would give up the GIL with every request."""
    random = bytearray(os.urandom(10 * _AT_ONCE))
    random[::10] = random[::10].translate(_VERSION)
    random[2::10] = random[2::10].translate(_VARIANT)
    digits = random.hex().encode()
    endings = bytearray(_ENDING * _AT_ONCE)
    for digit, place in enumerate(_PLACES):
        endings[place :: len(_ENDING)] = digits[digit :: len(_PLACES)]
    return endings.decode().split()


_AT_ONCE = 256
_ENDING = b"-0000-0000-000000000000 "
_PLACES = [place for place, character in enumerate(_ENDING) if character == ord("0")]
_VERSION = bytes(0x70 | byte & 0x0F for byte in range(256))
_VARIANT = bytes(0x80 | byte & 0x3F for byte in range(256))
_endings: list[str] = []
os.register_at_fork(after_in_child=_endings.clear)  # two processes must never give out the same
