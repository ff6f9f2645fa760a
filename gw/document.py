"""A JSON body that stays the bytes it came as until somebody opens it.

This is what makes "same dialect, same bytes" safe with anybody's middleware: reading through `peek` leaves the bytes
as they are; whoever opens `data` may change it in place, and from then on the bytes are made from the value. Nobody
has to declare anything, and who never looks never pays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
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


Frame = tuple[bytes, ...]  # what stands around the text in chunks that are alike


class _Unopened(Sequence[Chunk]):
    """Chunks that are made when somebody takes one out."""

    __slots__ = ()

    def chunks(self) -> list[Chunk]:
        """The chunks, to be changed: from then on they are what is held."""
        raise NotImplementedError

    @overload
    def __getitem__(self, place: int) -> Chunk: ...
    @overload
    def __getitem__(self, place: slice) -> list[Chunk]: ...
    def __getitem__(self, place: int | slice) -> Chunk | list[Chunk]:
        return self.chunks()[place]

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self.chunks())


class Run(_Unopened):
    """Plain pieces of text that came one after the other, as bytes until somebody looks at one.

    They carry neither a finish reason nor usage, so that whoever passes them on need not search them. The JSON of each
    is `text.join(frame)`, for its text out of `texts` as JSON writes it, without the quotes; where each has a padding
    besides, it is in `padded`. Whoever takes a chunk out may change it: from then on they are `opened`.
    """

    __slots__ = ("frame", "opened", "padded", "texts")

    def __init__(self, frame: Frame, texts: list[bytes], padded: list[bytes] | None = None) -> None:
        self.frame = frame
        self.texts = texts  # to be read only, as is `padded`
        self.padded = padded
        self.opened: list[Chunk] | None = None

    @property
    def raws(self) -> list[bytes]:
        """The bytes of each, before they are opened."""
        return self.padded or list(map(bytes.join, self.texts, repeat(self.frame)))

    def chunks(self) -> list[Chunk]:
        if self.opened is None:
            self.opened = [Chunk(raw) for raw in self.raws]
        return self.opened

    def __len__(self) -> int:
        return len(self.texts)


class Chunks(_Unopened):
    """Some chunks of a stream, in order, of which plain pieces of text are runs until somebody takes a chunk out."""

    __slots__ = ("parts",)

    def __init__(self, parts: Iterable[Run | Chunk] = ()) -> None:
        self.parts: list[Run | Chunk] = [*parts]  # to be read only

    def add(self, chunks: Iterable[Chunk]) -> None:
        """Add to the end."""
        self.parts += chunks

    def add_run(self, run: Run) -> None:
        """Add plain pieces of text to the end."""
        last = self.parts[-1] if self.parts else None
        if isinstance(last, Run) and last.frame is run.frame and run.padded is None:
            last.texts += run.texts
        else:
            self.parts.append(run)

    def chunks(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        for part in self.parts:
            if isinstance(part, Run):
                chunks += part.chunks()
            else:
                chunks.append(part)
        self.parts = [*chunks]
        return chunks

    def __len__(self) -> int:
        return sum(len(part) if isinstance(part, Run) else 1 for part in self.parts)

    def __bool__(self) -> bool:
        return bool(self.parts)


def parts_of(chunks: Sequence[Chunk]) -> Sequence[Run | Chunk]:
    """The chunks as they are held, to be read only: plain pieces of text that nobody has looked at are runs."""
    if type(chunks) is Chunks:
        return chunks.parts
    if type(chunks) is Run:
        return chunks.opened or (chunks,)
    return chunks


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
