"""Images, files, audio and video of a message as Gemini's `inlineData` and `fileData`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from gw.adapters.gemini.draft import Draft
from gw.chat_parts import Media, read_data_uri, read_file, read_image, refusal

_AUDIO = {"wav": "audio/wav", "mp3": "audio/mpeg", "pcm16": "audio/L16;rate=24000", "m4a": "audio/mp4"}
_BY_SUFFIX = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "heic": "image/heic",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "mp4": "video/mp4",
    "webm": "video/webm",
    "mov": "video/quicktime",
}


def media_part(part: Mapping[str, Any], pointer: str, draft: Draft) -> dict[str, Any]:
    """One content part that is not text. Raises InvalidRequest for a kind or a URL that Gemini cannot read."""
    kind = part.get("type")
    if kind == "image_url":
        image = part.get("image_url")
        if isinstance(image, dict) and image.get("detail") not in (None, "auto"):
            draft.drop(f"{pointer}/image_url/detail", f"{draft.provider} chooses the resolution")
        return _source_part(read_image(part, pointer), pointer + "/image_url/url", "image/jpeg", draft)
    if kind == "file":
        source = read_file(part, pointer, draft.provider).source
        return _source_part(source, pointer + "/file/file_data", "application/pdf", draft)
    if kind == "input_audio":
        return _audio_part(part, pointer, draft)
    if kind == "video_url":
        return _video_part(part, pointer, draft)
    if kind == "refusal":
        return {"text": part.get("refusal") or ""}
    raise refusal(
        f"{pointer}/type",
        f"{draft.provider} cannot read a content part of type {kind!r}: it takes text, image_url, file, input_audio "
        "and video_url",
        code="unsupported_value",
    )


def _source_part(source: Media | str, pointer: str, usual: str, draft: Draft) -> dict[str, Any]:
    if isinstance(source, Media):
        return {"inlineData": {"mimeType": source.media_type, "data": source.data}}
    if not draft.takes_uri(source):
        raise refusal(
            pointer,
            f"{draft.provider} does not fetch URLs: send the content as a data URI (data:{usual};base64,...)",
            code="unsupported_value",
        )
    suffix = urlsplit(source).path.rpartition(".")[2].lower()
    return {"fileData": {"mimeType": _BY_SUFFIX.get(suffix, usual), "fileUri": source}}


def _audio_part(part: Mapping[str, Any], pointer: str, draft: Draft) -> dict[str, Any]:
    audio = part.get("input_audio")
    data = audio.get("data") if isinstance(audio, dict) else None
    if not isinstance(audio, dict) or not isinstance(data, str) or not data:
        raise refusal(f"{pointer}/input_audio/data", "an input_audio part needs data in base64 and a format")
    media = read_data_uri(data)
    if media is not None:
        return {"inlineData": {"mimeType": media.media_type, "data": media.data}}
    name = str(audio.get("format") or "wav")
    return {"inlineData": {"mimeType": _AUDIO.get(name, f"audio/{name}"), "data": data}}


def _video_part(part: Mapping[str, Any], pointer: str, draft: Draft) -> dict[str, Any]:
    video = part.get("video_url")
    url = video.get("url") if isinstance(video, dict) else video
    if not isinstance(url, str) or not url:
        raise refusal(f"{pointer}/video_url/url", "a video_url part needs a url")
    return _source_part(read_data_uri(url) or url, f"{pointer}/video_url/url", "video/mp4", draft)
