"""A gateway as an object: `GatewayServer(config)` with `start()` and `close()`, or `async with`.

    async with GatewayServer({"server": {"port": 0}}) as gateway:
        print(gateway.url)

`config` is the path of a file, a table of the same shape, or a `Config` that was read before. Middleware and backends
of your own may be given as objects.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from gw.access_line import AccessLines
from gw.adapter import WireRequest, WireResponse
from gw.app import App
from gw.backend import Backend, Backends, Price
from gw.config import Config, build, read
from gw.endpoints.chat import KEEP_ALIVE
from gw.endpoints.status import StatusPages
from gw.errors import ConfigError, GatewayError
from gw.estimate import account
from gw.known_secrets import KnownSecrets
from gw.message import Exchange
from gw.metrics import Metrics
from gw.models import Catalogue, catalogue
from gw.series import Family
from gw.server import Limits, Server
from gw.sessions import Sessions
from gw.shared import LocalShared, Shared
from gw.shared_health import SharedHealth
from gw.upstream import HTTPTransport, HTTPXTransport

logger = logging.getLogger("gw")


class GatewayServer:
    """One gateway in one process. `start` raises ConfigError with everything that is wrong, before a socket opens."""

    def __init__(
        self,
        config: Config | Mapping[str, Any] | str | Path | None = None,
        *,
        middleware: Sequence[tuple[str, Any]] = (),
        backends: Sequence[Backend] = (),
        environ: Mapping[str, str] | None = None,
        shared: Shared | None = None,
        limits: Limits | None = None,
        keep_alive: float = KEEP_ALIVE,
    ) -> None:
        """`middleware` are (name, object) pairs that stand right before `translate`; `backends` come after those of
        the configuration; `environ` replaces the process's environment; `limits` replaces those of the server;
        `keep_alive` are the seconds of silence after which a stream gets a comment."""
        if not isinstance(config, Config):
            config = read(config, environ=os.environ if environ is None else environ)
        self.config = config
        self._more_middleware = middleware
        self._more_backends = backends
        self._shared = shared or LocalShared()
        self._keep_alive = keep_alive
        self._limits = limits or Limits(max_body=config.server.max_body)
        self._opened = AsyncExitStack()
        self._server: Server | None = None
        self._metrics: Metrics
        self._sessions: Sessions
        self.backends = Backends()

    async def start(self, *, sock: socket.socket | None = None) -> None:
        """Open what the components need, then listen (on `sock`, if given). Returns when requests are taken."""
        app = await self._assemble()
        server = self.config.server
        try:
            self._server = Server(
                app.handle,
                limits=self._limits,
                http=server.http,
                ssl=_tls(self.config),
                refused=partial(self._refused, app),
            )
            app.is_stopping = lambda: self._server is not None and self._server.is_aborting
            await self._server.start(server.host, server.port, sock=sock)
        except BaseException:
            await self._opened.aclose()
            raise

    async def _assemble(self) -> App:
        config = self.config
        metrics = self._metrics = Metrics(self._shared)
        secrets = KnownSecrets(config.secrets)
        models: Catalogue = catalogue().changed(config.models) if config.models else catalogue()
        services: dict[Any, object] = {Metrics: metrics, Shared: self._shared, KnownSecrets: secrets, Catalogue: models}
        sessions = services[Sessions] = self._sessions = Sessions(config.sessions, self._shared)
        built = build(config, services)
        self.backends = built.backends
        for backend in self._more_backends:
            self.backends.add(backend)
        for backend in self.backends:
            backend.prices = partial(_list_price, models)
            if config.server.workers > 1:
                backend.health = SharedHealth(self._shared, backend.name)
        metrics.models = frozenset(
            name for backend in self.backends for name in (backend.model, *backend.models.values()) if name
        )
        metrics.declare(Family("gw_refused_total", "Requests that were not HTTP as it must be"))
        layers = list(built.middleware)
        place = [name for name, _ in layers].index("translate")
        layers[place:place] = self._more_middleware
        by_name = dict(layers)
        log: Any = by_name.get("log")
        if hasattr(type(log), "conversations"):
            sessions.attach(log)
        pages = StatusPages(
            backends=self.backends,
            model_names=by_name["route"].model_names,
            figures=metrics,
            sessions=sessions,
            problems=lambda: [text for _, layer in layers if (text := getattr(layer, "problem", None))],
        )
        access = AccessLines(format=config.server.log_format, secrets=secrets)
        is_heard = config.server.log_level in ("debug", "info")
        transport = Transports(config)
        spent = partial(account, backends=self.backends)  # what a broken answer used is estimated before it is counted
        recorders: list[Callable[[Exchange], None]] = [spent, metrics.record, *([access.write] if is_heard else [])]
        app = App(layers, pages, transport, recorders, secrets, keep_alive=self._keep_alive)
        try:
            if is_heard:
                access.start()
                self._opened.callback(access.close)
            ours = (metrics, transport, *by_name.values(), sessions)  # sessions are closed before the log
            for component in (*ours, *(b.provider or b.adapter for b in self.backends)):
                if hasattr(type(component), "__aenter__"):
                    await self._opened.enter_async_context(component)
        except BaseException:
            await self._opened.aclose()
            raise
        return app

    def _refused(self, app: App, client: str, error: GatewayError, request_id: str) -> None:
        self._metrics.inc("gw_refused_total")
        app.refused(client, error, request_id)

    async def close(self, grace: float | None = None) -> None:
        """Take nothing new, finish what is in flight for at most `grace` seconds, then close everything."""
        if self._server is not None:
            await self._server.close(self.config.server.shutdown_grace if grace is None else grace)
        await self._opened.aclose()

    async def __aenter__(self) -> GatewayServer:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @property
    def port(self) -> int:
        """The port that is listened on; of use where 0 was asked for."""
        return self._server.port if self._server is not None else self.config.server.port

    @property
    def url(self) -> str:
        """Where it answers: `http://127.0.0.1:3456`."""
        host = self.config.server.host
        return (
            f"{'https' if self.config.server.tls_cert else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}"
        )


def _list_price(models: Catalogue, name: str) -> Price | None:
    model = models.find(name)
    return None if model is None else model.price


class Transports:
    """The far end of the wire side: gw's own transport, or httpx for a backend that has a proxy or asks for it."""

    def __init__(self, config: Config) -> None:
        ca_files = {table.name: str(table.options.ca_file) for table in config.backends if table.options.ca_file}
        self._own = HTTPTransport(ca_files=ca_files)
        self._others: dict[str, HTTPXTransport] = {
            table.name: HTTPXTransport(proxy=table.options.proxy, ca_file=ca_files.get(table.name))
            for table in config.backends
            if table.options.proxy or table.options.transport == "httpx"
        }

    def __call__(self, wire: WireRequest) -> Awaitable[WireResponse]:
        send: Callable[[WireRequest], Awaitable[WireResponse]] = self._others.get(wire.backend, self._own)
        return send(wire)

    async def __aenter__(self) -> Transports:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._own.aclose()
        for transport in self._others.values():
            await transport.aclose()


def _tls(config: Config) -> Any:
    """The server's TLS context, or None. TLS 1.2 and newer, the defaults of Python's `ssl`."""
    server = config.server
    if server.tls_cert is None or server.tls_key is None:
        return None
    import ssl  # costs 10 ms and is needed for https only

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(server.tls_cert, server.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError([f"server.tls_cert, server.tls_key: cannot be used ({error}): give PEM files"]) from error
    return context
