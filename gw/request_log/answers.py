"""The message that an answer said, put together from the raw chunks or the one raw completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from gw.document import Completion

_JOINED = ("content", "refusal", "reasoning_content", "reasoning")  # texts that arrive in pieces
_TRIES = 8  # how often a chunk is asked what those behind it may look like
_PLAIN = frozenset({"role", "content"})
_OF_DETAILS = frozenset({"text", "summary", "signature"})  # of `reasoning_details`, in pieces as well


def messages_of(raw: Sequence[bytes]) -> list[dict[str, Any]]:
    """The assistant's message of each choice, in the order of their indexes. What is no JSON is passed over."""
    messages: dict[int, dict[str, Any]] = {}
    try:
        _add_all(messages, raw)
    except ValueError:  # pieces that only look alike
        messages.clear()
        _add_each(messages, raw)
    return [_finished(messages[index]) for index in sorted(messages)]


class _Frame(NamedTuple):
    """What stands around the text in the chunks of one choice that hold a text and nothing else."""

    choice: int
    name: str  # the field of its delta
    before: bytes
    after: bytes


def _add_all(messages: dict[int, dict[str, Any]], raw: Sequence[bytes]) -> None:
    """Add chunks. Those that differ from the one before in their text only are not parsed: 0.2 us each, not 4.

    Raises ValueError where one only looked alike.
    """
    place = 0
    for _ in range(_TRIES):
        if place == len(raw):
            return
        _add_each(messages, raw[place : place + 1])
        frame = _frame(raw[place]) if place + 1 < len(raw) else None
        place += 1
        if frame is None:
            continue
        texts = _run(frame, raw, place)
        place += len(texts)
        text = orjson.loads(b'"' + b"".join(texts) + b'"')
        _add(messages.setdefault(frame.choice, {}), {frame.name: text})
    _add_each(messages, raw[place:])


def _run(frame: _Frame, raw: Sequence[bytes], start: int) -> list[bytes]:
    """The texts of all chunks from `start` on that have the same frame."""
    texts: list[bytes] = []
    size = len(raw) - start
    while size and start < len(raw):
        found = _texts(frame, raw[start : start + size])
        if found is None:
            size //= 2
        else:
            texts += found
            start += size
    return texts


def _texts(frame: _Frame, raw: Sequence[bytes]) -> list[bytes] | None:
    """What the frame leaves of each chunk; None where not all of them have it."""
    _, _, before, after = frame
    cut = slice(len(before), -len(after))
    texts = [chunk[cut] for chunk in raw]
    # All in one comparison. It cannot be right by chance: no chunk is longer than its text and the frame.
    if before + (after + before).join(texts) + after != b"".join(raw):
        return None
    return texts


def _frame(chunk: bytes) -> _Frame | None:
    """The frame that a chunk shows; None where it holds anything but one text."""
    try:
        (choice,) = orjson.loads(chunk)["choices"]
        index, delta = choice["index"], choice["delta"]
        (name,) = [name for name, value in delta.items() if value and name != "role"]
        text = orjson.dumps(delta[name])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    place = chunk.find(b'"%b":%b' % (name.encode(), text))
    if name not in _JOINED or type(index) is not int or text[:1] != b'"' or place < 0 or chunk.count(text) != 1:
        return None
    start = place + len(name) + 4
    return _Frame(index, name, chunk[:start], chunk[start + len(text) - 2 :])


def _add_each(messages: dict[int, dict[str, Any]], raw: Sequence[bytes]) -> None:
    for answer in _parsed(raw):
        if not isinstance(answer, dict):
            continue
        for choice in answer.get("choices") or ():
            if not isinstance(choice, dict):
                continue
            index = choice.get("index")
            message = messages.setdefault(index if isinstance(index, int) else 0, {})
            for part in (choice.get("message"), choice.get("delta")):
                if isinstance(part, dict):
                    _add(message, part)


