"""The far end of the wire side: gw's own transport, or httpx for a backend that has a proxy or asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from typing import Protocol
from urllib.parse import urlsplit

from gw.adapter import WireHandler, WireRequest, WireResponse
from gw.backend_table import BackendTable, home_of
from gw.certificates import ca_problem
from gw.config import Config
from gw.errors import ConfigError
from gw.upstream import HTTPTransport, HTTPXTransport
from gw.upstream.tls import Contexts, stamp


class Transport(Protocol):
    """What sends a request to a provider and brings its answer."""

    def __call__(self, wire: WireRequest, /) -> Awaitable[WireResponse]: ...

    async def aclose(self) -> None: ...


class Transports:
    """The WireHandler for all backends. `former` hands on the transports whose settings and CA files are the same.

    Whoever has closed all that shares one closes it: see `each`.
    """

    def __init__(self, config: Config, former: Transports | None = None, *, contexts: Contexts | None = None) -> None:
        self._ca_files = {table.name: str(table.options.ca_file) for table in config.backends if table.options.ca_file}
        self._stamps = {file: stamp(file) for file in self._ca_files.values()}
        self._settings = {table.name: _settings(table) for table in config.backends if _wants_httpx(table)}
        self._wants_https = [table for table in config.backends if _is_https(table)]
        self._contexts: Contexts = (contexts or Contexts()) if former is None else former._contexts.renewed()
        is_same = former is not None and (former._ca_files, former._stamps) == (self._ca_files, self._stamps)
        self._own = HTTPTransport(ca_files=self._ca_files, contexts=self._contexts)
        if former is not None and is_same:
            self._contexts, self._own = former._contexts, former._own
        self._others: dict[str, HTTPXTransport] = {}
        for name, (proxy, ca_file) in self._settings.items():
            kept = former._others.get(name) if former is not None and self._is_same(former, name, ca_file) else None
            self._others[name] = kept or HTTPXTransport(proxy=proxy, ca_file=ca_file)

    def _is_same(self, former: Transports, name: str, ca_file: str | None) -> bool:
        is_same = former._settings.get(name) == self._settings[name]
        return is_same and (ca_file is None or former._stamps.get(ca_file) == self._stamps[ca_file])

    @property
    def handler(self) -> WireHandler:
        """What sends a request: gw's own transport itself, where no backend asks for another one."""
        # Methods, not the objects: to call an object has its class searched for `__call__` each time.
        return self._choose if self._others else self._own.__call__

    def _choose(self, wire: WireRequest) -> Awaitable[WireResponse]:
        transport: Transport = self._others.get(wire.backend) or self._own
        return transport(wire)

    def each(self) -> Iterator[Transport]:
        """The transports that it is made of; some may be another one's too."""
        yield self._own
        yield from self._others.values()

    async def prepare(self) -> None:
        """Read the certificate authorities that https backends need, in a thread: no request waits for that later.

        Raises ConfigError for a file that cannot be used.
        """
        for table in self._wants_https:
            try:
                await asyncio.to_thread(self._contexts.load, {self._ca_files.get(table.name)})
            except OSError as error:
                if table.options.ca_file is not None:
                    raise ConfigError([ca_problem(table, error)]) from error
                # Without authorities nobody is believed; the backend's own failures will say so.


def _wants_httpx(table: BackendTable) -> bool:
    return bool(table.options.proxy) or table.options.transport == "httpx"


def _settings(table: BackendTable) -> tuple[str | None, str | None]:
    options = table.options
    return options.proxy, str(options.ca_file) if options.ca_file else None


def _is_https(table: BackendTable) -> bool:
    """Whether gw's own transport will speak https to it, as far as its table tells."""
    if table.problem is not None or _wants_httpx(table) or not hasattr(table.factory, "open"):
        return False
    url = table.options.base_url or home_of(table.factory)
    return url is None or urlsplit(url).scheme == "https"
