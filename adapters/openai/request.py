"""A chat request in a provider's dialect of OpenAI: the client's own bytes wherever nothing has to change.

`encode` replaces the model's name and asks for usage by splicing; only what a dialect's row demands is changed beyond
that, and all of it is told as a Loss. The client's value is never changed: whoever is asked next needs it whole.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

from gw.adapters.openai.dialects import Dialect
from gw.chat_parts import with_tools
from gw.document import Document
from gw.errors import InvalidRequest
from gw.json_splice import append_members, has_duplicates, replace_member
from gw.message import Loss

GATEWAY_FIELDS = frozenset({"backend", "session_id", "working_directory", "cli_tools"})  # ours, not the provider's

_GONE: Any = object()  # a field that is not to be sent
_ALWAYS_ASKED: dict[str, Any] = {"include_usage": True}
_REASONING = frozenset({"reasoning_content", "reasoning", "reasoning_details", "thinking_blocks"})

# OpenAI's reasoning models: the o series, and gpt-5 and later but for its chat variants.
_REASONS = re.compile(r"(?:.*/)?(?:o[1-9]|gpt-([5-9])(?:\.(\d+))?)(?![\d.])(?!.*chat)")
_SAMPLING = {"temperature": 1, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0}  # with the one value allowed


def encode(
    document: Document, dialect: Dialect, model: str, *, stream: bool, is_emulated: bool = False
) -> tuple[bytes, list[Loss]]:
    """The body to send, and what of the request it does not carry.

    `is_emulated`: the client speaks `functions`, which this provider does not know, and is given tools for them.
    Raises InvalidRequest for what the provider cannot do at all, and for values that JSON cannot hold.
    """
    chat = document.peek()
    if is_emulated:
        chat = {**with_tools(chat), "parallel_tool_calls": False}  # the client can read one call only
    changes, losses = _repairs(chat, dialect, model)
    if is_emulated:
        losses.append(Loss("/functions", "emulated", f"{dialect.name} knows tools only"))
    for name in GATEWAY_FIELDS & chat.keys():
        changes[name] = _GONE
    if bool(chat.get("stream")) is not stream:
        changes["stream"] = stream
    if not stream and "stream_options" in chat:
        changes["stream_options"] = _GONE  # refused where nothing is streamed
    if not document.is_opened and not changes and not is_emulated:
        spliced = _spliced(document.raw, chat, dialect, model, stream)
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
    """The client's bytes with another model name and the question for usage; None where splicing is not safe."""
    if has_duplicates(raw, chat):  # what is sent is what was checked, and nothing that stood beside it
        return None
    members: dict[str, Any] = {}
    if stream and dialect.usage_option:
        options = chat.get("stream_options")
        if options is None and "stream_options" not in chat:
            members["stream_options"] = _ALWAYS_ASKED
        elif not isinstance(options, dict) or options.get("include_usage") is not True:
            return None
    if "model" not in chat:
        members["model"] = model
    elif chat["model"] != model:
        replaced = replace_member(raw, b"model", orjson.dumps(model))
        if replaced is None:
            return None
        raw = replaced
    return append_members(raw, members) if members else raw


# --- what a row demands -----------------------------------------------------------------------------------------


def _repairs(chat: dict[str, Any], dialect: Dialect, model: str) -> tuple[dict[str, Any], list[Loss]]:
    """New values for fields of a request, `_GONE` for those to leave out, and what is lost by it."""
    changes: dict[str, Any] = {}
    losses: list[Loss] = []
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
    messages = _messages(changes.get("messages", chat.get("messages")), dialect, losses)
    if messages is not None:
        changes["messages"] = messages
    return changes, losses


