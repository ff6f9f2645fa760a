"""OpenAI and every host that speaks its chat completions: the client's own bytes there, the provider's own back."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from gw.adapter import WireRequest
from gw.adapters.openai.codec import OpenAICodec
from gw.adapters.openai.dialects import DIALECTS, Dialect, dialect_of, is_loopback
from gw.adapters.openai.request import Encoder, schema_to_check
from gw.chat_parts import is_deprecated
from gw.message import Request
from gw.message_checks import plain_characters
from gw.remote_media import Fetch, MediaFetcher
from gw.secret import Secret

__all__ = ["DIALECTS", "Dialect", "OpenAI", "OpenAICodec"]

_KEPT = 64  # heads


@dataclass(slots=True, eq=False, repr=False)
class _Head:
    """What a request's key decides: its header fields, and what must not be quoted of its answer."""

    key: Secret | None  # held, so that no other one comes to have its id
    fields: list[tuple[str, str]]
    secrets: tuple[Secret, ...]


class OpenAI:
    """An adapter for one host. Its options:

    base_url      where `/chat/completions` is, with the version: "https://api.groq.com/openai/v1"
    headers       further fields for every request; they win over the adapter's own
    dialect       whose departures from OpenAI to respect (a name of `DIALECTS`); by default the host tells
    organization  OpenAI-Organization
    project       OpenAI-Project
    api_version   Azure: the `api-version` of a resource; the model's name is then that of the deployment
    deployment    Azure: one deployment for every model
    fetch         which images the gateway fetches, where the host does not (`gw.remote_media.Fetch`)

    Raises ValueError for an option that cannot be meant.
    """

    key_envs: tuple[str, ...] = ("OPENAI_API_KEY",)
    needs_key: bool = True
    default_base_url = "https://api.openai.com/v1"
    capabilities: frozenset[str] = frozenset({"functions", "images", "stream"})

    def __init__(
        self,
        *,
        base_url: str | None = None,
        headers: dict[str, str] | None = None,
        dialect: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        api_version: str | None = None,
        deployment: str | None = None,
        fetch: Fetch | None = None,
    ) -> None:
        self.base_url = (base_url or self.default_base_url).rstrip("/").removesuffix("/chat/completions")
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f'base_url must begin with http:// or https:// and a host, not "{base_url}"')
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError("base_url holds no key, query or fragment: use api_key_env, api_version and headers")
        if dialect is not None and dialect not in DIALECTS:
            raise ValueError(f'unknown dialect "{dialect}" (known: {", ".join(DIALECTS)})')
        self.dialect = dialect_of(parts.hostname, parts.port) if dialect is None else DIALECTS[dialect]
        # A key goes only to the host whose key it is: OPENAI_API_KEY is never offered to somebody else.
        self.key_envs = (self.dialect.key_env,) if self.dialect.key_env else ()
        self.needs_key = bool(self.dialect.hosts) and not is_loopback(parts.hostname)
        self._api_version = api_version
        self._url = f"{self.base_url}/chat/completions" if api_version is None else ""  # "": it has to be asked for
        self._deployment = deployment
        own = {"OpenAI-Organization": organization, "OpenAI-Project": project, **self.own_headers()}
        self._headers = {
            "content-type": "application/json",
            "user-agent": "gw",  # some hosts turn away who does not say
            **{name.lower(): value for name, value in own.items() if value is not None},
        }
        self._encoder = Encoder(self.dialect)
        self._heads: dict[tuple[int, bool], _Head] = {}  # by the id of the key: a Secret's own hash takes a frame
        self._given = {name.lower(): value for name, value in (headers or {}).items()}
        if fetch is not None and self.dialect.remote_images:
            raise ValueError(f"fetch is not needed: {self.dialect.name} follows addresses itself")
        self.fetcher = None if fetch is None else MediaFetcher(fetch)
        if self.fetcher is not None:
            self.prepare = self.fetcher.inline

    def own_headers(self) -> dict[str, str | None]:
        """Header fields that this host wants with every request; None is not sent."""
        return {}

    def open(self, request: Request) -> OpenAICodec:
        """Translate a request for `request.candidate`. Raises InvalidRequest for what the provider cannot do."""
        document, exchange = request.document, request.exchange
        if document is None:
            raise LookupError(f"request {request.id} has no body: `translate` stands behind the step that reads it")
        candidate, chat = request.candidates[0], document.peek()
        dialect, stream = self.dialect, exchange.stream
        backend, key = candidate.backend, candidate.key
        model = self._deployment or candidate.model
        is_plain = document.characters is not None or plain_characters(chat.get("messages")) is not None
        is_emulated = not (document.is_flat or dialect.functions) and is_deprecated(chat, is_plain)
        content, losses = self._encoder.encode(document, chat, model, stream, is_emulated, is_plain)
        head = self._heads.get((id(key), stream)) or self._head(key, stream)
        wire = WireRequest(
            "POST",
            self._url or self._url_of(model),
            head.fields.copy(),
            content,
            stream,
            backend.name,
            request.id,
            backend.timeouts,
        )
        return OpenAICodec(
            wire,
            losses,
            candidate.answers_as,
            exchange.timestamp,
            head.secrets,
            is_emulated,
            None if dialect.json_schema else schema_to_check(chat, dialect),
        )

    def _head(self, key: Secret | None, stream: bool) -> _Head:
        """What is the same for all requests that have the same key."""
        headers = {**self._headers, "accept": "text/event-stream" if stream else "application/json"}
        if key and self.dialect.key_header == "bearer":
            headers["authorization"] = f"Bearer {key.reveal()}"
        elif key:
            headers["api-key"] = key.reveal()
        head = _Head(key, list({**headers, **self._given}.items()), (key,) if key else ())
        if len(self._heads) >= _KEPT:  # keys may be fetched tokens, and each is new
            self._heads.clear()
        self._heads[id(key), stream] = head
        return head

    def _url_of(self, model: str) -> str:
        """Azure's: it may name the model, and says which version of the API is meant."""
        assert self._api_version is not None, "asked only where there is one"
        path = self.base_url
        if self.dialect.name == "azure" and not path.endswith("/models") and "/deployments/" not in path:
            path = f"{path.removesuffix('/openai')}/openai/deployments/{quote(model, safe='')}"
        return f"{path}/chat/completions?api-version={quote(self._api_version, safe='')}"
