"""An OpenAI chat request as the body of Gemini's `generateContent`, with everything told that it cannot carry.

https://ai.google.dev/api/generate-content
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gw.adapters.gemini.draft import Draft
from gw.adapters.gemini.generation import encode_generation
from gw.adapters.gemini.messages import encode_messages
from gw.adapters.gemini.tools import encode_tools
from gw.chat_parts import refusal
from gw.losses import unknown_fields

EXTENSION = "gemini"  # the field whose content goes into the body as it is

# What is translated, and what the gateway itself answers for.
_KNOWN = frozenset(
    {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p"}
    | {"top_k", "frequency_penalty", "presence_penalty", "stop", "n", "seed", "logprobs", "top_logprobs", "tools"}
    | {"tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort", "reasoning", "service_tier"}
    | {"modalities", "audio", "web_search_options", "metadata", "backend", "session_id", EXTENSION}
)
_TIERS = {"flex": "flex", "priority": "priority", "default": "standard"}
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")  # https://cloud.google.com/resource-manager/docs/labels-overview
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")


def encode_request(chat: Mapping[str, Any], draft: Draft, safety: list[dict[str, str]]) -> dict[str, Any]:
    """The body. Raises InvalidRequest for what Gemini cannot do; what it only cannot carry is in `draft.losses`."""
    system, contents = encode_messages(chat["messages"], draft)
    body: dict[str, Any] = {}
    if system:
        body["systemInstruction"] = {"parts": system}
    body["contents"] = contents
    encode_tools(chat, body, draft)
    encode_generation(chat, body, draft)
    if safety:
        body["safetySettings"] = safety
    tier = chat.get("service_tier")
    if tier in _TIERS:
        body["serviceTier"] = _TIERS[tier]
    elif tier not in (None, "auto"):
        draft.drop("/service_tier", f"{draft.provider} has no tier {tier!r}")
    if chat.get("metadata"):
        _labels(chat["metadata"], body, draft)
    if not chat.keys() <= _KNOWN:
        for pointer in unknown_fields(chat, _KNOWN):
            draft.drop(pointer, f"{draft.provider} has no such parameter")
    options = chat.get("stream_options")
    if isinstance(options, dict) and options.get("include_obfuscation"):
        draft.drop("/stream_options/include_obfuscation", f"{draft.provider} does not pad its stream")
    if chat.get(EXTENSION) is not None:
        _extend(body, chat[EXTENSION])
    return body


def _labels(metadata: Any, body: dict[str, Any], draft: Draft) -> None:
    if draft.is_vertex and isinstance(metadata, dict):
        labels = {
            name: value
            for name, value in metadata.items()
            if _LABEL_KEY.fullmatch(name) and isinstance(value, str) and _LABEL_VALUE.fullmatch(value)
        }
        if labels:
            body["labels"] = labels
        for name in metadata:
            if name not in labels:
                draft.drop(f"/metadata/{name}", "a label is short, lower case and without other signs than _ and -")
    else:
        draft.drop("/metadata", f"{draft.provider} has no such parameter")


def _extend(body: dict[str, Any], extension: Any) -> None:
    """Put the client's own Gemini fields into the body: tables are joined, lists go on, the rest replaces."""
    if not isinstance(extension, dict):
        raise refusal(f"/{EXTENSION}", f"{EXTENSION} must be an object of generateContent fields")
    for name, value in extension.items():
        former = body.get(name)
        if isinstance(former, dict) and isinstance(value, dict):
            body[name] = {**former, **value}
        elif isinstance(former, list) and isinstance(value, list):
            body[name] = [*former, *value]
        else:
            body[name] = value
