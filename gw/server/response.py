"""Answers as bytes, built by hand: status line, the handler's fields, and those that are the server's own business."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import NamedTuple

import orjson

from gw.errors import GatewayError
from gw.message import Request
from gw.stream import ByteStream

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OWN = frozenset({"connection", "content-length", "date", "keep-alive", "transfer-encoding", "upgrade", "x-request-id"})
_NAMES: dict[str, str] = {}  # names seen that go out, as a line begins with them; they come from code, so are few
_CONTROLS = bytes(byte for byte in range(128) if (byte < 32 and byte != 9) or byte == 127)
_CLOSE = "Connection: close\r\n"
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


class Reply(NamedTuple):
    """What the handler answers: header names as they shall stand on the wire, and a body that is whole or a stream.

    Content-Length, Transfer-Encoding, Connection, Date and X-Request-ID are the server's own and are passed over.
    """

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes | ByteStream


AppHandler = Callable[[Request], Awaitable[Reply]]


def error_reply(error: GatewayError) -> Reply:
    """An error in OpenAI's shape, with its Retry-After."""
    headers = [("Content-Type", "application/json"), *error.headers.items()]
    if error.retry_after is not None and "Retry-After" not in error.headers:
        headers.append(("Retry-After", str(max(1, math.ceil(error.retry_after)))))
    return Reply(error.status, headers, orjson.dumps(error.body()))


class _StatusLines:
    """The first two lines of an answer, `HTTP/1.1 200 OK` and the Date, made once a second for each status."""

    __slots__ = ("_lines", "_second")

    def __init__(self) -> None:
        self._second = 0
        self._lines: dict[int, str] = {}

    def get(self, status: int) -> str:
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._lines.clear()
        lines = self._lines.get(status)
        if lines is None:
            if not 200 <= status <= 599:
                raise ValueError(f"the handler answered with status {status}: it must be 200 to 599")
            lines = f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\nDate: {http_date(now)}\r\n"
            self._lines[status] = lines
        return lines


_status_lines = _StatusLines()


def http_date(seconds: float) -> str:
    """A time as RFC 9110 5.6.7 writes it, whatever the locale: `Sun, 06 Nov 1994 08:49:37 GMT`."""
    at = time.gmtime(seconds)
    return (
        f"{_DAYS[at.tm_wday]}, {at.tm_mday:02} {_MONTHS[at.tm_mon - 1]} {at.tm_year} "
        f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT"
    )


def reply_head(reply: Reply, request_id: str, length: int | None, *, keep_alive: bool, chunked: bool = False) -> bytes:
    """The head of an answer. `length` None: the body has no length, its end is a last chunk or that of the connection.

    Raises ValueError for a status, name or value that must not be sent.
    """
    try:
        fields = "".join([f"{_NAMES[name]}{value}\r\n" for name, value in reply.headers])
    except KeyError:
        passing = [(name, value) for name, value in reply.headers if _passes(name)]
        fields = "".join([f"{name}: {value}\r\n" for name, value in passing])
        expected = 2 * len(passing)
    else:
        expected = 2 * len(reply.headers)
    if length is not None:
        framing = f"Content-Length: {length}\r\n"
    else:
        framing = "Transfer-Encoding: chunked\r\n" if chunked else ""
    head = (
        f"{_status_lines.get(reply.status)}{fields}X-Request-ID: {request_id}\r\n{framing}"
        f"{'' if keep_alive else _CLOSE}\r\n"
    ).encode("latin-1")  # UnicodeEncodeError is a ValueError
    # Each line ends in two control bytes, and no other may be there: one search of the whole instead of one a value.
    expected += 10 if framing else 8
    if len(head) - len(head.translate(None, _CONTROLS)) != (expected if keep_alive else expected + 2):
        raise ValueError(_what_is_wrong(reply))
    return head


def _passes(name: str) -> bool:
    """Whether a header goes out; ValueError for what is no name. The server's own do not."""
    if name in _NAMES:
        return True
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a header")
    if name.lower() in _OWN:
        return False
    if len(_NAMES) < 1024:
        _NAMES[name] = f"{name}: "
    return True


def _what_is_wrong(reply: Reply) -> str:
    names = [name for name, value in reply.headers if _FORBIDDEN.search(value)]
    return f"the value of the header {', '.join(names)} holds control characters"
