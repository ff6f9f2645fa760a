"""R19: a command line program that hangs, crashes, floods and forks; of R7: it ends when its client leaves."""

# ruff: noqa: ASYNC110, ASYNC240 (other processes send no events: they are looked at)

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

from benchmarks.soak.client import Answer, Client
from benchmarks.soak.figure import Figure, below, count, percentile, unmeasured, yes
from benchmarks.soak.lab import Gateway, Lab
from benchmarks.soak.load import closed
from tests.claude_fakes import FakeClaude

MODES = (
    "answer",
    "hang_after",
    "die_after",
    "die:broken",
    "hang",
    "huge",
    "garbage",
    "ignore_term",
    "grandchild",
    "slow:0.01",
)


QUEUE = 3.0  # seconds that a place is waited for: within them a slow machine has both in the queue


async def chaos_in_the_pool(lab: Lab) -> list[Figure]:
    """R19: every way to misbehave, with clients that leave; then one that works."""
    if not Path("/proc").exists():
        return [unmeasured("R19", "the pool", "there is no /proc here")]
    turns = lab.count(300, 14)
    folder = lab.folder / "claude"
    dice = random.Random(lab.seed)
    fake = FakeClaude(folder, *MODES, *(dice.choice(MODES) for _ in range(turns - len(MODES))), "answer")
    table = fake.table(min_idle=1, max_concurrent=6, queue_size=50, queue_timeout=20, timeout=1.5)
    async with lab.gateway("r19", {"cli": table}, middleware={"fallback": {"retries": 0}}) as gateway:
        client = gateway.client

        async def ask(number: int) -> Answer:
            stream = dice.random() < 0.5
            if dice.random() < 0.7:
                return await client.chat("cli/m", stream=stream)
            connection = await client.connect()
            asked = connection.send(client.request("cli/m", stream=stream))
            await asyncio.wait([asked], timeout=dice.random() * 0.5)
            connection.hang_up()
            client.forget(connection)
            return connection.answer

        tally = await closed(ask, 10, requests=turns)
        while not (last := await client.chat("cli/m")).is_good and len(tally.answers) < turns + 50:
            tally.answers.append(last)  # some turns were left before they took their mode
        pool = (await client.get("/queue/status")).json["processPool"]
        zombies = _zombies(gateway)
        client.close()
        children = [entry["pid"] for entry in fake.starts]
        leaked = sum(_holds_a_key(pid) for pid in children)
        await gateway.stop()
    figures = [
        count("R19", "turns without a whole answer or an error in due form", tally.hung, out_of=turns),
        yes("R19", "the pool answers afterwards", last.is_good),
        count("R19", "places that are still taken", int(pool.get("active", 0)) + int(pool.get("queued", 0))),
        count("R19", "zombies", zombies),
        count("R19", "processes left over after its end", len(fake.living()), out_of=len(children)),
        count("R22", "children with a key in their environment", leaked, out_of=len(children)),
    ]
    return [*figures, *await _full_queue(lab), *await _clients_leave(lab)]


def _holds_a_key(pid: int) -> bool:
    try:
        return b"canary" in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def _zombies(gateway: Gateway) -> int:
    found = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text("latin-1").rpartition(")")[2].split()
        except OSError:
            continue
        found += fields[0] == "Z" and fields[1] == str(gateway.pid)
    return found


async def _full_queue(lab: Lab) -> list[Figure]:
    """All places hang and the queue is full: the next one hears of it at once."""
    fake = FakeClaude(lab.folder / "claude-full", "hang")
    table = fake.table(max_concurrent=2, queue_size=2, queue_timeout=QUEUE, timeout=120)
    async with lab.gateway("r19-full", {"cli": table}, middleware={"fallback": {"retries": 0}}) as gateway:
        client = gateway.client
        waiting = [asyncio.ensure_future(client.chat("cli/m")) for _ in range(2)]
        await _until_pool(client, "active")
        queued = [asyncio.ensure_future(client.chat("cli/m")) for _ in range(2)]
        await _until_pool(client, "queued")
        refused = [await client.chat("cli/m") for _ in range(10)]
        late = await asyncio.gather(*queued)
        client.close()
        await asyncio.gather(*waiting)
        await gateway.stop()
    bad = sum(a.status != 503 or "retry-after" not in a.headers for a in refused)
    waits = [abs(a.seconds - QUEUE) for a in late]
    return [
        count("R19", "full queue: no 503 with Retry-After", bad, out_of=len(refused)),
        below("R19", "full queue: p99 of the refusal", percentile((a.seconds for a in refused), 0.99) * 1000, 50, "ms"),
        count("R19", "waiting too long: no 503 or 504", sum(a.status not in (503, 504) for a in late), out_of=2),
        below("R19", f"off the queue's deadline of {QUEUE:g} s", max(waits) * 1000, 200, "ms"),
        count("R19", "hanging processes left over after its end", len(fake.living())),
    ]


async def _until_pool(client: Client, name: str) -> None:
    """Until two are active, or queued."""
    async with asyncio.timeout(60):
        while (await client.get("/queue/status")).json["processPool"][name] < 2:
            await asyncio.sleep(0.005)


async def _clients_leave(lab: Lab) -> list[Figure]:
    """R7: the program is gone soon after its client, though it ignores the polite signal."""
    total = lab.count(20, 4)
    fake = FakeClaude(lab.folder / "claude-left", "ignore_term")
    table = fake.table(max_concurrent=total, queue_size=total, timeout=60)
    async with lab.gateway("r7-cli", {"cli": table}) as gateway:
        client = gateway.client
        connections = []
        for _ in range(total):
            connection = await client.connect()
            connection.send(client.request("cli/m", stream=True))
            connections.append(connection)
        await asyncio.gather(*(connection.begun for connection in connections))
        for connection in connections:
            connection.hang_up()
        began = time.monotonic()
        while fake.living() and time.monotonic() - began < 10:
            await asyncio.sleep(0.02)
        took = time.monotonic() - began
        left = len(fake.living())
        client.close()
    return [
        count("R7", "command line programs still alive 10 s after their clients left", left, out_of=total),
        below("R7", "until the last of them was gone", took, 2.5, "s"),
    ]
