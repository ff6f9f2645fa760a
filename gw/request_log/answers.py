"""The message that an answer said, put together from the raw chunks or the one raw completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

_JOINED = ("content", "refusal", "reasoning_content", "reasoning")  # texts that arrive in pieces
_PLAIN = frozenset({"role", "content"})


def messages_of(raw: Sequence[bytes]) -> list[dict[str, Any]]:
    """The assistant's message of each choice, in the order of their indexes. What is no JSON is passed over."""
    messages: dict[int, dict[str, Any]] = {}
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
    return [_finished(messages[index]) for index in sorted(messages)]


def only_text(answer: Any) -> str | None:
    """What a whole answer says, where it is one choice that says nothing else; else None."""
    try:
        (choice,) = answer["choices"]
        message = choice["message"]
        content = message["content"]
        if type(content) is not str or "delta" in choice:
            return None
        for name in message:
            if name not in _PLAIN and message[name]:
                return None
    except (TypeError, KeyError, ValueError):
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
        elif isinstance(known, str) and isinstance(value, str) and name in ("arguments", "data", "transcript"):
            into[name] = known + value
        elif value is not None and (name != "name" or not known):
            into[name] = value


def _finished(message: dict[str, Any]) -> dict[str, Any]:
    done: dict[str, Any] = {"role": "assistant"}
    for name, value in message.items():
        if name == "tool_calls" and isinstance(value, dict):
            calls = [value[index] for index in sorted(value)]
            done[name] = [{key: item for key, item in call.items() if key != "index"} for call in calls]
        elif name in _JOINED and isinstance(value, list) and all(isinstance(piece, str) for piece in value):
            done[name] = "".join(value)
        else:
            done[name] = value
    return done
