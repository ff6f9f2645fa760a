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


class SSEDecoder:
    """Bytes in, events out. Feed pieces of any size; what is not yet whole stays inside."""

    __slots__ = ("_buffer", "_limit", "_started")

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self._buffer = b""
        self._limit = limit
        self._started = False

    def feed(self, data: bytes) -> list[Event]:
        """All events that are complete with this piece."""
        buffer = self._buffer + data if self._buffer else data
        if not self._started and buffer:
            if len(buffer) < 3 and b"\xef\xbb\xbf".startswith(buffer):
                self._buffer = buffer
                return []
            self._started = True
            buffer = buffer.removeprefix(b"\xef\xbb\xbf")
        if b"\r" in buffer:
            # A CR at the very end may be half of a CRLF: it waits for the next piece.
            held = b"\r" if buffer.endswith(b"\r") else b""
            text = buffer[: len(buffer) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        else:
            held, text = b"", buffer
        blocks = text.split(b"\n\n")
        rest = blocks.pop()
        self._buffer = rest + held
        if len(self._buffer) > self._limit:
            raise EventTooLarge(f"an event is larger than {self._limit} bytes")
        return [event for block in blocks if (event := _event(block)) is not None]

    def finish(self) -> list[Event]:
        """What was still inside when the stream ended, given out as if the blank line had come."""
        text, self._buffer = self._buffer.replace(b"\r", b"\n"), b""
        event = _event(text)
        return [] if event is None else [event]


def _event(block: bytes) -> Event | None:
    if block.startswith(b"data: ") and b"\n" not in block:
        return Event("", block[6:])
    name = ""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
    if data:
        return Event(name, b"\n".join(data))
    bare = block.strip()
    return Event(STRAY, bare) if bare.startswith((b"{", b"[")) else None


class NDJSONDecoder:
    """One JSON value a line (Ollama). Blank lines are skipped."""

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self._buffer = b""
        self._limit = limit

    def feed(self, data: bytes) -> list[bytes]:
        """All lines that are complete with this piece."""
        lines = (self._buffer + data).split(b"\n")
        self._buffer = lines.pop()
        if len(self._buffer) > self._limit:
            raise EventTooLarge(f"a line is larger than {self._limit} bytes")
        return [line for line in lines if line.strip()]

    def finish(self) -> list[bytes]:
        """The last line, where its line end was missing."""
        line, self._buffer = self._buffer.strip(), b""
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
