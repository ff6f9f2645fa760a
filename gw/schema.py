"""The one check at the gateway's edge: the bytes of a body become a Document that has been checked.

What it lets through is told by `gw.chat_objects`.
"""

from __future__ import annotations

from typing import Any

import orjson

from gw.chat_checks import check_chat
from gw.document import Document
from gw.errors import InvalidRequest
from gw.message_checks import plain_characters

__all__ = ["LARGE", "MAX_DEPTH", "check_chat", "decode_chat"]

MAX_DEPTH = 64  # levels of containers; orjson reads 1,024 but writes only 254, so a deep body could not be passed on
MAX_MARKS = 500_000  # of `[`, `{` or `:` in a body; that many containers or names take about half a second to read
LARGE = 1024 * 1024  # bytes; below that size the marks cannot be too many to be read quickly


def decode_chat(raw: bytes) -> Document:
    """The body of a chat request, read and checked once; its bytes are kept for who passes them on unchanged.

    What this accepts can be written again by orjson. Raises InvalidRequest: `invalid_json` where it is no JSON
    (RFC 8259), else `invalid_value`, with the field in `param`.
    """
    if len(raw) > LARGE and any(_has_more(raw, mark, MAX_MARKS) for mark in (b"[", b"{", b":")):
        raise InvalidRequest(
            f"the body has more than {MAX_MARKS:,} objects, arrays or names: send fewer of them in one request"
        )
    problem = ""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        problem = error.msg if raw else "it is empty"
    if problem:  # raised out here, so that the error does not hold on to the whole body
        raise InvalidRequest(f"the body is not valid JSON: {problem}; send a JSON object", code="invalid_json")
    if not isinstance(body, dict):
        raise InvalidRequest('the body must be a JSON object such as {"messages": [...]}')
    characters = plain_characters(body.get("messages"))
    is_flat = False
    try:
        is_flat = check_chat(body, characters is not None)
    finally:  # where something else is wrong, too, this is told
        if not is_flat and _is_too_deep(raw, body):
            raise InvalidRequest(f"the body nests deeper than {MAX_DEPTH} levels: flatten it")
    return Document(raw, body, characters, is_flat)


def _has_more(raw: bytes, mark: bytes, most: int) -> bool:
    """Whether a byte occurs more than `most` times. Few occurrences (an image) are hopped over at memchr's speed."""
    at = -1
    for _ in range(1000):
        at = raw.find(mark, at + 1)
        if at < 0:
            return False
    return raw.count(mark, at) > most - 1000


def _is_too_deep(raw: bytes, body: dict[str, Any]) -> bool:
    # Few containers in all cannot nest deeply, and counting bytes is cheaper than a walk while they are few.
    if len(raw) <= 4096 and len(raw) - len(raw.translate(None, b"[{")) <= MAX_DEPTH:
        return False
    level: list[Any] = [body]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for container in level:
            for item in container.values() if type(container) is dict else container:
                if type(item) is dict or type(item) is list:
                    below.append(item)
        if not below:
            return False
        level = below
    return True
