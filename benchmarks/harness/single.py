"""What needs no load: cold start, import, a large body, idle connections, several workers."""

from __future__ import annotations

import http.client
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import orjson

from benchmarks.harness import processes as p
from benchmarks.harness.load import REQUEST, whole

Row = tuple[str, float, str, str]
"""What was measured, the figure, its unit, the target."""

_IMAGE = 5 * 1024 * 1024  # bytes of a data URI
_ROOT = Path(__file__).parents[2]
_IDLE = 5000  # connections; two descriptors each in all, and most systems allow a process some thousands


def rows(folder: Path, rounds: int, seconds: float) -> list[Row]:
    """Every figure, medians of `rounds` where one run is short."""
    with ExitStack() as stack:
        upstream = stack.enter_context(p.provider(folder))
        return [
            ("import gw.app", _median(rounds, _import_cpu) * 1000, "ms CPU", "150"),
            ("cold start to the first 200", _median(rounds, lambda: _cold_start(upstream, folder)), "s", "0.35"),
            *_large_body(folder, rounds),
            _idle_connections(upstream, folder),
            _workers(upstream, folder, rounds, seconds),
        ]


def _median(rounds: int, measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(rounds))


def _import_cpu() -> float:
    # As installed: compiled once, by the gateways that were started before.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import gw.app"], check=True, cwd=_ROOT, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _cold_start(upstream: p.Program, folder: Path) -> float:
    began = time.monotonic()
    with p.gateway(upstream, folder, name="cold") as server:
        status, _ = _ask(server, REQUEST)
        took = time.monotonic() - began
        assert status == 200, status
        return took


def _ask(server: p.Program, body: bytes, path: str = "/v1/chat/completions") -> tuple[int, float]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    began = time.monotonic()
    connection.request("POST" if body else "GET", path, body or None, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, time.monotonic() - began


def _large_body(folder: Path, rounds: int) -> list[Row]:
    """How long a request with a 5 MB image keeps everybody else waiting, as somebody who asks all the time sees it."""
    found: list[Row] = []
    image = "data:image/png;base64,iVBORw0KGgo" + "A" * (_IMAGE - 44)
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": image}}]
    body = orjson.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": parts}]})
    for adapter, answer, target in (("openai", p.ANSWER, "6"), ("anthropic", p.MESSAGE, "30")):
        with (
            p.provider(folder, answer, f"provider-{adapter}") as upstream,
            p.gateway(upstream, folder, name=f"large-{adapter}", adapter=adapter, body_limit=_IMAGE * 2) as server,
        ):
            status, _ = _ask(server, body)
            assert status == 200, status
            before = _peak_kb(server.pid, reset=True)
            with _Bystander(server) as bystander:
                waits = [_longest_wait(server, bystander, body) for _ in range(rounds)]
            copies = (_peak_kb(server.pid) - before) * 1024 / len(body)
        how = "passed through" if adapter == "openai" else "translated"
        found.append((f"5 MB image, {how}: longest wait of others", statistics.median(waits) * 1000, "ms", target))
        found.append((f"5 MB image, {how}: copies in memory at the peak", copies, "", "3"))
    return found


class _Bystander:
    """A process of its own that asks a server all the time: here it would wait for our own threads, too."""

    def __init__(self, server: p.Program) -> None:
        self._process = subprocess.Popen(
            [
                "taskset",
                "-c",
                str(p.OTHER_CORE),
                sys.executable,
                "-m",
                "benchmarks.harness.bystander",
                str(server.port),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            text=True,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it asks from now on

    def __enter__(self) -> _Bystander:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=10)

    def longest(self) -> float:
        """Seconds: its longest wait since it was asked last."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


def _longest_wait(server: p.Program, bystander: _Bystander, body: bytes) -> float:
    """How much longer than usual somebody else has to wait while one body passes and is written down."""
    bystander.longest()
    time.sleep(0.1)
    usual = bystander.longest()
    _ask(server, body)
    time.sleep(0.1)  # the log's thread takes its turn after the answer
    return max(0.0, bystander.longest() - min(usual, 0.001))


def _peak_kb(pid: int, *, reset: bool = False) -> int:
    """The most memory that a process has had since the last reset; at a reset, what it has now."""
    if reset:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0])


def _idle_connections(upstream: p.Program, folder: Path) -> Row:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else 65536, hard))
    kept: list[socket.socket] = []
    try:
        with p.gateway(upstream, folder, name="idle") as server:
            _ask(server, b"", "/health/live")
            before = p.resident_kb(server.pid)
            for number in range(_IDLE):  # from many addresses: of each, only so many are let in
                source = f"127.1.{number // 250 % 250}.{number % 250 + 1}"
                kept.append(socket.create_connection(("127.0.0.1", server.port), source_address=(source, 0)))
                kept[-1].sendall(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            for each in kept:
                each.recv(4096)
            each_kb = (p.resident_kb(server.pid) - before) / _IDLE
    finally:
        for each in kept:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return f"{_IDLE} idle connections, each", each_kb, "KB", "6"


def _workers(upstream: p.Program, folder: Path, rounds: int, seconds: float) -> Row:
    """CPU of a request with two workers, in parts of that with one. They share the core of the one."""
    with ExitStack() as stack:
        one = stack.enter_context(p.gateway(upstream, folder, name="one"))
        two = stack.enter_context(p.gateway(upstream, folder, name="two", workers=2))
        for server in (one, two):
            whole(server, 64, 1, folder)
        ratios = [
            whole(two, 64, seconds, folder).cpu_us / whole(one, 64, seconds, folder).cpu_us for _ in range(rounds)
        ]
    return "2 workers: CPU of a request, in parts of that of 1", statistics.median(ratios), "", "1.1"
