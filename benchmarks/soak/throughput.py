"""R1 load held, R2 overload, R12 leaks, R13 idle connections, R23 a loop that never stands still."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from statistics import linear_regression

from benchmarks.soak.client import Answer, Client, Connection
from benchmarks.soak.figure import Figure, below, count, percentile, unmeasured
from benchmarks.soak.lab import Gateway, Lab, Sample
from benchmarks.soak.load import Ask, closed, mixed, offered

DELAY = 0.05  # seconds that the provider takes
LAG = "gw_event_loop_lag_seconds_max"  # the gateway's own gauge


async def load_held(lab: Lab) -> list[Figure]:
    """R1 and R23: 80 % whole answers, 20 % streams, 256 clients."""
    clients = lab.count(256, 32)
    async with lab.gateway("r1") as gateway:
        client = gateway.client
        ask = mixed(client, f"ok,delay={DELAY}", seed=lab.seed)
        await closed(ask, clients, seconds=lab.seconds(10, 0.3))
        before = gateway.sample()
        tally = await closed(ask, clients, seconds=lab.seconds(60))
        after = gateway.sample()
        figures = await gateway.figures()
        client.close()
    rate = len(tally.answers) / tally.seconds
    return [
        count("R1", f"errors with {clients} clients at {rate:.0f} requests/s", tally.bad, out_of=len(tally.answers)),
        below("R1", f"p99 over the provider's {DELAY * 1000:g} ms", (tally.p(0.99) - DELAY) * 1000, 25, "ms"),
        _growth("R1", before, after),
        _lag("R23", "longest stop of the loop under the load of R1", figures, 50),
    ]


def _growth(soak: str, before: Sample | None, after: Sample | None) -> Figure:
    if before is None or after is None:
        return unmeasured(soak, "memory", "there is no /proc here")
    return below(soak, "growth of memory after warm-up", (after.resident_kb - before.resident_kb) / 1024, 8, "MB")


def _lag(soak: str, what: str, figures: dict[str, float], most: float) -> Figure:
    if LAG not in figures:
        return unmeasured(soak, what, f"the gateway has no gauge {LAG}")
    return below(soak, what, figures[LAG] * 1000, most, "ms")


async def overload(lab: Lab) -> list[Figure]:
    """R2: up to four times what a backend with 32 places can take."""
    places = 32
    backends = lab.backends("up", max_concurrent=places, queue_size=places, queue_timeout=2.0)
    async with lab.gateway("r2", backends, middleware={"fallback": {"retries": 0}}) as gateway:
        client = gateway.client
        request = client.request(f"ok,delay={DELAY}")

        async def ask(_: int) -> Answer:
            return await client.send(request)

        await closed(ask, places, seconds=lab.seconds(2, 0.2))
        peak = await closed(ask, places, seconds=lab.seconds(10))
        capacity = len(peak.good) / peak.seconds
        steps = {step: await offered(ask, capacity * step, lab.seconds(20)) for step in (0.5, 1, 2, 4)}
        client.close()
        await gateway.stop()
    # By the gateway's own clock, too: the client has its hands full at 4 x.
    taken = [row["duration_ms"] for row in gateway.rows("SELECT duration_ms FROM requests WHERE status IN (429, 503)")]
    usual = steps[1].p(0.99)
    flood = steps[4]
    goodput = len(flood.good) / flood.seconds
    refused = [answer for answer in flood.answers if not answer.is_good]
    in_form = [a for a in refused if a.status in (429, 503) and a.is_openai_error and "retry-after" in a.headers]
    return [
        count("R2", f"refusals that are no 429 or 503 with Retry-After, at 4 x {capacity:.0f}/s",
              len(refused) - len(in_form), out_of=len(refused)),
        Figure("R2", "refused at 0.5 x and at 4 x", f"{steps[0.5].bad} and {len(refused)}", "0 and more",
               bool(refused) and not steps[0.5].bad),
        Figure("R2", "goodput at 4 x, share of the peak", f"{goodput / capacity:.0%}", ">= 90%",
               goodput >= 0.9 * capacity),
        below("R2", "p99 of a refusal, by the gateway's clock", percentile(taken, 0.99), 50, "ms"),
        below("R2", "... as the client sees it", percentile((a.seconds for a in in_form), 0.99) * 1000, 50, "ms"),
        below("R2", "p99 of what was accepted at 4 x, over that at 1 x", flood.p(0.99) / usual, 2, "x"),
    ]  # fmt: skip


async def leak(lab: Lab) -> list[Figure]:
    """R12: all paths, a tenth left by the client, a tenth faulty, and nothing grows."""
    total, rounds = lab.count(300_000, 1200), 12
    quick = {"timeouts": {"connect": 1, "first_content": 1, "idle": 1, "total": 2}}
    samples: list[Sample | None] = []
    async with lab.gateway("r12", lab.backends("up", **quick), middleware={"fallback": {"retries": 0}}) as gateway:
        client = gateway.client
        ask = _all_paths(client, lab.seed)
        warm = await closed(ask, 32, requests=total // 3)
        tallies = []
        for _ in range(rounds):
            tallies.append(await closed(ask, 32, requests=total // rounds))
            samples.append(gateway.sample())
        client.close()
        left = await lab.upstream.quiet()
    hung = sum(tally.hung for tally in (warm, *tallies))
    return [
        count("R12", "requests without an end in due form", hung, out_of=total + total // 3),
        *_slopes(lab, samples, total),
        count("R12", "requests left open at the provider", left),
    ]


def _slopes(lab: Lab, samples: Sequence[Sample | None], total: int) -> list[Figure]:
    known = [sample for sample in samples if sample is not None]
    if len(known) < 2:
        return [unmeasured("R12", "memory", "there is no /proc here")]
    # The first half is still warm-up: what the allocator and SQLite keep for themselves settles late.
    done = [(number + 1) * total / len(known) / 100_000 for number in range(len(known))]
    half = len(known) // 2
    slope = linear_regression(done[half:], [sample.resident_kb / 1024 for sample in known][half:]).slope
    threads = max(sample.threads for sample in known) - min(sample.threads for sample in known)
    if lab.scale >= 0.3:
        memory = below("R12", f"growth of memory over {total} requests", slope, 1, "MB per 100k")
    else:
        memory = Figure("R12", f"growth of memory over {total} requests", f"{slope:.3g} MB per 100k",
                        "<= 1 MB (from --scale 0.3 on)", None)  # fmt: skip
    descriptors = max(0, known[-1].descriptors - known[0].descriptors)
    return [
        memory,
        count("R12", "threads that came", threads, 2),
        count("R12", "descriptors that came", descriptors, 16),
    ]


def _all_paths(client: Client, seed: int) -> Ask:
    dice = random.Random(seed)
    faults = ("status=500", "rst=3", "close=3", "nodone=3", "status=400", "fault:malformed_event", "fault:html_200")

    async def ask(number: int) -> Answer:
        chance, stream = dice.random(), dice.random() < 0.3
        if chance < 0.1:
            return await _abandoned(client, dice)
        if chance < 0.2:
            return await client.chat(dice.choice(faults), stream=stream)
        if chance < 0.22:
            page = dice.choice(("/health", "/v1/models", "/metrics", "/queue/status", "/nowhere"))
            return await client.get(page)
        if chance < 0.24:
            return await client.send(client.raw("POST", "/v1/chat/completions", b'{"model": 1}'))
        return await client.chat("ok", stream=stream)

    return ask


async def _abandoned(client: Client, dice: random.Random) -> Answer:
    """Asked, and left at some point of the answer."""
    connection = await client.connect()
    asked = connection.send(client.request("ok,delay=0.01,words=20,gap=0.002", stream=dice.random() < 0.5))
    await asyncio.wait([asked], timeout=dice.random() * 0.05)
    connection.hang_up(rudely=dice.random() < 0.5)
    client.forget(connection)
    return connection.answer


async def idle_connections(lab: Lab) -> list[Figure]:
    """R13: ten thousand connections that say nothing."""
    wanted = lab.count(10_000, 200)
    async with lab.gateway("r13") as gateway:
        client = gateway.client
        for _ in range(50):
            await client.chat("ok")
        alone = [(await client.chat("ok")).seconds for _ in range(200)]
        before = gateway.sample()
        idle = await _open(client, wanted)
        await asyncio.sleep(0.2)
        after = gateway.sample()
        busy = [(await client.chat("ok")).seconds for _ in range(200)]
        figures = [count("R13", "connections refused or lost", sum(not c.is_open for c in idle), out_of=wanted)]
        figures += _per_connection(before, after, wanted, lab)
        figures.append(below("R13", f"p99 beside them (alone {percentile(alone, 0.99) * 1000:.2g} ms)",
                             percentile(busy, 0.99) * 1000, 5, "ms"))  # fmt: skip
        figures.append(await _reclaimed(lab, gateway, idle))
        client.close()
    return figures


async def _open(client: Client, wanted: int) -> list[Connection]:
    # From many addresses: of one, the gateway takes 4096, and a system has some 28 000 ports for it.
    found = []
    for number in range(wanted):
        connection = await client.connect(f"127.0.{1 + number // 2000}.1")
        connection.send(client.raw("GET", "/health/live"))
        found.append(connection)
        if number % 500 == 499:
            await asyncio.gather(*(connection.done for connection in found[-500:]))
    await asyncio.gather(*(connection.done for connection in found))
    return found


def _per_connection(before: Sample | None, after: Sample | None, wanted: int, lab: Lab) -> list[Figure]:
    if before is None or after is None:
        return [unmeasured("R13", "memory of a connection", "there is no /proc here")]
    each = (after.resident_kb - before.resident_kb) / wanted
    return [below("R13", f"memory of each of {wanted}", each, 6, "KB")]


async def _reclaimed(lab: Lab, gateway: Gateway, idle: Sequence[Connection]) -> Figure:
    if lab.scale < 0.5:
        return unmeasured("R13", "closed after 75 s of idleness", "waited for from --scale 0.5 on")
    await asyncio.sleep(80)
    return count(
        "R13", "open 5 s after their idle time", sum(connection.is_open for connection in idle), out_of=len(idle)
    )
