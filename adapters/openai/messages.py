"""The messages of a chat request as a dialect of OpenAI takes them: roles, reasoning, ids, media, names of fields."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from gw.adapters.openai.dialects import MISTRAL_FORMAT, Dialect
from gw.errors import InvalidRequest
from gw.message import Loss

_REASONING = frozenset({"reasoning_content", "reasoning", "reasoning_details", "thinking_blocks"})
# What only some providers' answers carry, kept back from those that are not known to take every field as it came.
_FOREIGN = frozenset({"extra_content", "images"})
_NO_NULL = ("content", "tool_calls", "function_call", "refusal", "audio")  # one of them a host has to be given


class MessageRepairs:
    """What one dialect's row demands of messages. The client's own are never changed."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._repairs = _message_repairs(dialect)
        self._triggers = _triggers(dialect)
        self._heeds_results = dialect.answers_results or not dialect.tool_images

    def of(self, messages: Any, losses: list[Loss]) -> list[Any] | None:
        """The messages as this dialect takes them; None where they can stay as they are."""
        if not isinstance(messages, list):
            return None
        triggers, developer, remote_images = self._triggers, self._dialect.developer, self._dialect.remote_images
        changed: list[Any] | None = None
        has_results = False
        for index, message in enumerate(messages):
            role = message.get("role")
            if role == "tool":
                has_results = True
            if (
                triggers.isdisjoint(message)
                and (developer or role != "developer")
                and (remote_images or not isinstance(message.get("content"), list))
            ):
                continue  # nearly all messages, and the repairs cost more than this
            new = self._repaired(message, f"/messages/{index}", losses)
            if new is not message:
                if changed is None:
                    changed = list(messages)
                changed[index] = new
        if has_results and self._heeds_results:
            if self._dialect.answers_results:
                changed = _with_results_answered(changed or messages, losses) or changed
            if not self._dialect.tool_images:
                changed = _with_tool_images_moved(changed or messages, losses) or changed
        return changed

    def _repaired(self, message: dict[str, Any], place: str, losses: list[Loss]) -> dict[str, Any]:
        given = message
        for repair in self._repairs:
            message = repair(message, place, losses)
        if message is not given and message.get("role") == "assistant" and not any(map(message.get, _NO_NULL)):
            message = {**message, "content": ""}  # what stood instead of it has gone
        return message


_Repair = Callable[[dict[str, Any], str, list[Loss]], dict[str, Any]]


def _triggers(dialect: Dialect) -> frozenset[str]:
    """The fields of a message without which none of its repairs has anything to do, roles and images apart."""
    if dialect.reasoning == "as it came":
        return dialect.message_drop
    ids = {"tool_call_id"} if dialect.short_ids else frozenset()
    return dialect.message_drop | _REASONING | _FOREIGN | {"tool_calls"} | ids


def _message_repairs(dialect: Dialect) -> Sequence[_Repair]:
    repairs: list[_Repair] = []
    if not dialect.developer:
        repairs.append(_developer_as_system)
    dropped = dialect.message_drop if dialect.reasoning == "as it came" else dialect.message_drop | _FOREIGN
    if dropped:
        repairs.append(_dropper(dropped, dialect.name))
    if dialect.reasoning != "as it came":
        repairs += (_reasoning_for(dialect), _with_bare_calls(dialect.name))
    if dialect.short_ids:
        repairs.append(_with_short_ids)
    if not dialect.remote_images:
        repairs.append(_refuse_remote_images)
    return repairs


def _developer_as_system(message: dict[str, Any], place: str, losses: list[Loss]) -> dict[str, Any]:
    if message.get("role") != "developer":
        return message
    losses.append(Loss(f"{place}/role", "changed", "developer is OpenAI's word: sent as system"))
    return {**message, "role": "system"}


def _dropper(fields: frozenset[str], dialect: str) -> _Repair:
    def drop(message: dict[str, Any], place: str, losses: list[Loss]) -> dict[str, Any]:
        if fields.isdisjoint(message):
            return message
        for name in sorted(fields & message.keys()):
            if message[name] is not None:
                losses.append(Loss(f"{place}/{name}", "dropped", f"{dialect} does not take it"))
        return {name: value for name, value in message.items() if name not in fields}

    return drop


def _reasoning_for(dialect: Dialect) -> _Repair:
    def carry(message: dict[str, Any], place: str, losses: list[Loss]) -> dict[str, Any]:
        if _REASONING.isdisjoint(message):
            return message
        text = message.get("reasoning_content") or message.get("reasoning")
        if dialect.reasoning in message and len(_REASONING & message.keys()) == 1:
            return message
        new = {name: value for name, value in message.items() if name not in _REASONING}
        lost = _REASONING & message.keys()
        if dialect.reasoning == "thinking parts" and (parts := _signed_parts(message, text)):
            new["content"] = [*parts, *_as_parts(message)]
            lost = frozenset()
        elif dialect.reasoning != "dropped" and isinstance(text, str) and text:
            lost = frozenset(name for name in ("reasoning_details", "thinking_blocks") if _is_signed(message.get(name)))
            if dialect.reasoning == "thinking parts":
                new["content"] = [_thinking_part(text), *_as_parts(message)]
            else:
                new[dialect.reasoning] = text
        losses.extend(
            Loss(f"{place}/{name}", "dropped", f"{dialect.name} does not take it back")
            for name in sorted(lost)
            if message[name]
        )
        return new

    return carry


