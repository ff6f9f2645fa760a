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
_NAMES: dict[str, bool] = {}  # names seen: True goes out, False is the server's own; they come from code, so are few
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
    lines = [_status_lines.get(reply.status)]
    for name, value in reply.headers:
        passes = _NAMES.get(name)
        if passes is None:
            passes = _judge_name(name)
        if passes:
            if not value.isprintable() and _FORBIDDEN.search(value):
                raise ValueError(f"the value of the header {name} holds control characters")
            lines.append(f"{name}: {value}\r\n")
    if length is not None:
        lines.append(f"X-Request-ID: {request_id}\r\nContent-Length: {length}\r\n")
    elif chunked:
        lines.append(f"X-Request-ID: {request_id}\r\nTransfer-Encoding: chunked\r\n")
    else:
        lines.append(f"X-Request-ID: {request_id}\r\n")
    lines.append("\r\n" if keep_alive else "Connection: close\r\n\r\n")
    return "".join(lines).encode("latin-1")  # UnicodeEncodeError is a ValueError


def _judge_name(name: str) -> bool:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a header")
    passes = name.lower() not in _OWN
    if len(_NAMES) < 1024:
        _NAMES[name] = passes
    return passes
