"""Which backends may answer, best first, is written on the request; the decision itself is `gw.routing`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from gw.backend import Backends
from gw.document import Document
from gw.errors import ConfigError, GatewayError, can_fall_back
from gw.message import Exchange, Request, Response
from gw.models import Catalogue
from gw.ordering import Ordering
from gw.pipeline import Handler
from gw.routing import Decision, Router, Target
from gw.rules import HEADER_NAME, Rule, parse_rule
from gw.sessions import HELD, Sessions
from gw.wants import without_tools


@dataclass(slots=True, frozen=True)
class RuleTable:
    """One entry of `rules`: `when`, and either `backend` or `backends`."""

    when: str
    backend: str | None = None
    backends: list[str | Target] = field(default_factory=list)
    model: str | None = None


class Route:
    """Writes `request.candidates`. Options: see `[middleware.route]` in gateway.toml."""

    ended_with = HELD  # `ended` is told of no other exchange

    def __init__(
        self,
        *,
        backends: Backends,
        default_backend: str | None = None,
        prefer_cheapest: bool = False,
        unknown_model: Literal["error", "route"] = "error",
        balance: Literal["group", "all"] = "group",
        turns: Literal["weight", "least_busy"] = "weight",
        sticky_header: str | None = None,
        long_context_tokens: int = 100_000,
        rules: list[RuleTable] | None = None,
        sessions: Sessions | None = None,
        catalogue: Catalogue | None = None,
    ) -> None:
        if sticky_header is not None and not HEADER_NAME.fullmatch(sticky_header):
            raise ValueError(f"sticky_header is the name of a header, found {sticky_header!r}")
        ordering = Ordering(
            backends,
            default_backend=default_backend,
            prefer_cheapest=prefer_cheapest,
            balance=balance,
            turns=turns,
            long_context_tokens=long_context_tokens,
            catalogue=catalogue,
        )
        parsed = _parsed(rules or [])
        self.router = Router(backends, ordering, parsed, unknown_model, sticky_header=sticky_header)
        self._sessions = sessions

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        sessions = self._sessions
        if sessions is not None and not sessions.begin(request):
            request = await sessions.enter(request)
            decision = self.router.decide(request)
            candidates = sessions.prefer(
                request, decision.candidates, lambda named: self.router.decide(named).candidates
            )
        else:
            decision = self.router.decide(request)
            candidates = decision.candidates
        if decision.degraded:
            request.exchange.degraded = True
        if decision.drops_tools:
            request = _without_tools(request)
        request.candidates = candidates
        try:
            return await call_next(request)
        except GatewayError as error:
            if not decision.without_tools or not can_fall_back(error):
                _tell(error, request.exchange)
                raise
        return await self._untooled(request, decision, call_next)

    async def enter(self, request: Request) -> Request:
        """The request with what its session has said before, to explain it: nothing is begun."""
        return request if self._sessions is None else await self._sessions.seen(request)

    async def _untooled(self, request: Request, decision: Decision, call_next: Handler) -> Response:
        """Nobody who has the tools answered: somebody who has none does, if the operator prefers that."""
        request.exchange.degraded = True
        try:
            return await call_next(_without_tools(request).replace(candidates=decision.without_tools))
        except GatewayError as error:
            _tell(error, request.exchange)
            raise

    def ended(self, exchange: Exchange) -> None:
        """Let the next turn of the session in."""
        if self._sessions is not None:
            self._sessions.ended(exchange)

    def decide(self, request: Request) -> Decision:
        """The decision for a request whose body was read; nothing is called. Raises GatewayError for nobody."""
        return self.router.decide(request)

    def model_names(self) -> list[str]:
        """Every name that `model` may have here."""
        return self.router.model_names()


def _tell(error: GatewayError, exchange: Exchange) -> None:
    """Who was asked, and how often, stands in the headers of an error, too."""
    if exchange.attempt is not None:
        error.headers["X-Gateway-Backend"] = exchange.attempt.backend
        error.headers["X-Gateway-Attempts"] = str(len(exchange.attempts))


def _without_tools(request: Request) -> Request:
    assert request.document is not None, "the body is read before route"
    return request.replace(document=Document(value=without_tools(request.document.peek())))


def _parsed(tables: Sequence[RuleTable]) -> list[tuple[Rule, Sequence[Target]]]:
    """Every rule, read; ConfigError with all that is wrong with them."""
    parsed: list[tuple[Rule, Sequence[Target]]] = []
    problems: list[str] = []
    for index, table in enumerate(tables):
        try:
            parsed.append((parse_rule(table.when), _targets(table)))
        except ValueError as error:
            problems.append(f"rules[{index}]: {error}")
    if problems:
        raise ConfigError(problems)
    return parsed


def _targets(table: RuleTable) -> list[Target]:
    if table.backend and table.backends:
        raise ValueError(f'rule "{table.when}" has both backend and backends: put all of them into backends')
    entries = [*([table.backend] if table.backend else []), *table.backends]
    if not entries:
        raise ValueError(f'rule "{table.when}" names no backend: add backend = "NAME" or backends = [...]')
    return [Target(entry, table.model) if isinstance(entry, str) else entry for entry in entries]
