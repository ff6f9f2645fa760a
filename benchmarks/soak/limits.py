"""R18: a rate limiter that is exact for each of a thousand keys, and small for a million."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys

from benchmarks.soak.client import Client
from benchmarks.soak.figure import Figure, below, count, equal, unmeasured
from benchmarks.soak.lab import ROOT, Lab
from gw.sliding_window import LocalWindows

LIMIT, WINDOW = 20, 10.0

_MANY = """
import sys, time
from pathlib import Path
from gw.sliding_window import LocalWindows

def resident():
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * 4096

total = int(sys.argv[1])
windows = LocalWindows()
before, early, late = resident(), 0.0, 0.0
for number in range(total):
    key = b"%032x" % number
    began = time.perf_counter()
    windows.admit(key, 60, 60.0, number / 1000)
    took = time.perf_counter() - began
    if number < total // 10:
        early += took
    elif number >= total - total // 10:
        late += took
print((resident() - before) / 2**20, late / early)
"""


async def exact_and_small(lab: Lab) -> list[Figure]:
    """R18: by an injected clock, by a running gateway, and by a million strangers."""
    figures = [_exact(lab), await _running(lab)]
    total = lab.count(1_000_000, 20_000)
    if not sys.platform.startswith("linux"):
        return [*figures, unmeasured("R18", "memory", "there is no /proc here")]
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _MANY, str(total)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    megabytes, slower = map(float, done.stdout.split())
    return [
        *figures,
        below("R18", f"memory for {total} different addresses", megabytes, 50, "MB"),
        below("R18", "the last tenth of them, over the first", slower, 3, "x"),
    ]


def _exact(lab: Lab) -> Figure:
    """A thousand keys in a random order: each window of each key, however it lies, holds at most the limit."""
    windows, dice = LocalWindows(), random.Random(lab.seed)
    keys = [b"key%d" % number for number in range(1000)]
    admitted: dict[bytes, list[float]] = {key: [] for key in keys}
    now, wrong = 0.0, 0
    for _ in range(lab.count(500_000, 20_000)):
        now += dice.expovariate(1000 * LIMIT * 1.5 / WINDOW)  # half as much again as is allowed
        key = dice.choice(keys)
        recent = [at for at in admitted[key][-LIMIT:] if at + WINDOW > now]
        allowed = windows.admit(key, LIMIT, WINDOW, now)[0]
        wrong += allowed != (len(recent) < LIMIT)
        if allowed:
            admitted[key].append(now)
    return count("R18", "decisions for 1000 keys that differ from a plain count", wrong)


async def _running(lab: Lab) -> Figure:
    """One key, asked for at once: exactly the limit passes."""
    limit = {"enabled": True, "max": LIMIT, "window": 60}
    async with lab.gateway("r18", middleware={"rate_limit": limit}, server={"workers": 2}) as gateway:
        clients = [Client(gateway.port, gateway.client._key) for _ in range(LIMIT * 3)]
        answers = await asyncio.gather(*(client.chat("ok") for client in clients))
        for client in clients:
            client.close()
    refused = sum(answer.status == 429 and "retry-after" in answer.headers for answer in answers)
    return equal("R18", f"of {len(answers)} at once over two workers: refused", refused, LIMIT * 2)
