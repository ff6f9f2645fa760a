"""Event streams without I/O: bytes in, whole events out, however the bytes were cut.

`SSEDecoder` follows the WHATWG rules for `text/event-stream` (LF, CRLF or CR line ends, comments, several `data`
lines, a byte-order mark) with one deliberate difference: an event that the stream ends in the middle of is given out
by `finish`, because providers forget the last blank line. `NDJSONDecoder` and `JSONArrayDecoder` do the same for the
two other framings in use (Ollama; Gemini without `alt=sse`).

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

from typing import NamedTuple

MAX_EVENT = 16 * 1024 * 1024  # one event; an inline image of a few megabytes is legal, an endless line is not


STRAY = "gw.stray"  # the name given to JSON that stands in a stream without `data:`, as Gemini's errors do


class Event(NamedTuple):
    """One server-sent event: its name ("" where none was given) and its data."""

    name: str
    data: bytes


class EventTooLarge(ValueError):
    """A single event outgrew the limit: the stream is not an event stream, or an attack."""


_SHORT = 4096  # bytes of an event that may be looked at again with each piece
_BOM = b"\xef\xbb\xbf"
_LF, _CR = 0x0A, 0x0D  # as numbers: `in` with a number is several times faster than with bytes
_make_event = tuple.__new__  # half the price of Event(...), once for every chunk of every stream


class SSEDecoder:
    """Bytes in, events out. Feed pieces of any size; what is not yet whole stays inside.

    The cost is linear in the bytes, however small the pieces: an event is put together once, when its end is seen.
    """

    __slots__ = ("_at_line_end", "_begun", "_cr", "_limit", "_parts", "_size", "is_inside")

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self._parts: list[bytes] = []  # of the event that has begun, with LF line ends
        self._size = 0
        self._limit = limit
        self._at_line_end = False  # the last part ends with LF
        self._cr = False  # the last piece ended with CR, which may be half of a CRLF
        self._begun: bytes | None = b""  # the first bytes, while they may still be a byte-order mark; then None
        self.is_inside = False  # whether the next byte belongs to an event that has begun

    def feed(self, data: bytes) -> list[Event]:
        """All events that are complete with this piece. Raises EventTooLarge."""
        if self._begun is not None:
            data = self._begun + data
            if len(data) < 3 and _BOM.startswith(data):
                self._begun = data
                self.is_inside = bool(data)
                return []
            self._begun = None
            data = data.removeprefix(_BOM)
        if self._cr or _CR in data:
            data = self._with_lf(data)
        if self._parts and data:
            if b"\n\n" not in data and not (self._at_line_end and data[0] == _LF):
                self._keep(data)
                self.is_inside = True
                return []
            self._parts.append(data)
            data = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
        blocks = data.split(b"\n\n")
        if rest := blocks.pop():
            self._keep(rest)
        self.is_inside = bool(self._parts) or self._cr
        events: list[Event] = []
        for block in blocks:
            if _LF not in block and block[:6] == b"data: ":
                events.append(_make_event(Event, ("", block[6:])))
            elif (event := _event(block)) is not None:
                events.append(event)
        return events

    def resumed(self, data: bytes) -> bytes:
        """`data` behind the start of the event that it goes on with, which is forgotten here; a long one stays inside.

        For whoever reads events by himself: where a network cuts the pieces, nearly each of them begins inside one.
        """
        if not self._parts or self._size > _SHORT or self._cr:
            return data
        self._parts.append(data)
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        self.is_inside = False
        return data

    def finish(self) -> list[Event]:
        """What was still inside when the stream ended, given out as if the blank line had come."""
        self._cr = False  # a last CR is a line end, and those do not matter here
        event = _event((self._begun or b"") + b"".join(self._parts))
        self._parts.clear()
        return [] if event is None else [event]

    def _with_lf(self, data: bytes) -> bytes:
        if self._cr:
            data = b"\r" + data
        self._cr = data.endswith(b"\r")
        if self._cr:
            data = data[:-1]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _keep(self, part: bytes) -> None:
        self._parts.append(part)
        self._size += len(part)
        self._at_line_end = part[-1] == _LF
        if self._size > self._limit:
            raise EventTooLarge(f"an event is larger than {self._limit} bytes")


def _event(block: bytes) -> Event | None:
    name = ""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ").decode("utf-8", "replace")
    if data:
        return Event(name, b"\n".join(data))
    bare = block.strip()
    return Event(STRAY, bare) if bare.startswith((b"{", b"[")) else None


class NDJSONDecoder:
    """One JSON value a line (Ollama). Blank lines are skipped; a line is put together once, when its end is seen."""

    __slots__ = ("_limit", "_parts", "_size")

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._limit = limit

    def feed(self, data: bytes) -> list[bytes]:
        """All lines that are complete with this piece. Raises EventTooLarge."""
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._parts:
            self._parts.append(lines[0])
            lines[0] = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
            if self._size > self._limit:
                raise EventTooLarge(f"a line is larger than {self._limit} bytes")
        return [line for line in lines if line.strip()]

    def finish(self) -> list[bytes]:
        """The last line, where its line end was missing."""
        line = b"".join(self._parts).strip()
        self._parts.clear()
        return [line] if line else []


class JSONArrayDecoder:
    """The elements of one JSON array that arrives piecemeal (Gemini's stream without `alt=sse`)."""

    __slots__ = ("_buffer", "_depth", "_escaped", "_limit", "_position", "_quoted")

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self._buffer = bytearray()
        self._limit = limit
        self._position = 0
        self._depth = 0
        self._quoted = False
        self._escaped = False

    def feed(self, data: bytes) -> list[bytes]:
        """All top-level objects that are complete with this piece."""
        self._buffer += data
        found: list[bytes] = []
        start = 0
        buffer = self._buffer
        for position in range(self._position, len(buffer)):
            byte = buffer[position]
            if self._quoted:
                if self._escaped:
                    self._escaped = False
                elif byte == 0x5C:
                    self._escaped = True
                elif byte == 0x22:
                    self._quoted = False
            elif byte == 0x22:
                self._quoted = True
            elif byte == 0x7B:  # {
                if self._depth == 0:
                    start = position
                self._depth += 1
            elif byte == 0x7D and self._depth:  # }
                self._depth -= 1
                if self._depth == 0:
                    found.append(bytes(buffer[start : position + 1]))
                    start = position + 1
            elif self._depth == 0:
                start = position + 1
        del buffer[:start]
        self._position = len(buffer)
        if len(buffer) > self._limit:
            raise EventTooLarge(f"an element is larger than {self._limit} bytes")
        return found

    def finish(self) -> list[bytes]:
        """Nothing: an element that is not closed is cut short. Whoever asks checks `is_whole`."""
        return []

    @property
    def is_whole(self) -> bool:
        """Whether no element is half read."""
        return self._depth == 0
