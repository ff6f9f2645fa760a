"""A gateway whose backend `cli` is the fake claude, and a look at what that was started with and told."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from gw.upstream.descendants import descendants
from tests.running import Running, settings

FAKE = Path(__file__).with_name("fake_claude.py")


class FakeClaude:
    """The fake program in a folder of its own. `modes`: what the first, second, ... turn does."""

    def __init__(self, folder: Path, *modes: str, version: str = "2.1.330") -> None:
        folder.mkdir(exist_ok=True)
        self.command = folder / "claude"
        self.command.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {FAKE} "$@"\n')
        self.command.chmod(0o755)
        self._plan = folder / "plan.json"
        self._log = folder / "log"
        self._log.touch()
        self._plan.write_bytes(orjson.dumps({"modes": modes or ("answer",), "log": str(self._log), "version": version}))

    def table(self, **options: Any) -> dict[str, Any]:
        """`[backends.NAME]`, without spares and warm processes where nothing else is said."""
        table: dict[str, Any] = {"adapter": "claude-cli", "command": str(self.command), "min_idle": 0, "max_warm": 0}
        return table | options | {"env": {"FAKE_CLAUDE": str(self._plan)} | options.get("env", {})}

    @property
    def entries(self) -> list[dict[str, Any]]:
        """What its processes recorded, in order."""
        return [orjson.loads(line) for line in self._log.read_bytes().splitlines()]

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
        found = set()
        for entry in self.starts:
            found.update(descendants(entry["pid"], entry["env"]["GW_PROCESS"]))
        return sorted(found | {pid for pid in pids if _lives(pid)})


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start(gw: Running, folder: Path, fake: FakeClaude, more: dict[str, Any] | None = None, **options: Any) -> str:
    """A gateway with the fake as the backend `cli`; `more` are further tables."""
    tables = {"middleware": {"fallback": {"retries": 0}}} | (more or {})
    backends = {"cli": fake.table(**options)} | tables.pop("backends", {})
    tables = {"server": {"shutdown_grace": 0}} | tables
    return gw.start(settings(folder, backends=backends, **tables), environ={"PATH": os.defpath, "HOME": str(folder)})


def until(happened: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
