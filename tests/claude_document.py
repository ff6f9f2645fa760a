"""A gateway for document A on the Claude CLI, with the fake as the program.

It is started from the document's own `config/backends.json`; only the provider's address is another one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.claude_fakes import WEB, FakeClaude, until
from tests.fakes import answers, completion
from tests.running import Running, running

CLI: dict[str, Any] = {
    "name": "claude-cli-default",
    "type": "claude-cli",
    "configDir": "~/.claude-inst2",
    "maxConcurrent": 10,
    "queueSize": 50,
    "timeout": 120000,
    "supportsTools": True,
}
GLM: dict[str, Any] = {
    "name": "openrouter-glm",
    "type": "api",
    "provider": "openrouter",
    "baseUrl": "https://openrouter.ai/api/v1",
    "model": "z-ai/glm-4.7",
    "authTokenEnv": "OPENROUTER_API_KEY",
    "costPerRequest": 0.001,
    "supportsTools": False,
}
KIMI = CLI | {
    "name": "claude-cli-kimi",
    "configDir": "~/.claude-inst10",
    "maxConcurrent": 5,
    "queueSize": 25,
    "description": "Kimi K2 via Moonshot API",
}
ROUTING: dict[str, Any] = {
    "defaultBackend": "claude-cli-default",
    "preferCheapest": True,
    "fallbackChain": ["claude-cli-default", "openrouter-glm", "gemini-1.5-pro"],
}
KEY: dict[str, Any] = {"OPENROUTER_API_KEY": "sk-or-test"}
HI = [{"role": "user", "content": "Hello!"}]


class Document:
    """A gateway over the document's file, with the fake as the `claude` in PATH."""

    def __init__(self, gw: Running, folder: Path) -> None:
        self.gw = gw
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        self.fake: FakeClaude
        self.url = ""

    def start(
        self,
        *modes: str,
        backends: Sequence[dict[str, Any]] = (CLI, GLM),
        routing: dict[str, Any] = ROUTING,
        has_word: bool = False,
        **environ: str,
    ) -> str:
        """`modes` of the fake, and whether it waits for the word; `environ` are more variables."""
        self.fake = FakeClaude(self.folder / "bin", *modes, has_word=has_word)
        provider = self.gw.add_provider(answers(orjson.dumps(completion("from the API"))))
        entries = [entry | ({"baseUrl": provider.url} if "baseUrl" in entry else {}) for entry in backends]
        path = self.folder / "backends.json"
        path.write_bytes(orjson.dumps({"backends": entries, "routing": routing}))
        given = {
            "PATH": f"{self.folder / 'bin'}:{os.defpath}",
            "HOME": str(self.home),
            "DATABASE_PATH": str(self.folder / "logs" / "requests.db"),
            "RATE_LIMIT_MAX": "1000",
            "PORT": "0",
        }
        self.url = self.gw.start(path, environ=given | environ)
        return self.url

    def ask(self, path: str = "/v1/chat/completions", **fields: Any) -> httpx.Response:
        return WEB.post(self.url + path, json={"messages": HI} | fields)

    def shell(self, script: str) -> str:
        """Run one of the document's shell blocks."""
        if shutil.which("curl") is None or shutil.which("jq") is None:
            pytest.skip("curl and jq are not installed")
        script = script.replace("http://localhost:3456", self.url).replace("curl ", "curl -sS ")
        done = subprocess.run(
            ["bash", "-euc", script], cwd=self.folder, capture_output=True, text=True, timeout=20, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rows(self, columns: str) -> list[tuple[Any, ...]]:
        """The log's chat rows, after the gateway has ended."""
        self.gw.run(self.gw.gateway.close(0))
        with contextlib.closing(sqlite3.connect(self.folder / "logs" / "requests.db")) as database:
            query = f"SELECT {columns} FROM requests WHERE operation = 'chat' ORDER BY timestamp, rowid"
            return database.execute(query).fetchall()

    def with_tools(self) -> list[dict[str, Any]]:
        """The starts of processes that have tools; a spare has none."""
        starts = self.fake.starts
        return [entry for entry in starts if entry["argv"][entry["argv"].index("--tools") + 1]]

    @contextlib.contextmanager
    def busy(self, times: int, **fields: Any) -> Iterator[None]:
        """So many turns that hang, beside the test."""

        def quietly() -> None:
            with contextlib.suppress(httpx.HTTPError):
                self.ask("/v1/claude-cli-default/chat/completions", **fields)

        threads = [threading.Thread(target=quietly) for _ in range(times)]
        for thread in threads:
            thread.start()
        until(lambda: sum(self.pool()[name] for name in ("active", "queued")) == times)
        yield
        self.gw.run(self.gw.gateway.close(0))
        for thread in threads:
            thread.join(60)

    def pool(self) -> dict[str, Any]:
        pool: dict[str, Any] = WEB.get(f"{self.url}/queue/status").json()["processPool"]
        return pool


@pytest.fixture
def document(tmp_path: Path) -> Iterator[Document]:
    with running() as gw:
        yield Document(gw, tmp_path)
