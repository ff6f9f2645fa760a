"""What the short way through OpenAI's streams learns from an event that was decoded (see `gw.text_events`)."""

from __future__ import annotations

from typing import Any

import orjson

from gw.text_events import MARK, PADDING, Template, cut

TEXTS = ("content", "reasoning_content", "reasoning")
PART = "text"  # of a part, where content is a list
ARGUMENTS = "arguments"


def learn(raw: bytes, key: str, text: str, repaired: dict[str, Any], unchanged: bytes | None) -> Template | None:
    """A template from an event's JSON whose one text is `text` under `key`; None where it is not that plain.

    `repaired` is the chunk as it goes out; `unchanged` are its bytes where nothing but the model's name differs from
    `raw`, so that the provider's own spelling of everything else is kept.
    """
    incoming = cut(raw, key, text)
    if incoming is None:
        return None
    head, tail = b"data: " + incoming[0], incoming[1] + b"\n\n"
    if unchanged is not None:
        outgoing = cut(unchanged, key, text)
        return None if outgoing is None else Template(head, tail, [outgoing[0], b'"' + outgoing[1]], key=key)
    if PADDING in raw:
        return None
    pieces = orjson.dumps(_marked(repaired, key, text)).split(MARK.encode())
    return Template(head, tail, pieces, key=key) if len(pieces) > 1 else None


def _marked(chunk: dict[str, Any], key: str, text: str) -> dict[str, Any]:
    """A copy of the chunk with the mark in place of its text, wherever the repairs put it."""
    choice = chunk["choices"][0]
    delta = choice["delta"]
    if key == ARGUMENTS:
        call = delta["tool_calls"][0]
        marked = {**delta, "tool_calls": [{**call, "function": {**call["function"], ARGUMENTS: MARK}}]}
    else:
        marked = {name: MARK if name in TEXTS and value == text else value for name, value in delta.items()}
    return {**chunk, "choices": [{**choice, "delta": marked}]}
