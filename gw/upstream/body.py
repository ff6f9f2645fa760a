"""Bodies of responses, decoded as they arrive: by length, in chunks, until close, compressed, and however cut."""

from __future__ import annotations

import re
import zlib
from typing import Protocol

from gw.upstream.head import CHUNKED, UNTIL_CLOSE, Malformed

MAX_CHUNK_LINE = 4096  # bytes of a chunk's size and extensions
MAX_TRAILERS = 16 * 1024  # bytes; they are read and dropped

# Possessive throughout: a line without an end must fail in linear time.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t\x20-\x7e\x80-\xff]*+|[ \t]*+)\r\n")
_PLAIN_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
# Plain lines of four and five bytes that were seen, so 11,000 at most, and how long a chunk is with them: a look costs
# a tenth.
_LENGTHS: dict[bytes, int] = {}
_SIZES: dict[bytes, int] = {}  # what the same lines say, without their ends
_LAST = b"0\r\n\r\n"  # ends a body without trailers
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+\r\n")


class Framing(Protocol):
    """Where a body ends. `is_whole` once it has; `has_surplus` if more came than the body."""

    is_whole: bool
    has_surplus: bool

    def feed(self, data: bytes, /) -> bytes:
        """What of the body these bytes hold. Raises Malformed."""

    def eof(self) -> bool:
        """The connection was closed properly: whether that is the body's complete end."""


def framing(length: int) -> Framing:
    """The decoder for a head's `length`."""
    if length == CHUNKED:
        return Chunked()
    return UntilClose() if length == UNTIL_CLOSE else Sized(length)


class Sized:
    """A body of Content-Length bytes."""

    __slots__ = ("_missing", "has_surplus", "is_whole")

    def __init__(self, length: int) -> None:
        self._missing = length
        self.is_whole = length == 0
        self.has_surplus = False

    def feed(self, data: bytes, /) -> bytes:
        missing = self._missing - len(data)
        if missing <= 0:
            self.is_whole = True
            if missing < 0:
                self.has_surplus = True
                data = data[: self._missing]
                missing = 0
        self._missing = missing
        return data

    def eof(self) -> bool:
        return self.is_whole


class UntilClose:
    """A body that ends when the provider closes the connection."""

    __slots__ = ("has_surplus", "is_whole")

    def __init__(self) -> None:
        self.is_whole = False
        self.has_surplus = False

    def feed(self, data: bytes, /) -> bytes:
        return data

    def eof(self) -> bool:
        self.is_whole = True
        return True


