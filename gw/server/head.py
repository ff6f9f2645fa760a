"""The head of a request: a strict matcher for plain ones, h11 with strict checks around it for all others.

h11 is the authority. It is lenient in places where leniency has been the way in for request smuggling, so the raw
bytes are looked at before it sees them, and what it made of them afterwards. The matcher (`plain_head`) may only
accept what `any_head` accepts, with the same result; a property test holds it to that.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from gw.errors import InvalidRequest
from gw.message import Headers
from gw.raw_headers import KnownHeaders, RawHeaders
from gw.server.limits import Limits

if TYPE_CHECKING:
    import h11

# RFC 9112 3.2, RFC 3986 3.3: what stands in a path, save for the percent sign.
_PATH = rb"/[A-Za-z0-9\-._~!$&'()*+,;=:@/]*"
_QUERY = rb"[!\"$-~]*"  # visible ASCII without '#': a fragment is never sent
# Field names without the underscore: `X_User` must not pass for `X-User` further on, so it takes the slow way.
_PLAIN = re.compile(
    rb"(GET|POST) (" + _PATH + rb")(?:\?(" + _QUERY + rb"))? HTTP/1\.1\r\n"
    rb"(?:[!#$%&'*+\-.^`|~0-9A-Za-z]++: ?[\x21-\x7e][\x20-\x7e]*+\r\n)++\r\n"
)
# RFC 9110 7.2, without what no name of a host is made of in practice; underscores are common in compose files.
_HOST = rb"(?:[A-Za-z0-9._~\-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_HOST_ALONE = re.compile(_HOST)
# The fields that decide how the message is framed, in a head in lower case: one pass costs half of a search for each.
_FRAMING = re.compile(
    rb"\n(host|content-length|connection|transfer-encoding|expect|upgrade|content-encoding): ?([^\r]*)"
)

_LENGTH, _OF_LENGTH = b"\ncontent-l", b"ength: "  # however the first half is spelt: that is looked at once, when new
# Behind the digits; method, path, query, the request's id; see KnownHeaders.
_Known = tuple[bytes, str, str, str, str, dict[object, Any]]
_REMEMBERED, _REMEMBERED_SIZE = 512, 2048  # heads, and bytes of one: a megabyte at the most

_ODD = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n|\Z)|(?<!\r)\n|\n[ \t]|\A\r")
_TARGET = re.compile(rb"((?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*)(?:\?(" + _QUERY + rb"))?")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)")
_RAW_LENGTH = re.compile(rb"(?i:\ncontent-length):([^\r]*)")
_DIGITS = re.compile(rb"[ \t]*[0-9]{1,15}[ \t]*")
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Head(NamedTuple):
    """What the head says. `framing` is h11's state where h11 has to read the body, None where `length` says it all."""

    method: str
    path: str
    query: str
    headers: Headers
    length: int  # of the body in bytes; -1 for chunked
    is_old: bool  # HTTP/1.0: no chunks, no interim answers
    framing: h11.Connection | None
    request_id: str  # the client's own name for it; empty where there is none that may be taken over


# The same without the names: to make a tuple that has them, and to ask it for each, costs six times as much.
Fields = tuple[str, str, str, Headers, int, bool, "h11.Connection | None", str]


def malformed(message: str) -> InvalidRequest:
    """400: these bytes are not HTTP as it must be; the connection ends with this answer."""
    return InvalidRequest(message, code="malformed_http")


def plain_head(head: bytes, limits: Limits) -> Head | None:
    """The head, if it is one that needs no second thought; None sends it to `any_head`.

    `head` ends with the blank line. Costs a fourteenth of what h11 and the checks around it cost.
    """
    match = _PLAIN.fullmatch(head)
    if match is None:
        return None
    low = head.lower()
    has_host, length = False, -1
    for name, value in _FRAMING.findall(low):
        if name == b"host" and not has_host and _HOST_ALONE.fullmatch(value):
            has_host = True
        elif name == b"content-length" and length < 0 and len(value) < 10 and value.isdigit():
            length = int(value)
        elif name != b"connection" or value != b"keep-alive":
            return None
    method, path, query = match.groups(b"")
    if (
        not has_host
        or length > limits.max_body
        or len(head) > limits.max_head
        or len(path) + len(query) >= limits.max_target
        or low.count(b"\n") - 2 > limits.max_fields
    ):
        return None
    headers = RawHeaders(head, low)
    return Head(
        method.decode(), path.decode(), query.decode(), headers, max(length, 0), False, None, _request_id(headers)
    )


class PlainHeads:
    """Plain heads, with a memory: a client's next head is nearly always its last one with another Content-Length.

    What stands around those digits is looked up, and matched only if it is new. The result is that of `plain_head`,
    which made what is remembered.
    """

    __slots__ = ("_known", "_limits", "_size")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._size = min(_REMEMBERED_SIZE, limits.max_head - len("999999999"))
        self._known: dict[bytes, _Known] = {}  # by what stands before the digits

    def read(self, head: bytes) -> Fields | None:
        """See `plain_head`."""
        before, _, rest = head.partition(_OF_LENGTH)
        digits, _, behind = rest.partition(b"\r")
        known = self._known.get(before)
        if known is not None and digits.isdigit() and len(digits) < 10:
            known_behind, method, path, query, request_id, memory = known
            length = int(digits)
            if behind == known_behind and length <= self._limits.max_body:
                return method, path, query, KnownHeaders(head, memory), length, False, None, request_id
        parsed = plain_head(head, self._limits)
        if parsed is not None and len(head) <= self._size and before.lower().endswith(_LENGTH):
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[before] = behind, parsed.method, parsed.path, parsed.query, parsed.request_id, {}
        return parsed


