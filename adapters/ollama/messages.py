"""A conversation in OpenAI's messages as Ollama's: text, bare base64 images, calls with arguments as objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gw.chat_parts import CACHE_MARKS, Media, arguments_of, names_by_call_id, parts_of, read_image, refusal
from gw.message import Loss

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_KNOWN = frozenset(
    {"role", "content", "tool_calls", "tool_call_id", "refusal", "images", "annotations", "extra_content", "reasoning"}
    | {"reasoning_content", "reasoning_details", "provider_specific_fields"}
)


def encode_messages(messages: Sequence[Mapping[str, Any]], losses: list[Loss]) -> list[dict[str, Any]]:
    """Ollama's messages. Raises InvalidRequest for media other than images and for arguments that are no object."""
    encoded: list[dict[str, Any]] = []
    names: dict[str, str] = {}  # tool call id -> the function that was called under it last
    shown: list[str] = []  # images in results of tools, which only a user may show
    for index, message in enumerate(messages):
        pointer = f"/messages/{index}"
        role = message.get("role")
        if role not in _ROLES:
            raise refusal(pointer + "/role", f"Ollama knows no role {role!r}")
        if not message.keys() <= _KNOWN:
            for name, value in message.items():
                if name not in _KNOWN and value:
                    losses.append(Loss(f"{pointer}/{name}", "dropped", "Ollama has no place for it"))
        if shown and role != "tool":
            encoded.append({"role": "user", "content": "", "images": shown})
            shown = []
        text, images = _content(message.get("content"), pointer + "/content", losses)
        new: dict[str, Any] = {"role": _ROLES[role], "content": text}
        if role == "assistant":
            _assistant(message, pointer, new, images, losses)
            if "tool_calls" in new:
                names |= names_by_call_id((message,))
        elif role == "tool":
            call_id = message.get("tool_call_id") or ""
            if names.get(call_id):
                new["tool_name"] = names[call_id]
            new["tool_call_id"] = call_id
            if images:
                losses.append(Loss(f"{pointer}/content", "changed", "its images follow in a user message"))
                shown += images
                images = []
        if images:
            new["images"] = images
        encoded.append(new)
    if shown:
        encoded.append({"role": "user", "content": "", "images": shown})
    return encoded


def _content(content: Any, pointer: str, losses: list[Loss]) -> tuple[str, list[str]]:
    if isinstance(content, str):
        return content, []
    texts, images = [], []
    for at, part in enumerate(parts_of(content, pointer)):
        place = f"{pointer}/{at}"
        for mark in CACHE_MARKS:
            if part.get(mark):
                losses.append(Loss(f"{place}/{mark}", "dropped", "Ollama caches by itself"))
        kind = part.get("type")
        if kind in ("text", "refusal"):
            if part.get(kind):
                texts.append(part[kind])
        elif kind == "image_url":
            images.append(_image(part, place, losses))
        else:
            raise refusal(
                f"{place}/type",
                f"Ollama reads text and images, not a content part of type {kind!r}",
                code="unsupported_value",
            )
    return "\n".join(texts), images


def _image(part: Mapping[str, Any], pointer: str, losses: list[Loss]) -> str:
    image = part.get("image_url")
    if isinstance(image, dict) and image.get("detail") not in (None, "auto"):
        losses.append(Loss(f"{pointer}/image_url/detail", "dropped", "Ollama chooses the resolution"))
    source = read_image(part, pointer)
    if not isinstance(source, Media):
        raise refusal(
            pointer + "/image_url/url",
            "Ollama does not fetch URLs: send the image as a data URI (data:image/png;base64,...)",
            code="unsupported_value",
        )
    return source.data


def _assistant(
    message: Mapping[str, Any], pointer: str, new: dict[str, Any], images: list[str], losses: list[Loss]
) -> None:
    """Thoughts, calls and images of an earlier answer."""
    if message.get("refusal"):
        new["content"] = "\n".join(filter(None, (new["content"], message["refusal"])))
    thinking = message.get("reasoning_content") or message.get("reasoning")
    details = message.get("reasoning_details")
    if isinstance(details, list):
        if not thinking:
            thinking = "".join(one.get("text") or "" for one in details if isinstance(one, dict))
        if any(isinstance(one, dict) and (one.get("data") or one.get("signature")) for one in details):
            losses.append(Loss(f"{pointer}/reasoning_details", "dropped", "signed by another provider"))
    if thinking:
        new["thinking"] = thinking
    for at, image in enumerate(message.get("images") or ()):
        images.append(_image({**image, "type": "image_url"}, f"{pointer}/images/{at}", losses))
    calls = []
    for at, call in enumerate(message.get("tool_calls") or ()):
        place = f"{pointer}/tool_calls/{at}"
        name = (call.get("function") or {}).get("name")
        if not name:
            raise refusal(f"{place}/type", "Ollama takes calls of functions only", code="unsupported_value")
        function = {"name": name, "arguments": arguments_of(call, place, "Ollama")}
        calls.append({"id": call["id"], "function": function} if call.get("id") else {"function": function})
    if calls:
        new["tool_calls"] = calls