class Chunked:
    """A body in chunks (RFC 9112 7.1), stricter than h11: no control bytes in extensions, limits on lines and trailers.

    Extensions and trailers are dropped.
    """

    __slots__ = ("_has_lines", "_held", "_missing", "_trailers", "has_surplus", "is_whole")

    def __init__(self) -> None:
        self._has_lines = False  # there are line ends within its chunks
        self._held = b""  # the start of a line that is not whole
        self._missing = 0  # of the current chunk, the CRLF behind it included
        self._trailers = -1  # bytes of the trailer section; -1 before the last chunk
        self.is_whole = False
        self.has_surplus = False

    def feed(self, data: bytes, /) -> bytes:
        if self._held:
            data, self._held = self._held + data, b""
        is_between = not self._missing and self._trailers < 0  # it begins with a chunk
        if is_between:
            # Nearly always one event of a stream comes at a time.
            length = len(data)
            if _LENGTHS.get(data[:5]) == length and data.endswith(b"\r\n"):
                return data[5:-2]
            if _LENGTHS.get(data[:4]) == length and data.endswith(b"\r\n"):
                return data[4:-2]
        pieces: list[bytes] = []
        at = self._whole_chunks(data, pieces) if is_between else 0
        while at < len(data) and self._trailers < 0:
            missing = self._missing
            if missing:
                end = at + missing
                if missing > 2:
                    pieces.append(data[at : end - 2])
                if end > len(data):
                    self._await_end_of_chunk(data, at)
                    break
                if missing == 1:
                    if data[at] != 10:
                        raise Malformed("a chunk of its answer is longer than announced")
                elif data[end - 2 : end] != b"\r\n":
                    raise Malformed("a chunk of its answer is longer than announced")
                self._missing = 0
                at = end + self._whole_chunks(data[end:], pieces)
                continue
            match = _PLAIN_CHUNK.match(data, at) or _CHUNK_LINE.match(data, at)
            if match is None:
                self._hold(data[at:])
                break
            start, at = match.span()
            if at - start > MAX_CHUNK_LINE:
                raise Malformed("a chunk of its answer has a line that is too long")
            size = int(match[1], 16)
            if 4 <= at - start <= 5 and match.end(1) == at - 2 and size:
                _LENGTHS[data[start:at]] = at - start + size + 2
                _SIZES[match[1]] = size
            end = at + size + 2
            if size and data[end - 2 : end] == b"\r\n":  # nearly always it is here as a whole
                pieces.append(data[at : end - 2])
                at = _plain_chunks(data, pieces, end)
            elif size:
                self._missing = size + 2
            else:
                self._trailers = 0
        if self._trailers >= 0:
            self._read_trailers(data, at)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _whole_chunks(self, data: bytes, pieces: list[bytes]) -> int:
        """Add whole chunks that `data` begins with; where they end."""
        if not self._has_lines:
            # Nearly always there is a line end behind each size and each chunk, and nowhere else: half the price of
            # looking at them one by one. What is behind the last line end is not whole, or the end of the body.
            parts = data.removesuffix(_LAST).split(b"\r\n")
            rest = parts.pop()
            sizes, found = parts[::2], parts[1::2]
            if len(sizes) > len(found):
                rest = sizes.pop() + b"\r\n" + rest
            if list(map(_SIZES.get, sizes)) == list(map(len, found)):
                pieces += found
                return len(data) - len(rest) - (len(_LAST) if data.endswith(_LAST) else 0)
            self._has_lines = _SIZES.get(sizes[0], len(found[0])) != len(found[0])
        return _plain_chunks(data, pieces, 0)

    def _await_end_of_chunk(self, data: bytes, at: int) -> None:
        missing = self._missing - (len(data) - at)
        if missing == 1 and data[-1] != 13:
            raise Malformed("a chunk of its answer is longer than announced")
        self._missing = missing

    def _hold(self, line: bytes) -> None:
        if b"\n" in line:
            raise Malformed("a chunk of its answer has no valid size")
        if len(line) > MAX_CHUNK_LINE:
            raise Malformed("a chunk of its answer has a line that is too long")
        self._held = line

    def _read_trailers(self, data: bytes, at: int) -> None:
        while True:
            if data.startswith(b"\r\n", at):
                self.is_whole = True
                self.has_surplus = self.has_surplus or at + 2 < len(data)
                return
            line = _TRAILER.match(data, at)
            end = len(data) if line is None else line.end()
            if self._trailers + end - at > MAX_TRAILERS:
                raise Malformed("the trailers of its answer are too long")
            if line is None:
                if data.find(b"\n", at) >= 0:
                    raise Malformed("the trailers of its answer are not valid")
                self._held = data[at:]
                return
            self._trailers += end - at
            at = end

    def eof(self) -> bool:
        return self.is_whole


def _plain_chunks(data: bytes, pieces: list[bytes], at: int) -> int:
    """Add all chunks from `at` on that are here as a whole and whose size was seen before; where they end."""
    length_of = _LENGTHS.get
    add = pieces.append
    while True:
        start = at + 5
        length = length_of(data[at:start])
        if length is None:
            start = at + 4
            length = length_of(data[at:start])
            if length is None:
                return at
        end = at + length
        if data[end - 2 : end] != b"\r\n":
            return at
        add(data[start : end - 2])
        at = end


class Inflate:
    """Undoes a Content-Encoding that nobody asked for: gzip or deflate, as it arrives, with a ceiling."""

    __slots__ = ("_inflater", "_is_deflate", "_left", "_started")

    def __init__(self, encoding: bytes, limit: int) -> None:
        if encoding not in (b"gzip", b"x-gzip", b"deflate"):
            raise Malformed("its answer is compressed in a way that was not asked for and that gw does not read")
        self._is_deflate = encoding == b"deflate"
        self._inflater = zlib.decompressobj(47)  # 32 + 15: gzip and zlib both announce themselves
        self._left = limit
        self._started = False

    def feed(self, data: bytes) -> bytes:
        """The decoded bytes. Raises Malformed for garbage, and for more bytes in all than the limit."""
        pieces: list[bytes] = []
        while data:
            if not self._started:
                self._started = True
                # "deflate" means zlib (RFC 9110 8.4.1.2), but some servers send it bare; zlib's first byte is x8.
                if self._is_deflate and data[0] & 0x0F != 8:
                    self._inflater = zlib.decompressobj(-15)
            elif self._inflater.eof:
                self._inflater = zlib.decompressobj(47)  # a further gzip member
            try:
                piece = self._inflater.decompress(data, self._left + 1)
            except zlib.error:
                raise Malformed("its answer is compressed, and broken") from None
            self._left -= len(piece)
            if self._left < 0:
                raise Malformed("its answer grows beyond the limit when it is decompressed")
            pieces.append(piece)
            data = self._inflater.unused_data
        return b"".join(pieces)

    def finish(self) -> None:
        """The body has ended. Raises Malformed where the compressed data have not."""
        if self._started and not self._inflater.eof:
            raise Malformed("its answer is compressed, and cut short")
