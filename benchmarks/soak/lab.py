"""Where soaks take place: a folder, the provider, and gateways as processes that can be looked at and killed."""

# ruff: noqa: ASYNC110 (other processes send no events: they are looked at)

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import tomli_w

from benchmarks.ports import free_port
from benchmarks.soak.client import Client

ROOT = Path(__file__).parents[2]
# Keys that nobody may ever read again; R22 looks for them wherever something was written.
CLIENT_KEY = "gwk-canary-3f9ac81d55be4e07"
PROVIDER_KEY = "sk-canary-7be1d2049c3a4f6e"
SPARE_SECONDS = 60.0  # for a start or an end that is late, however busy the machine


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process occupies."""

    resident_kb: int
    descriptors: int
    threads: int


class Process:
    """A program that listens on a port."""

    def __init__(self, name: str, command: Sequence[str], port: int, folder: Path, **environ: str) -> None:
        self.name = name
        self.port = port
        self.folder = folder
        self._command = list(command)
        self._environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT)} | environ
        self._popen: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def output(self) -> str:
        """All that it has said, on both channels."""
        return (self.folder / f"{self.name}.out").read_text(errors="replace")

    def spawn(self, before: Callable[[], None] | None = None) -> None:
        """Start it; `before` runs in the child, where it is limited or made somebody else."""
        with (self.folder / f"{self.name}.out").open("ab") as output:
            self._popen = subprocess.Popen(
                self._command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environ,
                cwd=self.folder,
                preexec_fn=before,
            )

    async def is_up(self) -> None:
        """Until it listens. Raises RuntimeError with what it said where it does not."""
        deadline = time.monotonic() + SPARE_SECONDS
        while time.monotonic() < deadline and self._popen.poll() is None:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            await asyncio.sleep(0.005)
        raise RuntimeError(f"{self.name} does not listen: {self.output[-2000:]}")

    def send_signal(self, number: int) -> None:
        """Tell it something."""
        self._popen.send_signal(number)

    async def ended(self, seconds: float = SPARE_SECONDS) -> int | None:
        """Its exit status; None where it still runs after so many seconds."""
        deadline = time.monotonic() + seconds
        while self._popen.poll() is None and time.monotonic() < deadline:
            await asyncio.sleep(0.002)
        return self._popen.returncode

    async def stop(self) -> int | None:
        """Tell it to end, and see that it does."""
        self._popen.terminate()
        status = await self.ended()
        if status is None:
            await self.kill()
        return status

    async def kill(self) -> None:
        """No goodbye."""
        self._popen.kill()
        await self.ended()

    async def discard(self) -> None:
        """See that nothing of it is left, however a soak has ended."""
        if hasattr(self, "_popen") and self._popen.poll() is None:
            await self.kill()

    def sample(self) -> Sample | None:
        """What it occupies; None where there is no /proc."""
        folder = Path(f"/proc/{self.pid}")
        try:
            status = (folder / "status").read_text()
            descriptors = len(os.listdir(folder / "fd"))
        except OSError:
            return None
        found = {name: int(value) for name, value in re.findall(r"(VmRSS|Threads):\s+(\d+)", status)}
        return Sample(found["VmRSS"], descriptors, found["Threads"])


class Upstream(Process):
    """The provider, with its books."""

    async def _ask(self, path: str, body: bytes = b"") -> Any:
        client = Client(self.port)
        try:
            return (await client.send(client.raw("POST", path, body))).json
        finally:
            client.close()

    async def stats(self) -> dict[str, Any]:
        """attempts, hangups, most, busy, blocked, connections, realms."""
        found: dict[str, Any] = await self._ask("/_stats")
        return found

    async def ledger(self) -> list[dict[str, Any]]:
        """One entry for each attempt whose request had a `user`."""
        found: list[dict[str, Any]] = await self._ask("/_ledger")
        return found

    async def behave(self, **realms: str) -> None:
        """What is done with every request of a realm, whatever its model says."""
        await self._ask("/_set", orjson.dumps(realms))

    async def reset(self) -> None:
        """New books."""
        await self._ask("/_reset")

    async def quiet(self, seconds: float = 5.0) -> int:
        """Requests that are still being answered; waits a while for them to end."""
        deadline = time.monotonic() + seconds
        while (busy := int((await self.stats())["busy"])) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        return busy


class Gateway(Process):
    """One gateway with its configuration and its log."""

    @property
    def database(self) -> Path:
        return self.folder / "log" / "requests.db"

    @property
    def client(self) -> Client:
        """A new client with the right key."""
        return Client(self.port, CLIENT_KEY)

    def rows(self, query: str = "SELECT * FROM requests") -> list[dict[str, Any]]:
        """Of its log."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query)]

    async def logged(self, count: int) -> None:
        """Until so many requests have their final row."""
        async with asyncio.timeout(SPARE_SECONDS):
            while len(self.rows("SELECT id FROM requests WHERE state = 'done'")) < count:
                await asyncio.sleep(0.02)

    async def figures(self) -> dict[str, Any]:
        """`/metrics`: the value of each series, summed over its labels."""
        client = self.client
        try:
            page = (await client.get("/metrics?format=json")).json or {}
        finally:
            client.close()
        return {
            name: sum(entry["value"] for entry in series)
            for name, series in page.items()
            if series and "value" in series[0]
        }


