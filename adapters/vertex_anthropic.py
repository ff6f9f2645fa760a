"""Claude on Google Cloud's Vertex AI: Anthropic's messages at Google's addresses, with a Google access token.

https://cloud.google.com/vertex-ai/generative-ai/docs/partner-models/use-claude
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from gw.adapters.anthropic import Anthropic
from gw.errors import ConfigError, UpstreamError
from gw.message import Request
from gw.models import Catalogue, Model
from gw.oauth import google_tokens
from gw.remote_media import Fetch, MediaFetcher
from gw.secret import Secret
from gw.signatures import SHARED, SignatureStore
from gw.vertex_hosts import host_of

VERSION = "vertex-2023-10-16"


class VertexAnthropic(Anthropic):
    """Claude on Vertex AI.

    `project` and `location` ("global", "us", "eu" or a region; the host follows, `base_url` overrides) say where. The
    token comes from `credentials` (the JSON key of a service account; needs `gw[vertex]`), `token_env` (a variable that
    somebody keeps fresh) or `token_command` (a list, run without a shell); without any from
    GOOGLE_APPLICATION_CREDENTIALS, or from the backend's own key, taken as a bearer token. The rest is as for
    `anthropic`; structured answers are emulated but for the models that the catalogue says take them here. `fetch` says
    which images and files the gateway may fetch (`gw.remote_media.Fetch`): Claude follows no addresses here.
    """

    key_envs: ClassVar[tuple[str, ...]] = ()
    needs_key: ClassVar[bool] = False
    name = "vertex-anthropic"
    fetches_urls = False

    def __init__(
        self,
        *,
        project: str,
        location: str = "global",
        credentials: Path | None = None,
        token_env: str | None = None,
        token_command: list[str] | None = None,
        base_url: str | None = None,
        headers: dict[str, str] | None = None,
        betas: list[str] | None = None,
        max_tokens: int | None = None,
        flags: dict[str, Any] | None = None,
        fetch: Fetch | None = None,
        catalogue: Catalogue | None = None,
        signatures: SignatureStore = SHARED,
    ) -> None:
        super().__init__(
            base_url=_with_version(base_url or host_of(location)),
            headers=headers,
            betas=betas,
            max_tokens=max_tokens,
            flags=flags,
            catalogue=catalogue,
            signatures=signatures,
        )
        if not project:
            raise ConfigError(["project must be the id of a Google Cloud project"])
        place = f"projects/{quote(project, safe='')}/locations/{quote(location, safe='')}"
        self._path = f"{self.base_url}/{place}/publishers/anthropic/models"
        self._tokens = google_tokens(credentials, token_env, token_command)
        self.fetcher = None if fetch is None else MediaFetcher(fetch)

    @property
    def problem(self) -> str | None:
        """What keeps it from being asked, as far as its token is concerned."""
        return None if self._tokens is None else self._tokens.problem

    async def prepare(self, request: Request) -> Request:
        """The request with an access token as its candidate's key, and with what `fetch` allows inside it.

        Raises UpstreamError where no token is to be had, InvalidRequest where an address cannot be fetched.
        """
        request = await super().prepare(request)
        if self.fetcher is not None:
            request = await self.fetcher.inline(request)
        if self._tokens is not None:
            key: Secret | None = await self._tokens.token()
            return request.replace(candidates=(replace(request.candidate, key=key), *request.candidates[1:]))
        if not request.candidate.key:
            raise UpstreamError(
                f'backend "{request.candidate.backend.name}" has no access token: set credentials, token_env or '
                "token_command",
                code="upstream_auth_error",
                fault="dead_key",
            )
        return request

    def refused_key(self, key: Secret | None) -> None:
        """The token was refused: the next `prepare` brings another."""
        if self._tokens is not None:
            self._tokens.refuse(key)

    def model(self, name: str) -> Model:
        """What is known of a model here: fewer take a JSON schema than on Anthropic's own API."""
        known = super().model(name)
        if known.has("structured") and not known.has("vertex_structured") and "structured" not in self._flags:
            known = known.changed({"structured": False})
        return known

    def url(self, model: str, is_stream: bool) -> str:
        """Where a request goes; `@` of a version stays, everything else that a path cannot hold is escaped."""
        verb = "streamRawPredict" if is_stream else "rawPredict"
        return f"{self._path}/{quote(model, safe='@')}:{verb}"

    def body(self, body: dict[str, Any], model: str) -> dict[str, Any]:
        """The body without the model, which stands in the address, and with the version, which has no header here."""
        del body["model"]
        return {"anthropic_version": VERSION, **body}

    def _version_headers(self, version: str) -> Mapping[str, str]:
        return {}

    def _key_header(self, key: str) -> tuple[str, str]:
        return "authorization", f"Bearer {key}"


def _with_version(base_url: str) -> str:
    return base_url if urlsplit(base_url).path.strip("/") else base_url.rstrip("/") + "/v1"