def _fit_limit(chat: dict[str, Any], dialect: Dialect, model: str, changes: dict[str, Any], losses: list[Loss]) -> None:
    """The one name of the two for the limit of output tokens that this provider and model know."""
    if dialect.limit == "any":
        return
    wanted = "max_tokens"
    if dialect.limit == "by_model":
        if not _REASONS.match(model):
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
    found = _REASONS.match(model)
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
        name = (choice.get("function") or {}).get("name")
        named = [tool for tool in chat.get("tools") or () if (tool.get("function") or {}).get("name") == name]
        if not named:
            raise InvalidRequest(f'tool_choice names "{name}", which is not among the tools', param="tool_choice")
        changes |= {"tools": named, "tool_choice": "any"}
        losses.append(Loss("/tool_choice", "emulated", f"{dialect.name} names no tool: only that one is sent"))


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
    losses.append(Loss("/response_format", "emulated", f"{dialect.name} takes no schema: it is told in words"))


_INSTRUCTS = ("system", "developer")


def _dumped(value: Any) -> str:
    return orjson.dumps(value).decode()


# --- messages ---------------------------------------------------------------------------------------------------


def _messages(messages: Any, dialect: Dialect, losses: list[Loss]) -> list[Any] | None:
    """The messages as this dialect takes them; None where they can stay as they are."""
    if not isinstance(messages, list):
        return None
    known = _REPAIRS_OF.get(dialect.name)
    if known is None:
        known = _REPAIRS_OF[dialect.name] = (_message_repairs(dialect), _triggers(dialect))
    repairs, triggers = known
    changed: list[Any] | None = None
    has_results = False
    for index, message in enumerate(messages):
        role = message.get("role")
        has_results = has_results or role == "tool"
        if (
            triggers.isdisjoint(message)
            and (dialect.developer or role != "developer")
            and (dialect.remote_images or not isinstance(message.get("content"), list))
        ):
            continue  # nearly all messages, and the repairs cost more than this
        new, place = message, f"/messages/{index}"
        for repair in repairs:
            new = repair(new, place, losses)
        if new is not message:
            if changed is None:
                changed = list(messages)
            changed[index] = new
    if has_results and dialect.answers_results:
        changed = _with_results_answered(changed or messages, losses) or changed
    if has_results and not dialect.tool_images:
        changed = _with_tool_images_moved(changed or messages, losses) or changed
    return changed


_Repair = Callable[[dict[str, Any], str, list[Loss]], dict[str, Any]]
_REPAIRS_OF: dict[str, tuple[Sequence[_Repair], frozenset[str]]] = {}


def _triggers(dialect: Dialect) -> frozenset[str]:
    """The fields of a message without which none of its repairs has anything to do, roles and images apart."""
    reasoning = _REASONING if dialect.reasoning != "as it came" else frozenset()
    return dialect.message_drop | reasoning | ({"tool_calls", "tool_call_id"} if dialect.short_ids else frozenset())


def _message_repairs(dialect: Dialect) -> Sequence[_Repair]:
    repairs: list[_Repair] = []
    if not dialect.developer:
        repairs.append(_developer_as_system)
    if dialect.message_drop:
        repairs.append(_dropper(dialect.message_drop, dialect.name))
    if dialect.reasoning != "as it came":
        repairs.append(_reasoning_for(dialect))
    if dialect.short_ids:
        repairs.append(_with_short_ids)
    if not dialect.remote_images:
        repairs.append(_refuse_remote_images)
    return repairs


def _developer_as_system(message: dict[str, Any], place: str, losses: list[Loss]) -> dict[str, Any]:
    if message.get("role") != "developer":
        return message
    losses.append(Loss(f"{place}/role", "changed", "developer is OpenAI's word: sent as system"))
    return {**message, "role": "system"}


def _dropper(fields: frozenset[str], dialect: str) -> _Repair:
    def drop(message: dict[str, Any], place: str, losses: list[Loss]) -> dict[str, Any]:
        if fields.isdisjoint(message):
            return message
        for name in sorted(fields & message.keys()):
            if message[name] is not None:
                losses.append(Loss(f"{place}/{name}", "dropped", f"{dialect} does not take it"))
        return {name: value for name, value in message.items() if name not in fields}

    return drop


