"""Tools are dropped only where the operator wants it: for want of anybody who runs them, or where all of those fail."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gw.backend import Backend, Backends
from gw.errors import GatewayError, InvalidRequest, Unavailable, UpstreamError
from gw.message import Attempt, Request, Response
from gw.middleware.fallback import Fallback
from gw.middleware.route import Route, RuleTable
from tests.fakes import FakeClock, chat_request, fake_backend

TOOLS: dict[str, Any] = {"tools": ["Read"], "working_directory": "/x", "tool_choice": "auto"}
FULL = Unavailable("Process pool queue full", code="queue_full", retry_after=3)


class World:
    """`route` and `fallback` over a CLI backend and two of the common kind."""

    def __init__(self, *failures: GatewayError, drop_tools: bool = True, rules: Any = None, **options: Any) -> None:
        self.clock = FakeClock()
        self.cli = self._backend("cli", *failures, capabilities=frozenset({"cli_tools", "stream"}))
        self.api, self.other = self._backend("api"), self._backend("other")
        backends = Backends([self.cli, self.api, self.other])
        self.fallback = Fallback(
            backends=backends, drop_tools=drop_tools, sleep=self.clock.sleep, clock=self.clock, **options
        )
        self.route = Route(backends=backends, rules=rules)
        self.seen: list[tuple[str, bool]] = []

    def _backend(self, name: str, *answers: Any, **fields: Any) -> Backend:
        return fake_backend(name, *answers, kind=name, model="m", clock=self.clock, **fields)

    async def _terminal(self, request: Request) -> Response:
        backend = request.candidate.backend
        self.seen.append((backend.name, any(field in request.chat for field in TOOLS)))
        request.exchange.attempts.append(Attempt(backend.name, request.candidate.model, 0.0))
        assert backend.provider is not None
        return await backend.provider.answer(request)

    def ask(self, chat: dict[str, Any] | None = None, **fields: Any) -> Response:
        self.request = chat_request(chat or TOOLS, **fields)
        self.request.exchange.started = self.clock.now

        async def fallback(request: Request) -> Response:
            return await self.fallback(request, self._terminal)

        return asyncio.run(self.route(self.request, fallback))


def test_a_full_pool_is_answered_for_without_tools_and_that_is_degraded() -> None:
    world = World(FULL)
    response = world.ask()
    assert world.seen == [("cli", True), ("api", False)]
    assert response.headers["X-Gateway-Backend"] == "api"
    assert response.headers["X-Gateway-Degraded"] == "true"
    assert response.headers["X-Gateway-Attempts"] == "2"
    assert world.request.exchange.degraded


def test_while_the_pool_answers_nothing_is_dropped() -> None:
    world = World()
    assert world.ask().headers["X-Gateway-Degraded"] == "false"
    assert world.seen == [("cli", True)]


def test_a_pool_that_cools_down_is_answered_for_without_tools() -> None:
    world = World()
    world.cli.cool(10, "HTTP 529")
    assert world.ask().headers["X-Gateway-Degraded"] == "true"
    assert world.seen == [("api", False)]


def test_tools_are_never_dropped_unless_configured() -> None:
    world = World(FULL, drop_tools=False)
    with pytest.raises(Unavailable, match="Process pool queue full"):
        world.ask()
    assert world.seen == [("cli", True)]


def test_a_request_that_the_tools_owner_refuses_is_not_asked_again_without_them() -> None:
    world = World(InvalidRequest("working_directory is outside the roots", status=403, code="forbidden_path"))
    with pytest.raises(InvalidRequest, match="outside the roots"):
        world.ask()
    assert world.seen == [("cli", True)]


def test_where_those_without_tools_fail_too_their_error_is_told() -> None:
    world = World(FULL)
    for backend in (world.api, world.other):
        backend.provider.answers = [UpstreamError(f"{backend.name} is down", fault="overload")]  # type: ignore[union-attr]
    with pytest.raises(UpstreamError, match="other is down") as caught:
        world.ask()
    assert caught.value.headers == {"X-Gateway-Backend": "other", "X-Gateway-Attempts": str(len(world.seen))}


def test_a_rule_drops_tools_within_its_own_list_only() -> None:
    world = World(FULL, rules=[RuleTable(when="has_tools: true", backends=["cli", "other"])])
    world.ask()
    assert world.seen == [("cli", True), ("other", False)]
    world = World(FULL, rules=[RuleTable(when="has_tools: true", backend="cli")])
    with pytest.raises(Unavailable):
        world.ask()


def test_a_backend_that_the_client_named_keeps_its_tools_or_fails() -> None:
    with pytest.raises(Unavailable):
        World(FULL).ask(TOOLS | {"backend": "cli"})
    world = World(FULL, explicit_fallback=True)
    world.ask(TOOLS | {"backend": "cli"})
    assert world.seen == [("cli", True), ("api", False)]


def test_functions_are_dropped_for_those_who_have_none_only() -> None:
    world = World()
    world.api.capabilities = frozenset({"stream"})
    world.other.provider.answers = [UpstreamError("down", fault="overload")]  # type: ignore[union-attr]
    tool = {"type": "function", "function": {"name": "f"}}
    world.ask({"tools": [tool]})
    assert [name for name, _ in world.seen if name != "other"] == ["api"]
    assert world.seen[-1] == ("api", False)