def said_by(answer: Completion) -> str | None:
    """Its text, where it is one choice that says nothing else. What has been parsed need not live to be logged."""
    try:
        (choice,) = answer.peek()["choices"]
        message = choice["message"]
        content = message["content"]
        if type(content) is not str or "delta" in choice:
            return None
        for name, value in message.items():
            if value and name not in _PLAIN:
                return None
    except (TypeError, KeyError, ValueError, AttributeError):
        return None
    return content


def text_of(message: dict[str, Any]) -> str:
    """What the message says: its content, else its refusal."""
    for name in ("content", "refusal"):
        content = message.get(name)
        if isinstance(content, str) and content:
            return content
        if isinstance(content, list):
            return "".join(
                part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
            )
    return ""


def is_more_than_text(message: dict[str, Any]) -> bool:
    """Whether `text_of` loses something of it: tool calls, reasoning, a refusal, media."""
    return not isinstance(message.get("content"), str) or any(
        value for name, value in message.items() if name not in _PLAIN
    )


def _parsed(raw: Sequence[bytes]) -> list[Any]:
    try:
        parsed: list[Any] = orjson.loads(b"[" + b",".join(raw) + b"]")
        return parsed
    except ValueError:
        found = []
        for piece in raw:
            try:
                found.append(orjson.loads(piece))
            except ValueError:
                continue
        return found


def _add(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if value is None:
            message.setdefault(name, None)
        elif name == "tool_calls" and isinstance(value, list):
            calls = message.setdefault(name, {})
            for position, call in enumerate(value):
                if isinstance(call, dict):
                    index = call.get("index")
                    _merge(calls.setdefault(index if isinstance(index, int) else position, {}), call)
        elif name in _JOINED and isinstance(value, str) and isinstance(message.get(name), list):
            message[name].append(value)
        elif name in _JOINED and isinstance(value, str):
            message[name] = [value]
        elif isinstance(value, list) and isinstance(message.get(name), list):
            message[name] += value
        elif isinstance(value, dict) and isinstance(message.get(name), dict):
            _merge(message[name], value)
        else:
            message[name] = value


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    """Names and ids come once, arguments and the like in pieces."""
    for name, value in more.items():
        known = into.get(name)
        if isinstance(known, dict) and isinstance(value, dict):
            _merge(known, value)
        elif isinstance(known, str) and isinstance(value, str) and name in ("arguments", "input", "data", "transcript"):
            into[name] = known + value
        elif value is not None and (name != "name" or not known):
            into[name] = value


def _finished(message: dict[str, Any]) -> dict[str, Any]:
    done: dict[str, Any] = {"role": "assistant"}
    for name, value in message.items():
        if name == "tool_calls" and isinstance(value, dict):
            calls = [value[index] for index in sorted(value)]
            done[name] = [{key: item for key, item in call.items() if key != "index"} for call in calls]
        elif name == "reasoning_details" and isinstance(value, list):
            done[name] = _blocks(value)
        elif name in _JOINED and isinstance(value, list) and all(isinstance(piece, str) for piece in value):
            done[name] = "".join(value)
        else:
            done[name] = value
    return done


def _blocks(details: list[Any]) -> list[Any]:
    """Reasoning as its provider takes it back: the fragments of one block, which share its index, put together."""
    blocks: list[list[Any]] = []
    for detail in details:
        if blocks and _goes_on(blocks[-1][-1], detail):
            blocks[-1].append(detail)
        else:
            blocks.append([detail])
    return [block[0] if len(block) == 1 else _joined(block) for block in blocks]


def _goes_on(before: Any, detail: Any) -> bool:
    """Whether a detail is another piece of the same block. What is encrypted comes whole."""
    if not isinstance(before, dict) or not isinstance(detail, dict) or detail.get("type") == "reasoning.encrypted":
        return False
    if detail.get("index") is None or detail["index"] != before.get("index"):
        return False
    return all(detail.get(name) in (None, before.get(name)) or before.get(name) is None for name in ("type", "id"))


def _joined(fragments: list[dict[str, Any]]) -> dict[str, Any]:
    block = {name: value for one in fragments for name, value in one.items() if value is not None}
    for name in _OF_DETAILS & block.keys():
        block[name] = "".join(one[name] for one in fragments if isinstance(one.get(name), str))
    return block