def _reasoning_for(dialect: Dialect) -> _Repair:
    def carry(message: dict[str, Any], place: str, losses: list[Loss]) -> dict[str, Any]:
        if _REASONING.isdisjoint(message):
            return message
        text = message.get("reasoning_content") or message.get("reasoning")
        if dialect.reasoning in message and len(_REASONING & message.keys()) == 1:
            return message
        new = {name: value for name, value in message.items() if name not in _REASONING}
        if dialect.reasoning == "dropped" or not isinstance(text, str) or not text:
            losses.extend(
                Loss(f"{place}/{name}", "dropped", f"{dialect.name} does not take it back")
                for name in sorted(_REASONING & message.keys())
                if message[name]
            )
        elif dialect.reasoning == "thinking parts":
            new["content"] = [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}, *_as_parts(message)]
        else:
            new[dialect.reasoning] = text
        return new

    return carry


def _as_parts(message: Mapping[str, Any]) -> list[Any]:
    content = message.get("content")
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []


def _with_short_ids(message: dict[str, Any], place: str, losses: list[Loss]) -> dict[str, Any]:
    # No loss: an id is only there to be the same in the call and in its result.
    calls, answered = message.get("tool_calls"), message.get("tool_call_id")
    if isinstance(calls, list) and any(not _SHORT_ID.fullmatch(str(call.get("id"))) for call in calls):
        return {**message, "tool_calls": [{**call, "id": short_id(str(call.get("id")))} for call in calls]}
    if isinstance(answered, str) and not _SHORT_ID.fullmatch(answered):
        return {**message, "tool_call_id": short_id(answered)}
    return message


_SHORT_ID = re.compile(r"[a-zA-Z0-9]{9}")
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@lru_cache(4096)  # each id stands twice in a request, and again in every later turn
def short_id(call_id: str) -> str:
    """A tool call id of nine letters and digits; the same for the same id, in every turn."""
    if _SHORT_ID.fullmatch(call_id):
        return call_id
    number = int.from_bytes(hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).digest()[:8])
    letters = []
    for _ in range(9):
        number, rest = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[rest])
    return "".join(letters)


def _refuse_remote_images(message: dict[str, Any], place: str, losses: list[Loss]) -> dict[str, Any]:
    content = message.get("content")
    for index, part in enumerate(content if isinstance(content, list) else ()):
        image = part.get("image_url") if isinstance(part, dict) else None
        url = image.get("url") if isinstance(image, dict) else image
        if isinstance(url, str) and not url.startswith("data:"):
            raise InvalidRequest(
                "this backend does not fetch images: send the image as a data URI",
                param=f"messages[{place.rpartition('/')[2]}].content[{index}].image_url.url",
                code="unsupported_parameter",
            )
    return message


def _with_results_answered(messages: Sequence[Any], losses: list[Loss]) -> list[Any] | None:
    """An assistant's turn between each tool's result and the user that follows it; None where none is missing."""
    answered: list[Any] = []
    for index, message in enumerate(messages):
        if message.get("role") == "user" and index and messages[index - 1].get("role") == "tool":
            answered.append({"role": "assistant", "content": "OK"})
            losses.append(Loss(f"/messages/{index}", "changed", "an assistant's OK is put before it"))
        answered.append(message)
    return answered if len(answered) > len(messages) else None


def _with_tool_images_moved(messages: Sequence[Any], losses: list[Loss]) -> list[Any] | None:
    """Images out of tools' results and into a user message behind the run of results; None where there are none."""
    if not any(message.get("role") == "tool" and isinstance(message.get("content"), list) for message in messages):
        return None
    moved: list[Any] = []
    waiting: list[Any] = []
    found = False
    for index, message in enumerate(messages):
        content = message.get("content")
        if message.get("role") != "tool":
            if waiting:
                moved.append({"role": "user", "content": waiting})
                waiting = []
        elif isinstance(content, list) and any(part.get("type") != "text" for part in content):
            found = True
            waiting += [part for part in content if part.get("type") != "text"]
            texts = [part for part in content if part.get("type") == "text"]
            message = {**message, "content": texts or "The result follows in the next message of the user."}
            losses.append(Loss(f"/messages/{index}/content", "changed", "media moved to a user message"))
        moved.append(message)
    if waiting:
        moved.append({"role": "user", "content": waiting})
    return moved if found else None
