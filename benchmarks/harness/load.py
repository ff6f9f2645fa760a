"""Load on a server: wrk for whole answers, a reader of our own for event streams."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import orjson
import uvloop

from benchmarks.harness.processes import OTHER_CORE, Program, cpu_seconds

KEY = "sk-client"  # of the one who asks
REQUEST = orjson.dumps(
    {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant. Answer in one short paragraph."},
            {"role": "user", "content": "Explain to me what a reverse proxy is and why somebody would want one. " * 3},
        ],
        "temperature": 0.7,
        "max_tokens": 150,
    }
)

_LUA = """
wrk.method = "POST"
wrk.body = [==[{body}]==]
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {key}"
{headers}
done = function(summary, latency, requests)
  io.write(string.format("RESULT %d %d %.1f %d %d %.1f %d\\n", summary.requests, summary.duration,
    latency.mean, latency:percentile(50), latency:percentile(99), latency.max,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status
    + summary.errors.timeout))
end
"""


@dataclass(frozen=True)
class WholeRun:
    """One run of wrk: figures per second, in microseconds of CPU per request, and in milliseconds of latency."""

    per_second: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    errors: int
    little: float  # requests per second x mean latency / connections; well below 1: connections have stalled


def wrk_path() -> str | None:
    """Debian's wrk, where it is installed."""
    return shutil.which("wrk")


def whole(program: Program, connections: int, seconds: float, folder: Path, body: bytes = REQUEST) -> WholeRun:
    """Ask for whole answers over `connections` connections."""
    script = folder / "post.lua"
    headers = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in program.headers.items())
    script.write_text(_LUA.replace("{key}", KEY).replace("{headers}", headers).replace("{body}", body.decode()))
    path = wrk_path()
    assert path is not None, "ask wrk_path() first"
    command = ["taskset", "-c", str(OTHER_CORE), path, "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", str(script)]
    used = cpu_seconds(program.pid)
    done = subprocess.run([*command, f"{program.url}/v1/chat/completions"], capture_output=True, text=True, check=True)
    used = cpu_seconds(program.pid) - used
    found = re.search(r"RESULT (\d+) (\d+) ([\d.]+) (\d+) (\d+) ([\d.]+) (\d+)", done.stdout)
    assert found is not None, done.stdout
    requests, duration = int(found[1]), int(found[2]) / 1e6
    per_second = requests / duration
    return WholeRun(
        per_second=per_second,
        cpu_us=used / max(1, requests) * 1e6,
        p50_ms=int(found[4]) / 1000,
        p99_ms=int(found[5]) / 1000,
        errors=int(found[7]),
        little=per_second * float(found[3]) / 1e6 / connections,
    )


@dataclass(frozen=True)
class StreamRun:
    """One run over event streams; delays are one way, from the provider's write to the reader's read.

    They are those of events that were sent while all streams were open: how long the start of hundreds of streams at
    once takes is another question, which `start_p99_ms` answers.
    """

    events: int
    per_second: float
    cpu_us: float  # of the server, per event
    core: float  # share of one core that the server used
    p50_ms: float
    p99_ms: float
    start_p99_ms: float  # of all events
    first_ms: float  # median time to the first content
    errors: int


_STAMP = re.compile(rb'x{50}(\d{18})"')


class _Reader(asyncio.Protocol):
    """Asks for one stream and reads it to its end. nginx cuts chunks where it likes: the framing is taken off first."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._raw = b""  # framed, not looked at yet
        self._left = -1  # bytes of the chunk at hand; -1: its size comes next
        self._has_head = False
        self._text = b""
        self._is_whole = False
        self.delays: list[tuple[int, int]] = []  # of each event: when it was sent, and how long it took; nanoseconds
        self.first: float | None = None
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._began = time.monotonic()
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self._raw += data
        text = self._text + b"".join(self._chunks())
        cut = text.rfind(b"\n") + 1
        text, self._text = text[:cut], text[cut:]
        self._is_whole = self._is_whole or b"[DONE]" in text
        self.delays += [(int(stamp), now - int(stamp)) for stamp in _STAMP.findall(text)]
        if self.first is None and self.delays:
            self.first = time.monotonic() - self._began

    def _chunks(self) -> list[bytes]:
        """The content of all chunks, or parts of them, that are here; the last one ends the stream."""
        found: list[bytes] = []
        while self._raw:
            if not self._has_head:
                _, end, rest = self._raw.partition(b"\r\n\r\n")
                if not end:
                    break
                self._has_head, self._raw = True, rest
            elif self._left < 0:
                size, end, rest = self._raw.lstrip(b"\r\n").partition(b"\r\n")
                if not end:
                    break
                self._left, self._raw = int(size, 16), rest
                if self._left == 0:
                    self._finish(True)
                    break
            else:
                found.append(self._raw[: self._left])
                self._raw = self._raw[self._left :]
                self._left -= len(found[-1])
                if self._left == 0:
                    self._left = -1
        return found

    def _finish(self, has_ended: bool) -> None:
        # Told after this read's text was looked at.
        asyncio.get_running_loop().call_soon(self._tell, has_ended)

    def _tell(self, has_ended: bool) -> None:
        if not self.done.done():
            self.done.set_result(has_ended and self._is_whole)
        self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._tell(False)


def streams(
    program: Program,
    path: str,
    *,
    connections: int,
    count: int,
    times: int = 1,
    model: str = "gpt-4o-mini",
    wants_done: bool = True,
) -> StreamRun:
    """Read `connections` streams at once, each of `count` events; and so `times` over, one round behind the other."""
    body = orjson.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": "Hi"}]})
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{program.port}\r\nContent-Type: application/json\r\n"
    request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body

    async def run() -> tuple[list[_Reader], float]:
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        readers: list[_Reader] = []
        for _ in range(times):
            readers += [
                (await loop.create_connection(lambda: _Reader(request), "127.0.0.1", program.port))[1]
                for _ in range(connections)
            ]
            await asyncio.wait_for(asyncio.gather(*(reader.done for reader in readers)), 120)
        return readers, time.monotonic() - began

    used = cpu_seconds(program.pid)
    readers, seconds = uvloop.run(run())
    used = cpu_seconds(program.pid) - used
    delays: list[int] = []
    for at in range(0, len(readers), connections):
        delays += _while_all_are_open(readers[at : at + connections])
    delays.sort()
    with_starts = sorted(delay for reader in readers for _, delay in reader.delays)
    firsts = sorted(reader.first or 0.0 for reader in readers)
    events = len(with_starts)
    bad = sum(not reader.done.result() and wants_done for reader in readers) + (times * connections * count - events)
    return StreamRun(
        events=events,
        per_second=events / seconds,
        cpu_us=used / max(1, events) * 1e6,
        core=used / seconds,
        p50_ms=delays[len(delays) // 2] / 1e6 if delays else 0.0,
        p99_ms=delays[int(len(delays) * 0.99)] / 1e6 if delays else 0.0,
        start_p99_ms=with_starts[int(events * 0.99)] / 1e6 if events else 0.0,
        first_ms=firsts[len(firsts) // 2] * 1000,
        errors=bad,
    )


def _while_all_are_open(readers: list[_Reader]) -> list[int]:
    """The delays of what was sent between the last stream's first event and the first stream's last; else all."""
    seen = [reader.delays for reader in readers if reader.delays]
    if not seen:
        return []
    begin, end = max(delays[0][0] for delays in seen), min(delays[-1][0] for delays in seen)
    between = [delay for delays in seen for sent, delay in delays if begin <= sent <= end]
    return between if len(between) > len(seen) else [delay for delays in seen for _, delay in delays]
