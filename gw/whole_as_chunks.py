"""A whole answer as the chunks of a stream, for whoever answers a request for a stream with one: a cache, say."""

from __future__ import annotations

from typing import Any

from gw.document import Chunk, Completion


def chunks_of(completion: Completion) -> list[Chunk]:
    """The same answer in as few chunks as OpenAI's order allows: messages, finish reasons, usage.

    Raises LookupError, TypeError, ValueError or AttributeError for what is no completion.
    """
    value = completion.peek()
    head = {name: field for name, field in value.items() if name not in ("choices", "usage")}
    head["object"] = "chat.completion.chunk"
    opening: list[dict[str, Any]] = []
    ending: list[dict[str, Any]] = []
    for place, choice in enumerate(value["choices"]):
        index = choice.get("index", place)
        delta = {"role": "assistant", **choice["message"]}
        calls = delta.get("tool_calls")
        if calls:
            delta["tool_calls"] = [{"index": at, **call} for at, call in enumerate(calls)]
        rest = {name: field for name, field in choice.items() if name not in ("message", "finish_reason")}
        opening.append({**rest, "index": index, "delta": delta, "finish_reason": None})
        finish = choice.get("finish_reason") or ("tool_calls" if calls else "stop")
        ending.append({"index": index, "delta": {}, "finish_reason": finish})
    chunks = [Chunk(value={**head, "choices": opening}), Chunk(value={**head, "choices": ending})]
    if value.get("usage"):
        chunks.append(Chunk(value={**head, "choices": [], "usage": value["usage"]}))
    return chunks
