"""A gateway whose backend `cli` is the fake claude, questions to it, and what that was started with and told."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from gw.upstream.descendants import LISTED, descendants
from tests.running import Running, running, settings

# Not one client for each call: reading the system's certificates costs 70 ms. Nothing is kept open.
WEB = httpx.Client(verify=False, trust_env=False, timeout=60, limits=httpx.Limits(max_keepalive_connections=0))
FAKE = Path(__file__).with_name("fake_claude.py")
HI: list[Any] = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def gw() -> Iterator[Running]:
    with running() as gateway:
        yield gateway


class FakeClaude:
    """The fake program in a folder of its own. `modes`: what the first, second, ... turn does; mute: nothing."""

    def __init__(
        self, folder: Path, *modes: str, version: str = "2.1.330", is_mute: bool = False, has_word: bool = False
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.command = folder / "claude"
        self._plan = folder / "plan.json"
        # Its environment is built from nothing: it cannot be told by a variable of the test's.
        run = f'FAKE_CLAUDE="{self._plan}" exec {sys.executable} -S -E {FAKE} "$@"'
        self.command.write_text(f"#!/bin/sh\n{run}\n")
        self.command.chmod(0o755)
        self._log = folder / "log"
        self._log.touch()
        self.word = folder / "word"  # make it, and a process that waits for it (`has_word`) goes on
        plan = {"modes": modes or ("answer",), "log": str(self._log), "version": version, "is_mute": is_mute}
        plan |= {"word": str(self.word)} if has_word else {}
        self._plan.write_bytes(orjson.dumps(plan))

    def table(self, **options: Any) -> dict[str, Any]:
        """`[backends.NAME]`, without spares and warm processes where nothing else is said."""
        table: dict[str, Any] = {"adapter": "claude-cli", "command": str(self.command), "min_idle": 0, "max_warm": 0}
        return table | options

    @property
    def entries(self) -> list[dict[str, Any]]:
        """What its processes recorded, in order."""
        return [orjson.loads(line) for line in self._log.read_bytes().splitlines()]

    @property
    def turns(self) -> int:
        """How many turns its processes have begun."""
        turns = self._log.with_name("log.turns")
        return turns.stat().st_size if turns.exists() else 0

    @property
    def starts(self) -> list[dict[str, Any]]:
        """argv, env and cwd of each process."""
        return [entry for entry in self.entries if "argv" in entry]

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What was written to their stdin."""
        return [entry["line"] for entry in self.entries if "line" in entry]

    @property
    def prompts(self) -> list[dict[str, Any]]:
        """The user lines that asked for an answer."""
        return [line for line in self.lines if line["type"] == "user" and line.get("shouldQuery") is not False]

    def control(self, subtype: str) -> list[dict[str, Any]]:
        """The control requests of one kind."""
        return [line["request"] for line in self.lines if line.get("request", {}).get("subtype") == subtype]

    def living(self) -> list[int]:
        """Its processes, and what they started, that still live."""
        pids = {entry["pid"] for entry in self.entries} | {e["grandchild"] for e in self.entries if "grandchild" in e}
        found: set[int] = set()
        for entry in self.starts:
            found.update(descendants(entry["pid"], entry["env"]["GW_PROCESS"], {}, LISTED, is_alive=False))
        return sorted(found | (pids & set(LISTED(b""))))


def start(gw: Running, folder: Path, fake: FakeClaude, more: dict[str, Any] | None = None, **options: Any) -> str:
    """A gateway with the fake as the backend `cli`; `more` are further tables."""
    tables = {"middleware": {"fallback": {"retries": 0}}} | (more or {})
    backends = {"cli": fake.table(**options)} | tables.pop("backends", {})
    tables = {"server": {"shutdown_grace": 0}} | tables
    return gw.start(settings(folder, backends=backends, **tables), environ={"PATH": os.defpath, "HOME": str(folder)})


def ask(url: str, **fields: Any) -> httpx.Response:
    return WEB.post(f"{url}/v1/chat/completions", json={"messages": HI, "backend": "cli"} | fields)


def pool_of(url: str) -> dict[str, Any]:
    pool: dict[str, Any] = WEB.get(f"{url}/queue/status").json()["processPool"]
    return pool


def until(happened: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
