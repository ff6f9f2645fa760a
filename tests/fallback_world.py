"""A fallback over fake backends on one fake clock, and the failures and streams that its tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gw.backend import Backend, Backends
from gw.document import Chunk
from gw.errors import GatewayError, UpstreamConnectionError, UpstreamError
from gw.message import Attempt, Candidate, Request, Response
from gw.middleware.fallback import Fallback
from gw.middleware.translate import Translate
from gw.stream import Stream
from tests.fakes import FakeClock, FakeProvider, chat_request, chunks

DOWN = UpstreamError("down")
LIMITED_BRIEFLY = UpstreamError("slow down", status=429, fault="rate_limit", retry_after=0)
LIMITED = UpstreamError("slow down", status=429, fault="rate_limit", retry_after=7)
BROKE = UpstreamConnectionError("the connection broke")
CUT = [*chunks("Once upon")[:2], BROKE]  # a stream that breaks after its first content


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


async def translated(request: Request) -> Response:
    async def nowhere(wire: Any) -> Any:
        raise AssertionError

    return await Translate()(request, nowhere)


async def read_all(world: World, **fields: Any) -> GatewayError | None:
    """Ask for a stream, read it to its end and tell that, as the gateway does; the error that ended it."""
    exchange, error = None, None
    try:
        response = await world.ask(translated, chat={"stream": True} | fields)
        assert not isinstance(response.content, bytes)
        while await response.content.read():  # type: ignore[union-attr]
            pass
    except GatewayError as failure:
        error = failure
    exchange = world.request.exchange
    world.fallback.ended(exchange)
    return error


class Pieces(Stream):
    """A stream that gives one list of chunks for each read."""

    def __init__(self, left: list[list[dict[str, Any]]]) -> None:
        self.left = left

    async def read(self) -> list[Chunk]:
        return [Chunk(value=value) for value in self.left.pop(0)] if self.left else []

    async def aclose(self) -> None:
        self.left.clear()
