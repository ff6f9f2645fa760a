"""What every foreign dialect must read out of an OpenAI chat request: media, text, tool calls and their results.

Pure functions over the canonical dicts; nothing here changes its argument. Places are JSON pointers
("/messages/2/content/0"); a refusal names the same place as a path ("messages[2].content[0]") and the provider.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import orjson

from gw.errors import InvalidRequest
from gw.provider_json import read_exactly

CACHE_MARKS = ("cache_control", "prompt_cache_breakpoint")  # Claude's and OpenAI's, on parts of content


def refusal(pointer: str, message: str, *, code: str = "invalid_value") -> InvalidRequest:
    """The 400 for a field given by its JSON pointer."""
    return InvalidRequest(message, param=field_path(pointer), code=code)


def field_path(pointer: str) -> str:
    """A JSON pointer as the path that OpenAI's `param` uses: /messages/2/content -> messages[2].content."""
    path = ""
    for step in pointer.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        path += f"[{step}]" if step.isdigit() else f".{step}" if path else step
    return path


# --- media --------------------------------------------------------------------------------------------------------


class Media(NamedTuple):
    """Bytes that came inside the request."""

    media_type: str  # lower case, without parameters: "image/png"
    data: str  # base64, padded or not as it came, without whitespace


_SPACES = " \t\r\n\f\v"

# The first bytes of the formats that providers take as images.
_IMAGES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
)


def read_data_uri(uri: str) -> Media | None:
    """The media in a `data:` URI (RFC 2397); None where it is none or has no comma.

    Percent-encoded data becomes base64. Without a media type it is text/plain, as the RFC has it.
    """
    if uri[:5].lower() != "data:":
        return None
    head, comma, data = uri.partition(",")  # the one copy of a file
    if not comma:
        return None
    media_type, *parameters = head[5:].split(";")
    if any(parameter.strip().lower() == "base64" for parameter in parameters):
        if "%" in data:  # the padding of a URI is sometimes escaped
            data = unquote_to_bytes(data).decode("latin-1")
        data = _without_spaces(data)
    else:
        data = base64.b64encode(unquote_to_bytes(data)).decode("ascii")
    return Media(media_type.strip().lower() or "text/plain", data)


def _without_spaces(data: str) -> str:
    """Base64 without blanks and line ends. There hardly ever are any, and six searches tell so in 2 ms for 5 MB."""
    if data.isascii() and not any(space in data for space in _SPACES):
        return data
    return "".join(data.split())


def head_of(data: str, count: int = 16) -> bytes:
    """The first bytes of base64 data, at most `count`; b"" where it is not base64."""
    piece = data[: (count + 2) // 3 * 4].replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(piece + "=" * (-len(piece) % 4))[:count]
    except binascii.Error:
        return b""


def sniff_image(data: str) -> str | None:
    """The media type that the first bytes of base64 image data tell; None where they tell none."""
    head = head_of(data)
    for magic, media_type in _IMAGES:
        if head.startswith(magic):
            return media_type
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
        return "image/heic"
    return "image/avif" if head[4:12] == b"ftypavif" else None


def read_image(part: Mapping[str, Any], pointer: str) -> Media | str:
    """The image of an `image_url` part: Media, with the type that its bytes tell, or an http(s) or gs URL.

    Raises InvalidRequest where there is no URL, an unknown scheme or data that is not base64.
    """
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, Mapping) else image
    place = pointer + "/image_url/url"
    if not isinstance(url, str) or not url:
        raise refusal(place, "an image_url part needs a url: an http(s) URL or a data URI", code="invalid_image_url")
    source = _read_source(url, place, "an image")
    if isinstance(source, Media):
        if not head_of(source.data):
            raise refusal(place, "the data URI of this image holds no base64 data", code="invalid_image_url")
        return Media(sniff_image(source.data) or source.media_type, source.data)
    return source


def _read_source(url: str, place: str, what: str) -> Media | str:
    url = url.strip()
    media = read_data_uri(url)
    if media is not None:
        return media
    scheme, separator, _ = url.partition("://")
    if separator and scheme.lower() in ("http", "https", "gs"):
        return url
    raise refusal(place, f"{what} must be a data URI or an http(s) URL, not {url[:32]!r}", code="invalid_value")


