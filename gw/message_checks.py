"""The messages of a chat request: roles, content, its parts, and tool calls, each refused with its exact place."""

from __future__ import annotations

from typing import Any

from gw.json_checks import (
    Check,
    Misfit,
    check_count,
    check_each,
    check_object,
    check_string,
    fields,
    integer,
    listed,
    one_of,
    plain_text,
    refuse,
    text,
)

MAX_MESSAGES = 10_000  # far beyond what any model's context holds; keeps the check of one request near 10 ms
MAX_PARTS = 10_000  # of all messages together, tool calls included

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_PLAIN = frozenset({"system", "user", "assistant"})  # nothing but a role and a text makes them whole, everywhere
_MAX_TEXT = 1 << 40  # the size of a body is limited where it is read

# An assistant turn without text is whole if it carries one of these.
_INSTEAD = (
    *("tool_calls", "function_call", "refusal", "audio", "images"),
    *("reasoning_content", "reasoning", "reasoning_details"),
)


def plain_characters(messages: Any) -> int | None:
    """How many characters messages have each of which is nothing but a text of the system, the user or the assistant.

    Most are, and then there is nothing in them to check, to repair or to translate but those texts. None for others.
    """
    if type(messages) is not list or not 0 < len(messages) <= MAX_MESSAGES:
        return None
    characters = 0
    try:
        for message in messages:
            content = message["content"]
            if type(content) is not str or message["role"] not in _PLAIN or len(message) != 2:
                return None
            characters += len(content)
    except (TypeError, KeyError):  # no message at all, or without a role
        return None
    return characters


def check_messages(messages: Any) -> None:
    """A non-empty list of messages. Raises Misfit with the place: `[2].content[0].text`."""
    if type(messages) is not list or not messages:
        refuse("a non-empty list of messages", messages)
    check_count(len(messages), MAX_MESSAGES, "messages")
    index = parts = 0
    try:
        for index, message in enumerate(messages):  # noqa: B007 (read where one does not fit)
            if type(message) is not dict:
                refuse("an object with `role` and `content`", message)
            parts += _check_message(message)
            if parts > MAX_PARTS:
                break
    except Misfit as misfit:
        misfit.stands_at(f"[{index}]")
        raise
    check_count(parts, MAX_PARTS, "content parts and tool calls")


def _check_message(message: dict[str, Any]) -> int:
    """One message; the number of its parts and tool calls."""
    if "role" not in message:
        raise Misfit(f"is missing: one of {', '.join(_ROLES)}", ".role")
    role, content = message["role"], message.get("content")
    if type(role) is not str or role not in _ROLES:
        refuse(f"one of {', '.join(_ROLES)}", role, ".role")
    parts = 0
    if type(content) is list:
        parts = check_parts(content, ".content")
    elif type(content) is not str:
        _check_no_content(message, role)
    if role in _PLAIN and len(message) == 2 and content is not None:
        return parts
    if role == "tool" and "tool_call_id" not in message:
        raise Misfit("is missing: repeat the id of the call that this answers", ".tool_call_id")
    if role == "function" and message.get("name") is None:
        raise Misfit("is missing: the function that answers", ".name")
    name = ""
    try:
        for name, value in message.items():
            if value is not None and (check := _MESSAGE_FIELDS.get(name)) is not None:
                check(value)
    except Misfit as misfit:
        misfit.stands_at(f".{name}")
        raise
    if role == "tool" and message["tool_call_id"] is None:
        refuse("a non-empty string", None, ".tool_call_id")
    return parts + len(message.get("tool_calls") or ())


def _check_no_content(message: dict[str, Any], role: str) -> None:
    """A message whose content is neither a text nor a list."""
    wanted = "a string or a list of content parts"
    content = message.get("content")
    if content is not None:
        refuse(wanted, content, ".content")
    if role == "function" and "content" in message:
        return
    if role == "assistant":
        for field in _INSTEAD:
            if message.get(field) is not None:
                return
    if "content" not in message:
        raise Misfit(f"is missing: {wanted}", ".content")
    refuse(f"{wanted} unless there are tool calls" if role == "assistant" else wanted, None, ".content")


def check_parts(parts: list[Any], place: str = "") -> int:
    """A list of content parts; their number."""
    try:
        check_count(len(parts), MAX_PARTS, "content parts")
        check_each(parts, _check_part)
    except Misfit as misfit:
        misfit.stands_at(place)
        raise
    return len(parts)


def _check_part(part: Any) -> None:
    if type(part) is not dict:
        refuse("an object with `type`", part)
    kind = part.get("type")
    if kind == "text" and len(part) == 2 and type(part.get("text")) is str:
        return
    check = _PARTS.get(kind) if type(kind) is str else None
    if check is None:
        refuse(f"one of {', '.join(_PARTS)}", kind, ".type")
    check(part)


_some_text = text(_MAX_TEXT)
_name = plain_text(512)
_MARKS: dict[str, Check] = {"cache_control": check_object, "prompt_cache_breakpoint": check_object}


def _check_file(value: Any) -> None:
    _file_fields(value)
    if value.get("file_data") is None and value.get("file_id") is None:
        raise Misfit("needs `file_data` (a data URI) or `file_id`")


def _check_located(value: Any) -> None:
    """What hosts besides OpenAI send for media: an object with a URL, or the URL itself."""
    if not isinstance(value, (str, dict)) or not value:
        refuse("an object with `url`, or a URL", value)


def _check_call(call: Any) -> None:
    kind = call.get("type") if type(call) is dict else None
    if kind is None or kind == "function":  # some hosts leave the type out, and clients send back what they got
        _function_call(call)
    elif kind == "custom":
        _custom_call(call)
    else:
        refuse("one of function, custom", kind, ".type")


def _check_calls(calls: Any) -> None:
    if type(calls) is not list:
        refuse("a list of tool calls", calls)
    check_count(len(calls), MAX_PARTS, "tool calls")
    check_each(calls, _check_call)


def _check_arguments(arguments: Any) -> None:
    if type(arguments) is not str:
        refuse('JSON text in a string, such as "{}"', arguments)


_file_fields = fields({}, {"file_data": _some_text, "file_id": _name, "filename": check_string})
_function = fields({"name": _name, "arguments": _check_arguments})
_index = {"index": integer(0)}
_function_call = fields({"id": _name, "function": _function}, _index)
_custom_call = fields({"id": _name, "custom": fields({"name": _name, "input": check_string})}, _index)

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
    "images": listed(check_object, MAX_PARTS, "images"),
}
