"""The two heads of an HTTP exchange: ours is written from a template, the provider's is read by a strict matcher.

The matcher accepts canonical heads only, with exactly h11's result (a differential test holds it to that); every
other head is h11's to judge, and what h11 refuses is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from gw.message import Headers
from gw.raw_headers import KnownHeaders, RawHeaders

if TYPE_CHECKING:
    import h11

MAX_HEAD = 64 * 1024  # bytes of a response's head, interim responses included
CHUNKED = -1  # values of Head.length that are no length
UNTIL_CLOSE = -2

# What the transport itself decides for each exchange; the headers of a WireRequest may not name these.
RESERVED_HEADERS = frozenset(
    [
        *("accept-encoding", "connection", "content-length", "expect", "host", "keep-alive"),
        *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    ]
)

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 (RFC 9110 5.6.2)
_NAME = re.compile(_TOKEN)
_TARGET = re.compile(r"[!-~]+")
_CONTROLS = bytes(byte for byte in range(128) if (byte < 32 and byte != 9) or byte == 127)
_REMEMBERED = 1024  # header names; adapters use a few dozen
_REMEMBERED_HEADS = 256  # some hosts want ids in theirs, and then each is new

_PLAIN = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9][0-9])(?: [\x20-\x7e]*+)?\r\n"
    rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++: ?[\x21-\x7e][\x20-\x7e]*+\r\n)*+\r\n"
)
# The fields that decide how the message is framed, in a head in lower case: one pass costs half of a search for each.
_FRAMING = re.compile(rb"\n(content-length|transfer-encoding|connection|keep-alive|content-encoding): ?([^\r]*)")
_BLANK_LINE = b"\r\n\r\n"
# In two, since the case of the first letters varies: that both are one field is looked at when it is remembered.
_LENGTH, _OF_LENGTH = b"\ncontent-l", b"ength: "
_MEMORIES, _LONGEST = 512, 512  # heads, and bytes of one: those of the large hosts are longer, and never come again

_BLANK = re.compile(rb"\n\r?\n")  # where h11 sees the end of a head
_KEEP_ALIVE = re.compile(rb"(?:^|[,;\s])timeout\s*=\s*([0-9]{1,6})(?![0-9])", re.IGNORECASE)
_START = b"HTTP/1."


class Malformed(Exception):
    """The provider's bytes are not the HTTP that they claim to be. The text says what, and quotes none of them."""


class Target(NamedTuple):
    """A URL taken apart: where to connect, and the start of a request's head."""

    scheme: str  # http | https
    host: str  # without brackets, IDNA encoded
    port: int
    authority: str  # what messages may show: host, and the port where it is not the default
    start: str  # request line, Host and Accept-Encoding


class Head:
    """The head of a final response. `length` is the body's in bytes, or CHUNKED, or UNTIL_CLOSE."""

    __slots__ = ("encoding", "headers", "is_reusable", "keep_for", "length", "rest", "size", "status")

    def __init__(
        self,
        status: int,
        headers: Headers,
        length: int,
        size: int,
        is_reusable: bool = True,
        keep_for: float | None = None,
        encoding: bytes = b"",
        rest: bytes = b"",
    ) -> None:
        self.status = status
        self.headers = headers
        self.length = length
        self.size = size  # bytes of the head itself
        self.is_reusable = is_reusable
        self.keep_for = keep_for  # seconds that the provider keeps an idle connection
        self.encoding = encoding  # Content-Encoding, lower case
        self.rest = rest  # what came behind it


# --- ours -------------------------------------------------------------------------------------------------------


def parse_target(method: str, url: str) -> Target:
    """Take an absolute http or https URL apart. Raises ValueError, which never quotes the query."""
    try:
        parts = urlsplit(url)
        host, port, username = parts.hostname, parts.port, parts.username
    except ValueError as error:
        raise ValueError(f"a provider's URL cannot be read: {error}") from None
    if parts.scheme not in ("http", "https") or not host or username is not None:
        raise ValueError("a provider's URL must be http://host or https://host, without a user name: check base_url")
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            raise ValueError("a provider's host name has no IDNA form: check base_url") from None
    path = parts.path or "/"
    target = f"{path}?{parts.query}" if parts.query else path
    if not _TARGET.fullmatch(target) or not _TARGET.fullmatch(host) or not _NAME.fullmatch(method):
        raise ValueError(f"the method, host or path of a request to {host!r} holds blanks or control characters")
    default = 443 if parts.scheme == "https" else 80
    authority = f"[{host}]" if ":" in host else host
    if port is not None and port != default:
        authority = f"{authority}:{port}"
    start = f"{method} {target} HTTP/1.1\r\nHost: {authority}\r\nAccept-Encoding: identity\r\n"
    return Target(parts.scheme, host, default if port is None else port, authority, start)


