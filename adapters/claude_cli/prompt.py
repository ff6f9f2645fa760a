"""A chat request as the lines that the Claude program reads: who it is, what was said before, and what is asked now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gw.chat_parts import (
    CACHE_MARKS,
    Media,
    arguments_of,
    check_tool_results,
    decode_text,
    is_deprecated,
    parts_of,
    read_file,
    read_image,
    refusal,
    safe_tool_id,
    with_tools,
)
from gw.losses import unknown_fields
from gw.message import Loss
from gw.provider_json import write_exactly

PROVIDER = "the Claude CLI"
_READ = frozenset(
    {"messages", "model", "stream", "stream_options", "reasoning_effort", "response_format", "n", "tools", "cli_tools"}
    | {"allowed_tools", "disallowed_tools", "working_directory", "session_id", "backend", "parallel_tool_calls"}
)
# What a message may hold without loss: what is translated, and what an earlier answer brought for the reader only.
_KNOWN = frozenset(
    {"role", "content", "tool_calls", "tool_call_id", "refusal", "is_error", "annotations", "extra_content"}
    | {"reasoning_content", "reasoning", "provider_specific_fields"}
)
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}


@dataclass
class Prompt:
    """One turn. `batches` are written in turn, each after the program has taken in the one before."""

    system: str = ""
    turns: list[dict[str, Any]] = field(default_factory=list)  # {"role", "content": blocks}, roles alternating
    effort: str | None = None
    schema: dict[str, Any] | None = None
    losses: list[Loss] = field(default_factory=list)

    def batches(self, settings: Sequence[dict[str, Any]] = ()) -> list[bytes]:
        """`settings` are control requests that go before the first message."""
        lines = [control(f"gw-{number}", request) for number, request in enumerate(settings)]
        batches = []
        for turn in self.turns[:-1]:
            if turn["role"] == "assistant":
                lines.append(_line({"type": "assistant", "message": turn}))
            else:
                # The program overtakes itself where an answer follows at once: each is waited for.
                lines.append(_user(turn, asks=False))
                batches.append(b"".join(lines))
                lines = []
        lines.append(_user(self.turns[-1], asks=True))
        return [*batches, b"".join(lines)]


def control(identifier: str, request: Mapping[str, Any]) -> bytes:
    """A control request as a line; its answer carries the same identifier."""
    return _line({"type": "control_request", "request_id": identifier, "request": request})


def control_answer(identifier: Any) -> bytes:
    """The answer to whatever the program asks of us: no."""
    denied = {"behavior": "deny", "message": "nobody is there to allow it"}
    return _line(
        {"type": "control_response", "response": {"subtype": "success", "request_id": identifier, "response": denied}}
    )


def _user(turn: dict[str, Any], *, asks: bool) -> bytes:
    # client_composed: the text is a text, no @path is opened and no /command is run.
    line: dict[str, Any] = {"type": "user", "client_composed": True, "message": turn}
    return _line(line if asks else line | {"shouldQuery": False})


def _line(value: Any) -> bytes:
    return write_exactly(value) + b"\n"


def read_chat(chat: Mapping[str, Any]) -> Prompt:
    """Read a checked chat request. Raises InvalidRequest for what the program cannot be asked."""
    if (chat.get("n") or 1) > 1:
        raise refusal("/n", f"{PROVIDER} gives one answer: leave n out", code="unsupported_parameter")
    if is_deprecated(chat):
        chat = with_tools(chat)
    prompt = Prompt()
    prompt.losses += [Loss(pointer, "dropped") for pointer in unknown_fields(chat, _READ)]
    _read_effort(prompt, chat.get("reasoning_effort"))
    _read_format(prompt, chat.get("response_format"))
    messages = chat["messages"]
    check_tool_results(messages, PROVIDER)
    system: list[str] = []
    for index, message in enumerate(messages):
        _read_message(prompt, message, f"/messages/{index}", system)
    prompt.system = "\n\n".join(system)
    if not prompt.turns:
        raise refusal("/messages", f"{PROVIDER} needs at least one user message with text")
    if prompt.turns[-1]["role"] != "user":
        raise refusal(
            f"/messages/{len(messages) - 1}/role",
            f"{PROVIDER} cannot continue an assistant message: end with a user message",
            code="unsupported_parameter",
        )
    return prompt


def _read_effort(prompt: Prompt, effort: Any) -> None:
    prompt.effort = _EFFORTS.get(effort)
    if prompt.effort is None and effort not in (None, "default"):
        prompt.losses.append(Loss("/reasoning_effort", "dropped"))


def _read_format(prompt: Prompt, response_format: Any) -> None:
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if kind == "json_schema":
        prompt.schema = response_format["json_schema"].get("schema") or {"type": "object"}
    elif kind not in (None, "text"):
        prompt.losses.append(Loss("/response_format", "dropped"))


def _read_message(prompt: Prompt, message: Mapping[str, Any], pointer: str, system: list[str]) -> None:
    role = message["role"]
    prompt.losses += [
        Loss(f"{pointer}/{name}", "dropped") for name, value in message.items() if value and name not in _KNOWN
    ]
    blocks = _blocks(message.get("content"), f"{pointer}/content", prompt.losses)
    if role == "assistant":
        _add(prompt, "assistant", blocks + _assistant_blocks(message, pointer))
    elif role == "tool":
        result = {"type": "tool_result", "tool_use_id": safe_tool_id(message["tool_call_id"]), "content": blocks}
        _add(prompt, "user", [{**result, "is_error": True} if message.get("is_error") is True else result])
    elif role == "user":
        _add(prompt, "user", blocks)
    else:
        texts = [block["text"] for block in blocks if "text" in block]
        if prompt.turns:
            # It holds from here on, and the program takes its instructions once, at the beginning.
            prompt.losses.append(Loss(pointer, "changed", "sent as a user text in <system>"))
            _add(prompt, "user", [{"type": "text", "text": f"<system>{text}</system>"} for text in texts])
        else:
            system += texts


def _add(prompt: Prompt, role: str, blocks: list[dict[str, Any]]) -> None:
    if not blocks:
        return
    if prompt.turns and prompt.turns[-1]["role"] == role:
        prompt.turns[-1]["content"] += blocks
    else:
        prompt.turns.append({"role": role, "content": blocks})


def _assistant_blocks(message: Mapping[str, Any], pointer: str) -> list[dict[str, Any]]:
    """What stands behind the content."""
    blocks: list[dict[str, Any]] = []
    if message.get("refusal"):
        blocks.append({"type": "text", "text": message["refusal"]})
    for index, call in enumerate(message.get("tool_calls") or ()):
        place = f"{pointer}/tool_calls/{index}"
        custom = call.get("custom")
        if isinstance(custom, Mapping):
            name, given = custom.get("name"), {"input": custom.get("input") or ""}
        else:
            name, given = (call.get("function") or {}).get("name"), arguments_of(call, place, PROVIDER)
        blocks.append({"type": "tool_use", "id": safe_tool_id(call["id"]), "name": name, "input": given})
    return blocks


def _blocks(content: Any, pointer: str, losses: list[Loss]) -> list[dict[str, Any]]:
    """A message's content as Claude's blocks; blank texts are left out, Claude refuses them."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content.strip() else []
    blocks = []
    for index, part in enumerate(parts_of(content, pointer)):
        place = f"{pointer}/{index}"
        kind = part.get("type")
        losses += [Loss(f"{place}/{mark}", "dropped") for mark in CACHE_MARKS if part.get(mark)]
        if kind in ("text", "refusal"):
            text = part.get(kind) or ""
            if text.strip():
                blocks.append({"type": "text", "text": text})
        elif kind == "image_url":
            image = part.get("image_url")
            if isinstance(image, Mapping) and image.get("detail") not in (None, "auto"):
                losses.append(Loss(f"{place}/image_url/detail", "dropped"))
            blocks.append({"type": "image", "source": _source(read_image(part, place))})
        elif kind == "file":
            blocks.append(_file(part, place))
        else:
            raise refusal(
                f"{place}/type", f"{PROVIDER} cannot read a part of type {kind!r}", code="unsupported_parameter"
            )
    return blocks


def _source(source: Media | str) -> dict[str, Any]:
    if isinstance(source, str):
        return {"type": "url", "url": source}
    return {"type": "base64", "media_type": source.media_type, "data": source.data}


def _file(part: Mapping[str, Any], place: str) -> dict[str, Any]:
    source, name = read_file(part, place, PROVIDER)
    if isinstance(source, Media) and source.media_type.startswith("image/"):
        return {"type": "image", "source": _source(source)}
    if isinstance(source, Media) and source.media_type.startswith("text/"):
        plain = {"type": "text", "media_type": "text/plain", "data": decode_text(source, place)}
        return {"type": "document", "source": plain, **({"title": name} if name else {})}
    return {"type": "document", "source": _source(source), **({"title": name} if name else {})}
