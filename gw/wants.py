"""What a chat request asks of a backend: functions, CLI tools, images, a stream, room for its prompt.

Read once per request from the canonical form; route and its rules decide by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

CHARACTERS_PER_TOKEN = 4  # the usual rule of thumb for English text; only ever an estimate
TOKENS_PER_IMAGE = 800  # a middling figure between the providers' own (85 to 1,600)


class Wants(NamedTuple):
    """What is asked. Each truthy flag is a capability that the backend must have."""

    functions: bool
    cli_tools: bool
    images: bool
    stream: bool

    def missing(self, capabilities: frozenset[str]) -> str | None:
        """The first thing asked for that is not among `capabilities`."""
        for name, wanted in zip(self._fields, self, strict=True):
            if wanted and name not in capabilities:
                return name
        return None


FIELD_OF = {"functions": "tools", "cli_tools": "tools", "images": "messages", "stream": "stream"}


def wants(chat: Mapping[str, Any]) -> Wants:
    """Read a checked chat request. Strings in `tools` are Claude's own tools, objects are functions."""
    tools = chat.get("tools") or ()
    named = isinstance(next(iter(tools), None), str)
    return Wants(
        functions=bool(tools and not named) or bool(chat.get("functions")),
        cli_tools=named or bool(chat.get("cli_tools")) or bool(chat.get("working_directory")),
        images=has_images(chat),
        stream=bool(chat.get("stream")),
    )


def has_images(chat: Mapping[str, Any]) -> bool:
    """Whether any message carries an image part."""
    for message in chat.get("messages") or ():
        content = message.get("content")
        if isinstance(content, list) and any(part.get("type") == "image_url" for part in content):
            return True
    return False


def estimated_tokens(chat: Mapping[str, Any]) -> int:
    """Prompt tokens, estimated from the text's length and the number of images."""
    characters = images = 0
    for message in chat.get("messages") or ():
        content = message.get("content")
        if isinstance(content, str):
            characters += len(content)
        elif isinstance(content, list):
            for part in content:
                if part.get("type") == "text":
                    characters += len(part.get("text") or "")
                elif part.get("type") == "image_url":
                    images += 1
    return characters // CHARACTERS_PER_TOKEN + images * TOKENS_PER_IMAGE
