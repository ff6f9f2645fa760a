"""Answers as bytes, built by hand: status line, the handler's fields, and those that are the server's own business."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus

import orjson

from gw.errors import GatewayError
from gw.message import Request
from gw.stream import ByteStream

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OWN = frozenset({"connection", "content-length", "date", "keep-alive", "transfer-encoding", "upgrade", "x-request-id"})
_Field = tuple[str, str]
_NAMES: dict[str, str] = {}  # names seen, as a line begins with them; they come from code, so are few
_REMEMBERED, _REMEMBERED_SIZE = 1024, 48  # lines, and characters of one: longer ones hold times and the like
_CLOSE = "Connection: close\r\n"
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


class Reply:
    """What the handler answers: header names as they shall stand on the wire, and a body that is whole or a stream.

    Content-Length, Transfer-Encoding, Connection, Date and X-Request-ID are the server's own and are passed over.
    """

    __slots__ = ("body", "first", "headers", "last", "status")

    def __init__(
        self,
        status: int,
        headers: Iterable[tuple[str, str]],
        body: bytes | ByteStream,
        first: str = "",
        last: str = "",
    ) -> None:
        """`first` and `last` are lines, each with its CR LF, that stand in front of `headers` and behind them. They
        are not looked at, so no part of them may come from anybody else."""
        self.status = status
        self.headers = headers
        self.body = body
        self.first = first
        self.last = last


AppHandler = Callable[[Request], Awaitable[Reply]]


def error_reply(error: GatewayError) -> Reply:
    """An error in OpenAI's shape, with its Retry-After."""
    headers = [("Content-Type", "application/json"), *error.headers.items()]
    if error.retry_after is not None and "Retry-After" not in error.headers:
        headers.append(("Retry-After", str(max(1, math.ceil(error.retry_after)))))
    return Reply(error.status, headers, orjson.dumps(error.body()))


class _StatusLines:
    """The first two lines of an answer, `HTTP/1.1 200 OK` and the Date, made once a second for each status."""

    __slots__ = ("_from", "_lines")

    def __init__(self) -> None:
        self._from = 0.0
        self._lines: dict[int, str] = {}

    def get(self, status: int) -> str:
        now = time.time()
        if not 0.0 <= now - self._from < 1.0:
            self._from = float(int(now))
            self._lines.clear()
        lines = self._lines.get(status)
        if lines is None:
            if not 200 <= status <= 599:
                raise ValueError(f"the handler answered with status {status}: it must be 200 to 599")
            lines = f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\nDate: {http_date(now)}\r\n"
            self._lines[status] = lines
        return lines


class _Lines(dict[_Field, str]):
    """Fields as lines, those that went out before: most go out again and again. The server's own are none.

    Raises ValueError for what must not be sent.
    """

    def __missing__(self, field: _Field) -> str:
        name, value = field
        begin = _NAMES.get(name)
        if begin is None:
            begin = _begin(name)
        if not begin:
            return ""
        text = str(value)  # a stranger's error may have a number there
        if not text.isprintable() and _FORBIDDEN.search(text):
            raise ValueError(f"the value of the header {name} holds control characters")
        line = f"{begin}{text}\r\n"
        if len(line) <= _REMEMBERED_SIZE:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[name, text] = line
        return line


_status_lines = _StatusLines()
_lines = _Lines()


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
    fields = "".join(map(_lines.__getitem__, reply.headers))
    if length is not None:
        framing = f"Content-Length: {length}\r\n"
    else:
        framing = "Transfer-Encoding: chunked\r\n" if chunked else ""
    if not request_id.isprintable():
        raise ValueError(f"{request_id!r} is not the id of a request")
    return (
        f"{_status_lines.get(reply.status)}{reply.first}{fields}{reply.last}X-Request-ID: {request_id}\r\n{framing}"
        f"{'' if keep_alive else _CLOSE}\r\n"
    ).encode("latin-1")  # UnicodeEncodeError is a ValueError


def _begin(name: str) -> str:
    """What a line of that name begins with; nothing for the server's own. ValueError for what is no name."""
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a header")
    begin = "" if name.lower() in _OWN else f"{name}: "
    if len(_NAMES) < _REMEMBERED:
        _NAMES[name] = begin
    return begin
