"""Which backends may answer, best first, is written on the request; the decision itself is `gw.routing`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from gw.backend import Backends
from gw.document import Document
from gw.errors import ConfigError
from gw.message import Exchange, Request, Response
from gw.ordering import Ordering
from gw.pipeline import Handler
from gw.routing import Decision, Router, Target
from gw.rules import Rule, parse_rule
from gw.sessions import Sessions


@dataclass(slots=True, frozen=True)
class RuleTable:
    """One entry of `rules`: `when`, and either `backend` or `backends`."""

    when: str
    backend: str | None = None
    backends: list[str | Target] = field(default_factory=list)
    model: str | None = None


class Route:
    """Writes `request.candidates`. Options: see `[middleware.route]` in gateway.toml."""

    def __init__(
        self,
        *,
        backends: Backends,
        default_backend: str | None = None,
        prefer_cheapest: bool = False,
        unknown_model: Literal["error", "route"] = "error",
        balance: Literal["group", "all"] = "group",
        long_context_tokens: int = 100_000,
        rules: list[RuleTable] | None = None,
        sessions: Sessions | None = None,
    ) -> None:
        ordering = Ordering(
            backends,
            default_backend=default_backend,
            prefer_cheapest=prefer_cheapest,
            balance=balance,
            long_context_tokens=long_context_tokens,
        )
        parsed = _parsed(rules or [])
        self.router = Router(backends, ordering, parsed, unknown_model)
        self._sessions = sessions

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        if self._sessions is not None:
            request = await self._sessions.enter(request)
        decision = self.router.decide(request)
        if decision.degraded:
            request.exchange.degraded = True
        if decision.drops_tools:
            request = _without_tools(request)
        candidates = Sessions.prefer(request, decision.candidates, lambda named: self.router.decide(named).candidates)
        return await call_next(request.replace(candidates=candidates))

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


_TOOL_FIELDS = frozenset(
    ("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "cli_tools", "working_directory")
)


def _without_tools(request: Request) -> Request:
    assert request.document is not None, "the body is read before route"
    kept = {name: value for name, value in request.document.peek().items() if name not in _TOOL_FIELDS}
    return request.replace(document=Document(value=kept))


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
