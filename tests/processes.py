"""`python -m gw` as a process of its own, what it prints while it runs, and questions to it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

HI = {"messages": [{"role": "user", "content": "Hi"}]}
ECHO = {**HI, "model": "echo"}


class Process:
    """A running `python -m gw`; `url` once it listens."""

    def __init__(self, folder: Path, *arguments: str, **environ: str) -> None:
        clean = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "VIRTUAL_ENV")}
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "gw", *arguments],
            cwd=folder,
            env=clean | environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.block: list[str] = []
        assert self.popen.stdout is not None
        os.set_blocking(self.popen.stdout.fileno(), True)
        while line := self.popen.stdout.readline().decode():
            self.block.append(line.rstrip())
            if line.strip().startswith("echo:") or "echo:" in line:
                break
        found = re.search(r"http://127\.0\.0\.1:\d+", self.text)
        self.url = found[0] if found else ""

    @property
    def text(self) -> str:
        return "\n".join(self.block)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(60)


@contextmanager
def gateway(folder: Path, *arguments: str, **environ: str) -> Iterator[Process]:
    process = Process(folder, *arguments, **environ)
    try:
        yield process
    finally:
        if process.popen.poll() is None:
            process.popen.kill()
        process.popen.wait(60)
        assert process.popen.stdout is not None
        process.popen.stdout.close()


class Watched:
    """A running gateway whose output is read, as a terminal or a journal would read it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.popen.stdout is not None
        for line in self.process.popen.stdout:
            with self._changed:
                self.lines.append(line.decode().rstrip())
                self._changed.notify_all()

    def count(self, pattern: str) -> int:
        return sum(re.search(pattern, line) is not None for line in list(self.lines))

    def wait_for(self, pattern: str, count: int = 1) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.count(pattern) >= count, 100), "\n".join(self.lines)

    def reload(self) -> None:
        """SIGHUP, and wait until it has been obeyed or refused."""
        before = self.count("gw.reload: reload")
        self.process.popen.send_signal(signal.SIGHUP)
        self.wait_for("gw.reload: reload", before + 1)

    def end(self, number: int = signal.SIGTERM) -> int:
        status = self.process.stop(number)
        self._thread.join(60)
        return status


def chat(http: httpx.Client, url: str) -> httpx.Response:
    return http.post(f"{url}/v1/chat/completions", json=HI)


def get(url: str, path: str, body: object = None, **headers: str) -> http.client.HTTPResponse:
    """One request on a connection of its own; the answer, read."""
    connection = http.client.HTTPConnection("127.0.0.1", int(url.rpartition(":")[2]), timeout=60)
    given = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), given)
    answer = connection.getresponse()
    answer.text = answer.read().decode()  # type: ignore[attr-defined]
    connection.close()
    return answer


def children_of(pid: int) -> list[int]:
    listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, check=False)
    return [int(entry) for entry in listed.stdout.split()]
