"""A conversation in OpenAI's messages as Gemini's `systemInstruction` and `contents`.

The same messages always give the same bytes, and one more turn only adds to them: prompt caches live on that.
https://ai.google.dev/api/caching#Content
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from gw.adapters.gemini.draft import Draft
from gw.adapters.gemini.media import media_part
from gw.adapters.gemini.signatures import SKIP, UNSIGNED, Mark, Signed, read_signed
from gw.chat_parts import CACHE_MARKS, arguments_of, check_tool_results, parts_of, refusal, text_of

Part = dict[str, Any]
Content = dict[str, Any]
Placed = tuple[int, int, Part]  # where in the text a part stands: start, end

_SYSTEM = ("system", "developer")
# What a message may hold without loss: what is translated, and what an earlier answer brought for the reader only.
_KNOWN = frozenset(
    {"role", "content", "tool_calls", "tool_call_id", "refusal", "is_error", "images", "annotations", "extra_content"}
    | {"reasoning_details", "reasoning_content", "reasoning", "provider_specific_fields"}
)


_BARE = frozenset({"role", "content", "tool_calls"})


def encode_messages(messages: Sequence[Mapping[str, Any]], draft: Draft) -> tuple[list[Part], list[Content]]:
    """The parts of the system instruction and the contents.

    Raises InvalidRequest for a tool call without a result, a result without a call, and what Gemini cannot read.
    """
    check_tool_results(messages, draft.provider)
    system: list[Part] = []
    contents: list[Content] = []
    calls: list[tuple[str, str]] = []  # id and name of the calls of the last assistant turn
    results: dict[str, tuple[Mapping[str, Any], int]] = {}
    last = len(messages) - 1
    for index, message in enumerate(messages):
        role = message.get("role")
        if not message.keys() <= _KNOWN:
            _tell_unknown(message, index, draft)
        if role == "tool":
            _collect_result(message, index, results, draft)
            if index == last or messages[index + 1].get("role") != "tool":
                _append(contents, "user", _result_parts(calls, results, draft))
                results = {}
        elif role == "assistant":
            calls = []
            _append(contents, "model", _assistant_parts(message, index, calls, draft))
        elif role == "user":
            parts = _user_parts(message, index, draft)
            if not parts:
                what = f"this message is empty, and {draft.provider} takes no empty ones"
                raise refusal(f"/messages/{index}/content", what)
            _append(contents, "user", parts)
        elif role in _SYSTEM:
            text = _system_texts(message, index, draft)
            if contents:
                _append(contents, "user", [{"text": f"<system>{one}</system>"} for one in text])
                draft.change(f"/messages/{index}", "sent as a user text in <system>")
            else:
                system += [{"text": one} for one in text]
        else:
            raise refusal(f"/messages/{index}/role", f"{draft.provider} knows no role {role!r}")
    if not contents:
        raise refusal("/messages", f"{draft.provider} needs at least one user message beside system messages")
    return system, contents


def _append(contents: list[Content], role: str, parts: list[Part]) -> None:
    if not parts:
        return
    if contents and contents[-1]["role"] == role:
        contents[-1]["parts"] += parts
    else:
        contents.append({"role": role, "parts": parts})


def _tell_unknown(message: Mapping[str, Any], index: int, draft: Draft) -> None:
    for name, value in message.items():
        if name not in _KNOWN and value:
            draft.drop(f"/messages/{index}/{name}", f"{draft.provider} has no place for it")


def _system_texts(message: Mapping[str, Any], index: int, draft: Draft) -> list[str]:
    content = message.get("content")
    if isinstance(content, str):
        return [content] if content else []
    texts = []
    pointer = f"/messages/{index}/content"
    for at, part in enumerate(parts_of(content, pointer)):
        if part.get("type") != "text":
            raise refusal(f"{pointer}/{at}/type", "a system message holds text only")
        _tell_marks(part, f"{pointer}/{at}", draft)
        if part.get("text"):
            texts.append(part["text"])
    return texts


def _tell_marks(part: Mapping[str, Any], pointer: str, draft: Draft) -> None:
    for name in CACHE_MARKS:
        if part.get(name):
            draft.drop(f"{pointer}/{name}", f"{draft.provider} caches by itself")


def _user_parts(message: Mapping[str, Any], index: int, draft: Draft) -> list[Part]:
    content = message.get("content")
    if isinstance(content, str):
        return [{"text": content}] if content else []
    parts = []
    pointer = f"/messages/{index}/content"
    for at, part in enumerate(parts_of(content, pointer)):
        place = f"{pointer}/{at}"
        if len(part) > 2:
            _tell_marks(part, place, draft)
        if part.get("type") == "text":
            if part.get("text"):
                parts.append({"text": part["text"]})
        else:
            parts.append(media_part(part, place, draft))
    return parts


# --- assistant turns --------------------------------------------------------------------------------------------------


def _assistant_parts(message: Mapping[str, Any], index: int, calls: list[tuple[str, str]], draft: Draft) -> list[Part]:
    content = message.get("content")
    text, placed = _assistant_content(content, index, draft) if isinstance(content, list) else (content or "", [])
    if message.keys() <= _BARE:  # most turns
        parts = _parts_between(text, placed)
        if message.get("tool_calls"):
            parts += _call_parts(message["tool_calls"], index, UNSIGNED, calls, draft)
    else:
        parts = _signed_parts(message, text, placed, index, calls, draft)
    if not parts:
        draft.drop(f"/messages/{index}", f"an empty turn, which {draft.provider} does not take")
    return parts


def _assistant_content(content: list[Any], index: int, draft: Draft) -> tuple[str, list[Placed]]:
    """The text, and what stands inside it."""
    text, placed = "", []
    pointer = f"/messages/{index}/content"
    for at, part in enumerate(parts_of(content, pointer)):
        place = f"{pointer}/{at}"
        if len(part) > 2:
            _tell_marks(part, place, draft)
        kind = part.get("type")
        if kind in ("text", "refusal"):
            text += part.get(kind) or ""
        elif kind in ("thinking", "redacted_thinking"):
            draft.drop(place, f"{draft.provider} takes no thoughts but its own")
        else:
            placed.append((len(text), len(text), media_part(part, place, draft)))
    return text, placed


def _parts_between(text: str, placed: list[Placed]) -> list[Part]:
    """The text as parts, cut where others stand; those for a piece of it get it."""
    if not placed:
        return [{"text": text}] if text else []
    parts: list[Part] = []
    at = 0
    for start, end, part in sorted(placed, key=lambda one: one[0]):
        if at < start and at < len(text):
            parts.append({"text": text[at:start]})
            at = start
        if "text" in part:
            part["text"] = text[at:end]
            at = max(at, end)
        parts.append(part)
    if at < len(text):
        parts.append({"text": text[at:]})
    return parts


def _signed_parts(
    message: Mapping[str, Any],
    text: str,
    placed: list[Placed],
    index: int,
    calls: list[tuple[str, str]],
    draft: Draft,
) -> list[Part]:
    signed = read_signed(message, f"/messages/{index}", draft)
    parts: list[Part] = [{"text": words, "thought": True, "thoughtSignature": mark} for words, mark in signed.thoughts]
    images = [
        media_part({**image, "type": "image_url"}, f"/messages/{index}/images/{at}", draft)
        for at, image in enumerate(message.get("images") or ())
    ]
    behind: list[Part] = []  # where there is no text, a signature of none stands behind the calls
    shown, is_lost = 0, False
    for mark in signed.marks if signed.text is None else (*signed.marks, Mark(0, len(text), None, signed.text)):
        if mark.image is not None:
            if mark.image < len(images):
                images[mark.image]["thoughtSignature"] = mark.signature
                placed += [(mark.start, mark.end, image) for image in images[shown : mark.image + 1]]
                shown = mark.image + 1
            else:
                is_lost = True
        elif mark.start < mark.end and mark.start >= len(text):
            is_lost = True
        else:
            part = {"text": "", "thoughtSignature": mark.signature}
            if text:
                placed.append((mark.start, mark.end, part))
            else:
                behind.append(part)
    if is_lost:
        draft.drop(f"/messages/{index}/reasoning_details", "a part that was signed is no longer there")
    placed += [(len(text), len(text), image) for image in images[shown:]]
    parts += _parts_between(text, placed)
    if message.get("refusal"):
        parts.append({"text": message["refusal"]})
    if message.get("tool_calls"):
        parts += _call_parts(message["tool_calls"], index, signed, calls, draft)
    return parts + behind


def _call_parts(
    tool_calls: Sequence[Mapping[str, Any]],
    index: int,
    signed: Signed,
    calls: list[tuple[str, str]],
    draft: Draft,
) -> list[Part]:
    parts = []
    is_signed = False
    traits = draft.traits
    for at, call in enumerate(tool_calls):
        place = f"/messages/{index}/tool_calls/{at}"
        call_id = call.get("id") or ""
        if call.get("type") == "custom":
            custom = call.get("custom") or {}
            name, arguments = custom.get("name"), {"input": custom.get("input") or ""}
        else:
            arguments = arguments_of(call, place, draft.provider)
            name = call["function"].get("name") if call.get("function") else None
        if not isinstance(name, str) or not name:
            raise refusal(f"{place}/function/name", "a tool call needs the name of its function")
        name = draft.names.to_wire(name)
        calls.append((call_id, name))
        function: dict[str, Any] = {"name": name, "args": arguments}
        part: Part = {"functionCall": function}
        if traits.call_ids and call_id:
            function["id"] = call_id
        signature = signed.of_call(call) or draft.find_signature(call_id)
        if signature:
            part["thoughtSignature"] = signature
            is_signed = True
        parts.append(part)
    if traits.signatures and not is_signed:
        parts[0]["thoughtSignature"] = SKIP
        draft.emulate(f"/messages/{index}/tool_calls/0", "its thought signature is not known: the check is skipped")
    return parts


# --- results of tools -------------------------------------------------------------------------------------------------


def _collect_result(
    message: Mapping[str, Any], index: int, results: dict[str, tuple[Mapping[str, Any], int]], draft: Draft
) -> None:
    call_id = message["tool_call_id"]
    if call_id in results:
        draft.drop(f"/messages/{results[call_id][1]}", "a second result of the same call follows")
    results[call_id] = message, index


def _result_parts(
    calls: Sequence[tuple[str, str]], results: Mapping[str, tuple[Mapping[str, Any], int]], draft: Draft
) -> list[Part]:
    """One function response a call, in the order of the calls: without ids Gemini pairs them by order."""
    parts, beside = [], []
    for call_id, name in calls:
        message, index = results[call_id]
        content = message.get("content")
        response: Part = {"name": name, "response": {"error" if message.get("is_error") else "output": _text(content)}}
        if draft.traits.call_ids and call_id:
            response["id"] = call_id
        if isinstance(content, list) and (media := _result_media(content, index, draft)):
            if draft.traits.multimodal_results:
                response["parts"] = media
            else:
                beside += media
                draft.change(f"/messages/{index}/content", "its media stand beside it")
        parts.append({"functionResponse": response})
    return parts + beside


def _result_media(content: list[Any], index: int, draft: Draft) -> list[Part]:
    media = []
    pointer = f"/messages/{index}/content"
    for at, part in enumerate(parts_of(content, pointer)):
        place = f"{pointer}/{at}"
        _tell_marks(part, place, draft)
        if part.get("type") != "text":
            media.append(media_part(part, place, draft))
    return media


def _text(content: Any) -> str:
    if isinstance(content, dict):  # some clients put the object itself
        return orjson.dumps(content).decode()
    return text_of(content)