class File(NamedTuple):
    """A `file` part."""

    source: Media | str  # Media, or an http(s) or gs URL
    name: str  # "" where none was given


def read_file(part: Mapping[str, Any], pointer: str, provider: str) -> File:
    """The file of a `file` part; bare base64 counts as its name's type says, a PDF where that says nothing.

    Raises InvalidRequest for a file id, which only the provider that issued it knows, and where there is no data.
    """
    file = part.get("file")
    if not isinstance(file, Mapping):
        raise refusal(pointer + "/file", "a file part needs a file object with file_data")
    data = file.get("file_data") or file.get("url")
    if not isinstance(data, str) or not data:
        if file.get("file_id"):
            raise refusal(
                pointer + "/file/file_id",
                f"{provider} does not know files uploaded elsewhere: send the content as file_data",
                code="unsupported_parameter",
            )
        raise refusal(pointer + "/file/file_data", "a file part needs file_data: a data URI")
    name = str(file.get("filename") or "")
    if "://" not in data[:12] and data[:5].lower() != "data:":
        return File(Media(_type_by_name(name), _without_spaces(data)), name)
    return File(_read_source(data, pointer + "/file/file_data", "a file"), name)


_TYPES = {"txt": "text/plain", "md": "text/markdown", "csv": "text/csv", "html": "text/html", "xml": "text/xml"}


def _type_by_name(name: str) -> str:
    return _TYPES.get(name.rpartition(".")[2].lower(), "application/pdf")


def decode_text(media: Media, pointer: str) -> str:
    """The text in base64 data. Raises InvalidRequest where it is not UTF-8 or not base64."""
    try:
        return base64.b64decode(media.data + "=" * (-len(media.data) % 4)).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        raise refusal(pointer, f"a file of type {media.media_type} must be UTF-8 text in base64") from None


# --- content --------------------------------------------------------------------------------------------------------


def parts_of(content: Any, pointer: str) -> Sequence[Mapping[str, Any]]:
    """A message's content as parts, whichever of the three forms it came in; None is no part.

    Raises InvalidRequest where it is neither null, a string nor a list of objects.
    """
    if isinstance(content, str):
        return ({"type": "text", "text": content},)
    if content is None:
        return ()
    if not isinstance(content, list):
        raise refusal(pointer, "content must be a string, a list of parts or null")
    for index, part in enumerate(content):
        if not isinstance(part, dict):
            raise refusal(f"{pointer}/{index}", "a content part must be an object with a type")
    return content


def text_of(content: Any) -> str:
    """All text in a message's content, put together; parts that hold no text count for nothing."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    found = []
    for part in content:
        if isinstance(part, dict):
            text = part.get("text") if part.get("type") != "refusal" else part.get("refusal")
            if isinstance(text, str):
                found.append(text)
    return "".join(found)


# --- tool calls -----------------------------------------------------------------------------------------------------

_SAFE_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@lru_cache(4096)  # each id stands twice in a request, and again in every later turn
def safe_tool_id(call_id: str) -> str:
    """A tool call id that every provider takes: `[a-zA-Z0-9_-]{1,64}`.

    One that fits stays as it is; any other becomes `call_` and its hash, so that the same id gives the same name in the
    call, in its result and in every later turn.
    """
    if _SAFE_ID.fullmatch(call_id):
        return call_id
    return "call_" + hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def arguments_of(call: Mapping[str, Any], pointer: str, provider: str) -> dict[str, Any]:
    """The arguments of a tool call as an object; empty text is no arguments.

    Raises InvalidRequest where they are not a JSON object: a provider that takes objects cannot be sent anything else.
    """
    function = call.get("function")
    arguments = function.get("arguments") if function else None
    if not arguments:
        return {}
    if isinstance(arguments, dict):
        return arguments
    try:
        value = read_exactly(arguments)
        if isinstance(value, dict):
            return value
        what = _kind_of(value)
    except (orjson.JSONDecodeError, TypeError):
        if isinstance(arguments, str) and arguments.isspace():
            return {}
        what = "not valid JSON"
    place = pointer + "/function/arguments"
    raise refusal(place, f"{provider} takes tool arguments as an object, and these are {what}")


def _kind_of(value: Any) -> str:
    return {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}.get(type(value), "a number")


def names_by_call_id(messages: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Tool call id -> name of the function or custom tool that was called, over a whole conversation."""
    names: dict[str, str] = {}
    for message in messages:
        for call in message.get("tool_calls") or ():
            names[call.get("id") or ""] = (call.get("function") or call.get("custom") or {}).get("name") or ""
    return names