def check_partial(data: bytes, start: int, limits: Limits) -> None:
    """Look at a head that is not all here: what is wrong already is refused now. `start`: what was looked at before.

    Raises InvalidRequest.
    """
    odd = _ODD.search(data, max(0, start - 2))
    if odd is not None:
        _refuse_odd(odd)
    line = data.find(b"\r\n")
    if (line if line >= 0 else len(data)) > limits.max_target + 32:  # 32: method, spaces, version
        _refuse_target(limits)
    if len(data) > limits.max_head:
        raise InvalidRequest(
            f"the head of the request is larger than {limits.max_head} bytes: send fewer or shorter header fields",
            status=431,
            code="header_too_large",
        )
    if data.count(b"\n") - 2 > limits.max_fields:  # the request line and the blank one
        raise InvalidRequest(
            f"the request has more than {limits.max_fields} header fields", status=431, code="header_too_large"
        )


def any_head(head: bytes, limits: Limits) -> Head:
    """The head as h11 reads it, checked before and after. Raises InvalidRequest: 400, 413, 414, 415, 431, 501, 505."""
    import h11  # a twelfth of what a start takes, and most gateways never meet a head that is not plain

    check_partial(head, 0, limits)
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.max_head)
    try:
        connection.receive_data(head)
        request = connection.next_event()
    except h11.RemoteProtocolError as error:
        code = "malformed_http" if error.error_status_hint == 400 else "not_implemented"
        reason = str(error).partition(": b")[0]  # what follows is the line itself, which may hold a key
        raise InvalidRequest(
            f"this request cannot be read: {reason}", status=error.error_status_hint, code=code
        ) from None
    if not isinstance(request, h11.Request):
        raise malformed("this is not a request: send `METHOD /path HTTP/1.1`, header fields and a blank line")
    # RFC 9110 6.2 would have 1.2 read as 1.1. There is no such version: who sends it tries how two parsers differ.
    if request.http_version not in (b"1.1", b"1.0"):
        raise InvalidRequest(
            f"HTTP/{request.http_version.decode()} is not spoken here: use HTTP/1.1",
            status=505,
            code="http_version_not_supported",
        )
    is_old = request.http_version == b"1.0"
    fields = [(name, value) for name, value in request.headers if b"_" not in name]
    path, query, fields = _target(request, fields, limits)
    headers = Headers(fields)
    length = _body_length(head, headers, is_old, limits)
    return Head(request.method.decode(), path, query, headers, length, is_old, connection, _request_id(headers))


def _request_id(headers: Headers) -> str:
    sent = headers.get("x-request-id")
    return sent if _ID.fullmatch(sent) else ""


def _target(
    request: h11.Request, fields: list[tuple[bytes, bytes]], limits: Limits
) -> tuple[str, str, list[tuple[bytes, bytes]]]:
    """The path, the query and the fields with the one Host that counts."""
    target = request.target
    if len(target) > limits.max_target:
        _refuse_target(limits)
    hosts = [value for name, value in fields if name == b"host"]
    if any(not _HOST_ALONE.fullmatch(host) for host in hosts) or len(hosts) > 1:
        raise malformed("the Host field is not one `name` or `name:port`")
    absolute = _ABSOLUTE.match(target)
    if absolute is not None:
        # RFC 9112 3.2.2: the target's own host takes the place of the field.
        if not _HOST_ALONE.fullmatch(absolute[1]):
            raise malformed("the host in the target of the request is not `name` or `name:port`")
        fields = [(b"host", absolute[1]), *(field for field in fields if field[0] != b"host")]
        target = target[absolute.end() :]
        if not target.startswith(b"/"):
            target = b"/" + target
    elif target == b"*" and request.method == b"OPTIONS":
        return "*", "", fields
    match = _TARGET.fullmatch(target)
    if match is None or not target.startswith(b"/"):
        raise malformed("the target of the request is not a path: begin it with / and percent-encode odd characters")
    path, query = match.groups(b"")
    return path.decode(), query.decode(), fields


def _body_length(head: bytes, headers: Headers, is_old: bool, limits: Limits) -> int:
    coding = headers.get("content-encoding")
    if coding and coding.lower() != "identity":
        raise InvalidRequest(
            "a compressed request is not taken: send the body without Content-Encoding",
            status=415,
            code="unsupported_media_type",
        )
    lengths = _RAW_LENGTH.findall(head)  # h11 has made one of several, and of a list
    if "transfer-encoding" in headers:
        if lengths:
            raise malformed("Content-Length and Transfer-Encoding exclude each other: send one of them")
        if is_old:
            raise malformed("HTTP/1.0 has no Transfer-Encoding: send Content-Length or use HTTP/1.1")
        return -1
    if not lengths:
        return 0
    if len(lengths) > 1 or not _DIGITS.fullmatch(lengths[0]):
        raise malformed("Content-Length is not one plain number")
    length = int(lengths[0])
    if length > limits.max_body:
        raise too_large(limits)
    return length


def too_large(limits: Limits) -> InvalidRequest:
    """413: the body is over the limit, announced or counted."""
    return InvalidRequest(
        f"the body is larger than {limits.max_body} bytes: send less, or raise `max_body` in [server]",
        status=413,
        code="request_too_large",
    )


def _refuse_odd(odd: re.Match[bytes]) -> NoReturn:
    if odd.start() == 0 and odd[0] in (b"\r", b"\n"):
        raise malformed("a blank line stands before the request")
    if len(odd[0]) > 1:
        raise malformed("a header field goes on in a second line: write each field in one line")
    raise malformed("the head holds control characters or a line that does not end in CR LF")


def _refuse_target(limits: Limits) -> NoReturn:
    raise InvalidRequest(
        f"the target of the request is longer than {limits.max_target} bytes", status=414, code="target_too_long"
    )
