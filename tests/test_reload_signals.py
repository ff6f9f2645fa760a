"""SIGHUP at a running `python -m gw`: nobody notices but by what has changed, and several workers go as one."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ECHO, Watched, children_of, gateway, get

RELOADS = 20


@contextmanager
def watched(folder: Path, workers: int, text: str, **environ: str) -> Iterator[Watched]:
    write(folder, text)
    with gateway(folder, "--port", "0", "--workers", str(workers), **environ) as process:
        yield Watched(process)


def write(folder: Path, text: str) -> None:
    (folder / "gateway.toml").write_text(f"[middleware.log]\npath = 'requests.db'\n{text}")


def limit(number: int) -> str:
    return f"[middleware.rate_limit]\nmax = {number}\n"


def limits(url: str, count: int = 12) -> set[str | None]:
    """What fresh connections are told, so that every worker is likely to be asked."""
    return {get(url, "/v1/chat/completions", ECHO).headers["X-RateLimit-Limit"] for _ in range(count)}


def health(url: str) -> Any:
    return json.loads(get(url, "/health").text)  # type: ignore[attr-defined]


class Load:
    """Clients that ask without a pause, whole and streamed, on kept and on fresh connections; it counts."""

    def __init__(self, url: str) -> None:
        self._port = int(url.rpartition(":")[2])
        self.answered = 0
        self.failures: list[str] = []
        self._is_over = False
        self._counted = threading.Condition()

    def run(self, beside: Callable[[], None], clients: int = 6) -> None:
        thread = threading.Thread(target=lambda: asyncio.run(self._all(clients)))
        thread.start()
        try:
            beside()
        finally:
            self._is_over = True
            thread.join(100)

    def wait_for_more(self, count: int) -> None:
        """Until so many more requests have been answered."""
        until = self.answered + count
        with self._counted:
            assert self._counted.wait_for(lambda: self.answered >= until or bool(self.failures), 100)

    async def _all(self, clients: int) -> None:
        await asyncio.gather(*(self._client(number) for number in range(clients)))

    async def _client(self, number: int) -> None:
        """Ask on one connection after the other: each third client begins a new one for each request."""
        while not self._is_over:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                for _ in range(1 if number % 3 == 0 else 50):
                    await self._ask(reader, writer, stream=self.answered % 2 == 0)
                    if self._is_over:
                        break
                writer.close()
                await writer.wait_closed()
            except (OSError, EOFError, AssertionError) as error:
                self.failures.append(repr(error))
                with self._counted:
                    self._counted.notify_all()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, stream: bool) -> None:
        body = json.dumps({**ECHO, "stream": stream}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nContent-Type: application/json"
        writer.write(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        if stream:
            assert b"[DONE]" in await reader.readuntil(b"\r\n0\r\n\r\n")
        else:
            length = re.search(rb"Content-Length: (\d+)", answer)
            assert length is not None
            assert b"choices" in await reader.readexactly(int(length[1]))
        with self._counted:
            self.answered += 1
            self._counted.notify_all()


@pytest.mark.parametrize("workers", [1, 2])
def test_twenty_reloads_under_load_fail_no_request_and_lose_no_row(tmp_path: Path, workers: int) -> None:
    with watched(tmp_path, workers, limit(100_000)) as gw:
        load = Load(gw.process.url)

        def reloads() -> None:
            for number in range(RELOADS):
                other = f"[backends.b{number}]\nadapter = 'echo'\n" if number % 2 else ""
                write(tmp_path, limit(99_999 - number) + other)
                load.wait_for_more(20)
                gw.reload()
            load.wait_for_more(20)

        load.run(reloads)
        assert gw.count("refused") == 0, "\n".join(line for line in gw.lines if "POST" not in line)
        assert limits(gw.process.url) == {str(100_000 - RELOADS)}
        assert gw.end() == 0
    assert load.failures == []
    assert load.answered >= 20 * RELOADS
    assert gw.count("gw.reload: reloaded") == RELOADS
    assert gw.count("ERROR|Traceback") == 0
    database = sqlite3.connect(tmp_path / "requests.db")
    rows = database.execute("SELECT count(*), count(DISTINCT id), sum(state = 'done') FROM requests").fetchone()
    database.close()
    assert rows == (load.answered + 12,) * 3


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_file_is_told_whole_and_changes_nothing(tmp_path: Path, workers: int) -> None:
    with watched(tmp_path, workers, limit(70)) as gw:
        write(tmp_path, "[server]\nprot = 1\n" + limit(0))
        gw.reload()
        assert gw.count(r"server\.prot: .*did you mean \"port\"") == 1
        assert gw.count(r"middleware\.rate_limit: max = 0 is out of range") == 1
        assert limits(gw.process.url) == {"70"}
        page = health(gw.process.url)
        assert page["status"] == "degraded"
        assert "the last reload was refused" in page["problems"][0]
        write(tmp_path, limit(71))
        gw.reload()
        assert limits(gw.process.url) == {"71"}
        assert health(gw.process.url)["status"] == "ok"
        assert gw.end() == 0


FAILING = """
import os
class Picky:
    async def __aenter__(self):
        if os.path.exists("refuse") and os.getppid() != int(open("parent").read()):
            raise OSError("this worker has no such disk")
        if os.path.exists("refuse"):
            try:
                open("taken", "x").close()
            except FileExistsError:
                raise OSError("the second one has no such disk") from None
    async def __aexit__(self, *exc):
        open(f"closed-{os.getpid()}", "a").write("closed ")
    async def __call__(self, request, call_next):
        return await call_next(request)
