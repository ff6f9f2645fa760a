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
from gw.adapters.gemini.signatures import SKIP, UNSIGNED, Signed, read_signed
from gw.chat_parts import arguments_of, check_tool_results, parts_of, refusal, text_of

Part = dict[str, Any]
Content = dict[str, Any]

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
    results: dict[str, tuple[Mapping[str, Any], str]] = {}
    for index, message in enumerate(messages):
        pointer = f"/messages/{index}"
        role = message.get("role")
        if not message.keys() <= _KNOWN:
            _tell_unknown(message, pointer, draft)
        if role == "tool":
            _collect_result(message, pointer, results, draft)
            if index + 1 == len(messages) or messages[index + 1].get("role") != "tool":
                _append(contents, "user", _result_parts(calls, results, draft))
                results = {}
        elif role == "assistant":
            calls = []
            _append(contents, "model", _assistant_parts(message, pointer, calls, draft))
        elif role == "user":
            parts = _user_parts(message, pointer, draft)
            if not parts:
                raise refusal(pointer + "/content", f"this message is empty, and {draft.provider} takes no empty ones")
            _append(contents, "user", parts)
        elif role in _SYSTEM:
            text = _system_texts(message, pointer, draft)
            if contents:
                _append(contents, "user", [{"text": f"<system>{one}</system>"} for one in text])
            else:
                system += [{"text": one} for one in text]
        else:
            raise refusal(pointer + "/role", f"{draft.provider} knows no role {role!r}")
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


def _tell_unknown(message: Mapping[str, Any], pointer: str, draft: Draft) -> None:
    for name, value in message.items():
        if name not in _KNOWN and value:
            draft.drop(f"{pointer}/{name}", f"{draft.provider} has no place for it")


def _system_texts(message: Mapping[str, Any], pointer: str, draft: Draft) -> list[str]:
    texts = []
    for at, part in enumerate(parts_of(message.get("content"), pointer + "/content")):
        if part.get("type") != "text":
            raise refusal(f"{pointer}/content/{at}/type", "a system message holds text only")
        _tell_marks(part, f"{pointer}/content/{at}", draft)
        if part.get("text"):
            texts.append(part["text"])
    return texts


def _tell_marks(part: Mapping[str, Any], pointer: str, draft: Draft) -> None:
    for name in ("cache_control", "prompt_cache_breakpoint"):
        if part.get(name):
            draft.drop(f"{pointer}/{name}", f"{draft.provider} caches by itself")


def _user_parts(message: Mapping[str, Any], pointer: str, draft: Draft) -> list[Part]:
    content = message.get("content")
    if isinstance(content, str):
        return [{"text": content}] if content else []
    parts = []
    for at, part in enumerate(parts_of(content, pointer + "/content")):
        place = f"{pointer}/content/{at}"
        if len(part) > 2:
            _tell_marks(part, place, draft)
        if part.get("type") == "text":
            if part.get("text"):
                parts.append({"text": part["text"]})
        else:
            parts.append(media_part(part, place, draft))
    return parts


# --- assistant turns --------------------------------------------------------------------------------------------------


def _assistant_parts(
    message: Mapping[str, Any], pointer: str, calls: list[tuple[str, str]], draft: Draft
) -> list[Part]:
    if message.keys() <= _BARE:  # most turns
        text = text_of(message["content"]) if "content" in message else ""
        if text and not message.get("tool_calls"):
            return [{"text": text}]
        signed = UNSIGNED
    else:
        signed = read_signed(message, pointer, draft)
    parts: list[Part] = [{"text": text, "thought": True, "thoughtSignature": mark} for text, mark in signed.thoughts]
    text = text_of(message.get("content")) or message.get("refusal") or ""
    if text:
        parts.append({"text": text})
        if signed.text:
            parts[-1]["thoughtSignature"] = signed.text
    for at, image in enumerate(message.get("images") or ()):
        parts.append(media_part({**image, "type": "image_url"}, f"{pointer}/images/{at}", draft))
    if message.get("tool_calls"):
        parts += _call_parts(message["tool_calls"], pointer, signed, calls, draft)
    if signed.text and not text:
        parts.append({"text": "", "thoughtSignature": signed.text})
    if not parts:
        draft.drop(pointer, f"an empty turn, which {draft.provider} does not take")
    return parts


def _call_parts(
    tool_calls: Sequence[Mapping[str, Any]],
    pointer: str,
    signed: Signed,
    calls: list[tuple[str, str]],
    draft: Draft,
) -> list[Part]:
    parts = []
    for at, call in enumerate(tool_calls):
        place = f"{pointer}/tool_calls/{at}"
        call_id = call.get("id") or ""
        if call.get("type") == "custom":
            custom = call.get("custom") or {}
            name, arguments = custom.get("name"), {"input": custom.get("input") or ""}
        else:
            name, arguments = (call.get("function") or {}).get("name"), arguments_of(call, place, draft.provider)
        if not isinstance(name, str) or not name:
            raise refusal(f"{place}/function/name", "a tool call needs the name of its function")
        name = draft.names.to_wire(name)
        calls.append((call_id, name))
        part: Part = {"functionCall": {"name": name, "args": arguments}}
        if draft.traits.call_ids and call_id:
            part["functionCall"]["id"] = call_id
        signature = signed.of_call(call) or draft.find_signature(call_id)
        if signature:
            part["thoughtSignature"] = signature
        parts.append(part)
    if draft.traits.signatures and not any("thoughtSignature" in part for part in parts):
        parts[0]["thoughtSignature"] = SKIP
        draft.emulate(f"{pointer}/tool_calls/0", "its thought signature is not known: the check for it is skipped")
    return parts


# --- results of tools -------------------------------------------------------------------------------------------------


def _collect_result(
    message: Mapping[str, Any], pointer: str, results: dict[str, tuple[Mapping[str, Any], str]], draft: Draft
) -> None:
    call_id = message["tool_call_id"]
    if call_id in results:
        draft.drop(results[call_id][1], "a second result of the same call follows")
    results[call_id] = message, pointer


def _result_parts(
    calls: Sequence[tuple[str, str]], results: Mapping[str, tuple[Mapping[str, Any], str]], draft: Draft
) -> list[Part]:
    """One function response a call, in the order of the calls: without ids Gemini pairs them by order."""
    parts, beside = [], []
    for call_id, name in calls:
        message, pointer = results[call_id]
        content = message.get("content")
        media: list[Part] = []
        if isinstance(content, list):
            for at, part in enumerate(parts_of(content, pointer + "/content")):
                place = f"{pointer}/content/{at}"
                _tell_marks(part, place, draft)
                if part.get("type") != "text":
                    media.append(media_part(part, place, draft))
        text = _result_text(content)
        response: Part = {"name": name, "response": {"error" if message.get("is_error") else "output": text}}
        if draft.traits.call_ids and call_id:
            response["id"] = call_id
        if media and draft.traits.multimodal_results:
            response["parts"] = media
        else:
            beside += media
        parts.append({"functionResponse": response})
    return parts + beside


def _result_text(content: Any) -> str:
    if isinstance(content, dict):  # some clients put the object itself
        return orjson.dumps(content).decode()
    return text_of(content)
