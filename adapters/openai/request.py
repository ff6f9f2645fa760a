"""A chat request in a provider's dialect of OpenAI: the client's own bytes wherever nothing has to change.

`Encoder` replaces the model's name and asks for usage by splicing; only what a dialect's row demands is changed beyond
that, and all of it is told as a Loss. The client's value is never changed: whoever is asked next needs it whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from gw.adapters.openai.dialects import Dialect
from gw.adapters.openai.messages import MessageRepairs
from gw.chat_parts import with_tools
from gw.document import Document
from gw.errors import InvalidRequest
from gw.json_splice import SCAN_LIMIT, append_members, has_duplicates, replace_member
from gw.message import Loss

GATEWAY_FIELDS = frozenset({"backend", "session_id", "working_directory", "cli_tools"})  # ours, not the provider's
# What is meant for other kinds of backend: told where it goes nowhere.
_OF_OTHERS = frozenset({"anthropic", "gemini", "ollama", "allowed_tools", "disallowed_tools"})
# Emulated where they say something; what else may stand there (null, an empty list) a host without them may refuse.
_FUNCTIONS = frozenset({"functions", "function_call"})

_GONE: Any = object()  # a field that is not to be sent
_ALWAYS_ASKED: dict[str, Any] = {"include_usage": True}

# OpenAI's reasoning models: the o series, and gpt-5 and later but for its chat variants.
_REASONS = re.compile(r"(?:.*/)?(?:o[1-9]|gpt-([5-9])(?:\.(\d+))?)(?![\d.])(?!.*chat)")
_reasons = lru_cache(1024)(_REASONS.match)  # few names, asked for with every request
_SAMPLING = {"temperature": 1, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0}  # with the one value allowed


class Encoder:
    """Writes requests for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._messages = MessageRepairs(dialect)
        self._heeded = _heeded(dialect)

    def encode(
        self, document: Document, chat: dict[str, Any], model: str, stream: bool, is_emulated: bool, is_plain: bool
    ) -> tuple[bytes, list[Loss]]:
        """The body to send, and what of the request it does not carry. `chat` is the document's value.

        `is_emulated`: the client speaks `functions`, which this provider does not know, and is given tools for them.
        `is_plain`: there is nothing in the messages that any provider takes otherwise (`plain_characters`).
        Raises InvalidRequest for what the provider cannot do at all, and for values that JSON cannot hold.
        """
        dialect = self._dialect
        if is_emulated:
            chat = {**with_tools(chat), "parallel_tool_calls": False}  # the client can read one call only
        changes: dict[str, Any] = {}
        losses: list[Loss] = []
        if not self._heeded.isdisjoint(chat) or (dialect.limit == "by_model" and _reasons(model)):
            _repair(chat, dialect, model, changes, losses)
        if not is_plain:
            messages = self._messages.of(changes.get("messages") or chat.get("messages"), losses)
            if messages is not None:
                changes["messages"] = messages
        if is_emulated:
            losses.append(Loss("/functions", "emulated", f"{dialect.name} knows tools only"))
        if (chat.get("stream") or False) is not stream:
            changes["stream"] = stream
        if not stream and "stream_options" in chat:
            changes["stream_options"] = _GONE  # refused where nothing is streamed
        raw = document.came
        if raw is not None and not changes and not is_emulated:
            spliced = _spliced(raw, chat, dialect, model, stream)
            if spliced is not None:
                return spliced, losses
        changes["model"] = model
        if stream and dialect.usage_option:
            changes["stream_options"] = {**(chat.get("stream_options") or {}), **_ALWAYS_ASKED}
        body = {name: value for name, value in {**chat, **changes}.items() if value is not _GONE}
        try:
            return orjson.dumps(body), losses
        except (TypeError, orjson.JSONEncodeError) as error:
            raise InvalidRequest(f"the request cannot be written as JSON: {error}") from error