"""


def test_where_one_worker_cannot_take_it_none_does(tmp_path: Path) -> None:
    (tmp_path / "picky.py").write_text(FAILING)
    own = "[middleware.picky]\nuse = './picky.py:Picky'\n"
    pipeline = "pipeline = ['auth', 'rate_limit', 'route', 'fallback', 'log', 'picky', 'translate']\n"
    with watched(tmp_path, 2, limit(70)) as gw:
        (tmp_path / "parent").write_text(str(gw.process.popen.pid))
        (tmp_path / "refuse").touch()
        (tmp_path / "gateway.toml").write_text(f"{pipeline}[middleware.log]\npath = 'requests.db'\n{own}{limit(71)}")
        gw.reload()
        assert gw.count("reload refused, nothing has changed") == 1
        assert gw.count("the second one has no such disk") >= 1
        assert limits(gw.process.url) == {"70"}
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size for path in tmp_path.glob("closed-*")) and time.monotonic() < deadline:
            os.sched_yield()
        assert [path.read_text() for path in tmp_path.glob("closed-*")] == ["closed "], "what was opened is closed"
        (tmp_path / "refuse").unlink()
        gw.reload()
        assert limits(gw.process.url) == {"71"}
        assert gw.end() == 0


def test_a_worker_that_is_replaced_later_has_the_new_configuration(tmp_path: Path) -> None:
    with watched(tmp_path, 2, limit(70)) as gw:
        write(tmp_path, limit(71))
        gw.reload()
        supervisor = gw.process.popen.pid
        before = children_of(supervisor)
        os.kill(supervisor, signal.SIGSTOP)  # so that it hears of both deaths and of the ends of both lines at once
        for child in before:
            os.kill(child, signal.SIGKILL)
        os.kill(supervisor, signal.SIGCONT)
        gw.wait_for("it is replaced", 2)
        assert limits(gw.process.url) == {"71"}
        assert not set(before) & set(children_of(gw.process.popen.pid))
        write(tmp_path, limit(72))
        gw.reload()
        assert limits(gw.process.url) == {"72"}
        assert gw.end() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_what_needs_a_restart_is_told_and_a_changed_env_file_counts(tmp_path: Path, workers: int) -> None:
    (tmp_path / ".env").write_text("API_AUTH_TOKEN=first-key-0123456789\n")
    with watched(tmp_path, workers, limit(70)) as gw:

        def status(key: str) -> set[int]:
            header = f"Bearer {key}-key-0123456789"
            return {get(gw.process.url, "/v1/models", Authorization=header).status for _ in range(8)}

        assert (status("first"), status("second")) == ({200}, {401})
        (tmp_path / ".env").write_text("API_AUTH_TOKEN=second-key-0123456789\n")
        write(tmp_path, limit(70) + "[server]\nhost = 'localhost'\nmax_body = '1MB'\n")
        gw.reload()
        assert (status("first"), status("second")) == ({401}, {200})
        gw.wait_for(r"server\.max_body: 33554432 stays until a restart; the file says 1000000|server\.max_body: ")
        assert gw.count(r"server\.host: 127\.0\.0\.1 stays until a restart") == 1
        assert gw.count("key-0123456789") == 0
        assert gw.end() == 0


def test_signals_in_a_row_are_one_or_two_reloads_and_the_last_file_counts(tmp_path: Path) -> None:
    with watched(tmp_path, 2, limit(70)) as gw:
        for number in range(71, 81):
            write(tmp_path, limit(number))
            gw.process.popen.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 60
        while limits(gw.process.url, 6) != {"80"} and time.monotonic() < deadline:
            pass
        assert limits(gw.process.url) == {"80"}
        assert gw.end() == 0


def test_a_gateway_without_a_file_takes_up_one_that_has_appeared(tmp_path: Path) -> None:
    with gateway(tmp_path, "--port", "0", "--workers", "1") as process:
        gw = Watched(process)
        write(tmp_path, limit(77))
        gw.reload()
        assert limits(gw.process.url) == {"77"}
        assert gw.end() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_where_its_terminal_is_closed_it_drains_and_ends(tmp_path: Path, workers: str) -> None:
    main, side = os.openpty()
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "gw", "--port", "0", "--workers", workers]
    code = f"""import fcntl, os, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv({command[0]!r}, {command!r})"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=environ, stdin=side, stdout=side, stderr=side
    )
    os.close(side)
    said = b""
    while b"echo:" not in said:
        said += os.read(main, 4096)
    os.close(main)  # the kernel sends SIGHUP to the session
    assert process.wait(60) == 0
