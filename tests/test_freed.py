"""An exchange that is over is freed at once, however it ended: nothing of it waits for the garbage collector.

Among what would wait are the request's body and the answer that the log keeps: megabytes where images are sent.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from gw.message import Request, Response
from gw.pipeline import Handler
from tests.fakes import Asked, Script, answers, chunk, completion, sse, streams
from tests.running import running, settings

PATIENCE = 60.0  # seconds
SPOKEN = chunk({"role": "assistant", "content": "Hello"})
WHOLE = answers(json.dumps(completion()).encode())
PIECES = (sse(SPOKEN, done=False), sse(chunk({"content": "!"}), chunk({}, "stop")))


class Probe:
    """Lies in the attributes of an exchange, and is freed with it."""


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def silent(asked: Asked, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def half(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + PIECES[0])
    await asyncio.Event().wait()


def ask(url: str, *, stream: bool, until: bytes) -> None:
    """Ask, and leave when `until` was read."""
    body = json.dumps({"model": "m", "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}).encode()
    host = url.removeprefix("http://")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(tuple(host.split(":")), timeout=PATIENCE) as client:  # type: ignore[arg-type]
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        read = b""
        while until not in read:
            piece = client.recv(65536)
            assert piece, read
            read += piece


@pytest.mark.parametrize(
    ("script", "stream", "until"),
    [
        pytest.param(WHOLE, False, b"Hello!", id="answered"),
        pytest.param(streams(*PIECES), True, b"[DONE]", id="streamed"),
        pytest.param(answers(b"{}", status=500), False, b" 502 ", id="failed"),
        pytest.param(streams(*PIECES[:1], cut=True), True, b'"error"', id="cut"),
        pytest.param(half, True, b"Hello", id="left in mid-stream"),
        pytest.param(silent, False, b"", id="left before the answer"),
    ],
)
def test_what_is_over_is_freed(tmp_path: Path, script: Script, stream: bool, until: bytes) -> None:
    freed = threading.Event()

    async def watched(request: Request, call_next: Handler) -> Response:
        probe = Probe()
        weakref.finalize(probe, freed.set)
        request.exchange.attributes["probe"] = probe
        return await call_next(request)

    with running() as gw:
        provider = gw.add_provider(script)
        backends = {"b": {"adapter": "openai", "base_url": f"{provider.url}/v1"}}
        tables = settings(tmp_path, backends=backends, middleware={"fallback": {"retries": 0}})
        ask(gw.start(tables, middleware=[("watched", watched)]), stream=stream, until=until)
        assert freed.wait(PATIENCE)
