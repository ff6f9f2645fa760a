"""The messages of a chat request: roles, content, its parts, and tool calls, each refused with its exact place."""

from __future__ import annotations

from typing import Any

from gw.errors import InvalidRequest
from gw.json_checks import (
    Check,
    check_count,
    check_object,
    check_string,
    fields,
    integer,
    one_of,
    plain_text,
    refuse,
    text,
)

MAX_MESSAGES = 10_000  # far beyond what any model's context holds; keeps the check of one request near 10 ms
MAX_PARTS = 10_000  # of all messages together, tool calls included

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_PLAIN = frozenset({"system", "developer", "user", "assistant"})  # nothing but a role and a text makes them whole
_MAX_TEXT = 1 << 40  # the size of a body is limited where it is read

# An assistant turn without text is whole if it carries one of these.
_INSTEAD = ("tool_calls", "function_call", "refusal", "audio", "reasoning_content", "reasoning", "reasoning_details")


def check_messages(param: str, messages: Any) -> None:
    """A non-empty list of messages. Raises InvalidRequest with the place: `messages[2].content[0].text`."""
    if not isinstance(messages, list) or not messages:
        refuse(param, "a non-empty list of messages", messages)
    check_count(param, len(messages), MAX_MESSAGES, "messages")
    parts = 0
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            refuse(f"{param}[{index}]", "an object with `role` and `content`", message)
        role = message.get("role")
        if len(message) == 2 and isinstance(message.get("content"), str) and isinstance(role, str) and role in _PLAIN:
            continue
        parts += _check_message(f"{param}[{index}]", message)
        if parts > MAX_PARTS:
            check_count(param, parts, MAX_PARTS, "content parts and tool calls")


def _check_message(place: str, message: dict[str, Any]) -> int:
    """One message; the number of its parts and tool calls."""
    if "role" not in message:
        raise InvalidRequest(f"`{place}.role` is missing: one of {', '.join(_ROLES)}", param=f"{place}.role")
    role = message["role"]
    _check_role(f"{place}.role", role)
    parts = _check_content(f"{place}.content", message, role)
    if role == "tool" and "tool_call_id" not in message:
        raise InvalidRequest(
            f"`{place}.tool_call_id` is missing: repeat the id of the call that this answers",
            param=f"{place}.tool_call_id",
        )
    if role == "function" and message.get("name") is None:
        raise InvalidRequest(f"`{place}.name` is missing: the function that answers", param=f"{place}.name")
    for name, check in _MESSAGE_FIELDS.items():
        value = message.get(name)
        if value is not None:
            check(f"{place}.{name}", value)
    if role == "tool" and message["tool_call_id"] is None:
        refuse(f"{place}.tool_call_id", "a non-empty string", None)
    return parts + len(message.get("tool_calls") or ())


def _check_content(place: str, message: dict[str, Any], role: str) -> int:
    content = message.get("content")
    if isinstance(content, str):
        return 0
    if isinstance(content, list):
        return check_parts(place, content)
    if content is not None:
        refuse(place, "a string or a list of content parts", content)
    if role == "function" and "content" in message:
        return 0
    if role == "assistant" and any(message.get(field) is not None for field in _INSTEAD):
        return 0
    if "content" not in message:
        raise InvalidRequest(f"`{place}` is missing: a string or a list of content parts", param=place)
    wanted = "a string or a list of content parts"
    refuse(place, f"{wanted} unless there are tool calls" if role == "assistant" else wanted, None)


def check_parts(place: str, parts: list[Any]) -> int:
    """A list of content parts; their number."""
    check_count(place, len(parts), MAX_PARTS, "content parts")
    for index, part in enumerate(parts):
        if not isinstance(part, dict):
            refuse(f"{place}[{index}]", "an object with `type`", part)
        kind = part.get("type")
        if kind == "text" and len(part) == 2 and isinstance(part.get("text"), str):
            continue
        check = _PARTS.get(kind) if isinstance(kind, str) else None
        if check is None:
            refuse(f"{place}[{index}].type", f"one of {', '.join(_PARTS)}", kind)
        check(f"{place}[{index}]", part)
    return len(parts)


_check_role = one_of(*_ROLES)
_some_text = text(_MAX_TEXT)
_name = plain_text(512)
_MARKS: dict[str, Check] = {"cache_control": check_object, "prompt_cache_breakpoint": check_object}


def _check_file(place: str, value: Any) -> None:
    _file_fields(place, value)
    if value.get("file_data") is None and value.get("file_id") is None:
        raise InvalidRequest(f"`{place}` needs `file_data` (a data URI) or `file_id`", param=place)


def _check_located(place: str, value: Any) -> None:
    """What hosts besides OpenAI send for media: an object with a URL, or the URL itself."""
    if not isinstance(value, (str, dict)) or not value:
        refuse(place, "an object with `url`, or a URL", value)


def _check_call(place: str, call: Any) -> None:
    _call_fields(place, call)
    kind = call.get("type")
    if kind == "custom":
        _custom_call(place, call)
    elif kind is None or kind == "function":  # some hosts leave the type out, and clients send back what they got
        _function_call(place, call)
    else:
        refuse(f"{place}.type", "one of function, custom", kind)


def _check_calls(place: str, calls: Any) -> None:
    if not isinstance(calls, list):
        refuse(place, "a list of tool calls", calls)
    check_count(place, len(calls), MAX_PARTS, "tool calls")
    for index, call in enumerate(calls):
        _check_call(f"{place}[{index}]", call)


def _check_arguments(place: str, arguments: Any) -> None:
    if not isinstance(arguments, str):
        refuse(place, 'JSON text in a string, such as "{}"', arguments)


_file_fields = fields({}, {"file_data": _some_text, "file_id": _name, "filename": check_string})
_call_fields = fields({"id": _name}, {"index": integer(0)})
_function = fields({"name": _name, "arguments": _check_arguments})
_function_call = fields({"function": _function})
_custom_call = fields({"custom": fields({"name": _name, "input": check_string})})

_PARTS: dict[str, Check] = {
    "text": fields({"text": check_string}, _MARKS),
    "image_url": fields(
        {"image_url": fields({"url": _some_text}, {"detail": one_of("auto", "low", "high", "original")})}, _MARKS
    ),
    "input_audio": fields({"input_audio": fields({"data": _some_text, "format": _name})}, _MARKS),
    "file": fields({"file": _check_file}, _MARKS),
    "refusal": fields({"refusal": check_string}, _MARKS),
    # spoken by hosts besides OpenAI
    "video_url": fields({"video_url": _check_located}, _MARKS),
    "audio_url": fields({"audio_url": _check_located}, _MARKS),
    "file_url": fields({"file_url": _check_located}, _MARKS),
    "document_url": fields({"document_url": _check_located}, _MARKS),
    "thinking": fields({}),
    "redacted_thinking": fields({}),
}

_MESSAGE_FIELDS: dict[str, Check] = {
    "name": _name,
    "tool_calls": _check_calls,
    "tool_call_id": _name,
    "function_call": _function,
    "refusal": check_string,
    "audio": fields({"id": _name}),
    "reasoning_content": check_string,
    "reasoning": check_string,
}
