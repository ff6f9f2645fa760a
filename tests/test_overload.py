"""More than gw can take, and clients that do not: memory stays bounded, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
from pathlib import Path

import pytest

from tests.fakes import Asked, chunk, sse
from tests.processes import ECHO, Watched, gateway, get
from tests.running import running

STREAMS = 100  # each costs megabytes in the kernel's own buffers on loopback, and the time to fill them
MOST = 512 * 1024  # bytes: some reads of 32 KB, as they came and as they are sent, and what a process first grows by
PIECE = sse(*(chunk({"content": "x" * 200}) for _ in range(20)), done=False)


class Flood:
    """A provider that streams as long as it is read; it counts the bytes that were taken, and the streams."""

    def __init__(self) -> None:
        self.taken = 0
        self.streams = 0

    async def __call__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        self.streams += 1
        while True:
            writer.write(PIECE)
            await writer.drain()
            self.taken += len(PIECE)


def resident(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def never_read(port: int) -> socket.socket:
    """A client that asks for a stream and does not read it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.connect(("127.0.0.1", port))
    body = json.dumps({**ECHO, "model": "flood", "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return sock


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measures memory as Linux tells it")
def test_streams_that_nobody_reads_take_bounded_memory_and_stop_their_provider(tmp_path: Path) -> None:
    flood = Flood()
    with running() as gw, contextlib.ExitStack() as sockets:
        provider = gw.add_provider(flood)
        (tmp_path / "gateway.toml").write_text(
            "[middleware.rate_limit]\nenabled = false\n[middleware.log]\ncontent = 'none'\n"
            f"[backends.flood]\nadapter = 'openai'\nbase_url = '{provider.url}/v1'\nmodels = {{ flood = 'm' }}\n"
        )
        with gateway(tmp_path, "--port", "0", LOG_LEVEL="warn") as process:
            watched = Watched(process)
            port = int(process.url.rpartition(":")[2])
            assert get(process.url, "/v1/chat/completions", ECHO).status == 200
            before = resident(process.popen.pid)
            for _ in range(STREAMS):
                sockets.enter_context(never_read(port))
            still = threading.Event()
            taken = -1
            while flood.streams < STREAMS or flood.taken != taken:  # until the provider is not read any more
                taken = flood.taken
                still.wait(0.25)
                assert get(process.url, "/v1/chat/completions", ECHO).status == 200, "a bystander is answered"
            grown = (resident(process.popen.pid) - before) / STREAMS
            assert grown < MOST, f"{grown / 1024:.0f} KB for each stream"
            assert get(process.url, "/health").status == 200
            sockets.close()
            assert watched.end() == 0


def test_a_stream_that_nobody_reads_does_not_slow_the_others_of_its_provider(tmp_path: Path) -> None:
    flood = Flood()
    with running() as gw, contextlib.ExitStack() as sockets:
        provider = gw.add_provider(flood)
        table = {
            "server": {"port": 0},
            "middleware": {"log": {"enabled": False}, "rate_limit": {"enabled": False}},
            "backends": {"flood": {"adapter": "openai", "base_url": f"{provider.url}/v1", "models": {"flood": "m"}}},
        }
        gw.start(table)
        for _ in range(20):
            sockets.enter_context(never_read(gw.gateway.port))
        reader = sockets.enter_context(never_read(gw.gateway.port))
        reader.settimeout(20)
        read = 0
        while read < 2_000_000:
            data = reader.recv(65536)
            assert data
            read += len(data)
