"""A gateway (and, if wanted, a provider) that really runs on loopback while a test talks to it from outside."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import openai
import uvloop

from gw.gateway import GatewayServer
from tests.fakes import LoopbackProvider, Script

T = TypeVar("T")


class Running:
    """One event loop in a thread of its own, with a gateway and providers in it."""

    def __init__(self) -> None:
        self.gateway: GatewayServer
        self.providers: list[LoopbackProvider] = []
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stack = AsyncExitStack()
        self._clients: list[openai.OpenAI] = []
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def add_provider(self, script: Script) -> LoopbackProvider:
        """A provider in the same loop."""
        provider = LoopbackProvider(script)
        self.run(self._stack.enter_async_context(provider))
        self.providers.append(provider)
        return provider

    def start(self, config: Mapping[str, Any] | Path, **fields: Any) -> str:
        """Start the gateway; its address."""
        self.gateway = GatewayServer(config, environ=fields.pop("environ", {}), **fields)
        self.run(self._stack.enter_async_context(self.gateway))
        return self.gateway.url

    def sdk(self, **fields: Any) -> openai.OpenAI:
        """The real SDK, pointed at the gateway; closed with everything else."""
        given: dict[str, Any] = {"base_url": f"{self.gateway.url}/v1", "api_key": "not-needed-for-local"}
        client = openai.OpenAI(**given | {"max_retries": 0} | fields)
        self._clients.append(client)
        return client

    def stop(self) -> None:
        for client in self._clients:
            client.close()
        self.run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()


def settings(folder: Path, **tables: Any) -> dict[str, Any]:
    """A configuration on a free port, with its log in `folder`."""
    middleware = {"log": {"path": str(folder / "requests.db")}} | tables.pop("middleware", {})
    return {"server": {"port": 0} | tables.pop("server", {}), "middleware": middleware, **tables}


@contextmanager
def running() -> Iterator[Running]:
    """A loop to start things in; everything is stopped at the end."""
    running = Running()
    try:
        yield running
    finally:
        running.stop()
