"""A provider that misbehaves as it is told, over real HTTP on 127.0.0.1: what `gw drill` puts in place of yours."""

from __future__ import annotations

from typing import Any

from gw.adapter import Codec
from gw.adapters.faulty.acts import ACTS
from gw.adapters.faulty.faults import FAULTS, Dialect, Fault
from gw.adapters.faulty.server import Asked, FaultyServer
from gw.errors import ConfigError
from gw.message import Request
from gw.near import near
from gw.registry import ADAPTER, find

__all__ = ["ACTS", "FAULTS", "Asked", "Fault", "Faulty"]

_OPTIONS: dict[str, dict[str, Any]] = {"openai": {}, "anthropic": {"flags": {"prefill": True}}}


class Faulty:
    """An adapter whose provider is its own: it listens on a free port of 127.0.0.1 while the gateway runs.

    `plays` are acts (names of `ACTS`) for the requests in turn, the last one for all that follow; `speaks` is the
    dialect, and the adapter of that name reads what comes.
    """

    key_envs: tuple[str, ...] = ()
    needs_key: bool = False
    default_base_url = "http://127.0.0.1"
    capabilities: frozenset[str] = frozenset({"functions", "images", "stream"})

    def __init__(self, *, plays: list[str] = ["fine"], speaks: Dialect = "openai") -> None:  # noqa: B006 (only read)
        unknown = [name for name in plays if name not in ACTS]
        problems = [
            f'plays: there is no act "{name}"{near(name, ACTS)} (there are: {", ".join(ACTS)})' for name in unknown
        ]
        if problems or not plays:
            raise ConfigError(problems or ["plays: name one act or more"])
        self.server = FaultyServer(self._next)
        self._plays = list(plays)
        self._speaks = speaks
        self._adapter = self._speaking(self.default_base_url)

    def _next(self, asked: Asked) -> str:
        return self._plays.pop(0) if len(self._plays) > 1 else self._plays[0]

    def _speaking(self, url: str) -> Any:
        # By its name: an adapter never imports another one.
        return find(ADAPTER, self._speaks)(base_url=f"{url}/v1", **_OPTIONS[self._speaks])

    async def __aenter__(self) -> Faulty:
        await self.server.start()
        self._adapter = self._speaking(self.server.url)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.server.close()

    def open(self, request: Request, /) -> Codec:
        """Translate a request, as the adapter of its dialect does."""
        codec: Codec = self._adapter.open(request)
        return codec
