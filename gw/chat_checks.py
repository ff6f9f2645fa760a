"""Every known field of a chat request against its type and range; unknown fields pass.

Where providers differ the widest range that one of them documents is taken, for the provider has the last word. What
no provider could mean is refused here, so that no adapter meets it.
"""

from __future__ import annotations

import re
from typing import Any

from gw.errors import InvalidRequest
from gw.json_checks import (
    Check,
    Misfit,
    check_boolean,
    check_count,
    check_each,
    check_object,
    check_string,
    fields,
    integer,
    listed,
    number,
    one_of,
    plain_text,
    refuse,
    text,
)
from gw.message_checks import check_messages, check_parts

MAX_TOOLS = 1_024  # OpenAI takes 128; a tool's schema is some hundred tokens, so a thousand fill a context window
_DOTS = re.compile(r"(?:.*/)?\.\.?")  # in a URL's path these name another place
_BETA = re.compile(r"[!-+\--~]{1,128}")  # what may stand in a header's list
_SESSION_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def check_chat(body: dict[str, Any], is_plain: bool = False) -> bool:
    """Check every known field. Raises InvalidRequest with `param` and the cure; null is taken as absent.

    `is_plain`: `plain_characters` has said that there is nothing in its messages to check. Returns whether besides such
    messages there are nothing but `_SCALARS`.
    """
    if "messages" not in body:
        raise InvalidRequest('`messages` is missing: [{"role": "user", "content": "..."}]', param="messages")
    field, checks = "", _OF_PLAIN if is_plain else _FIELDS
    try:
        for field, value in body.items():
            try:
                check = checks[field]
            except KeyError:
                check, is_plain = _check_of(field), False
            if value is not None or check is check_messages:
                check(value)
    except Misfit as misfit:
        param = field + misfit.place
        raise InvalidRequest(f"`{param}` {misfit.problem}", param=param) from None
    return is_plain


def _check_nothing(value: Any) -> None:
    """Any value will do."""


def _check_of(field: str) -> Check:
    if field in _FIELDS:
        return _FIELDS[field]
    # Servers written in Go read names without regard to case: `Model` would name the model behind our back.
    known = field.casefold()
    if known in _FIELDS:
        raise InvalidRequest(f"unknown field `{field[:64]}`: write `{known}`", param=known)
    return _check_nothing


# --- tools ------------------------------------------------------------------------------------------------------


def _check_tools(tools: Any) -> None:
    """Objects are tools of the model, strings are names of CLI tools, never both."""
    if type(tools) is not list:
        refuse("a list of tools", tools)
    check_count(len(tools), MAX_TOOLS, "tools")
    strings = sum(isinstance(tool, str) for tool in tools)
    if strings and strings < len(tools):
        raise Misfit("mixes names of CLI tools with tool objects: put the names into `cli_tools`")
    check_each(tools, _check_cli_tool if strings else _check_tool)


def _check_tool(tool: Any) -> None:
    if type(tool) is not dict:
        refuse("a tool object or the name of a CLI tool", tool)
    kind = tool.get("type", "function")
    if kind == "function":
        _function_tool(tool)
    elif kind == "custom":
        _custom_tool(tool)
    else:  # providers have tools of their own: `openrouter:web_search`
        _typed(tool)


def _check_cli_tool(name: Any) -> None:
    _name(name)
    if name.startswith("-"):  # it becomes part of a command line
        refuse("the name of a CLI tool, which does not begin with a dash", name)


def _check_tool_choice(choice: Any) -> None:
    if isinstance(choice, str):
        _tool_choice_word(choice)
    elif isinstance(choice, dict):
        kind = choice.get("type")
        _tool_choice_type({"type": kind})
        _TOOL_CHOICES[str(kind)](choice)
    else:
        refuse("a string or an object", choice)


def _check_function_call(choice: Any) -> None:
    if isinstance(choice, str):
        _function_call_word(choice)
    else:
        _named(choice)


# --- the rest ---------------------------------------------------------------------------------------------------


def _check_stop(stop: Any) -> None:
    if isinstance(stop, str):
        return
    if not isinstance(stop, list):
        refuse("a string or a list of strings", stop)
    _stops(stop)


def _check_response_format(value: Any) -> None:
    _response_format(value)
    if value["type"] == "json_schema":
        _json_schema_format(value)


def _check_strings_by_name(value: Any) -> None:
    check_object(value)
    for name, item in value.items():
        if not isinstance(item, str):
            refuse("a string", item, f".{name[:64]}")


def _check_logit_bias(value: Any) -> None:
    check_object(value)
    token = ""
    try:
        for token, bias in value.items():  # noqa: B007 (read where one does not fit)
            _bias(bias)
    except Misfit as misfit:
        misfit.stands_at(f".{token[:64]}")
        raise


def _check_voice(value: Any) -> None:
    if isinstance(value, dict):
        _voice(value)
    else:
        _name(value)


def _check_predicted(value: Any) -> None:
    if isinstance(value, list):
        check_parts(value)
    elif not isinstance(value, str):
        refuse("a string or a list of text parts", value)


