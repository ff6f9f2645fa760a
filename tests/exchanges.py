"""Ended exchanges, as the app hands them to log, metrics and access line."""

from __future__ import annotations

from typing import Any

import orjson

from gw.backend import Backend, Backends, Price
from gw.document import Document
from gw.errors import GatewayError
from gw.message import Attempt, Exchange, Summary, Usage

NOW = 1_700_000_000.0  # Unix seconds
HELLO = [{"role": "user", "content": "Hello!"}]


def backends() -> Backends:
    return Backends(
        [
            Backend("fast", "openai", price=Price(input=1.0, output=2.0)),
            Backend("flat", "openrouter", cost_per_request=0.001),
        ]
    )


def attempt(
    backend: str = "fast",
    *,
    started: float = 100.01,
    ended: float | None = 100.5,
    first_content: float | None = None,
    error: BaseException | None = None,
    usage: Usage | None = None,
    status: int | None = 200,
    **summary: Any,
) -> Attempt:
    """One try; `summary` are fields of its Summary."""
    return Attempt(
        backend,
        f"{backend}-model",
        started,
        ended,
        first_content,
        status,
        error,
        Summary(usage=usage, **summary),
    )


def exchange(
    *,
    id: str = "req-1",
    messages: Any = None,
    body: dict[str, Any] | None = None,
    attempts: list[Attempt] | None = None,
    response: list[bytes] | None = None,
    status: int = 200,
    error: BaseException | None = None,
    timestamp: float = NOW,
    **fields: Any,
) -> Exchange:
    """An exchange that took half a second, answered by one attempt unless told otherwise."""
    chat = {"model": "gpt-4", "messages": HELLO if messages is None else messages} if body is None else body
    if attempts is None:
        attempts = [attempt(usage=Usage(prompt=10, completion=20), cost_usd=0.5, cost_source="reported")]
    given: dict[str, Any] = {"operation": "chat", "model": "gpt-4", "client": "127.0.0.1", "ended": 100.5} | fields
    return Exchange(
        id=id,
        method=given.pop("method", "POST"),
        path=given.pop("path", "/v1/chat/completions"),
        started=100.0,
        timestamp=timestamp,
        request=Document(orjson.dumps(chat)),
        attempts=attempts,
        response=[completion("Hi Alice")] if response is None else response,
        status=status,
        error=error,
        **given,
    )


def refused(error: GatewayError, **fields: Any) -> Exchange:
    """An exchange that never reached a backend."""
    return exchange(attempts=[], response=[], status=error.status, error=error, **fields)


def completion(text: str | None, **message: Any) -> bytes:
    """A raw chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}
    return orjson.dumps({"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice]})


def chunk(index: int = 0, **delta: Any) -> bytes:
    """A raw chunk."""
    return orjson.dumps({"object": "chat.completion.chunk", "choices": [{"index": index, "delta": delta}]})
