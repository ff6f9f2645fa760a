"""A JSON body that stays the bytes it came as until somebody opens it.

This is what makes "same dialect, same bytes" safe with anybody's middleware: reading through `peek` leaves the bytes
as they are; whoever opens `data` may change it in place, and from then on the bytes are made from the value. Nobody
has to declare anything, and who never looks never pays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import orjson


class Document:
    """A JSON object as bytes, as a value, or both. Made from either; the other is computed on first use.

    `came` is the bytes while they say what the value says: None where nobody wrote them yet, or once it was opened.
    """

    __slots__ = ("_opened", "_value", "came", "characters", "is_flat", "text")

    def __init__(
        self,
        raw: bytes | None = None,
        value: dict[str, Any] | None = None,
        characters: int | None = None,
        is_flat: bool = False,
    ) -> None:
        self.came = raw
        self._value = value
        self._opened = False
        # What was found of a chat when it was checked, as long as nobody has opened it:
        self.characters = characters  # of its messages, where they are nothing but texts (`plain_characters`)
        self.is_flat = is_flat  # besides such messages it has only settings that are a number, a word or a flag
        # ... and of an answer when it was read: what it says, where that is one text and nothing else.
        self.text: str | None = None

    @property
    def data(self) -> dict[str, Any]:
        """The value, yours to change in place; the bytes are made anew from it. Raises ValueError for bad JSON."""
        value = self.peek()
        self._opened = True
        self.came = self.characters = self.text = None
        self.is_flat = False
        return value

    def peek(self) -> dict[str, Any]:
        """The value for reading only: a change to it may or may not be sent. Raises ValueError for bad JSON."""
        if self._value is None:
            value = orjson.loads(self.came or b"")
            if not isinstance(value, dict):
                raise ValueError(f"expected a JSON object, found {type(value).__name__}")
            self._value = value
        return self._value

    @property
    def raw(self) -> bytes:
        """The bytes: those that came, or made from the value once it was opened. TypeError if it cannot be written."""
        raw = self.came
        if raw is None:
            raw = orjson.dumps(self._value)
            if not self._opened:
                self.came = raw
        return raw

    @property
    def is_opened(self) -> bool:
        """Whether somebody had the value in hand to change, so that the original bytes no longer count."""
        return self._opened

    def __repr__(self) -> str:
        state = "opened" if self._opened else "as it came"
        return f"<{type(self).__name__} {len(self.came) if self.came is not None else '?'} bytes, {state}>"


class Chunk(Document):
    """One `chat.completion.chunk`. `raw` is its JSON, without any framing."""

    __slots__ = ()

    def has_content(self) -> bool:
        """Whether it carries text, reasoning, a refusal, audio or a tool call: what commits a stream.

        Role frames, keep-alives, empty deltas and bare usage do not.
        """
        for choice in self.peek().get("choices") or ():
            delta = choice.get("delta") or {}
            for field in _CONTENT:
                if delta.get(field):
                    return True
        return False


class Chunks(Sequence[Chunk]):
    """Some chunks of a stream, of which those that are plain pieces of text are bytes until somebody looks at them.

    Made from bytes and chunks, in order. Bytes are the JSON of a chunk that carries text and neither a finish reason
    nor usage, so that whoever passes such on need not search them. Whoever takes a chunk out may change it: from then
    on all are chunks.
    """

    __slots__ = ("is_plain", "parts")

    def __init__(self, parts: list[bytes | Chunk], is_plain: bool = False) -> None:
        self.parts = parts  # to be read only
        self.is_plain = is_plain  # there are some, and every one is bytes

    def _chunks(self) -> list[Chunk]:
        chunks = [Chunk(part) if isinstance(part, bytes) else part for part in self.parts]
        self.parts = [*chunks]
        self.is_plain = False
        return chunks

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self._chunks())

    @overload
    def __getitem__(self, place: int) -> Chunk: ...
    @overload
    def __getitem__(self, place: slice) -> list[Chunk]: ...
    def __getitem__(self, place: int | slice) -> Chunk | list[Chunk]:
        return self._chunks()[place]


def parts_of(chunks: Sequence[Chunk]) -> Sequence[bytes | Chunk]:
    """The chunks as they are held, to be read only: those that are bytes are plain pieces of text (see `Chunks`)."""
    return chunks.parts if type(chunks) is Chunks else chunks


def raws(parts: Sequence[bytes | Chunk]) -> list[bytes]:
    """The bytes of each."""
    return [part if isinstance(part, bytes) else part.raw for part in parts]


class Completion(Document):
    """One whole `chat.completion`."""

    __slots__ = ()


_CONTENT = (
    "content",
    "tool_calls",
    "reasoning_content",
    "reasoning",
    "refusal",
    "reasoning_details",
    "function_call",
    "audio",
    "images",
)