class HeadWriter:
    """Writes request heads, with a memory: most requests to a backend have the very fields of the last one."""

    __slots__ = ("_heads", "_names")

    def __init__(self) -> None:
        self._heads: dict[tuple[str, tuple[tuple[str, str], ...]], bytes] = {}
        self._names: dict[str, str] = {}

    def write(self, start: str, headers: Sequence[tuple[str, str]], length: int | None) -> bytes:
        """The head's bytes. `length` None: no body. Raises ValueError for names or values that cannot be sent."""
        fields = tuple(headers)
        head = self._heads.get((start, fields))
        if head is None:
            head = self._checked(start, fields)
            if len(self._heads) >= _REMEMBERED_HEADS:
                self._heads.clear()
            self._heads[start, fields] = head
        return head + b"\r\n" if length is None else b"%bContent-Length: %d\r\n\r\n" % (head, length)

    def _checked(self, start: str, headers: Sequence[tuple[str, str]]) -> bytes:
        names = self._names
        if len(names) >= _REMEMBERED:
            names.clear()
        for name, _ in headers:
            if name not in names:
                self._learn(name)
        lines = "".join([f"{names[name]}{value}\r\n" for name, value in headers])
        try:
            head = f"{start}{lines}".encode("latin-1")
        except UnicodeEncodeError:
            raise _unsendable(headers) from None
        # Two control bytes a line, and three lines in `start`. Any more were smuggled in.
        if len(head) - len(head.translate(None, _CONTROLS)) != 2 * (len(headers) + 3):
            raise _unsendable(headers)
        return head

    def _learn(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a header name")
        if name.lower() in RESERVED_HEADERS:
            raise ValueError(f"the header {name} is the transport's own: take it out of the request's headers")
        self._names[name] = f"{name}: "


def _unsendable(headers: Sequence[tuple[str, str]]) -> ValueError:
    # Values may be secret: only the name is told.
    for name, value in headers:
        try:
            is_bad = any(byte in _CONTROLS for byte in value.encode("latin-1"))
        except UnicodeEncodeError:
            is_bad = True
        if is_bad:
            return ValueError(f"the value of the header {name} holds characters that HTTP cannot carry")
    return ValueError("a header's value holds characters that HTTP cannot carry")


# --- the provider's ---------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False)
class _Known:
    """A head that came before, but for the digits of its Content-Length."""

    behind: bytes  # what follows the line with the digits
    status: int
    keep_for: float | None
    memory: dict[object, Any]  # see KnownHeaders


_known: dict[bytes, _Known] = {}  # by what stands before the digits


def match_head(data: bytes) -> Head | None:
    """The head that `data` begins with if it is whole and canonical; None: let HeadReader look at it.

    For answers to anything but HEAD. The next head of a provider nearby is nearly always its last one with another
    Content-Length, as long as the second lasts: what stands around those digits is looked up, and matched only if it
    is new.
    """
    text, blank, rest = data.partition(_BLANK_LINE)
    before, _, line = text.partition(_OF_LENGTH)
    digits, _, behind = line.partition(b"\r\n")
    known = _known.get(before)
    if known is not None and behind == known.behind and blank and digits.isdigit() and len(digits) <= 15:
        head = text + blank
        return Head(
            known.status, KnownHeaders(head, known.memory), int(digits), len(head), True, known.keep_for, b"", rest
        )
    parsed = _match(text + blank, rest)
    if parsed is not None and parsed.size <= _LONGEST and before.lower().endswith(_LENGTH):
        if len(_known) >= _MEMORIES:
            _known.clear()
        _known[before] = _Known(behind, parsed.status, parsed.keep_for, {})
    return parsed


def _match(head: bytes, rest: bytes) -> Head | None:
    match = _PLAIN.fullmatch(head)
    if match is None or len(head) > MAX_HEAD or match[1] in (b"204", b"304"):
        return None
    low = head.lower()
    said: dict[bytes, bytes] = {}
    for name, value in _FRAMING.findall(low):
        if name in said:  # twice: h11's to judge
            return None
        said[name] = value.rstrip(b" ")
    length = CHUNKED
    digits = said.get(b"content-length")
    if digits is not None:
        if b"transfer-encoding" in said or not digits.isdigit() or len(digits) > 15:
            return None
        length = int(digits)
    elif said.get(b"transfer-encoding") != b"chunked":
        return None
    if b"content-encoding" in said or said.get(b"connection", b"keep-alive") != b"keep-alive":
        return None
    keep_for = _timeout_of(said.get(b"keep-alive", b""))
    return Head(int(match[1]), RawHeaders(head, low), length, len(head), True, keep_for, b"", rest)


class HeadReader:
    """Reads a response's head from any pieces, skipping interim (1xx) responses."""

    __slots__ = ("_buffer", "_method", "_searched", "_size", "rest")

    def __init__(self, method: str) -> None:
        self._buffer = bytearray()
        self._method = method
        self._searched = 0  # where the search for the blank line goes on: a drip must not cost n squared
        self._size = 0
        self.rest = b""  # what follows the head, once it is whole

    def feed(self, data: bytes) -> Head | None:
        """The final response's head, or None where more bytes are needed. Raises Malformed."""
        buffer = self._buffer
        buffer += data
        while True:
            if not buffer.startswith(_START[: len(buffer)]):
                raise Malformed("its answer is not HTTP/1.1")
            blank = _BLANK.search(buffer, self._searched)
            size = len(buffer) if blank is None else blank.end()
            if self._size + size > MAX_HEAD:
                raise Malformed(f"the head of its answer is over {MAX_HEAD // 1024} KB")
            if blank is None:
                self._searched = max(0, size - 2)
                return None
            block = bytes(buffer[:size])
            del buffer[:size]
            self._searched = 0
            self._size += size
            head = None if self._method == "HEAD" else match_head(block)
            head = head or _judge(block, self._method)
            if head is not None:
                self.rest = bytes(buffer)
                return head


def _judge(block: bytes, method: str) -> Head | None:
    """What h11 makes of a head; None for an interim response. Raises Malformed."""
    import h11  # only where a provider's head is not canonical: it takes a twelfth of gw's start

    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    reader.send(h11.Request(method=method, target="/", headers=[("Host", "gw")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(block)
    try:
        event = reader.next_event()
    except h11.RemoteProtocolError:
        raise Malformed("the head of its answer is not valid HTTP") from None
    if isinstance(event, h11.InformationalResponse) and event.status_code != 101:
        return None
    if not isinstance(event, h11.Response):
        raise Malformed("it switched protocols, which nobody asked for")
    if event.http_version not in (b"1.1", b"1.0"):
        raise Malformed("its answer is not HTTP/1.1")
    return _weigh(event, method, len(block))


def _weigh(event: h11.Response, method: str, size: int) -> Head:
    pairs = [(bytes(name), bytes(value)) for name, value in event.headers]
    fields: dict[bytes, bytes] = {}
    for name, value in pairs:
        fields[name] = fields[name] + b", " + value if name in fields else value
    is_old = event.http_version == b"1.0"
    is_chunked = b"transfer-encoding" in fields
    if is_chunked and (b"content-length" in fields or is_old):
        # RFC 9112 6.1 and 6.3: the mark of smuggling, and never sent by a server in its right mind.
        raise Malformed("its answer has both a Content-Length and a Transfer-Encoding, or is chunked HTTP/1.0")
    encoding = fields.get(b"content-encoding", b"").strip().lower()
    if method == "HEAD" or event.status_code in (204, 304):
        length, encoding = 0, b""
    elif is_chunked:
        length = CHUNKED
    else:
        length = int(fields.get(b"content-length", UNTIL_CLOSE))
    options = {option.strip() for option in fields.get(b"connection", b"").lower().split(b",")}
    is_reusable = not is_old and length != UNTIL_CLOSE and not options & {b"close", b"upgrade"}
    keep_for = next(filter(None, (_timeout_of(value) for name, value in pairs if name == b"keep-alive")), None)
    return Head(event.status_code, Headers(pairs), length, size, is_reusable, keep_for, encoding)


def _timeout_of(keep_alive: bytes) -> float | None:
    """Seconds that a Keep-Alive field promises."""
    found = _KEEP_ALIVE.search(keep_alive)
    return None if found is None else float(found[1])
