"""A stream as the `openai` SDK puts it together for whoever calls `client.chat.completions.stream()`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk


def accumulated(chunks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The completion that is left at the end. RuntimeError for entries of lists that do not tell their index."""
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    return state.get_final_completion().model_dump()
