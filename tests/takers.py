"""Whoever takes what is passed on: always ready, or ready for so much; and a reader who waits meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from gw.upstream.exchange import Exchange


class Ready:
    """An `Outlet` that always takes more."""

    writable = None


class Taker:
    """Takes bytes, as long as it is ready, and says so many times that it wants more."""

    def __init__(self, exchange: Exchange, *, wants: int = 100, error: Exception | None = None) -> None:
        self.taken: list[bytes] = []
        self.writable: object | None = None  # as of an `Outlet`: something while it takes nothing
        self.wants = wants
        self.error = error
        exchange.pass_on_to(self.take, self)

    def take(self, data: bytes) -> bool:
        if self.error is not None:
            raise self.error
        self.taken.append(data)
        return len(self.taken) < self.wants


async def begun(work: Awaitable[bytes]) -> asyncio.Task[bytes]:
    task = asyncio.ensure_future(work)
    for _ in range(3):
        await asyncio.sleep(0)
    assert isinstance(task, asyncio.Task)
    return task
