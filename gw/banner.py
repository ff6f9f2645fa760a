"""What is printed at the start: where gw listens, what runs, who is ready, and the cure for who is not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from gw.backend import Backend
from gw.config import Config


def banner(config: Config, backends: Iterable[Backend], port: int) -> str:
    """One readable block, without a trailing line end."""
    server = config.server
    host = f"[{server.host}]" if ":" in server.host else server.host
    scheme = "https" if server.tls_cert else "http"
    workers = f", {server.workers} workers" if server.workers > 1 else ""
    lines = [
        f"gw listens on {scheme}://{host}:{port}{workers}",
        f"  config    {config.path or 'none: defaults'}",
        f"  pipeline  {' -> '.join(config.pipeline)}",
        *backend_lines(backends),
    ]
    lines += [f"  warning   {warning}" for warning in config.warnings]
    return "\n".join(lines)


def announce(block: str) -> None:
    """Print it; a gateway whose output nobody takes serves all the same."""
    with contextlib.suppress(OSError):
        print(block, flush=True)


def backend_lines(backends: Iterable[Backend]) -> list[str]:
    """A line for each backend: ready, or what it lacks."""
    entries = [(f"{backend.name}:", backend.problem or "ready") for backend in backends]
    width = max((len(name) for name, _ in entries), default=0)
    lines = []
    for index, (name, state) in enumerate(entries):
        lines.append(f"  {'backends' if index == 0 else '':<8}  {name:<{width}} {state}")
    return lines
