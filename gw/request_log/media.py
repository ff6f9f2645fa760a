"""What the log keeps of a message: everything but the bytes of media, or only its shape."""

from __future__ import annotations

import binascii
import hashlib
from typing import Any

_BASE64_FIELDS = frozenset({"data", "file_data"})  # of `input_audio`, `audio` and `file` parts
_SEALED = ("reasoning.encrypted", "redacted_thinking")  # their `data` is no media, and goes back as it is
_SHORT = 64  # characters; a shorter `data` is a word
_PIECE = 64 * 1024  # divisible by 4; between two pieces other threads get their turn
IN_TEXT = ";base64,"  # every data URI that is taken out of a text has it; twice as long as "data", sought twice as fast
MARK = IN_TEXT[0]  # most texts do not even have this, and a single character is sought ten times as fast
_STRUCTURE = frozenset({"role", "type"})
_ENDS = "\"'()<> \\\n"  # what ends a data URI inside a text


def has_media(written: str) -> bool:
    """Whether `elided` may find something to take out of this JSON, which orjson wrote."""
    return "data" in written and ("data:" in written or 'data":' in written)


def elided(value: Any) -> Any:
    """A copy of some JSON with each inline media file as `data:TYPE;elided;size=BYTES;sha256=PREFIX`."""
    if isinstance(value, str):
        return _without_data_uris(value) if "data:" in value else value
    if isinstance(value, list):
        return [elided(item) for item in value]
    if isinstance(value, dict):
        if "data" in value and value.get("type") in _SEALED:
            return value
        return {name: _field(name, item) for name, item in value.items()}
    return value


def redacted(value: Any, name: str = "") -> Any:
    """A copy of some JSON with every text replaced by its length; roles and part types stay."""
    if isinstance(value, str):
        return value if name in _STRUCTURE else f"[{len(value)} characters]"
    if isinstance(value, list):
        return [redacted(item) for item in value]
    if isinstance(value, dict):
        return {key: redacted(item, key) for key, item in value.items()}
    return value


def _field(name: str, value: Any) -> Any:
    if name in _BASE64_FIELDS and isinstance(value, str) and len(value) >= _SHORT and not value.startswith("data:"):
        return _label("", value, True)
    if name == "url" and isinstance(value, str) and value.startswith("data:"):
        head, _, payload = value.partition(",")  # the one copy of a file
        kind, _, parameters = head[5:].partition(";")
        return _label(kind, payload, parameters.endswith("base64"))
    return elided(value)


def _without_data_uris(text: str) -> str:
    pieces: list[str] = []
    position = 0
    while (start := text.find("data:", position)) >= 0:
        comma = text.find(",", start, start + 200)
        head = text[start + 5 : comma] if comma >= 0 else ""
        if not head.endswith(";base64") or any(end in head for end in _ENDS):
            pieces.append(text[position : start + 5])
            position = start + 5
            continue
        stop = len(text)
        for end in _ENDS:
            # Each search goes no further than the nearest end so far: find() is a memchr, a regex would hold the
            # interpreter for as long as an image is large.
            found = text.find(end, comma, stop)
            stop = found if found >= 0 else stop
        pieces += (text[position:start], _label(head.partition(";")[0], text[comma + 1 : stop], True))
        position = stop
    pieces.append(text[position:])
    return "".join(pieces)


def _label(kind: str, payload: str, is_base64: bool) -> str:
    size, digest = _measure(payload, is_base64)
    return f"data:{kind[:100]};elided;size={size};sha256={digest}"


def _measure(payload: str, is_base64: bool) -> tuple[int, str]:
    """The file's size in bytes and the first 16 hex digits of its SHA-256; of the text where it is no base64."""
    digest = hashlib.sha256()
    size = 0
    try:
        if not is_base64:
            raise ValueError
        text = payload.rstrip("=").translate(_URLSAFE) if "-" in payload or "_" in payload else payload.rstrip("=")
        for start in range(0, len(text), _PIECE):
            piece = text[start : start + _PIECE]
            data = binascii.a2b_base64(piece + "=" * (-len(piece) % 4))
            digest.update(data)
            size += len(data)
    except ValueError:
        raw = payload.encode("utf-8", "replace")
        return len(raw), hashlib.sha256(raw).hexdigest()[:16]
    return size, digest.hexdigest()[:16]


_URLSAFE = str.maketrans("-_", "+/")
