"""The Claude program of one backend: where it is, what it is started with, and the environment it gets."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gw.environ import Environ
from gw.secret import Secret

OLDEST = (2, 1, 248)  # the first version that can be told that a prompt is plain text (`client_composed`)
NO_PROGRAM = "no claude program: set command, or install one with pip install 'gw[claude-cli]'"

# Streams in both directions, nothing of the folder's own settings, nobody who could be asked for permission.
_ALWAYS = (
    *("-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"),
    *("--include-partial-messages", "--strict-mcp-config", "--permission-prompts", "none", "--restricted"),
)
_FORGETS = ("--no-session-persistence",)  # what is said is kept in one place, the gateway's log
_QUIET = {
    "LANG": "C.UTF-8",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_AUTOUPDATER": "1",
    "CLAUDE_CODE_DISABLE_FILE_MENTIONS": "1",  # an @path in somebody's prompt would be read from this machine
    "CLAUDE_CODE_MAX_RETRIES": "1",  # the gateway retries and falls back by itself
    "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
}
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def find_program(command: str | None, environ: Mapping[str, str]) -> str | None:
    """The program's path: `command`, else `claude` in PATH, else the one inside the `claude_agent_sdk` wheel."""
    path = environ.get("PATH") or os.defpath
    if command is not None:
        return shutil.which(os.path.expanduser(command), path=path)
    found = shutil.which("claude", path=path)
    if found is not None:
        return found
    try:
        spec = importlib.util.find_spec("claude_agent_sdk")  # finds the folder; nothing of it is imported
    except (ImportError, ValueError):
        return None
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        bundled = Path(folder) / "_bundled" / "claude"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    return None


def is_too_old(version: str) -> bool:
    """Whether a version is one that cannot be used safely; one that cannot be read is."""
    found = _VERSION.match(version)
    return found is None or tuple(map(int, found.groups())) < OLDEST


@dataclass(frozen=True)
class Program:
    """What every process of one backend has in common."""

    path: str
    config_dir: Path | None  # None: the user's own, with the user's own login
    model: str | None  # what processes are started with; None: the program's own choice
    base_url: str | None
    key: Secret | None
    variables: Mapping[str, str] = field(repr=False)  # the operator's own
    arguments: Sequence[str]
    timeout: float  # seconds, of one call of the provider's API
    environ: Environ
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # added to each call
    ca_file: Path | None = None  # certificate authorities beside the usual ones
    proxy: str | None = field(default=None, repr=False)  # may hold a password

    def chat(self) -> list[str]:
        """The command line of a process without tools that leaves nothing behind."""
        bare = ["--bare"] if self.key is not None else []  # faster, but it knows no login
        return [*self._line(self.model), *_FORGETS, *bare, "--tools", ""]

    def tools(self, names: Sequence[str], model: str | None) -> list[str]:
        """The command line of a process with some of Claude's own tools, confined to its working directory."""
        return [*self._line(model), "--tools", ",".join(names)]

    @staticmethod
    def session(identifier: str | None, *, is_new: bool = True) -> list[str]:
        """The flags of a process that keeps a transcript, or goes on with one; None: it keeps none."""
        if identifier is None:
            return list(_FORGETS)
        return ["--session-id" if is_new else "--resume", identifier]

    def forget(self, identifier: str) -> None:
        """Delete a transcript. Blocks for a moment."""
        home = self.config_dir or Path(self.environ.get("HOME") or os.path.expanduser("~")) / ".claude"
        for path in (home / "projects").glob(f"*/{identifier}.jsonl"):
            path.unlink(missing_ok=True)

    def environment(self, temporary: Path) -> dict[str, str]:
        """Built from nothing: paths, the quiet settings, what the backend's table names, and nothing else."""
        found = {"PATH": self.environ.get("PATH") or os.defpath, "TMPDIR": str(temporary), **_QUIET}
        found["API_TIMEOUT_MS"] = str(int(self.timeout * 1000))
        if self.config_dir is not None:
            found["HOME"] = found["CLAUDE_CONFIG_DIR"] = str(self.config_dir)
        else:
            found["HOME"] = self.environ.get("HOME") or os.path.expanduser("~")
        if self.base_url is not None:
            found["ANTHROPIC_BASE_URL"] = self.base_url
        if self.key is not None:
            found["ANTHROPIC_API_KEY"] = self.key.reveal()
        if self.headers:
            found["ANTHROPIC_CUSTOM_HEADERS"] = "\n".join(f"{name}: {value}" for name, value in self.headers.items())
        if self.ca_file is not None:
            found["NODE_EXTRA_CA_CERTS"] = str(self.ca_file)
        if self.proxy is not None:
            found["HTTPS_PROXY"] = found["HTTP_PROXY"] = self.proxy
        return found | dict(self.variables)

    def _line(self, model: str | None) -> list[str]:
        settings = self._settings()
        more = ["--settings", str(settings)] if settings else []
        # With its value in one piece: whatever a client calls a model, it is no flag.
        more += [f"--model={model}"] if model else []
        return [self.path, *_ALWAYS, *more, *self.arguments]

    def _settings(self) -> Path | None:
        """The config folder's own settings, which confinement would leave out; only where nobody else can write."""
        if self.config_dir is None:
            return None
        path = self.config_dir / "settings.json"
        try:
            status = path.stat()
        except OSError:
            return None
        is_ours = status.st_uid in (0, os.getuid()) and not status.st_mode & 0o022
        return path if is_ours else None