def _spliced(raw: bytes, chat: dict[str, Any], dialect: Dialect, model: str, stream: bool) -> bytes | None:
    """The client's bytes with another model name and the question for usage; None where splicing is not safe or slower.

    What is sent is what was checked, and nothing that stood beside it under the same name.
    """
    asks = not stream or not dialect.usage_option
    if not asks and "stream_options" in chat:
        options = chat["stream_options"]
        if not isinstance(options, dict) or options.get("include_usage") is not True:
            return None
        asks = True
    written = orjson.dumps(chat) if len(raw) <= SCAN_LIMIT else None
    is_canonical = written == raw  # as most SDKs write it
    if not is_canonical and has_duplicates(raw, chat, written):
        return None
    if asks and chat.get("model") == model:
        return raw
    members: dict[str, Any] = {} if asks else {"stream_options": _ALWAYS_ASKED}
    if "model" not in chat:
        members["model"] = model
    elif chat["model"] != model:
        if is_canonical:  # written anew it is the same but for the name, and sooner than that is found in it
            return None
        replaced = replace_member(raw, b"model", orjson.dumps(model), is_there=True)
        if replaced is None:
            return None
        raw = replaced
    return append_members(raw, members) if members else raw


# --- what a row demands -----------------------------------------------------------------------------------------


def _heeded(dialect: Dialect) -> frozenset[str]:
    """The fields without which `_repair` has nothing to do, as far as that does not depend on the model."""
    return (
        GATEWAY_FIELDS
        | _OF_OTHERS
        | dialect.drop
        | dialect.rename.keys()
        | ({"max_completion_tokens"} if dialect.limit == "max_tokens" else frozenset())
        | (frozenset() if dialect.several_choices else {"n"})
        | (frozenset() if dialect.tool_choice == "openai" else {"tool_choice"})
        | (frozenset() if dialect.json_schema else {"response_format"})
        | (frozenset() if dialect.functions else _FUNCTIONS)
    )


def _repair(chat: dict[str, Any], dialect: Dialect, model: str, changes: dict[str, Any], losses: list[Loss]) -> None:
    """Put new values for fields of a request into `changes`, `_GONE` for those to leave out; tell what is lost."""
    if not dialect.drop.isdisjoint(chat):
        for name in sorted(dialect.drop & chat.keys()):
            changes[name] = _GONE
            if chat[name] is not None and name != "stream_options":
                losses.append(Loss(f"/{name}", "dropped", f"{dialect.name} does not take it"))
    for name, new in dialect.rename.items():
        if chat.get(name) is not None and new not in chat:
            changes |= {name: _GONE, new: chat[name]}
            losses.append(Loss(f"/{name}", "changed", f"{dialect.name} calls it {new}"))
    if not dialect.several_choices and (chat.get("n") or 1) > 1:
        raise InvalidRequest(
            f"{dialect.name} gives one choice: ask for n = 1, or use another backend",
            param="n",
            code="unsupported_parameter",
        )
    _fit_limit(chat, dialect, model, changes, losses)
    if dialect.limit == "by_model":
        _fit_reasoning_model(chat, model, changes, losses)
    if dialect.tool_choice != "openai" and chat.get("tool_choice") is not None:
        _fit_tool_choice(chat, dialect, changes, losses)
    if not dialect.json_schema:
        _fit_schema(chat, dialect, changes, losses)
    if not _OF_OTHERS.isdisjoint(chat):
        for name in sorted(_OF_OTHERS & chat.keys()):
            changes[name] = _GONE
            if chat[name]:
                losses.append(Loss(f"/{name}", "dropped", "it is meant for another kind of backend"))
    for name in (GATEWAY_FIELDS if dialect.functions else GATEWAY_FIELDS | _FUNCTIONS) & chat.keys():
        changes[name] = _GONE


def _fit_limit(chat: dict[str, Any], dialect: Dialect, model: str, changes: dict[str, Any], losses: list[Loss]) -> None:
    """The one name of the two for the limit of output tokens that this provider and model know."""
    if dialect.limit == "any":
        return
    wanted = "max_tokens"
    if dialect.limit == "by_model":
        if not _reasons(model):
            return
        wanted = "max_completion_tokens"
    other = "max_tokens" if wanted == "max_completion_tokens" else "max_completion_tokens"
    if chat.get(other) is not None:
        changes[other] = _GONE
        if chat.get(wanted) is None:
            changes[wanted] = chat[other]
        losses.append(Loss(f"/{other}", "changed", f"{dialect.name} takes {wanted}"))


