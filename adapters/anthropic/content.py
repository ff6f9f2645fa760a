"""Content parts as Claude's blocks: text, images, PDFs and text files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gw.adapters.anthropic.plan import Plan, is_blank
from gw.chat_parts import Media, decode_text, parts_of, read_file, read_image, refusal

IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})


def blocks_of(content: Any, pointer: str, plan: Plan) -> list[dict[str, Any]]:
    """The blocks of a user's, a system's or a tool's content; blank texts are left out.

    Raises InvalidRequest for a part that Claude cannot read.
    """
    if isinstance(content, str):
        return [] if is_blank(content) else [{"type": "text", "text": content}]
    blocks: list[dict[str, Any]] = []
    for index, part in enumerate(parts_of(content, pointer)):
        kind = part.get("type")
        if kind == "text" or kind == "refusal":
            text = part.get(kind)
            if is_blank(text):
                continue
            block: dict[str, Any] = {"type": "text", "text": text}
            place = ""
        else:
            place = f"{pointer}/{index}"
            block = _media_block(part, place, plan)
        if len(part) > 2:
            plan.mark(block, part, place or f"{pointer}/{index}")
        blocks.append(block)
    return blocks


def _media_block(part: Mapping[str, Any], pointer: str, plan: Plan) -> dict[str, Any]:
    kind = part.get("type")
    if kind == "image_url":
        image = part.get("image_url")
        detail = image.get("detail") if isinstance(image, Mapping) else None
        if detail not in (None, "auto"):
            plan.lose(pointer + "/image_url/detail", "dropped")
        return _image(read_image(part, pointer), pointer + "/image_url/url", plan)
    if kind == "file":
        return _file(part, pointer, plan)
    if kind == "input_audio":
        raise plan.cannot(pointer, "listen to audio")
    if kind == "video_url":
        raise plan.cannot(pointer, "watch video")
    raise refusal(pointer + "/type", f"a content part of type {kind!r} is unknown to {plan.provider}")


def _image(source: Media | str, pointer: str, plan: Plan) -> dict[str, Any]:
    if isinstance(source, str):
        return {"type": "image", "source": _url_source(source, pointer, plan)}
    if source.media_type not in IMAGES:
        raise plan.cannot(pointer, f"read images of type {source.media_type}: send JPEG, PNG, GIF or WebP")
    return {"type": "image", "source": {"type": "base64", "media_type": source.media_type, "data": source.data}}


def _url_source(url: str, pointer: str, plan: Plan) -> dict[str, Any]:
    if url[:3].lower() == "gs:":
        raise plan.cannot(pointer, "read gs:// addresses: send a data URI")
    if not plan.fetches_urls:
        raise plan.cannot(pointer, "fetch addresses: send a data URI, or let the gateway fetch it (the option fetch)")
    return {"type": "url", "url": url}


def _file(part: Mapping[str, Any], pointer: str, plan: Plan) -> dict[str, Any]:
    source, name = read_file(part, pointer, plan.provider)
    place = pointer + "/file/file_data"
    if isinstance(source, str):
        block: dict[str, Any] = {"type": "document", "source": _url_source(source, place, plan)}
    elif source.media_type in IMAGES:
        return _image(source, place, plan)
    elif source.media_type == "application/pdf":
        block = {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": source.data},
        }
    elif source.media_type.startswith("text/") or source.media_type == "application/json":
        text = decode_text(source, place)
        if is_blank(text):
            raise refusal(place, f"{plan.provider} refuses a file without any text")
        block = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}}
    else:
        raise plan.cannot(place, f"read files of type {source.media_type}: send a PDF, text or an image")
    if name:
        block["title"] = name[:500]
    return block
