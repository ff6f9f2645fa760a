"""A strict eye on chunked framing before h11 reads it: sizes, extensions, ends of lines and trailers."""

from __future__ import annotations

import re
from enum import Enum, auto

from gw.errors import InvalidRequest
from gw.server.head import malformed, too_large
from gw.server.limits import Limits

# h11 lets CR and NUL pass in extensions, and sizes of 20 digits; eight are 4 GB, more than any limit.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})(;[\t\x20-\x7e]*)?\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n")


class _Next(Enum):
    SIZE = auto()
    END_OF_CHUNK = auto()
    TRAILER = auto()
    NOTHING = auto()


class ChunkGuard:
    """Follows the framing of one body and raises InvalidRequest at the first thing that is not as it must be.

    `budget`: bytes that extensions and trailers may use together.
    """

    __slots__ = ("_budget", "_chunks", "_left", "_limits", "_line", "_next", "_total", "_trailers")

    def __init__(self, limits: Limits, budget: int) -> None:
        self._limits = limits
        self._budget = budget
        self._chunks = 0
        self._total = 0
        self._trailers = 0
        self._left = 0  # bytes of the chunk that are still to come
        self._line = b""
        self._next = _Next.SIZE

    def check(self, data: bytes) -> None:
        """Look at the next bytes of the body; those behind its end are somebody else's."""
        position = 0
        while position < len(data) and self._next is not _Next.NOTHING:
            if self._left:
                step = min(self._left, len(data) - position)
                self._left -= step
                position += step
                continue
            end = data.find(b"\n", position) + 1
            if not end:
                self._line += data[position:]
                if len(self._line) > self._budget + 16:
                    self._refuse_budget()
                return
            line = self._line + data[position:end]
            self._line = b""
            position = end
            self._check_line(line)

    def _check_line(self, line: bytes) -> None:
        if self._next is _Next.END_OF_CHUNK:
            if line != b"\r\n":
                raise malformed("a chunk of the body does not end where its size says")
            self._next = _Next.SIZE
        elif self._next is _Next.SIZE:
            self._check_size(line)
        elif line == b"\r\n":
            self._next = _Next.NOTHING
        else:
            self._trailers += 1
            if self._trailers > self._limits.max_fields or not _TRAILER.fullmatch(line):
                raise malformed("the trailers of the body are not plain header fields, or too many")
            self._spend(len(line))

    def _check_size(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise malformed("the size of a chunk is not a plain hexadecimal number")
        if match[2]:
            self._spend(len(match[2]))
        size = int(match[1], 16)
        self._chunks += 1
        self._total += size
        if self._total > self._limits.max_body:
            raise too_large(self._limits)
        if self._chunks > self._limits.max_chunks:
            raise InvalidRequest(
                f"the body comes in more than {self._limits.max_chunks} chunks: send larger ones",
                status=413,
                code="request_too_large",
            )
        self._left = size
        self._next = _Next.END_OF_CHUNK if size else _Next.TRAILER

    def _spend(self, size: int) -> None:
        self._budget -= size
        if self._budget < 0:
            self._refuse_budget()

    def _refuse_budget(self) -> None:
        raise malformed("the extensions and trailers of the chunked body are too long")
