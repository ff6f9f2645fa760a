"""The two framings of a Gemini stream: server-sent events, and one JSON array where `alt=sse` was not heard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gw.sse import JSONArrayDecoder, SSEDecoder


class Framing(Protocol):
    """Bytes in, the JSON of whole events out."""

    def feed(self, data: bytes, /) -> Sequence[bytes]:
        """The events that are complete with this piece. EventTooLarge for one without end."""

    def finish(self) -> Sequence[bytes]:
        """What was left when the bytes ended. ValueError where an event is half there."""


def framing_of(head: bytes) -> Framing:
    """The framing that a stream's first byte tells. `head` begins with anything but white space."""
    return _Array() if head[:1] == b"[" else _Events()


class _Events:
    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = SSEDecoder()

    def feed(self, data: bytes) -> Sequence[bytes]:
        return [event.data for event in self._decoder.feed(data)]

    def finish(self) -> Sequence[bytes]:
        return [event.data for event in self._decoder.finish()]


class _Array:
    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = JSONArrayDecoder()

    def feed(self, data: bytes) -> Sequence[bytes]:
        return self._decoder.feed(data)

    def finish(self) -> Sequence[bytes]:
        if not self._decoder.is_whole:
            raise ValueError("the array ends inside an element")
        return self._decoder.finish()