def _fit_reasoning_model(chat: dict[str, Any], model: str, changes: dict[str, Any], losses: list[Loss]) -> None:
    """Sampling is fixed while an OpenAI model reasons; from 5.4 on functions exclude reasoning on this endpoint."""
    found = _reasons(model)
    if found is None:
        return
    version = (int(found[1] or 0), int(found[2] or 0))
    effort = chat.get("reasoning_effort")
    if version >= (5, 4) and chat.get("tools") and effort not in (None, "none"):
        changes["reasoning_effort"] = effort = "none"
        losses.append(Loss("/reasoning_effort", "changed", f"{model} takes no functions with reasoning here: none"))
    if effort == "none" or (version >= (5, 1) and effort is None):
        return  # it does not reason, and then it samples as it is told
    for name, only in _SAMPLING.items():
        if chat.get(name) is not None and chat[name] != only:
            changes[name] = _GONE
            losses.append(Loss(f"/{name}", "dropped", f"{model} takes only {only}"))
    for name in ("stop", "logprobs", "top_logprobs", "logit_bias"):
        if chat.get(name):
            changes[name] = _GONE
            losses.append(Loss(f"/{name}", "dropped", f"{model} does not take it"))


def _fit_tool_choice(chat: dict[str, Any], dialect: Dialect, changes: dict[str, Any], losses: list[Loss]) -> None:
    choice = chat["tool_choice"]
    if dialect.tool_choice == "ignored":
        if choice == "none":  # without tools none can be called
            changes |= {"tools": _GONE, "tool_choice": _GONE}
            losses.append(Loss("/tool_choice", "emulated", f"{dialect.name} ignores it: the tools are left out"))
        elif choice != "auto":
            changes["tool_choice"] = _GONE
            losses.append(Loss("/tool_choice", "dropped", f"{dialect.name} ignores it"))
    elif choice == "required":
        changes["tool_choice"] = "any"
        losses.append(Loss("/tool_choice", "changed", f"{dialect.name} calls it any"))
    elif isinstance(choice, dict):
        allowed = choice.get("allowed_tools") or {"tools": [choice], "mode": "required"}
        names = [_name_of(one) for one in allowed["tools"]]
        named = [tool for tool in chat.get("tools") or () if _name_of(tool) in names]
        if not named:
            told = ", ".join(map(str, names))
            raise InvalidRequest(f'tool_choice names "{told}", which is not among the tools', param="tool_choice")
        changes |= {"tools": named, "tool_choice": "any" if allowed.get("mode") == "required" else "auto"}
        losses.append(Loss("/tool_choice", "emulated", f"{dialect.name} names no tool: the others are left out"))


def _name_of(tool: Mapping[str, Any]) -> Any:
    return (tool.get("function") or tool.get("custom") or tool).get("name")


def schema_to_check(chat: Mapping[str, Any], dialect: Dialect) -> dict[str, Any] | None:
    """The schema that answers are to be held to with `strict` where the provider knows no schemas; None for none."""
    wanted = chat.get("response_format")
    if dialect.json_schema or not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        return None
    given = wanted.get("json_schema") or {}
    schema = given.get("schema")
    return schema if given.get("strict") is True and isinstance(schema, dict) else None


def _fit_schema(chat: dict[str, Any], dialect: Dialect, changes: dict[str, Any], losses: list[Loss]) -> None:
    """A JSON schema becomes a line of instructions where a provider knows JSON but no schemas."""
    wanted = chat.get("response_format")
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        return
    schema = (wanted.get("json_schema") or {}).get("schema") or {}
    text = "Answer with one JSON object and nothing else. It must match this JSON schema:\n" + _dumped(schema)
    changes["response_format"] = {"type": "json_object"}
    # Behind the conversation's own instructions, so that the cached prefix stays what it was.
    messages = list(chat.get("messages") or ())
    place = next((i for i, message in enumerate(messages) if message.get("role") not in _INSTRUCTS), len(messages))
    messages.insert(place, {"role": "system", "content": text})
    changes["messages"] = messages
    held = "is checked" if schema_to_check(chat, dialect) is not None else "is not checked without strict"
    losses.append(
        Loss("/response_format", "emulated", f"{dialect.name} takes no schema: it is told in words, the answer {held}")
    )


_INSTRUCTS = ("system", "developer")


def _dumped(value: Any) -> str:
    return orjson.dumps(value).decode()
