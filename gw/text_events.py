"""The short way through a stream: an event that differs from the last one only in its text is not decoded at all.

Nearly all events of a stream are the same bytes around another piece of text. An adapter takes one of them apart, and
the chunk that it became; `Template` recognises the next ones by those very bytes and writes their text into that chunk.
Exact or not at all: everything outside the text must be equal, and the text must be one valid JSON string.
"""

from __future__ import annotations

import re
from operator import itemgetter

import orjson

from gw.document import Run

# A JSON string's content up to and with its closing quote: no control characters, no lone surrogates.
_STRING = re.compile(rb'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}))*+"').match
# The same without the quote, for texts that are joined by line feeds, which no string may hold.
_TEXTS = re.compile(rb'(?:[^"\\\x00-\x09\x0b-\x1f]++|\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}))*+').fullmatch
MARK = "gw-text-2b1f9c"  # stands where the text goes; plain ASCII, so that JSON leaves it as it is
_QUOTE, _BACKSLASH = 0x22, 0x5C  # as numbers: `in` with a number is several times faster than with bytes
PADDING = b'"obfuscation":"'  # OpenAI pads each chunk to hide its length: the one other part that varies
_WINDOW = 16 * 1024  # bytes that are told apart at once: of streams whose events do not look alike, little is in vain
_NEEDLE = 32  # bytes by which events are told apart; CPython prepares anew for each hit of a needle above 100


