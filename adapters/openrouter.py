"""OpenRouter: OpenAI's chat completions over many providers, with its own attribution headers and reported cost."""

from __future__ import annotations

from gw.adapters.openai import OpenAI


class OpenRouter(OpenAI):
    """An adapter for OpenRouter. Options beside those of `openai`:

    referer   HTTP-Referer: the site that OpenRouter counts the requests for
    title     X-Title: its name

    Its own request fields (`models`, `provider`, `plugins`, `transforms`, `reasoning`) pass through as they came.
    """

    key_envs = ("OPENROUTER_API_KEY",)
    default_base_url = "https://openrouter.ai/api/v1"

    def __init__(
        self,
        *,
        base_url: str | None = None,
        headers: dict[str, str] | None = None,
        referer: str | None = None,
        title: str | None = None,
    ) -> None:
        self._referer = referer
        self._title = title
        super().__init__(base_url=base_url, headers=headers, dialect="openrouter")

    def own_headers(self) -> dict[str, str | None]:
        """OpenRouter's attribution."""
        return {"HTTP-Referer": self._referer, "X-Title": self._title}
