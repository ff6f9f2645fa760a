"""Gemini on Google Cloud's Vertex AI: with a Google access token, or in express mode with an API key alone.

https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from gw.adapters.gemini import Gemini, verb
from gw.errors import ConfigError, UpstreamError
from gw.message import Request
from gw.models import Catalogue
from gw.oauth import google_tokens
from gw.secret import Secret
from gw.signatures import SHARED, SignatureStore
from gw.vertex_hosts import host_of


class VertexGemini(Gemini):
    """Gemini on Vertex AI.

    `project` and `location` ("global", "us", "eu" or a region; the host follows, `base_url` overrides, with the
    version in its path) say where. The token comes from `credentials` (the JSON key of a service account; needs
    `gw[vertex]`), `token_env` (a variable that somebody keeps fresh) or `token_command` (a list, run without a shell);
    without any from GOOGLE_APPLICATION_CREDENTIALS, or from the backend's own key, taken as a bearer token. Without a
    `project` that key is an API key (express mode). A client's `metadata` become labels. The rest is as for `gemini`.
    """

    key_envs: ClassVar[tuple[str, ...]] = ()
    needs_key: ClassVar[bool] = False
    name = "vertex-gemini"
    provider = "Vertex AI"
    fetches_urls = True
    is_vertex = True

    def __init__(
        self,
        *,
        project: str | None = None,
        location: str = "global",
        credentials: Path | None = None,
        token_env: str | None = None,
        token_command: list[str] | None = None,
        base_url: str | None = None,
        headers: dict[str, str] | None = None,
        safety: dict[str, str] | None = None,
        flags: dict[str, Any] | None = None,
        catalogue: Catalogue | None = None,
        signatures: SignatureStore = SHARED,
    ) -> None:
        if project == "":
            raise ConfigError(["project must be the id of a Google Cloud project"])
        has_source = bool(credentials or token_env or token_command)
        if project is None and has_source:
            raise ConfigError(["project is missing: access tokens need one, and only an API key goes without"])
        super().__init__(
            base_url=base_url or f"{host_of('global' if project is None else location)}/v1beta1",
            headers=headers,
            safety=safety,
            flags=flags,
            catalogue=catalogue,
            signatures=signatures,
        )
        self._tokens = None if project is None else google_tokens(credentials, token_env, token_command)
        self._is_express = project is None
        self._place = self.base_url
        if project is not None:
            self._place += f"/projects/{quote(project, safe='')}/locations/{quote(location, safe='')}"

    @property
    def problem(self) -> str | None:
        """What keeps it from being asked, as far as its token is concerned."""
        return None if self._tokens is None else self._tokens.problem

    async def prepare(self, request: Request) -> Request:
        """The request with an access token as its candidate's key. Raises UpstreamError where none is to be had."""
        request = await super().prepare(request)
        if self._tokens is not None:
            key: Secret | None = await self._tokens.token()
            return request.replace(candidates=(replace(request.candidate, key=key), *request.candidates[1:]))
        if not request.candidate.key:
            cure = "an api_key_env, or project and credentials" if self._is_express else "credentials or token_command"
            raise UpstreamError(
                f'backend "{request.candidate.backend.name}" has no credential: set {cure}',
                code="upstream_auth_error",
                fault="dead_key",
            )
        return request

    def refused_key(self, key: Secret | None) -> None:
        """The token was refused: the next `prepare` brings another."""
        if self._tokens is not None:
            self._tokens.refuse(key)

    def url(self, model: str, is_stream: bool) -> str:
        """Where a request goes: a model of Google's, or a tuned one as `endpoints/ID`."""
        folder, _, name = model.rpartition("/")
        if folder != "endpoints":
            folder, name = "publishers/google/models", model.removeprefix("google/")
        return f"{self._place}/{folder}/{quote(name, safe='@')}:{verb(is_stream)}"

    def takes_uri(self, uri: str) -> bool:
        """Any: Vertex fetches http(s) and gs URLs itself, where robots.txt allows it."""
        return True

    def _credentials(self, key: Secret | None) -> list[tuple[str, str]]:
        if not self._is_express and key:
            return [("authorization", f"Bearer {key.reveal()}")]
        return super()._credentials(key)
