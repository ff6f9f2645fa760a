"""What the tests of several adapters do with a codec: open it for a request, read a stream with it to its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import orjson

from gw.adapter import Adapter, Codec
from gw.adapters.anthropic import Anthropic
from gw.adapters.gemini import Gemini
from gw.adapters.ollama import Ollama
from gw.adapters.openai import OpenAI
from gw.adapters.openrouter import OpenRouter
from gw.adapters.vertex_anthropic import VertexAnthropic
from gw.adapters.vertex_gemini import VertexGemini
from gw.backend import Backend
from gw.document import Chunk
from gw.errors import GatewayError
from gw.message import Candidate, Request
from gw.secret import Secret
from tests.fakes import chat_request

T = TypeVar("T", covariant=True)
ADAPTERS: dict[str, Callable[[], Adapter]] = {
    "openai": OpenAI,
    "groq": lambda: OpenAI(base_url="https://api.groq.com/openai/v1"),
    "mistral": lambda: OpenAI(base_url="https://api.mistral.ai/v1"),
    "deepseek": lambda: OpenAI(base_url="https://api.deepseek.com"),
    "openrouter": OpenRouter,
    "anthropic": Anthropic,
    "vertex-anthropic": lambda: VertexAnthropic(project="p", token_env="GW_TEST_NO_TOKEN"),
    "gemini": Gemini,
    "vertex-gemini": lambda: VertexGemini(project="p", token_env="GW_TEST_NO_TOKEN"),
    "ollama": Ollama,
}
MODELS = {
    "anthropic": "claude-sonnet-4-5",
    "vertex-anthropic": "claude-sonnet-4-5",
    "gemini": "gemini-2.5-flash",
    "vertex-gemini": "gemini-2.5-flash",
}
KEY = "canary-5d41402abc4b2a76b9719d911017c592"  # has no prefix by which a key is known


def codec_of(name: str, chat: dict[str, Any] | None = None) -> Codec:
    request = chat_request({"model": "asked-for"} | (chat or {}))
    backend = Backend(name=name, kind=name)
    candidate = Candidate(backend, MODELS.get(name, "some-model"), "asked-for", key=Secret(KEY))
    return ADAPTERS[name]().open(request.replace(candidates=(candidate,)))


class Opens(Protocol[T]):
    """An adapter, with the codec of its own."""

    def open(self, request: Request) -> T: ...


def opened_untouched(adapter: Opens[T], request: Request) -> T:
    """The adapter's codec for a request of which nothing was changed in place."""
    document = request.document
    assert document is not None
    before = orjson.dumps(document.peek())
    codec = adapter.open(request)
    assert not document.is_opened
    assert orjson.dumps(document.peek()) == before
    return codec


def read_all(codec: Codec, pieces: Sequence[bytes]) -> tuple[list[dict[str, Any]], GatewayError | None]:
    """Every chunk that comes out, and the error that ended the stream if one did."""
    found: list[Chunk] = []
    error: GatewayError | None = None
    try:
        for piece in pieces:
            found += codec.feed(piece)
        found += codec.finish()
    except GatewayError as broken:
        error = broken
    return [orjson.loads(chunk.raw) for chunk in found], error