class Template:
    """The bytes around the text of one kind of event, as they come and as its chunk goes out.

    `head` and `tail` are the event's, from its first byte and with the blank line, but without the text's quote at its
    end. `takes_escapes`: a text's escapes may go out as they came; else only texts without any are taken.
    """

    __slots__ = (
        "_behind_needle",
        "_between",
        "_event",
        "_frame",
        "_given",
        "_head",
        "_last",
        "_needle",
        "_out",
        "_out_rest",
        "_padded",
        "_quoted",
        "_rest",
        "_size",
        "_tail",
        "_takes_escapes",
        "characters",
        "end",
        "key",
    )

    def __init__(
        self, head: bytes, tail: bytes, out: list[bytes], *, key: str = "", takes_escapes: bool = True
    ) -> None:
        self.key = key
        self._takes_escapes = takes_escapes
        self.characters = 0  # of the text that was written last
        self.end = 0  # where the event ended that was read last
        self._head = head
        self._size = len(self._head)
        self._tail = tail
        self._rest = self._out_rest = b""  # behind the padding
        self._out = self._frame = tuple(out)  # joined by the text, which has no quotes of its own
        self._padded = PADDING in tail
        if self._padded:
            self._tail, self._rest = _around_padding(self._tail)
            before, self._out_rest = _around_padding(out[-1])
            self._out = (*out[:-1], before)
            self._frame = (*out[:-1], before + self._out_rest)  # what is left without it
        self._last = self._rest or b'"' + self._tail  # how every event ends
        self._between = self._last + self._head
        self._needle = self._between[:_NEEDLE]
        self._behind_needle = itemgetter(slice(len(self._between) - len(self._needle), None))
        self._event = [self._head, self._last]
        self._given = slice(self._size, -len(self._last))  # where the text is in an event
        self._quoted = slice(self._size - 1, 1 - len(self._last))  # and with its quotes

    def take_run(self, data: bytes, start: int) -> Run | None:
        """The repaired chunks of all events from `start` on that are like the learnt one; None where the first is not.

        They are told apart by one split, and checked together. `end` and `characters` tell of all of them afterwards.
        """
        if not data.startswith(self._head, start):
            return None
        if self._padded:
            return self._padded_run(data, start, len(data))
        return self._run(data, start + self._size) or self._single(data, start)

    def take_one(self, data: bytes) -> Run | None:
        """The repaired chunk for `data`, if that is one event like the learnt one without any escapes; None else.

        `characters` tells of it afterwards.
        """
        if self._padded:
            run = self._padded_run(data, 0, 1)
            return run if self.end == len(data) else None
        text = data[self._given]
        if _QUOTE in text or _BACKSLASH in text or text.join(self._event) != data:  # a quote: there are several events
            return None
        try:
            self.characters = len(orjson.loads(data[self._quoted]))
        except ValueError:
            return None
        return Run(self._frame, [text])

    def _run(self, data: bytes, begin: int) -> Run | None:
        """All events from the one on whose text begins at `begin`; None where that has to be looked at by itself."""
        texts = data[begin : begin + _WINDOW].split(self._needle)
        texts[1:] = map(self._behind_needle, texts[1:])
        text, found, _ = texts.pop().partition(self._last)
        if found:
            texts.append(text)
        whole = self._between.join(texts) + self._last
        if not texts or not data.startswith(whole, begin):
            return None
        self.end = begin + len(whole)
        self.characters = self._count(texts)
        return None if self.characters < 0 else Run(self._frame, texts)

    def _single(self, data: bytes, start: int) -> Run | None:
        text = self._text(data, start)
        return None if text is None else Run(self._frame, [text])

    def _padded_run(self, data: bytes, start: int, most: int) -> Run | None:
        """Up to `most` events, each with a padding of its own."""
        texts: list[bytes] = []
        raws: list[bytes] = []
        characters = 0
        while len(texts) < most and (text := self._text(data, start)) is not None:
            begin, stop = self.end, data.find(b'"', self.end)
            padding = data[begin:stop]
            if not data.startswith(self._rest, stop) or not padding.isalnum():
                break
            start = stop + len(self._rest)
            texts.append(text)
            raws.append(b"".join((text.join(self._out), padding, self._out_rest)))
            characters += self.characters
        self.end, self.characters = start, characters
        return Run(self._frame, texts, raws) if texts else None

    def _text(self, data: bytes, start: int) -> bytes | None:
        """The text of the event at `start`, if that is like the learnt one up to its padding; `end` is there then."""
        if not data.startswith(self._head, start):
            return None
        begin = start + self._size
        found = _STRING(data, begin)
        if found is None:
            return None
        end = found.end()
        text = data[begin : end - 1]
        if (_BACKSLASH in text and not self._takes_escapes) or not data.startswith(self._tail, end):
            return None
        try:
            self.characters = len(text.decode())
        except UnicodeDecodeError:
            return None
        self.end = end + len(self._tail)
        return text

    def _count(self, texts: list[bytes]) -> int:
        """How many characters these contents of JSON strings have together; -1 where one is not valid."""
        joined = b" ".join(texts)
        if _BACKSLASH in joined:
            if not self._takes_escapes:
                return -1
            lines = b"\n".join(texts)
            if _TEXTS(lines) is None or lines.count(b"\n") != len(texts) - 1:
                return -1
        try:
            # Without escapes orjson is the judge, for less than the expression's price.
            text: str = joined.decode() if _BACKSLASH in joined else orjson.loads(b'"' + joined + b'"')
        except ValueError:
            return -1
        return len(text) - len(texts) + 1


def cut(raw: bytes, key: str, text: str) -> tuple[bytes, bytes] | None:
    """What stands before the text (with its opening quote) and behind it (without its closing one)."""
    name = b'"' + key.encode() + b'":'
    start = raw.find(name)
    if start < 0 or raw.find(name, start + 1) >= 0:
        return None
    start += len(name)
    while raw[start : start + 1] == b" ":
        start += 1
    found = _STRING(raw, start + 1)
    if raw[start : start + 1] != b'"' or found is None or orjson.loads(raw[start : found.end()]) != text:
        return None
    return raw[: start + 1], raw[found.end() :]


def _around_padding(tail: bytes) -> tuple[bytes, bytes]:
    start = tail.index(PADDING) + len(PADDING)
    return tail[:start], tail[tail.index(b'"', start) :]
