"""Claude over Anthropic's own API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gw.adapter import WireRequest
from gw.adapters.anthropic.codec import AnthropicCodec
from gw.adapters.anthropic.plan import FAMILY, Plan
from gw.adapters.anthropic.request import betas_of, encode
from gw.errors import ConfigError
from gw.message import Request
from gw.models import Catalogue, Model
from gw.models import catalogue as shipped
from gw.provider_json import write_exactly
from gw.signatures import SHARED, SignatureStore


class Anthropic:
    """Anthropic's Messages API with an API key.

    `headers` are sent with every request and win over ours; `version` and `betas` are `anthropic-version` and
    `anthropic-beta`; `max_tokens` is used where the client names none, in place of the model's cap; `flags` changes
    what is known of this backend's models, with the keys of `gw.models.Model.changed`: `{sampling = false}`.
    """

    key_envs: ClassVar[tuple[str, ...]] = ("ANTHROPIC_API_KEY",)
    needs_key: ClassVar[bool] = True
    capabilities: ClassVar[frozenset[str]] = frozenset({"functions", "images", "stream"})
    name = "anthropic"  # in messages
    fetches_urls = True  # whether the provider follows image and document URLs itself

    def __init__(
        self,
        *,
        base_url: str = "https://api.anthropic.com/v1",
        headers: dict[str, str] | None = None,
        version: str = "2023-06-01",
        betas: list[str] | None = None,
        max_tokens: int | None = None,
        flags: dict[str, Any] | None = None,
        catalogue: Catalogue | None = None,
        signatures: SignatureStore = SHARED,
    ) -> None:
        if max_tokens is not None and max_tokens < 1:
            raise ConfigError(["max_tokens must be at least 1: leave it out for the model's own cap"])
        self.base_url = base_url.rstrip("/")
        self._betas = list(betas or ())
        self._max_tokens = max_tokens
        self._catalogue = shipped() if catalogue is None else catalogue
        self._signatures = signatures
        self._flags = dict(flags or {})
        self._models: dict[str, Model] = {}
        try:
            Model("").changed(self._flags)
        except ValueError as error:
            raise ConfigError([f"flags.{error}"]) from None
        own = {"content-type": "application/json", **self._version_headers(version)}
        self._headers = [*(own | {name.lower(): value for name, value in (headers or {}).items()}).items()]

    async def prepare(self, request: Request) -> Request:
        """The same request, with the signed thinking of its tool calls at hand."""
        if request.document is not None:
            await self._signatures.recall(self._scope(request), request.document.peek()["messages"])
        return request

    def open(self, request: Request, /) -> AnthropicCodec:
        """Translate a request for its candidate. Raises InvalidRequest for what Claude cannot do."""
        if request.document is None:
            raise LookupError(f"request {request.id} has no body: translate stands behind the step that reads it")
        chat = request.document.peek()
        candidate = request.candidate
        plan = Plan(
            provider=self.name,
            model=self.model(candidate.model),
            signatures=self._signatures,
            scope=self._scope(request),
            fetches_urls=self.fetches_urls,
        )
        body = encode(chat, plan, candidate.model, self._max_tokens)
        is_stream = bool(chat.get("stream"))
        wire = WireRequest(
            method="POST",
            url=self.url(candidate.model, is_stream),
            headers=self._headers_for(request, [*self._betas, *betas_of(chat)]),
            content=write_exactly(self.body(body, candidate.model)),
            stream=is_stream,
            backend=candidate.backend.name,
            request_id=request.id,
            timeouts=candidate.backend.timeouts,
        )
        return AnthropicCodec(request, wire, plan)

    def model(self, name: str) -> Model:
        """What is known of a model, with this backend's `flags`; an unknown family counts as the newest Claude."""
        known = self._models.get(name)
        if known is None:
            found = self._catalogue.find(name) or self._catalogue.find("claude")
            known = (found or Model(name)).changed(self._flags)
            if len(self._models) > 1000:  # names may come from clients
                self._models.clear()
            self._models[name] = known
        return known

    @staticmethod
    def _scope(request: Request) -> str:
        return f"{FAMILY}:{request.principal.name}"

    # --- what differs on other hosts ------------------------------------------------------------------------------

    def url(self, model: str, is_stream: bool) -> str:
        """Where a request goes."""
        return f"{self.base_url}/messages"

    def body(self, body: dict[str, Any], model: str) -> dict[str, Any]:
        """The body as this host wants it; may change it in place."""
        return body

    def _version_headers(self, version: str) -> Mapping[str, str]:
        return {"anthropic-version": version}

    def _key_header(self, key: str) -> tuple[str, str]:
        return "x-api-key", key

    def _headers_for(self, request: Request, betas: list[str]) -> list[tuple[str, str]]:
        headers = list(self._headers)
        key = request.candidate.key
        if key:
            headers.append(self._key_header(key.reveal()))
        if betas:
            headers.append(("anthropic-beta", ",".join(dict.fromkeys(betas))))
        return headers
