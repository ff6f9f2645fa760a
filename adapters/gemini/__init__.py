"""Google's Gemini API (generativelanguage.googleapis.com) with an API key.

https://ai.google.dev/api/generate-content
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

from gw.adapter import WireRequest
from gw.adapters.gemini.codec import GeminiCodec
from gw.adapters.gemini.draft import NEWEST, Draft, Traits, traits_of
from gw.adapters.gemini.request import encode_request
from gw.chat_parts import is_deprecated, with_tools
from gw.errors import ConfigError
from gw.message import Loss, Request
from gw.models import Catalogue, Model
from gw.models import catalogue as shipped
from gw.provider_json import write_exactly
from gw.remote_media import Fetch, MediaFetcher
from gw.secret import Secret
from gw.signatures import SHARED, SignatureStore

__all__ = ["Gemini", "GeminiCodec", "verb"]

_FAMILY = "gemini"  # whose signatures are kept together: AI Studio's and Vertex's are the same

_THRESHOLDS = ("OFF", "BLOCK_NONE", "BLOCK_ONLY_HIGH", "BLOCK_MEDIUM_AND_ABOVE", "BLOCK_LOW_AND_ABOVE")
_YOUTUBE = ("https://www.youtube.com/watch?", "https://youtube.com/watch?", "https://youtu.be/")


class Gemini:
    """Google's generateContent with an API key.

    `headers` are sent with every request and win over ours; `safety` is a table of harm categories and thresholds,
    `{harassment = "BLOCK_ONLY_HIGH"}`; `flags` changes what is known of this backend's models, with the keys of
    `gw.models.Model.changed`: `{sampling = false}`. A client's own generateContent fields pass in its field `gemini`.
    """

    key_envs: ClassVar[tuple[str, ...]] = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
    needs_key: ClassVar[bool] = True
    capabilities: ClassVar[frozenset[str]] = frozenset({"functions", "images", "stream"})

    name = "gemini"
    provider = "Gemini"  # how messages call it
    fetches_urls = False  # whether the provider follows image and document URLs itself
    is_vertex = False

    def __init__(
        self,
        *,
        base_url: str = "https://generativelanguage.googleapis.com/v1beta",
        headers: dict[str, str] | None = None,
        safety: dict[str, str] | None = None,
        flags: dict[str, Any] | None = None,
        fetch: Fetch | None = None,
        catalogue: Catalogue | None = None,
        signatures: SignatureStore = SHARED,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        own = {"content-type": "application/json"}
        self._headers = [*(own | {name.lower(): value for name, value in (headers or {}).items()}).items()]
        self._safety = _safety_settings(safety or {})
        self._flags = dict(flags or {})
        self._catalogue = shipped() if catalogue is None else catalogue
        self._signatures = signatures
        self._traits: dict[str, Traits] = {}
        self.fetcher = None if fetch is None else MediaFetcher(fetch)
        try:
            Model("").changed(self._flags)
        except ValueError as error:
            raise ConfigError([f"flags.{error}"]) from None

    async def prepare(self, request: Request) -> Request:
        """The request with the images and files inside it that `fetch` allows and Gemini does not follow itself.

        The thought signatures of its tool calls are at hand then.
        """
        if request.document is not None:
            await self._signatures.recall(_scope(request), request.document.peek()["messages"])
        return request if self.fetcher is None else await self.fetcher.inline(request, self.takes_uri)

    def open(self, request: Request, /) -> GeminiCodec:
        """Translate a request for its candidate. Raises InvalidRequest for what Gemini cannot do."""
        if request.document is None:
            raise LookupError(f"request {request.id} has no body: translate stands behind the step that reads it")
        chat: Mapping[str, Any] = request.document.peek()
        is_old = is_deprecated(chat)
        if is_old:
            chat = with_tools(chat)
        candidate = request.candidate
        scope = _scope(request)
        draft = Draft(
            provider=self.provider,
            traits=self._traits.get(candidate.model) or self._learn(candidate.model),
            find_signature=lambda call_id: self._signature(scope, call_id),
            takes_uri=self.takes_uri,
            is_vertex=self.is_vertex,
        )
        if is_old:
            draft.losses.append(Loss("/functions", "emulated", "they travel as tools"))
        body = encode_request(chat, draft, self._safety)
        wire = WireRequest(
            method="POST",
            url=self.url(candidate.model, request.is_stream),
            headers=[*self._headers, *self._credentials(candidate.key)],
            content=write_exactly(body),
            stream=request.is_stream,
            backend=candidate.backend.name,
            request_id=request.id,
            timeouts=candidate.backend.timeouts,
        )
        return GeminiCodec(
            wire,
            request,
            draft,
            lambda call_id, signature: self._signatures.keep(scope, (call_id,), signature),
            is_deprecated=is_old,
        )

    def _signature(self, scope: str, call_id: str) -> str | None:
        found = self._signatures.find(scope, call_id)
        return found if isinstance(found, str) else None

    def _learn(self, model: str) -> Traits:
        """What a model can do, with this backend's `flags`."""
        known = self._catalogue.find(model)
        if self._flags:
            known = (known or Model(model, flags=NEWEST)).changed(self._flags)
        if len(self._traits) > 1000:  # names may come from clients
            self._traits.clear()
        traits = self._traits[model] = traits_of(model, known)
        return traits

    # --- what differs on Vertex -----------------------------------------------------------------------------------

    def url(self, model: str, is_stream: bool) -> str:
        """Where a request goes; whatever a model's name holds stays inside its segment of the path."""
        folder, name = "models", model
        if model.startswith(("models/", "tunedModels/")):
            folder, _, name = model.partition("/")
        return f"{self.base_url}/{folder}/{quote(name, safe='@')}:{verb(is_stream)}"

    def takes_uri(self, uri: str) -> bool:
        """Whether Google reads what this URL points at: its own Files API and YouTube."""
        return uri.startswith((f"{self.base_url}/files/", *_YOUTUBE))

    def _credentials(self, key: Secret | None) -> list[tuple[str, str]]:
        # In a header: as ?key= it would stand in every log on the way.
        return [("x-goog-api-key", key.reveal())] if key else []


def _scope(request: Request) -> str:
    return f"{_FAMILY}:{request.principal.name}"


def verb(is_stream: bool) -> str:
    """The method's name at the end of a URL."""
    return "streamGenerateContent?alt=sse" if is_stream else "generateContent"


def _safety_settings(safety: Mapping[str, str]) -> list[dict[str, str]]:
    """`{harassment: BLOCK_NONE}` as Google's list. Raises ConfigError for a threshold that does not exist."""
    settings, problems = [], []
    for name, threshold in safety.items():
        category = name.upper()
        if not category.startswith("HARM_CATEGORY_"):
            category = "HARM_CATEGORY_" + category
        if threshold not in _THRESHOLDS:
            problems.append(f'safety.{name} = "{threshold}" is unknown: choose one of {", ".join(_THRESHOLDS)}')
        settings.append({"category": category, "threshold": threshold})
    if problems:
        raise ConfigError(problems)
    return settings
