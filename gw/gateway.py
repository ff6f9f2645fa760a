"""A gateway as an object: `GatewayServer(config)` with `start()`, `reload()` and `close()`, or `async with`.

    async with GatewayServer({"server": {"port": 0}}) as gateway:
        print(gateway.url)

`config` is the path of a file, a table of the same shape, or a `Config` that was read before. Middleware and backends
of your own may be given as objects.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gw.backend import Backend, Backends
from gw.certificates import ServerTLS, server_context
from gw.config import Config, again, read
from gw.endpoints.chat import KEEP_ALIVE
from gw.errors import ConfigError, GatewayError
from gw.generation import Extras, Generation, Standing
from gw.message import Request
from gw.reload import held_to, refusal
from gw.series import Family
from gw.server import Limits, Reply, Server
from gw.sessions import Sessions
from gw.shared import LocalShared, Shared

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
        self._extras = Extras(middleware, backends)
        self._shared = shared or LocalShared()
        self._keep_alive = keep_alive
        self._limits = limits or Limits(max_body=config.server.max_body)
        self._standing: Standing | None = None
        self._current: Generation | None = None
        self._older: list[Generation] = []  # that still answer somebody
        self._retiring: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        self._server: Server | None = None
        self._tls: ServerTLS | None = None
        self.refused: str | None = None  # why the last reload changed nothing

    async def start(self, *, sock: socket.socket | None = None) -> None:
        """Open what the components need, then listen (on `sock`, if given). Returns when requests are taken."""
        context = server_context(self.config.server)
        self._tls = None if context is None else ServerTLS(context)
        standing = self._standing = Standing(self._shared)
        standing.metrics.declare(Family("gw_refused_total", "Requests that were not HTTP as it must be"))
        standing.metrics.watch(
            "gw_reload_refused",
            "1 while the configuration that is in force is an older one than the file that was last refused",
            lambda: float(self.refused is not None),
            kind="gauge",
            over_workers="max",
        )
        await standing.metrics.__aenter__()
        server = self.config.server
        try:
            self.take_over(await self.prepare(self.config))
            self._server = Server(
                self._handle, limits=self._limits, http=server.http, ssl=context, refused=self._not_http
            )
            await self._server.start(server.host, server.port, sock=sock)
        except BaseException:
            await self.close(grace=0)
            raise

    # --- requests ------------------------------------------------------------------------------------------------

    def _handle(self, request: Request) -> Awaitable[Reply]:
        assert self._current is not None, "requests come after the start"
        return self._current.app.handle(request)

    def _not_http(self, client: str, error: GatewayError, request_id: str) -> None:
        assert self._standing is not None, "requests come after the start"
        assert self._current is not None, "requests come after the start"
        self._standing.metrics.inc("gw_refused_total")
        self._current.app.refused(client, error, request_id)

    # --- another configuration -----------------------------------------------------------------------------------

    async def reload(self, config: Config | Mapping[str, Any] | str | Path | None = None) -> list[str]:
        """Go on with another configuration; without one, with the same file read again.

        Requests in flight end as they began; counters, limits, sessions, and the pools and breakers of backends whose
        tables did not change go on. Returns the settings that wait for a restart, each told with its value. Raises
        ConfigError with everything that is wrong, and then nothing has changed.
        """
        async with self._reloading:
            try:
                generation = await self.prepare(await self._read(config))
            except ConfigError as error:
                self.refuse(error.problems)
                raise
            self.take_over(generation)
        return list(generation.waiting)

    async def _read(self, config: Config | Mapping[str, Any] | str | Path | None) -> Config:
        if config is None:
            return await asyncio.to_thread(again, self.config)  # not on the loop: it takes 20 ms and more
        if isinstance(config, Config):
            return config
        return await asyncio.to_thread(read, config, environ=self.config.origin.environ)

    async def prepare(self, config: Config) -> Generation:
        """The first half of a reload: everything made and opened beside what is at work. Raises ConfigError.

        `take_over` or `abandon` must follow.
        """
        assert self._standing is not None, "start comes first"
        waiting: list[str] = []
        if self._current is not None:
            config, waiting = held_to(self._current.config, config)
        context = server_context(config.server)
        go_back = self._standing.metrics.watching()
        try:
            generation = Generation(config, self._standing, self._extras, self._current)
            await generation.prepare(self._problems, self._is_stopping, keep_alive=self._keep_alive)
        except BaseException:
            go_back()
            raise
        generation.context, generation.waiting, generation.go_back = context, waiting, go_back
        return generation

    def take_over(self, generation: Generation) -> None:
        """The second half: requests come to this generation from now on. The one before closes behind its last one."""
        former, self._current = self._current, generation
        generation.take_over()
        self.config, self.refused = generation.config, None
        if self._tls is not None and generation.context is not None:
            self._tls.use(generation.context)
        if former is not None:
            former.retire()
            self._older.append(former)
            task = asyncio.create_task(self._retire(former))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
        self._tell_names()

    async def abandon(self, generation: Generation) -> None:
        """The other second half: close what was only made for it."""
        generation.go_back()
        await generation.close(beside=self._alive())

    def refuse(self, problems: Sequence[str]) -> None:
        """Have /health say that a new configuration was refused, and why, until one is taken."""
        self.refused = refusal(problems)

    async def _retire(self, generation: Generation) -> None:
        try:
            await generation.quiet()
            self._older.remove(generation)
            self._tell_names()
            await generation.close(beside=self._alive())
        except Exception:  # the root of this task
            logger.exception("what the former configuration held open could not be closed")

    async def settled(self) -> None:
        """Wait until nothing of an earlier configuration is left: its last request has ended, and it is closed."""
        while self._retiring:
            await asyncio.wait(self._retiring)

    def _alive(self) -> list[Generation]:
        return [*self._older, *([self._current] if self._current is not None else [])]

    def _tell_names(self) -> None:
        assert self._standing is not None, "start comes first"
        self._standing.backends.become(*(generation.backends for generation in self._alive()))

    def _problems(self) -> list[str]:
        return [] if self.refused is None else [self.refused]

    def _is_stopping(self) -> bool:
        return self._server is not None and self._server.is_aborting

    # --- the end -------------------------------------------------------------------------------------------------

    async def close(self, grace: float | None = None) -> None:
        """Take nothing new, finish what is in flight for at most `grace` seconds, then close everything."""
        if self._server is not None:
            await self._server.close(self.config.server.shutdown_grace if grace is None else grace)
        await self.settled()
        current, self._current = self._current, None
        if current is not None:
            await current.close()
        standing, self._standing = self._standing, None
        if standing is not None:
            await standing.signatures.__aexit__(None, None, None)
            await standing.metrics.__aexit__(None, None, None)

    async def __aenter__(self) -> GatewayServer:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @property
    def backends(self) -> Backends:
        """Those of the configuration in force; none before the start."""
        return self._current.backends if self._current is not None else Backends()

    @property
    def sessions(self) -> Sessions | None:
        """Those of the configuration in force; None before the start."""
        return self._current.sessions if self._current is not None else None

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
