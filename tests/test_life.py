"""The end and the next beginning: streams are finished, rows are final, and a restart refuses nobody for long."""

from __future__ import annotations

import errno
import http.client
import json
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import ECHO, Watched, gateway, get

OPEN, QUEUED = 60, 20
LONG = 20.0  # seconds: far more than is waited for here, and less than the grace where the file names none
SLOW = """
import asyncio, os
class Slow:
    async def chat_completion_stream(self, request, config):
        yield "first"
        while not os.path.exists("go"):
            await asyncio.sleep(0.02)
        yield " last"
    async def chat_completion(self, request, config):
        while not os.path.exists("go"):
            await asyncio.sleep(0.02)
        return "whole"
"""


_open: list[http.client.HTTPConnection] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _open:
        _open.pop().close()


def configuration(folder: Path, **server: object) -> None:
    (folder / "slow.py").write_text(SLOW)
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in server.items())
    (folder / "gateway.toml").write_text(
        f"[server]\n{lines}[middleware.rate_limit]\nenabled = false\n[middleware.log]\npath = 'requests.db'\n"
        f"[backends.slow]\nadapter = './slow.py:Slow'\nmodel = 'slow'\n"
        f"[backends.narrow]\nadapter = './slow.py:Slow'\nmodel = 'slow'\nmax_concurrent = 1\nqueue_size = {QUEUED}\n"
    )


def ask(port: int, backend: str, *, stream: bool) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = json.dumps({**ECHO, "model": "slow", "stream": stream})
    _open.append(connection)
    connection.request("POST", f"/v1/{backend}/chat/completions", body, {"Content-Type": "application/json"})
    return connection


def under_way(url: str) -> tuple[int, int]:
    """Streams at work, and whole requests in the queue."""
    page = json.loads(get(url, "/health").text)  # type: ignore[attr-defined]
    return int(page["backends"]["slow"]["in_flight"]), int(page["routing"]["processPool"]["queued"])


def states(folder: Path) -> dict[str, int]:
    database = sqlite3.connect(folder / "requests.db")
    found = dict(database.execute("SELECT state, count(*) FROM requests GROUP BY state"))
    database.close()
    return found


def begin(process_url: str) -> tuple[list[http.client.HTTPResponse], list[http.client.HTTPConnection]]:
    """Streams that have begun, and whole requests of which one is at work and the others wait in a queue."""
    port = int(process_url.rpartition(":")[2])
    streams = [ask(port, "slow", stream=True).getresponse() for _ in range(OPEN)]
    queued = [ask(port, "narrow", stream=False) for _ in range(QUEUED)]
    while under_way(process_url) != (OPEN, QUEUED - 1):
        pass
    return streams, queued


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_lets_open_streams_and_queued_requests_end_and_every_row_is_final(tmp_path: Path, workers: int) -> None:
    configuration(tmp_path, workers=workers)
    with gateway(tmp_path, "--port", "0", LOG_LEVEL="warn") as process:
        Watched(process)
        streams, queued = begin(process.url)
        answers = []
        process.popen.send_signal(signal.SIGTERM)
        (tmp_path / "go").touch()
        for stream in streams:
            assert stream.read().endswith(b"data: [DONE]\n\n")
        for connection in queued:
            answers.append(connection.getresponse().status)
        assert process.popen.wait(60) == 0
    assert answers == [200] * QUEUED
    assert states(tmp_path) == {"done": OPEN + QUEUED}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_second_sigterm_ends_at_once_and_every_row_is_final(tmp_path: Path, workers: int) -> None:
    configuration(tmp_path, workers=workers)
    with gateway(tmp_path, "--port", "0", LOG_LEVEL="warn") as process:
        watched = Watched(process)
        streams, queued = begin(process.url)
        process.popen.send_signal(signal.SIGTERM)
        port = int(process.url.rpartition(":")[2])
        while not _is_refused(port):
            os.sched_yield()
        assert watched.end() != 0, "what was in flight was dropped, and the status says so"
        for stream in streams:
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                stream.read()
        del queued
    found = states(tmp_path)
    assert "started" not in found
    assert sum(found.values()) == OPEN + QUEUED


def test_after_the_grace_what_is_left_is_broken_off_and_told_apart_from_a_hang_up(tmp_path: Path) -> None:
    configuration(tmp_path, shutdown_grace=0.2)
    with gateway(tmp_path, "--port", "0", LOG_LEVEL="warn") as process:
        watched = Watched(process)
        streams, queued = begin(process.url)
        began = time.monotonic()
        assert watched.end() == 0
        assert time.monotonic() - began < LONG, "the grace is what the file says"
        del streams, queued
    database = sqlite3.connect(tmp_path / "requests.db")
    codes = dict(database.execute("SELECT status, count(*) FROM requests GROUP BY status"))
    database.close()
    assert codes == {503: OPEN + QUEUED}


def test_a_restart_refuses_connections_only_between_the_two(tmp_path: Path) -> None:
    """The port is free as soon as the old one drains, and the new one takes it while the old one still answers."""
    configuration(tmp_path)
    with gateway(tmp_path, "--port", "0", LOG_LEVEL="warn") as old:
        port = old.url.rpartition(":")[2]
        held = ask(int(port), "slow", stream=True).getresponse()
        old.popen.send_signal(signal.SIGTERM)
        while not _is_refused(int(port)):
            os.sched_yield()
        with gateway(tmp_path, "--port", port, LOG_LEVEL="warn") as new:
            assert new.url == old.url
            assert get(new.url, "/v1/chat/completions", ECHO).status == 200
            (tmp_path / "go").touch()
            assert held.read().endswith(b"data: [DONE]\n\n")
            assert old.popen.wait(60) == 0
            assert get(new.url, "/v1/chat/completions", ECHO).status == 200
            assert new.stop() == 0


def _is_refused(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(60)
        return sock.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
