"""A fallback over fake backends on one fake clock, and the failures that its tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gw.backend import Backend, Backends
from gw.errors import (
    UpstreamError,
)
from gw.message import Attempt, Candidate, Request, Response
from gw.middleware.fallback import Fallback
from tests.fakes import FakeClock, FakeProvider, chat_request

DOWN = UpstreamError("down")
LIMITED_BRIEFLY = UpstreamError("slow down", status=429, fault="rate_limit", retry_after=0)
LIMITED = UpstreamError("slow down", status=429, fault="rate_limit", retry_after=7)


async def ask(request: Request) -> Response:
    backend = request.candidate.backend
    request.exchange.attempts.append(Attempt(backend.name, request.candidate.model, 0.0))
    assert backend.provider is not None
    return await backend.provider.answer(request)


class World:
    """A fallback over some backends, on one fake clock."""

    def __init__(self, *backends: Backend, **options: Any) -> None:
        self.clock = FakeClock()
        self.backends = backends
        for backend in backends:
            backend.clock = self.clock
        self.fallback = Fallback(backends=Backends(backends), sleep=self.clock.sleep, clock=self.clock, **options)

    async def ask(self, handler: Callable[[Request], Awaitable[Response]] = ask, **fields: Any) -> Response:
        chat = fields.pop("chat", None)
        request = chat_request(chat, **fields)
        request.exchange.started = self.clock.now
        request.candidates = [Candidate(backend, "m", "gpt-4") for backend in self.backends]
        self.request = request
        return await self.fallback(request, handler)

    def run(self, **fields: Any) -> Response:
        return asyncio.run(self.ask(**fields))


def asked(backend: Backend) -> int:
    assert isinstance(backend.provider, FakeProvider)
    return len(backend.provider.asked)
