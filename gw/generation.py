"""One configuration at work: the app that is made of it, what it holds open, and who is still being answered by it.

A reload makes the next generation beside the present one. What both of them need stays open; the rest of the older one
is closed, in reverse order, when its last request has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from gw.access_line import AccessLines
from gw.app import App
from gw.assembly import Built, LivingBackends
from gw.backend import Backend, Price
from gw.config import Config, build
from gw.endpoints.status import StatusPages
from gw.errors import ConfigError
from gw.estimate import account
from gw.known_secrets import KnownSecrets
from gw.message import Exchange
from gw.metrics import Metrics
from gw.models import Catalogue, catalogue
from gw.pipeline import mistakes
from gw.server.connection import Connection
from gw.sessions import Sessions
from gw.shared import Shared
from gw.shared_health import SharedHealth
from gw.shared_signatures import SharedSignatures
from gw.signatures import SignatureStore
from gw.transports import Transports

if TYPE_CHECKING:
    import ssl as tls


_EXCHANGE = Connection._exchange.__code__


class Part(NamedTuple):
    """Something that a generation holds open, and how it is closed."""

    thing: object
    close: Callable[[], Awaitable[object]]


class Standing:
    """What outlives every reload of one process: counters, shared memory, known keys, what providers signed."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.metrics = Metrics(shared)
        self.secrets = KnownSecrets()
        self.signatures = SharedSignatures(shared, self.secrets)
        self.backends = LivingBackends()


class Extras(NamedTuple):
    """What a program adds to its configuration: middleware right before `translate`, and backends behind all others."""

    middleware: Sequence[tuple[str, Any]] = ()
    backends: Sequence[Backend] = ()


