"""`python -m gw` as a process: the block it prints, workers, signals, a worker that is killed."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.processes import HI, chat, children_of, gateway


@pytest.fixture(name="http")
def _http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=30) as client:
        yield client


def test_with_nothing_configured_it_starts_says_so_and_answers(tmp_path: Path, http: httpx.Client) -> None:
    with gateway(tmp_path, "--port", "0") as process:
        assert "gw listens on http://127.0.0.1:" in process.text
        assert "cors -> auth -> rate_limit -> route -> fallback -> log -> translate" in process.text
        assert re.search(r"echo: +ready", process.text)
        assert chat(http, process.url).json()["choices"][0]["message"]["content"]
        assert http.get(f"{process.url}/health").json()["status"] == "ok"
        assert process.stop() == 0
    assert (tmp_path / "logs" / "requests.db").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_drains_and_every_row_is_written(tmp_path: Path, http: httpx.Client, workers: int) -> None:
    with gateway(tmp_path, "--port", "0", "--workers", str(workers), RATE_LIMIT_ENABLED="false") as process:
        for _ in range(20):
            with httpx.Client(trust_env=False) as fresh:  # a connection each, so that both workers get some
                assert chat(fresh, process.url).status_code == 200
        assert process.stop() == 0
    with sqlite3.connect(tmp_path / "logs" / "requests.db") as database:
        assert database.execute("SELECT count(*), count(DISTINCT id) FROM requests").fetchone() == (20, 20)
    database.close()


def test_limits_are_exact_across_workers(tmp_path: Path) -> None:
    with gateway(tmp_path, "--port", "0", "--workers", "2", RATE_LIMIT_MAX="10") as process:
        codes = []
        for _ in range(30):
            with httpx.Client(trust_env=False) as fresh:
                codes.append(chat(fresh, process.url).status_code)
        assert codes.count(200) == 10
        assert codes.count(429) == 20


def test_a_killed_worker_is_replaced_and_nobody_is_refused(tmp_path: Path) -> None:
    with gateway(tmp_path, "--port", "0", "--workers", "2") as process:
        children = children_of(process.popen.pid)
        assert len(children) == 2
        os.kill(children[0], signal.SIGKILL)
        for _ in range(20):
            with httpx.Client(trust_env=False, timeout=30) as fresh:
                assert fresh.get(f"{process.url}/health/live").status_code == 200
        deadline = time.monotonic() + 60
        while len(children_of(process.popen.pid)) < 2 and time.monotonic() < deadline:
            os.sched_yield()
        assert len(children_of(process.popen.pid)) == 2
        assert process.stop() == 0


def test_while_it_drains_new_connections_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import asyncio, os\n"
        "class Slow:\n"
        "    async def chat_completion(self, request, config):\n"
        "        while not os.path.exists('go'):\n"
        "            await asyncio.sleep(0.01)\n"
        "        return 'done'\n"
    )
    (tmp_path / "gateway.toml").write_text('[backends.slow]\nadapter = "./slow.py:Slow"\n')
    with gateway(tmp_path, "--port", "0", "--workers", "2") as process, ThreadPoolExecutor(1) as pool:
        body = HI | {"backend": "slow"}
        asking = pool.submit(httpx.post, f"{process.url}/v1/chat/completions", json=body, trust_env=False, timeout=100)
        with httpx.Client(trust_env=False) as http:
            while not _in_flight(http, process.url):
                os.sched_yield()
        process.popen.send_signal(signal.SIGTERM)
        port = int(process.url.rpartition(":")[2])
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as sock:
                sock.settimeout(60)
                if sock.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED:
                    break
        else:
            raise AssertionError("connections are still taken")
        (tmp_path / "go").touch()
        assert asking.result(60).json()["choices"][0]["message"]["content"] == "done"
        assert process.popen.wait(60) == 0


def _in_flight(http: httpx.Client, url: str) -> int:
    return int(http.get(f"{url}/health").json()["backends"]["slow"]["in_flight"])


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_cleanly_without_a_traceback(tmp_path: Path, workers: int) -> None:
    with gateway(tmp_path, "--port", "0", "--workers", str(workers)) as process:
        assert process.stop(signal.SIGINT) == 0
        assert process.popen.stdout is not None
        assert b"Traceback" not in process.popen.stdout.read()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_is_taken_is_one_line_with_the_cure(tmp_path: Path, workers: str) -> None:
    with gateway(tmp_path, "--port", "0") as first:
        port = first.url.rpartition(":")[2]
        with gateway(tmp_path, "--port", port, "--workers", workers) as second:
            assert second.popen.wait(60) == 1
            assert f"127.0.0.1:{port} is taken" in second.text
            assert "--port" in second.text


def test_a_wrong_configuration_tells_everything_and_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text('[server]\nprot = 1\n[middleware.rate_limit]\nmax = "many"\n')
    with gateway(tmp_path) as process:
        assert process.popen.wait(60) == 1
        assert 'did you mean "port"' in process.text
        assert "middleware.rate_limit.max" in process.text
    assert not (tmp_path / "logs").exists()


def test_a_non_loopback_bind_without_a_key_is_refused(tmp_path: Path) -> None:
    with gateway(tmp_path, "--host", "0.0.0.0", "--port", "0") as process:
        assert process.popen.wait(60) == 1
        assert "API_AUTH_TOKEN" in process.text
