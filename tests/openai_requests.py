"""What the tests of the openai adapter share: a codec opened for a body, what it sends, and what it tells as lost."""

from __future__ import annotations

from typing import Any

import orjson

from gw.adapters.openai import OpenAI, OpenAICodec
from gw.backend import Backend
from gw.document import Document
from gw.message import Candidate
from gw.secret import Secret
from tests.fakes import chat_request

HI: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]


def send(
    raw: bytes | dict[str, Any],
    *,
    model: str = "upstream",
    stream: bool | None = None,
    adapter: OpenAI | None = None,
    dialect: str | None = "openai",
    key: Secret | None = None,
) -> OpenAICodec:
    """Open a codec for a body, as the bytes that came or as a value."""
    adapter = adapter if adapter is not None else OpenAI(base_url="http://127.0.0.1:8000/v1", dialect=dialect)
    document = Document(raw if isinstance(raw, bytes) else orjson.dumps({"model": "m", "messages": HI, **raw}))
    wanted = bool(document.peek().get("stream")) if stream is None else stream
    request = chat_request({"stream": wanted})
    backend = Backend(name="b", kind="openai", adapter=adapter)
    candidate = Candidate(backend, model, "asked-for", key=key)
    return adapter.open(request.replace(document=document, candidates=(candidate,)))


def body(raw: bytes | dict[str, Any], **options: Any) -> Any:
    return orjson.loads(send(raw, **options).wire.content)


def told(codec: OpenAICodec) -> set[tuple[str, str]]:
    return {(loss.pointer, loss.kind) for loss in codec.losses}
