"""The faulty provider of `gw drill` as tests use it: a request names its own fault.

It does so in its model: `fault:cut_40`. Several, joined with `+`, are played in turn, the last one for all that follow:
`fault:error_500+fine` fails once. What each of them is, `gw.adapters.faulty.acts` says.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from gw.adapters.faulty.acts import ACTS
from gw.adapters.faulty.dialects import ANSWER
from gw.adapters.faulty.exchange import Exchange
from tests.fakes import Asked, LoopbackProvider

__all__ = ["ANSWER", "FaultyProvider"]


class FaultyProvider:
    """A `LoopbackProvider` whose script is `ACTS`. `times` are the monotonic seconds of each request, by fault."""

    def __init__(self) -> None:
        self.loopback = LoopbackProvider(self._play)
        self.times: dict[str, list[float]] = defaultdict(list)
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []

    def reset(self) -> None:
        self.times.clear()
        self.bodies.clear()
        self.keys.clear()
        self.loopback.hangups = 0
        self.loopback.hung_up.clear()

    def gaps(self, model: str) -> Sequence[float]:
        """Seconds between the attempts at one model."""
        times = self.times[model]
        return [later - earlier for earlier, later in pairwise(times)]

    async def _play(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        exchange = Exchange(asked.path, asked.json, writer)
        model = str(exchange.json["model"])
        times = self.times[model]
        names = model.removeprefix("fault:").split("+")
        name = names[min(len(times), len(names) - 1)]
        times.append(time.monotonic())
        self.bodies.append(exchange.json)
        self.keys.append(asked.headers.get("authorization", "").removeprefix("Bearer ") or asked.headers["x-api-key"])
        await ACTS[name](exchange)
