"""Ollama's own API (/api/chat), on this machine or in its cloud.

https://docs.ollama.com/api/chat
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gw.adapter import WireRequest
from gw.adapters.ollama.codec import OllamaCodec
from gw.adapters.ollama.request import encode_request
from gw.chat_parts import is_deprecated, with_tools
from gw.message import Loss, Request
from gw.provider_json import write_exactly
from gw.remote_media import Fetch, MediaFetcher

__all__ = ["Ollama", "OllamaCodec"]


class Ollama:
    """Ollama by its native API, which unlike its OpenAI-compatible one takes `num_ctx`.

    `options` are the model's options for every request, `{num_ctx = 32768}` (Ollama cuts a longer prompt without a
    word); the client's own parameters win. `keep_alive` is how long the model stays loaded, "10m". `headers` are sent
    with every request and win over ours. A key is needed in the cloud only. A client's own /api/chat fields pass in its
    field `ollama`.
    """

    key_envs: ClassVar[tuple[str, ...]] = ("OLLAMA_API_KEY",)
    needs_key: ClassVar[bool] = False
    capabilities: ClassVar[frozenset[str]] = frozenset({"functions", "images", "stream"})
    name = "ollama"
    fetches_urls = False  # whether the provider follows image URLs itself

    def __init__(
        self,
        *,
        base_url: str = "http://localhost:11434",
        headers: dict[str, str] | None = None,
        options: dict[str, Any] | None = None,
        keep_alive: str | None = None,
        fetch: Fetch | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        own = {"content-type": "application/json"}
        self._headers = [*(own | {name.lower(): value for name, value in (headers or {}).items()}).items()]
        self._options = dict(options or {})
        self._keep_alive = keep_alive
        self.fetcher = None if fetch is None else MediaFetcher(fetch)

    async def prepare(self, request: Request) -> Request:
        """The request with the images inside it that `fetch` allows."""
        return request if self.fetcher is None else await self.fetcher.inline(request)

    def open(self, request: Request, /) -> OllamaCodec:
        """Translate a request for its candidate. Raises InvalidRequest for what Ollama cannot do."""
        if request.document is None:
            raise LookupError(f"request {request.id} has no body: translate stands behind the step that reads it")
        chat: Mapping[str, Any] = request.document.peek()
        is_old = is_deprecated(chat)
        if is_old:
            chat = with_tools(chat)
        candidate = request.candidate
        losses = [Loss("/functions", "emulated", "they travel as tools")] if is_old else []
        body = encode_request(chat, candidate.model, request.is_stream, self._options, losses)
        if self._keep_alive is not None:
            body.setdefault("keep_alive", self._keep_alive)
        headers = list(self._headers)
        if candidate.key:
            headers.append(("authorization", f"Bearer {candidate.key.reveal()}"))
        wire = WireRequest(
            method="POST",
            url=f"{self.base_url}/api/chat",
            headers=headers,
            content=write_exactly(body),
            stream=request.is_stream,
            backend=candidate.backend.name,
            request_id=request.id,
            timeouts=candidate.backend.timeouts,
        )
        return OllamaCodec(wire, request, losses, is_deprecated=is_old)
