"""What is started for a run, each on its core: nginx as provider, nginx as bare proxy, gw, the event source."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.ports import free_port

SERVER_CORE = 0  # gw and nginx as proxy, one at a time
OTHER_CORE = 1  # the provider and the load

ANSWER = (
    b'{"id":"chatcmpl-9Xk2mQ4rT7","object":"chat.completion","created":1700000000,"model":"gpt-4o-mini",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"'
    + b"The quick brown fox jumps over the lazy dog. "
    * 7
    + b'","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":52,'
    b'"completion_tokens":80,"total_tokens":132},"service_tier":"default","system_fingerprint":"fp_44709d6fcb"}'
)


MESSAGE = (
    b'{"id":"msg_01","type":"message","role":"assistant","model":"claude","content":[{"type":"text","text":"A cat."}],'
    b'"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":52,"output_tokens":8}}'
)


@dataclass
class Program:
    """A running server."""

    name: str
    pid: int
    port: int
    headers: dict[str, str] = field(default_factory=dict)  # that requests to it need beside the usual ones

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def cpu_seconds(pid: int) -> float:
    """CPU that a process, all of its threads and its children have used, from the scheduler's own clock."""
    total = 0
    for process in (pid, *_children(pid)):
        for task in Path(f"/proc/{process}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])  # nanoseconds
    return total / 1e9


def _children(pid: int) -> list[int]:
    """The processes that come of one, as their own `stat` tells."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it may end while we look
            fields = stat.read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, at = [pid], 0
    while at < len(found):
        found += parents.get(found[at], [])
        at += 1
    return found[1:]


def resident_kb(pid: int) -> int:
    """Resident memory in KiB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) if found else 0


@contextmanager
def run(
    name: str, command: Sequence[str], port: int, core: int, folder: Path, *, patience: float = 10.0, **environ: str
) -> Iterator[Program]:
    """A server on one core, from when it listens on `port`, which may take `patience` seconds."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(Path(__file__).parents[2])}
    with (folder / f"{name}.out").open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment | environ,
            cwd=folder,
        )
        try:
            _wait_for(port, process, folder / f"{name}.out", patience)
            yield Program(name, process.pid, port)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], output: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens on {port}: {output.read_text()[-2000:]}")


def nginx_path() -> str | None:
    """Debian's nginx, where it is installed."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


_NGINX = """
worker_processes 1; daemon off; master_process off; pid {folder}/{name}.pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 300; client_max_body_size 64m;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  {body}
}}
"""


@contextmanager
def nginx(name: str, body: str, port: int, core: int, folder: Path) -> Iterator[Program]:
    """One nginx process, no master, so that its CPU is one figure."""
    path = nginx_path()
    assert path is not None, "ask nginx_path() first"
    config = folder / f"{name}.conf"
    config.write_text(_NGINX.format(folder=folder, name=name, body=body))
    with run(name, [path, "-c", str(config)], port, core, folder) as program:
        yield program


@contextmanager
def provider(folder: Path, answer: bytes = ANSWER, name: str = "provider") -> Iterator[Program]:
    """nginx that answers every POST with the same completion."""
    port = free_port()
    text = answer.decode().replace("'", "\\'")
    body = f"""server {{ listen 127.0.0.1:{port} backlog=4096; default_type application/json;
      location / {{ return 200 '{text}'; }} }}"""
    with nginx(name, body, port, OTHER_CORE, folder) as program:
        yield program


@contextmanager
def proxy(upstream: Program, folder: Path) -> Iterator[Program]:
    """nginx as a bare reverse proxy: the physical limit."""
    port = free_port()
    body = f"""upstream provider {{ server 127.0.0.1:{upstream.port}; keepalive 512; keepalive_requests 100000000; }}
    server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://provider;
      proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }} }}"""
    with nginx("nginx", body, port, SERVER_CORE, folder) as program:
        yield program


_GATEWAY = """
[server]
port = {port}
http = "{http}"
log_level = "warn"
workers = {workers}
max_body = {body_limit}

[middleware.rate_limit]
max = 100000
window = 1

[middleware.log]
path = "{folder}/{name}.db"

[backends.provider]
adapter = "{adapter}"
base_url = "{url}"
api_key_env = "BENCH_KEY"
"""


@contextmanager
def gateway(
    upstream: Program,
    folder: Path,
    *,
    name: str = "gw",
    http: str = "auto",
    adapter: str = "openai",
    path: str = "/v1",
    workers: int = 1,
    body_limit: int = 32 * 1024 * 1024,
) -> Iterator[Program]:
    """gw with its whole default pipeline: limit, log and metrics are on."""
    port = free_port()
    config = folder / f"{name}.toml"
    config.write_text(
        _GATEWAY.format(
            port=port,
            http=http,
            folder=folder,
            name=name,
            url=upstream.url + path,
            adapter=adapter,
            workers=workers,
            body_limit=body_limit,
        )
    )
    command = [sys.executable, "-m", "gw", "--config", str(config)]
    with run(name, command, port, SERVER_CORE, folder, BENCH_KEY="sk-bench") as program:
        yield program


@contextmanager
def event_source(folder: Path) -> Iterator[Program]:
    """The provider of event streams."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.harness.event_source", str(port)]
    with run("events", command, port, OTHER_CORE, folder) as program:
        yield program


@contextmanager
def workspace() -> Iterator[Path]:
    """A folder for configurations and logs, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="gw-bench-") as name:
        yield Path(name)