def table(port: int, realm: str = "up", **options: Any) -> dict[str, Any]:
    """`[backends.NAME]` that leads to a realm of the provider."""
    return {"adapter": "openai", "base_url": f"http://127.0.0.1:{port}/{realm}/v1", "api_key_env": "KEY"} | options


class Lab:
    """What all soaks share. `scale` shortens them: 1.0 is what the targets were set for."""

    def __init__(self, folder: Path, *, scale: float = 1.0, seed: int = 1, is_pinned: bool = False) -> None:
        self.folder = folder
        self.scale = scale
        self.seed = seed
        self.is_pinned = is_pinned  # gateways have a core of their own
        self.folders: list[Path] = []
        self.upstream: Upstream
        self.leaks: list[str] = []  # memory of processes that held a key they must not have

    def count(self, full: int, least: int = 1) -> int:
        """So many of what there are `full` in a whole run."""
        return max(least, round(full * self.scale))

    def seconds(self, full: float, least: float = 0.5) -> float:
        """The same for times."""
        return max(least, full * self.scale)

    def backends(self, *realms: str, **options: Any) -> dict[str, Any]:
        """A backend for each realm."""
        return {realm: table(self.upstream.port, realm, **options) for realm in realms}

    @asynccontextmanager
    async def gateway(
        self,
        name: str,
        backends: Mapping[str, Any] | None = None,
        *,
        middleware: Mapping[str, Any] | None = None,
        server: Mapping[str, Any] | None = None,
        before: Callable[[], None] | None = None,
    ) -> AsyncIterator[Gateway]:
        """A gateway that answers; killed at the end if it was not stopped before."""
        gateway = self.prepare(name, backends, middleware=middleware, server=server)
        try:
            gateway.spawn(before)
            await gateway.is_up()
            yield gateway
            if await gateway.ended(0) is None and await gateway.stop() is None:
                print(f"{name} did not end when it was told to", file=sys.stderr)
        finally:
            await gateway.discard()

    def prepare(
        self,
        name: str,
        backends: Mapping[str, Any] | None = None,
        *,
        middleware: Mapping[str, Any] | None = None,
        server: Mapping[str, Any] | None = None,
        log: Mapping[str, Any] | None = None,
    ) -> Gateway:
        """Its folder and its file; nothing is started."""
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        self.folders.append(folder)
        port = free_port()
        tables = {
            "rate_limit": {"enabled": False},
            "log": {"path": str(folder / "log" / "requests.db")} | dict(log or {}),
            **(middleware or {}),
        }
        config = {
            "server": {"port": port, "log_level": "info", "shutdown_grace": 10} | dict(server or {}),
            "middleware": tables,
            "backends": dict(backends if backends is not None else self.backends("up")),
        }
        (folder / "gateway.toml").write_text(tomli_w.dumps(config))
        command = [sys.executable, "-m", "gw", "serve", "--config", str(folder / "gateway.toml")]
        if self.is_pinned:
            command = ["taskset", "-c", "0", *command]
        keys = {"KEY": PROVIDER_KEY, "API_AUTH_TOKEN": CLIENT_KEY}
        return Gateway(name, command, port, folder, **keys)


@asynccontextmanager
async def lab(folder: Path, *, scale: float = 1.0, seed: int = 1, is_pinned: bool = False) -> AsyncIterator[Lab]:
    """A lab with its provider."""
    made = Lab(folder, scale=scale, seed=seed, is_pinned=is_pinned)
    port = free_port()
    made.upstream = Upstream("upstream", [sys.executable, "-m", "benchmarks.soak.upstream", str(port)], port, folder)
    made.upstream.spawn()
    try:
        await made.upstream.is_up()
        yield made
    finally:
        made.upstream.send_signal(signal.SIGKILL)
        await made.upstream.ended()
