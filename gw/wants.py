"""What a chat request asks of a backend: functions, CLI tools, images, a stream, room for its prompt.

Read once per request from the canonical form; route and its rules decide by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

CHARACTERS_PER_TOKEN = 4  # the usual rule of thumb for English text; only ever an estimate
TOKENS_PER_IMAGE = 800  # a middling figure between the providers' own (85 to 1,600)
USUAL_OUTPUT_TOKENS = 500  # to compare prices before an answer exists


class Wants(NamedTuple):
    """What is asked. Each truthy flag is a capability that the backend must have."""

    functions: bool
    cli_tools: bool
    images: bool
    stream: bool

    @property
    def tools(self) -> bool:
        """Whether tools of either kind are asked for."""
        return self.functions or self.cli_tools

    def missing(self, capabilities: frozenset[str]) -> str | None:
        """The first thing asked for that is not among `capabilities`."""
        for name, wanted in zip(self._fields, self, strict=True):
            if wanted and name not in capabilities:
                return name
        return None


FIELD_OF = {"functions": "tools", "cli_tools": "tools", "images": "messages", "stream": "stream"}
_PLAIN, _PLAIN_STREAM = Wants(False, False, False, False), Wants(False, False, False, True)
_TOOL_FIELDS = frozenset(
    ("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "cli_tools", "working_directory")
)


def survey(chat: Mapping[str, Any], characters: int | None = None, is_flat: bool = False) -> tuple[Wants, int]:
    """What a checked chat request wants, and about how many tokens its prompt has.

    Strings in `tools` are Claude's own tools, objects are functions. `characters`, `is_flat`: what its Document knows.
    """
    if is_flat and characters is not None:
        return _PLAIN_STREAM if chat.get("stream") else _PLAIN, characters // CHARACTERS_PER_TOKEN
    images = 0
    if characters is None:
        characters, images = _size_of_messages(chat.get("messages") or ())
    stream = bool(chat.get("stream"))
    if not images and _TOOL_FIELDS.isdisjoint(chat):
        return _PLAIN_STREAM if stream else _PLAIN, characters // CHARACTERS_PER_TOKEN
    tools, functions = chat.get("tools"), chat.get("functions")
    named = isinstance(next(iter(tools or ()), None), str)
    asked = Wants(
        functions=bool(tools and not named) or bool(functions),
        cli_tools=named or bool(chat.get("cli_tools")) or bool(chat.get("working_directory")),
        images=images > 0,
        stream=stream,
    )
    if asked.functions:
        characters += len(orjson.dumps(tools or functions))  # definitions are read by the model, too
    return asked, characters // CHARACTERS_PER_TOKEN + images * TOKENS_PER_IMAGE


def wants(chat: Mapping[str, Any]) -> Wants:
    """What a checked chat request asks for."""
    return survey(chat)[0]


def estimated_tokens(chat: Mapping[str, Any]) -> int:
    """Prompt tokens, estimated from the text's length, the functions and the number of images."""
    return survey(chat)[1]


def output_tokens(chat: Mapping[str, Any]) -> int:
    """About how many tokens the answer may have: a usual one, or less where the client caps it, for each choice."""
    cap = chat.get("max_completion_tokens") or chat.get("max_tokens") or USUAL_OUTPUT_TOKENS
    return min(int(cap), USUAL_OUTPUT_TOKENS) * int(chat.get("n") or 1)


def without_tools(chat: Mapping[str, Any]) -> dict[str, Any]:
    """The same request for a backend that has no tools."""
    return {name: value for name, value in chat.items() if name not in _TOOL_FIELDS}


def _size_of_messages(messages: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """Characters of text, and images."""
    characters = images = 0
    for message in messages:
        content = message.get("content")
        if type(content) is str:
            characters += len(content)
        elif content:
            more, images_here = _size_of_parts(content)
            characters += more
            images += images_here
        if "tool_calls" in message:
            for call in message["tool_calls"] or ():
                characters += len((call.get("function") or {}).get("arguments") or "")
    return characters, images


def _size_of_parts(parts: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """Characters of text, and images, of a content in parts."""
    characters = images = 0
    for part in parts:
        if part.get("type") == "text":
            characters += len(part.get("text") or "")
        elif part.get("type") == "image_url":
            images += 1
    return characters, images
