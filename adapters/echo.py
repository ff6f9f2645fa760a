"""Echo: a backend that needs nothing and answers what it was told, so that the first request of a day succeeds."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import Any

from gw.document import Chunk, Completion
from gw.message import Request, Response, Summary, Usage
from gw.stream import ListStream

_WORDS = re.compile(r"\s*\S+\s*\Z|\s*\S+")
_CHARACTERS_PER_TOKEN = 4  # of English text, roughly; the usage is marked as estimated


class Echo:
    """Answers with the text of the last user message. It takes no options, ignores tools and never fails."""

    key_envs: tuple[str, ...] = ()
    needs_key: bool = False
    capabilities: frozenset[str] = frozenset({"functions", "images", "stream"})

    async def answer(self, request: Request) -> Response:
        """A whole completion, or a stream of it word by word."""
        chat = request.document.peek() if request.document is not None else {}
        messages = chat.get("messages") or []
        text = f"echo: {_last_words(messages)}"
        usage = Usage(
            prompt=_tokens(sum(len(_text(message.get("content"))) for message in messages)),
            completion=_tokens(len(text)),
            source="estimated",
        )
        summary = Summary(
            model="echo",
            finish_reason="stop",
            native_finish_reason="stop",
            usage=usage,
            output_characters=len(text),
        )
        head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(request.exchange.timestamp),
            "model": request.candidate.answers_as,
        }
        if request.is_stream:
            chunks = [Chunk(value=value) for value in _chunks(head, text, _as_json(usage))]
            return Response(ListStream(chunks), summary=summary)
        message = {"role": "assistant", "content": text}
        completion = {
            **head,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": _as_json(usage),
        }
        return Response(Completion(value=completion), summary=summary)


def _last_words(messages: list[dict[str, Any]]) -> str:
    """The text of the last user message, with a note of what else came with it."""
    content = next((message.get("content") for message in reversed(messages) if message.get("role") == "user"), None)
    text = _text(content).strip()
    others = (
        sum(not isinstance(part, dict) or part.get("type") != "text" for part in content)
        if isinstance(content, list)
        else 0
    )
    if others:
        text += f" (and {others} {'part' if others == 1 else 'parts'} that {'is' if others == 1 else 'are'} no text)"
    return text.strip() or "..."


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return " ".join(str(part.get("text") or "") for part in content if isinstance(part, dict)).strip()


def _chunks(head: dict[str, Any], text: str, usage: dict[str, int]) -> Iterator[dict[str, Any]]:
    head = {**head, "object": "chat.completion.chunk"}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    yield chunk({"role": "assistant", "content": ""})
    for word in _WORDS.findall(text):
        yield chunk({"content": word})
    yield chunk({}, "stop")
    yield {**head, "choices": [], "usage": usage}


def _tokens(characters: int) -> int:
    return -(-characters // _CHARACTERS_PER_TOKEN)


def _as_json(usage: Usage) -> dict[str, int]:
    return {"prompt_tokens": usage.prompt, "completion_tokens": usage.completion, "total_tokens": usage.total}