def _signed_parts(message: Mapping[str, Any], text: Any) -> list[dict[str, Any]]:
    """Mistral's thinking as it signed it; [] where that is not to be had, or whose thoughts are whose is not known."""
    details = message.get("reasoning_details")
    signed = [
        detail
        for detail in (details if isinstance(details, list) else ())
        if isinstance(detail, dict) and detail.get("format") == MISTRAL_FORMAT and detail.get("signature")
    ]
    thoughts = [detail.get("text") or "" for detail in signed]
    if len(signed) == 1 and isinstance(text, str) and text:  # a stream signs behind what it has thought
        thoughts = [text]
    if not all(thoughts) or (text and "".join(thoughts) != text):
        return []
    return [
        _thinking_part(thought) | {"signature": detail["signature"]}
        for thought, detail in zip(thoughts, signed, strict=True)
    ]


def _thinking_part(text: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}


def _is_signed(blocks: Any) -> bool:
    """Whether there is more to them than the text, which goes another way."""
    return isinstance(blocks, list) and any(
        isinstance(block, dict) and (block.get("signature") or block.get("data")) for block in blocks
    )


def _with_bare_calls(dialect: str) -> _Repair:
    def strip(message: dict[str, Any], place: str, losses: list[Loss]) -> dict[str, Any]:
        calls = message.get("tool_calls")
        if not calls or not any("extra_content" in call for call in calls):
            return message
        losses.extend(
            Loss(f"{place}/tool_calls/{at}/extra_content", "dropped", f"{dialect} does not take it")
            for at, call in enumerate(calls)
            if call.get("extra_content")
        )
        bare = [{name: value for name, value in call.items() if name != "extra_content"} for call in calls]
        return {**message, "tool_calls": bare}

    return strip


def _as_parts(message: Mapping[str, Any]) -> list[Any]:
    content = message.get("content")
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []


def _with_short_ids(message: dict[str, Any], place: str, losses: list[Loss]) -> dict[str, Any]:
    # No loss: an id is only there to be the same in the call and in its result.
    calls, answered = message.get("tool_calls"), message.get("tool_call_id")
    if isinstance(calls, list) and any(not _SHORT_ID.fullmatch(str(call.get("id"))) for call in calls):
        return {**message, "tool_calls": [{**call, "id": short_id(str(call.get("id")))} for call in calls]}
    if isinstance(answered, str) and not _SHORT_ID.fullmatch(answered):
        return {**message, "tool_call_id": short_id(answered)}
    return message


_SHORT_ID = re.compile(r"[a-zA-Z0-9]{9}")
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@lru_cache(4096)  # each id stands twice in a request, and again in every later turn
def short_id(call_id: str) -> str:
    """A tool call id of nine letters and digits; the same for the same id, in every turn."""
    if _SHORT_ID.fullmatch(call_id):
        return call_id
    number = int.from_bytes(hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).digest()[:8])
    letters = []
    for _ in range(9):
        number, rest = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[rest])
    return "".join(letters)


def _refuse_remote_images(message: dict[str, Any], place: str, losses: list[Loss]) -> dict[str, Any]:
    content = message.get("content")
    for index, part in enumerate(content if isinstance(content, list) else ()):
        image = part.get("image_url") if isinstance(part, dict) else None
        url = image.get("url") if isinstance(image, dict) else image
        if isinstance(url, str) and not url.startswith("data:"):
            raise InvalidRequest(
                "this backend does not fetch images: send the image as a data URI",
                param=f"messages[{place.rpartition('/')[2]}].content[{index}].image_url.url",
                code="unsupported_parameter",
            )
    return message


def _with_results_answered(messages: Sequence[Any], losses: list[Loss]) -> list[Any] | None:
    """An assistant's turn between each tool's result and the user that follows it; None where none is missing."""
    answered: list[Any] = []
    for index, message in enumerate(messages):
        if message.get("role") == "user" and index and messages[index - 1].get("role") == "tool":
            answered.append({"role": "assistant", "content": "OK"})
            losses.append(Loss(f"/messages/{index}", "changed", "an assistant's OK is put before it"))
        answered.append(message)
    return answered if len(answered) > len(messages) else None


def _with_tool_images_moved(messages: Sequence[Any], losses: list[Loss]) -> list[Any] | None:
    """Images out of tools' results and into a user message behind the run of results; None where there are none."""
    if not any(message.get("role") == "tool" and isinstance(message.get("content"), list) for message in messages):
        return None
    moved: list[Any] = []
    waiting: list[Any] = []
    found = False
    for index, message in enumerate(messages):
        content = message.get("content")
        if message.get("role") != "tool":
            if waiting:
                moved.append({"role": "user", "content": waiting})
                waiting = []
        elif isinstance(content, list) and any(part.get("type") != "text" for part in content):
            found = True
            waiting += [part for part in content if part.get("type") != "text"]
            texts = [part for part in content if part.get("type") == "text"]
            message = {**message, "content": texts or "The result follows in the next message of the user."}
            losses.append(Loss(f"/messages/{index}/content", "changed", "media moved to a user message"))
        moved.append(message)
    if waiting:
        moved.append({"role": "user", "content": waiting})
    return moved if found else None