def _check_session_id(value: Any) -> None:
    if not isinstance(value, str) or not _SESSION_ID.fullmatch(value):
        refuse("the `session_id` of an earlier answer, a UUID in lower case; leave it out to begin a session", value)


def _check_model(value: Any) -> None:
    if type(value) is not str or not 0 < len(value) <= 256 or not value.isprintable() or value[-1] == ".":
        _model(value)
        if _DOTS.fullmatch(value):
            refuse("the name of a model, not of a folder", value)


def _check_beta(value: Any) -> None:
    if not isinstance(value, str) or not _BETA.fullmatch(value):  # it becomes part of a header
        refuse("the name of a beta in visible ASCII", value)


def _check_directory(value: Any) -> None:
    _path(value)
    if "\0" in value:
        refuse("a path without NUL", value)


_name = plain_text(512)
_typed = fields({"type": _name})
_voice = fields({"id": _name})
_path = text(4096)
_model = plain_text(256)
_bias = number(-100, 100)
_stops = listed(check_string, 256, "strings")
_definition = fields(
    {"name": _name}, {"description": check_string, "parameters": check_object, "strict": check_boolean}
)
_function_tool = fields({"function": _definition})
_custom_tool = fields({"custom": fields({"name": _name}, {"description": check_string, "format": check_object})})
_named = fields({"name": _name})
_allowed_tool = fields({}, {"type": _name, "function": _named, "custom": _named, "name": _name})
_tool_choice_word = one_of("none", "auto", "required", "any")  # any: Mistral's word for required
_tool_choice_type = fields({"type": one_of("function", "custom", "allowed_tools")})
_TOOL_CHOICES: dict[str, Check] = {
    "function": fields({"function": _named}),
    "custom": fields({"custom": _named}),
    "allowed_tools": fields(
        {
            "allowed_tools": fields(
                {"mode": one_of("auto", "required"), "tools": listed(_allowed_tool, MAX_TOOLS, "tools")}
            )
        }
    ),
}
_function_call_word = one_of("none", "auto")
_response_format = fields(
    # beside OpenAI's three and its two for custom tools: TGI, Together, vLLM
    {"type": one_of("text", "json_object", "json_schema", "grammar", "python", "json", "regex", "structural_tag")}
)
_json_schema_format = fields(
    {
        "json_schema": fields(
            {"name": _name}, {"description": check_string, "schema": check_object, "strict": check_boolean}
        )
    }
)
_cli_tools = listed(_check_cli_tool, MAX_TOOLS, "names of CLI tools")

# Settings that are a number, a word or a flag: nothing nests in them, and they ask for nothing but themselves.
_SCALARS: dict[str, Check] = {
    "model": _check_model,
    "temperature": number(0.0, 2.0),
    "top_p": number(0.0, 1.0),
    "top_k": integer(-1),  # vLLM: -1 is all of them
    "min_p": number(0.0, 1.0),
    "frequency_penalty": number(-2.0, 2.0),
    "presence_penalty": number(-2.0, 2.0),
    "repetition_penalty": number(0.0, 10.0),
    "n": integer(1, 128),
    "max_tokens": integer(1),
    "max_completion_tokens": integer(1),
    "seed": integer(),
    "logprobs": check_boolean,
    "top_logprobs": integer(0, 20),
    "stream": check_boolean,
    "parallel_tool_calls": check_boolean,
    "reasoning_effort": one_of("none", "minimal", "low", "medium", "high", "xhigh", "max", "default"),
    "verbosity": one_of("low", "medium", "high"),
    "user": check_string,
    "safety_identifier": check_string,
    "prompt_cache_key": check_string,
    "prompt_cache_retention": check_string,
    "service_tier": _name,
    "store": check_boolean,
    "backend": plain_text(256),
    "session_id": _check_session_id,
}
_FIELDS: dict[str, Check] = {
    "messages": check_messages,
    **_SCALARS,
    "stop": _check_stop,
    "logit_bias": _check_logit_bias,
    "stream_options": fields({}, {"include_usage": check_boolean, "include_obfuscation": check_boolean}),
    "tools": _check_tools,
    "tool_choice": _check_tool_choice,
    "functions": listed(_definition, MAX_TOOLS, "functions"),
    "function_call": _check_function_call,
    "response_format": _check_response_format,
    "reasoning": fields({}, {"effort": _name, "max_tokens": integer(0), "enabled": check_boolean}),
    "modalities": listed(one_of("text", "audio", "image"), 8, "modalities", least=1),
    "audio": fields({}, {"format": _name, "voice": _check_voice}),
    "prediction": fields({"type": one_of("content"), "content": _check_predicted}),
    "metadata": _check_strings_by_name,
    "moderation": check_object,
    "prompt_cache_options": check_object,
    "web_search_options": check_object,
    "anthropic": fields({}, {"betas": listed(_check_beta, 64, "names of betas")}),
    "working_directory": _check_directory,
    "cli_tools": _cli_tools,
    "allowed_tools": _cli_tools,
    "disallowed_tools": _cli_tools,
}
_OF_PLAIN: dict[str, Check] = {"messages": _check_nothing, **_SCALARS}