def check_tool_results(messages: Sequence[Mapping[str, Any]], provider: str) -> None:
    """Every tool call is answered before the conversation goes on, and every result answers a call of its turn.

    Raises InvalidRequest with the missing or the stray id: providers refuse such a history with obscurer words.
    """
    open_calls: dict[Any, tuple[int, int]] = {}  # id -> indexes of the message and of the call
    known: Collection[Any] = ()
    for index, message in enumerate(messages):
        role = message.get("role")
        if role == "tool":
            call_id = message.get("tool_call_id")
            if call_id not in known:
                raise refusal(
                    f"/messages/{index}/tool_call_id",
                    f"no tool call of the turn before has the id {call_id!r}: {provider} takes only results of those",
                )
            open_calls.pop(call_id, None)
            continue
        if open_calls:
            break
        known = ()
        if role == "assistant" and (calls := message.get("tool_calls")):
            for at, call in enumerate(calls):
                open_calls[call.get("id")] = (index, at)
            known = tuple(open_calls)
            if len(known) < len(calls):
                raise refusal(
                    f"/messages/{index}/tool_calls",
                    f"two calls of this turn have the same id: {provider} pairs calls and results by their ids",
                )
    for call_id, (index, at) in open_calls.items():
        raise refusal(
            f"/messages/{index}/tool_calls/{at}",
            f"the tool call {call_id!r} has no result: {provider} needs a tool message with this tool_call_id next",
        )


# --- the deprecated form --------------------------------------------------------------------------------------------


def is_deprecated(chat: Mapping[str, Any], is_plain: bool = False) -> bool:
    """Whether the client speaks `functions` and `function_call`, and reads its answer so.

    `is_plain`: its messages cannot tell, they are nothing but texts (`gw.message_checks.plain_characters`).
    """
    if chat.get("functions") or chat.get("function_call") is not None:
        return True
    if is_plain:
        return False
    for message in chat["messages"]:  # noqa: SIM110 (asked of every request, and a generator costs twice as much)
        if message.get("function_call") or message.get("role") == "function":
            return True
    return False


def with_tools(chat: Mapping[str, Any]) -> dict[str, Any]:
    """The same request with `functions` as `tools`, and calls and their results paired by made-up, stable ids.

    Raises InvalidRequest where both forms are given: the answer can be in one of them only.
    """
    modern = {name: value for name, value in chat.items() if name not in ("functions", "function_call")}
    functions, choice = chat.get("functions"), chat.get("function_call")
    if chat.get("tools") and (functions or choice is not None):
        name = "functions" if functions else "function_call"
        raise refusal(f"/{name}", f"`{name}` is the deprecated form of what `tools` says here: give one of them")
    if functions:
        modern["tools"] = [{"type": "function", "function": function} for function in functions]
    if isinstance(choice, dict):
        modern["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    elif choice is not None:
        modern["tool_choice"] = choice
    modern["messages"] = messages = []
    call_id = ""
    for index, message in enumerate(chat["messages"]):
        call = message.get("function_call")
        if call:
            call_id = f"call_function_{index}"
            message = {name: value for name, value in message.items() if name != "function_call"}
            message["tool_calls"] = [{"id": call_id, "type": "function", "function": call}]
        elif message.get("role") == "function":
            message = {"role": "tool", "tool_call_id": call_id, "content": message.get("content")}
        messages.append(message)
    return modern


def as_function_call(message: dict[str, Any]) -> None:
    """Turn the answer's message, or a delta, back in place: the first tool call as the deprecated `function_call`."""
    calls = message.pop("tool_calls", None)
    if calls:
        message["function_call"] = calls[0].get("function", {})
