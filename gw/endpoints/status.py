"""The status pages: health, models, queue and metrics. They tell what is; none of them asks a provider."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Protocol
from urllib.parse import unquote

import orjson

from gw.backend import Backend, Backends
from gw.errors import NotFound
from gw.message import Request, Response
from gw.near import near
from gw.sessions import Sessions, not_found

JSON = {"Content-Type": "application/json", "Cache-Control": "no-store"}


class Figures(Protocol):
    """What `/metrics` shows."""

    def writer(self) -> Callable[[], bytes]:
        """Takes the figures as they are now; what it returns writes them in Prometheus' text format, in any thread."""

    def snapshot(self) -> dict[str, Any]:
        """The same as one JSON object."""


class StatusPages:
    """All status pages of one gateway."""

    def __init__(
        self,
        *,
        backends: Backends,
        model_names: Callable[[], Sequence[str]],
        figures: Figures,
        problems: Callable[[], Sequence[str]],
        sessions: Sessions | None = None,
        uptime: Callable[[], float] | None = None,
    ) -> None:
        """`uptime` are the seconds since the start of the gateway, which may be older than these pages."""
        self.backends = backends
        self._model_names = model_names
        self._figures = figures
        self._problems = problems
        self._sessions = sessions
        started = time.monotonic()
        self._uptime = uptime or (lambda: time.monotonic() - started)
        self._created = int(time.time() - self._uptime())

    async def health(self, request: Request) -> Response:
        """`GET /health`: the union of both documents' shapes; where a key is set and missing, the bare status."""
        state = self._state()
        page: dict[str, Any] = {"status": state}
        if not request.exchange.attributes.get("gw.public"):
            page |= {
                "version": _version(),
                "backend": "intelligent-gateway",
                "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "uptime_seconds": int(self._uptime()),
                "routing": {"processPool": self._pool(short=True), "backends": self._counts()},
                "backends": {backend.name: _backend_state(backend) for backend in self.backends},
                "problems": list(self._problems()),
            }
        return _json(page, 503 if state == "down" else 200)

    async def live(self, request: Request) -> Response:
        """`GET /health/live`: the process answers."""
        return _json({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """`GET /health/ready`: somebody can be asked."""
        state = self._state()
        return _json({"status": state}, 503 if state == "down" else 200)

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`: what may stand in `model`, from the live configuration; a key sees what it may use."""
        return _json({"object": "list", "data": [self._model(name) for name in self._names(request)]})

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/NAME`: one of them."""
        name = unquote(request.parameters["model"])
        names = self._names(request)
        if name not in names:
            hint = near(name, names)
            raise NotFound(f"The model `{name}` does not exist{hint}", code="model_not_found", param="model")
        return _json(self._model(name))

    async def sessions(self, request: Request) -> Response:
        """`GET /v1/sessions`: the conversations of this key that can be continued, the newest first."""
        listed = [] if self._sessions is None else await self._sessions.listed(request.principal.name)
        return _json({"object": "list", "data": listed})

    async def session(self, request: Request) -> Response:
        """`GET /v1/sessions/ID`: one of them with its messages; `DELETE` forgets what it said."""
        session_id, key = request.parameters["session"], request.principal.name
        if self._sessions is None:
            raise not_found(session_id)
        do = self._sessions.forget if request.method == "DELETE" else self._sessions.shown
        return _json(await do(session_id, key))

    async def queue(self, request: Request) -> Response:
        """`GET /queue/status`: summed over all pools, then each of them; a stuck process shows in `longest_seconds`."""
        return _json({"processPool": self._pool(), "backends": self._counts(), "pools": self._pools()})

    async def metrics(self, request: Request) -> Response:
        """`GET /metrics`: Prometheus' text, or JSON with `?format=json`."""
        if "format=json" in request.query.split("&"):
            return _json(self._figures.snapshot())
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        # Not on the loop: with many backends that is tens of milliseconds, in which nobody would be answered.
        return Response(await asyncio.to_thread(self._figures.writer()), headers=headers)

    # --- parts ---------------------------------------------------------------------------------------------------

    def _state(self) -> str:
        """`down`: nobody can be asked; `degraded`: somebody real is cooling down, or a part of gw is impaired."""
        ready = [backend for backend in self.backends if backend.is_ready]
        if not any(not backend.is_cooling for backend in ready):
            return "down"
        if self._problems() or any(backend.is_cooling for backend in ready):
            return "degraded"
        return "ok"

    def _names(self, request: Request) -> list[str]:
        principal = request.principal
        return [
            name
            for name in self._model_names()
            if (principal.models is None or name in principal.models)
            and (principal.backends is None or name not in self.backends or name in principal.backends)
        ]

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "gw"}

    def _counts(self) -> dict[str, int]:
        enabled = [backend for backend in self.backends if backend.enabled]
        tool = sum("cli_tools" in backend.capabilities for backend in enabled)
        return {"total": len(enabled), "tool": tool, "api": len(enabled) - tool}

    def _pools(self) -> dict[str, Any]:
        found = {}
        for backend in self.backends:
            status, longest = _pool_of(backend), getattr(backend.provider, "longest_turn", None)
            if status is not None:
                more = {"longest_seconds": round(longest(), 1)} if longest is not None else {}
                found[backend.name] = status() | more
        return found

    def _pool(self, *, short: bool = False) -> dict[str, Any]:
        pools = [pool for backend in self.backends if (pool := _pool_of(backend)) is not None]
        figures: dict[str, Any] = dict.fromkeys(
            ("active", "queued", "maxConcurrent", "maxQueue", "totalProcessed", "totalQueued", "totalFailed"), 0
        )
        for status in pools:
            for name, value in status().items():
                figures[name] = figures.get(name, 0) + value
        active, room = figures["active"], figures["maxConcurrent"]
        figures["utilization"] = active / room if room else 0.0
        if short:
            return {name: figures[name] for name in ("active", "queued", "maxConcurrent", "utilization")}
        return figures


def _pool_of(backend: Backend) -> Callable[[], dict[str, int]] | None:
    """What tells the figures of its own pool, or of the places that its table gives it."""
    pool: Callable[[], dict[str, int]] | None = getattr(backend.provider, "pool_status", None)
    return pool or (backend.places.status if backend.places is not None else None)


@cache
def _version() -> str:
    from importlib.metadata import version  # brings the email package along: not for a gateway that starts

    return version("gw")


def _backend_state(backend: Backend) -> dict[str, Any]:
    # A provider may find out later than at its making: a program that does not run.
    problem = backend.problem or getattr(backend.provider, "problem", None)
    state: dict[str, Any] = {"adapter": backend.kind, "ready": backend.is_ready and problem is None}
    if not backend.enabled:
        state["problem"] = "disabled"
    elif problem is not None:
        state["problem"] = problem
    if backend.is_cooling:
        state["cooling_seconds"] = round(backend.cooling_for, 1)
    state["in_flight"] = backend.health.in_flight
    return state


def _json(value: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(value), status=status, headers=dict(JSON))
