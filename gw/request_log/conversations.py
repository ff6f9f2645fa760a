"""Conversations read back from the request log: what a session has said so far, whose it is, and its end."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from gw.request_log import CannotWrite

Message = dict[str, Any]  # in OpenAI's shape

LISTED = 100  # sessions of one listing, the newest
# Of an answer, where it is more than a text.
_KEPT = ("role", "content", "tool_calls", "function_call", "refusal", "reasoning_details", "extra_content")
_SAME = ("role", "content", "tool_calls", "function_call", "tool_call_id", "name")  # a message's, whoever repeats it
# A turn that failed, or that nobody heard to its end, was never said.
_SAID = "operation = 'chat' AND state = 'done' AND error IS NULL AND status = 200 AND response IS NOT NULL"

_PAST = f"""
SELECT timestamp, prompt, response, metadata, backend, model, working_directory FROM requests
WHERE session_id = ? AND key_name = ? AND {_SAID} ORDER BY timestamp, rowid
"""  # noqa: S608 (a constant)
_LIST = f"""
SELECT session_id, MIN(timestamp), MAX(timestamp), COUNT(*), backend, (
  SELECT model FROM requests AS turns WHERE turns.session_id = requests.session_id AND model IS NOT NULL AND {_SAID}
  ORDER BY timestamp DESC LIMIT 1
) FROM requests
WHERE timestamp >= ? AND session_id IS NOT NULL AND key_name = ? AND {_SAID}
GROUP BY session_id ORDER BY MAX(timestamp) DESC LIMIT {LISTED}
"""  # noqa: S608 (a constant)
_EXISTS = f"SELECT 1 FROM requests WHERE session_id = ? AND key_name = ? AND {_SAID} LIMIT 1"  # noqa: S608 (a constant)
_FORGET = """
UPDATE requests SET session_id = NULL, prompt = '', response = NULL, metadata = NULL
WHERE session_id = ? AND key_name = ?
"""


class Past(NamedTuple):
    """A session as it stands: its messages in OpenAI's shape, and where it was answered last."""

    messages: list[dict[str, Any]]
    backend: str
    model: str | None  # the last one that the client named
    working_directory: str | None
    updated: int  # Unix milliseconds

    def is_within(self, messages: Sequence[Message]) -> bool:
        """Whether a client's messages begin with all that was said."""
        return _begin_with(messages, self.messages)


class Listed(NamedTuple):
    """One session of a listing. Times are Unix milliseconds."""

    id: str
    created: int
    updated: int
    turns: int
    backend: str | None
    model: str | None


class Conversations:
    """Reads the log's file `path`; every call opens it anew and is made in a thread. Raises CannotWrite, in words."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def past(self, session_id: str, key: str) -> Past | None:
        """What a session of this key has said; None where there is none, or what it said was not kept."""
        with self._opened("ro") as database:
            rows = database.execute(_PAST, (session_id, key)).fetchall()
        messages: list[dict[str, Any]] = []
        model = folder = None
        for _, prompt, response, metadata, _, named, directory in rows:
            asked, said = _turn(prompt, response, metadata)
            if asked is None or said is None:
                return None
            # A client that sends everything again has said it once.
            messages = asked if _begin_with(asked, messages) else [*messages, *asked]
            messages.append(said)
            model, folder = named or model, directory or folder
        return Past(messages, rows[-1][4], model, folder, rows[-1][0]) if rows else None

    def listed(self, key: str, since: float) -> list[Listed]:
        """The sessions of this key that went on after `since` (Unix ms), the newest first."""
        with self._opened("ro") as database:
            return [Listed(*row) for row in database.execute(_LIST, (since, key))]

    def forget(self, session_id: str, key: str) -> bool:
        """Delete what a session said; its rows stay, for what they cost. Whether there was one."""
        with self._opened("rw") as database, database:
            if database.execute(_EXISTS, (session_id, key)).fetchone() is None:
                return False
            return database.execute(_FORGET, (session_id, key)).rowcount > 0

    @contextmanager
    def _opened(self, mode: str) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode={mode}", uri=True)) as database:
                yield database
        except sqlite3.Error as error:
            raise CannotWrite(f"the request log {self.path} cannot be used: {error}") from error


def _turn(prompt: str, response: str, metadata: str | None) -> tuple[list[Message] | None, Message | None]:
    """What was asked and what was answered; None for what cannot be known any more."""
    try:
        asked = orjson.loads(prompt)
        more = orjson.loads(metadata or "{}")
    except orjson.JSONDecodeError:
        return None, None
    if not isinstance(asked, list) or more.get("truncated"):
        return None, None
    whole = more.get("message") or next(iter(more.get("messages") or ()), None)
    said = _said(whole) if isinstance(whole, dict) else {"role": "assistant", "content": response}
    return [_readable(message) for message in asked], said


def _said(answer: Message) -> Message:
    """An answer as the turn that goes back: what every backend can be told of it."""
    said = _readable({name: answer[name] for name in _KEPT if answer.get(name) is not None})
    has_calls = bool(said.get("tool_calls") or said.get("function_call"))
    if has_calls and answer.get("reasoning_content"):  # DeepSeek and Kimi want it back there, and nowhere else
        said["reasoning_content"] = answer["reasoning_content"]
    content = said.get("content")
    if content is None or isinstance(content, str):
        texts = [content, _transcript(answer.get("audio")), *_images(said, answer.get("images"))]
        is_silent = has_calls and not any(text is not None for text in texts)
        said["content"] = None if is_silent else "\n\n".join(filter(None, texts))  # null is refused without calls
    return said


def _transcript(audio: Any) -> str | None:
    """What was spoken: who spoke it knows the sound itself for an hour only, and nobody else does."""
    transcript = audio.get("transcript") if isinstance(audio, dict) else None
    return transcript if isinstance(transcript, str) else None


def _images(said: Message, images: Any) -> Iterator[str]:
    """Words for the images that the log has not kept; those at an address go back as they are."""
    for image in images if isinstance(images, list) else ():
        instead = _without_media(image)
        if instead is image:
            said.setdefault("images", []).append(image)
        else:
            yield instead["text"]


def _begin_with(messages: Sequence[Message], past: Sequence[Message]) -> bool:
    """Whether they say all of the past again, with or without what was only beside it."""
    return len(messages) >= len(past) and all(map(_is_same, messages, past))


def _is_same(message: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all((message.get(name) or None) == (other.get(name) or None) for name in _SAME)


def _readable(message: dict[str, Any]) -> dict[str, Any]:
    """A message without media that the log has not kept: their place is told in words."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": [_without_media(part) for part in content]}


def _without_media(part: Any) -> Any:
    label = _find(part, lambda text: text.startswith("data:") and ";elided;" in text)
    if label is None:
        return part
    kind, _, size = label[5:].partition(";elided;")
    return {"type": "text", "text": f"[{kind or 'a file'}, {size.partition(';')[0]}, sent earlier and not kept]"}


def _find(value: Any, is_it: Callable[[str], bool]) -> str | None:
    if isinstance(value, str):
        return value if is_it(value) else None
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for item in values if (found := _find(item, is_it)) is not None), None)