class Generation:
    """One Config made into an app. `prepare` opens what it needs, its `app` answers, `quiet` waits, `close` closes."""

    def __init__(self, config: Config, standing: Standing, extras: Extras, former: Generation | None = None) -> None:
        """Make everything, without I/O; from `former` is taken what stays the same. Raises ConfigError."""
        self.config = config
        self._standing = standing
        self._former = former
        self._requests: set[asyncio.Task[Any]] = set()
        self.parts: list[Part] = []
        self.context: tls.SSLContext | None = None  # the server's certificate, from its take-over on
        self.waiting: Sequence[str] = ()  # settings that are not in force before a restart
        self.go_back: Callable[[], None] = _nothing  # undoes what its making changed for others
        # A key that was just taken out may still stand in what is yet to be written.
        standing.secrets.know((*config.secrets, *(former.config.secrets if former is not None else ())))
        self._models = self._catalogue()
        self.sessions = self._same_sessions() or Sessions(config.sessions, standing.shared)
        self._built = self._build()
        self.backends = self._built.backends
        for backend in extras.backends:
            self.backends.add(backend)
        self.layers = list(self._built.middleware)
        wrong = [f'middleware "{name}": {mistake}' for name, layer in extras.middleware for mistake in mistakes(layer)]
        if wrong:
            raise ConfigError(wrong)
        place = [name for name, _ in self.layers].index("translate")
        self.layers[place:place] = extras.middleware
        self.transports: Transports = Transports(config, None if former is None else former.transports)
        self._is_heard = config.server.log_level in ("debug", "info")
        self._access = self._same_access() or AccessLines(
            format=config.server.log_format, may_quote=config.may_quote, secrets=standing.secrets
        )

    # --- made from what was before -------------------------------------------------------------------------------

    def _catalogue(self) -> Catalogue:
        former, models = self._former, self.config.models
        if former is not None and former.config.models == models:
            return former._models
        return catalogue().changed(models) if models else catalogue()

    def _same_sessions(self) -> Sessions | None:
        former = self._former
        is_same = former is not None and former.config.sessions == self.config.sessions
        return former.sessions if former is not None and is_same else None

    def _same_access(self) -> AccessLines | None:
        former = self._former
        is_same = former is not None and former._line_options() == self._line_options()
        return former._access if former is not None and is_same else None

    def _line_options(self) -> tuple[object, ...]:
        return self.config.server.log_format, self.config.may_quote, self._is_heard

    def _build(self) -> Built:
        standing, former = self._standing, self._former
        services: dict[Any, object] = {
            Metrics: standing.metrics,
            Shared: standing.shared,
            KnownSecrets: standing.secrets,
            LivingBackends: standing.backends,
            Catalogue: self._models,
            Sessions: self.sessions,
            SignatureStore: standing.signatures,
        }
        return build(self.config, services, None if former is None else former._built)

    # --- life ----------------------------------------------------------------------------------------------------

    async def prepare(self, problems: Callable[[], list[str]], is_stopping: Callable[[], bool], **options: Any) -> None:
        """Open what is not open yet, and compose the app. On failure all of it is closed again."""
        try:
            await self.transports.prepare()
            await self._open()
        except BaseException:
            await self.close(beside=() if self._former is None else (self._former,))
            raise
        self.app = self._compose(problems, **options)
        self.app.is_stopping = is_stopping

    async def _open(self) -> None:
        """Enter the components in order; what the former generation holds is held by this one too, as it is."""
        held = {} if self._former is None else {id(part.thing): part for part in self._former.parts}
        if self._is_heard:
            await self._hold(self._access, held, self._start_lines, self._end_lines)
        for transport in self.transports.each():
            await self._hold(transport, held, None, transport.aclose)
        by_name = dict(self.layers)
        answerers = [backend.provider or backend.adapter for backend in self.backends]
        for component in (*by_name.values(), self.sessions, *answerers):  # sessions are closed before the log
            if hasattr(type(component), "__aenter__"):
                thing: Any = component
                await self._hold(thing, held, thing.__aenter__, partial(thing.__aexit__, None, None, None))

    async def _hold(
        self,
        thing: object,
        held: dict[int, Part],
        enter: Callable[[], Awaitable[object]] | None,
        close: Callable[[], Awaitable[object]],
    ) -> None:
        if any(part.thing is thing for part in self.parts):
            return
        part = held.get(id(thing))
        if part is None:
            if enter is not None:
                await enter()
            part = Part(thing, close)
        self.parts.append(part)

    async def _start_lines(self) -> None:
        self._access.start()

    async def _end_lines(self) -> None:
        await asyncio.to_thread(self._access.close)

    def _compose(self, problems: Callable[[], list[str]], *, keep_alive: float) -> App:
        standing, layers = self._standing, self.layers
        pages = StatusPages(
            backends=self.backends,
            model_names=dict(layers)["route"].model_names,
            figures=standing.metrics,
            sessions=self.sessions,
            problems=lambda: [
                *(text for _, layer in layers if (text := getattr(layer, "problem", None))),
                *problems(),
            ],
            uptime=standing.metrics.uptime,
        )
        recorders: list[Callable[[Exchange], None]] = [
            self._account,  # what a broken answer used is estimated before it is counted
            standing.metrics.record,
            *([self._access.write] if self._is_heard else []),
        ]
        return App(layers, pages, self.transports.handler, recorders, standing.secrets, keep_alive=keep_alive)

    def _account(self, exchange: Exchange) -> None:
        account(exchange, self.backends)

    def take_over(self) -> None:
        """From now on requests come here: tell it to what is common to all generations. Does not wait."""
        standing = self._standing
        prices = lru_cache(1000)(partial(_list_price, self._models))  # names come from clients
        for backend in self.backends:
            backend.prices = prices
            self._give_health(backend)
        standing.metrics.models = frozenset(
            name for backend in self.backends for name in (backend.model, *backend.models.values()) if name
        )
        log: Any = dict(self.layers).get("log")
        history = log if hasattr(type(log), "conversations") else _NoHistory()
        self.sessions.attach(history)
        kept = history.conversations
        standing.signatures.attach(None if kept is None else kept.path)
        self._former = None

    def _give_health(self, backend: Backend) -> None:
        """What traffic has taught stays known while the backend's table is the same, even where it was made anew."""
        former = None if self._former is None else self._former.backends.get(backend.name)
        if former is backend:
            return
        is_same = former is not None and self._table(backend.name) == self._former_table(backend.name)
        if self.config.server.workers > 1:
            backend.health = SharedHealth(self._standing.shared, backend.name)
            if former is not None and not is_same:  # another host, it may be, or another key
                backend.health.failures, backend.health.cooling_until = 0, 0.0
        elif former is not None and is_same:
            backend.health, backend.cooling_reason = former.health, former.cooling_reason

    def _table(self, name: str) -> object:
        return next((table.table for table in self.config.backends if table.name == name), None)

    def _former_table(self, name: str) -> object:
        return None if self._former is None else self._former._table(name)

    def retire(self) -> None:
        """Its last request has come: what is under way now is all that it has still to answer. Does not wait.

        Looked for only here, so that no request pays for being counted; another gateway's in the same loop are waited
        for too, and do no harm.
        """
        self._requests = {task for task in asyncio.all_tasks() if _is_request(task)}

    async def quiet(self) -> None:
        """Wait until its last request has ended, answer, record and all."""
        if self._requests:
            await asyncio.wait(self._requests)
        self._requests = set()

    async def close(self, beside: Iterable[Generation] = ()) -> None:
        """Close what it holds open, in reverse, but for what those `beside` it hold too."""
        needed = {id(part.thing) for other in beside for part in other.parts}
        self._former = None
        async with AsyncExitStack() as stack:
            for part in self.parts:
                if id(part.thing) not in needed:
                    stack.push_async_callback(part.close)
            self.parts = []


def _is_request(task: asyncio.Task[Any]) -> bool:
    """Whether it is the task that the server has made for a request: it ends when all of that is over."""
    return getattr(task.get_coro(), "cr_code", None) is _EXCHANGE


class _NoHistory:
    """What sessions are told where no log keeps what was said."""

    conversations = None

    async def flush(self) -> None:
        """Nothing is waited for."""


def _nothing() -> None:
    pass


def _list_price(models: Catalogue, name: str) -> Price | None:
    model = models.find(name)
    return None if model is None else model.price
