"""R9 two ledgers that agree, R10 killed while it logs."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections import Counter
from contextlib import closing
from typing import Any

from benchmarks.soak.client import Answer, Client
from benchmarks.soak.figure import Figure, below, count, equal
from benchmarks.soak.lab import Gateway, Lab
from benchmarks.soak.load import closed

PRICE = {"input": 2.0, "output": 8.0}  # USD per million tokens
MODELS = ("ok", "ok", "ok", "ok,delay=0.01", "status=500", "rst=0", "rst=4", "status=400", "close=6")
CYCLES = 50
WINDOW = 0.02  # seconds that `fast` may lose


# --- R9 ----------------------------------------------------------------------------------------------------------


async def two_ledgers(lab: Lab) -> list[Figure]:
    """R9: whatever happens to a request, it has one row, and the bill is the provider's."""
    total = lab.count(5000, 300)
    await lab.upstream.reset()
    backends = lab.backends("a", "b", price=PRICE, timeouts={"first_content": 30, "idle": 30, "total": 30})
    middleware = {
        "route": {"prefer_cheapest": False, "default_backend": "a"},
        "fallback": {"chain": ["a", "b"], "retries": 1, "backoff": 0.01, "breaker": {"failures": 1000}},
    }
    async with lab.gateway("r9", backends, middleware=middleware) as gateway:
        client = gateway.client
        dice = random.Random(lab.seed)

        async def ask(number: int) -> Answer:
            model = dice.choice(MODELS)
            stream, id = dice.random() < 0.5, f"r9-{number}"
            if dice.random() >= 0.2:
                return await client.chat(f"{model},words={dice.randint(1, 40)}", stream=stream, id=id)
            connection = await client.connect()
            asked = connection.send(client.request("ok,words=30,gap=0.002,delay=0.005", stream=stream, id=id))
            await asyncio.wait([asked], timeout=dice.random() * 0.1)
            connection.hang_up(rudely=dice.random() < 0.5)
            client.forget(connection)
            return connection.answer

        tally = await closed(ask, 32, requests=total)
        client.close()
        await gateway.stop()  # until then it may still ask for a client that has left
        await lab.upstream.quiet()
        ledger = await lab.upstream.ledger()
    return [
        count("R9", "requests without an end in due form", tally.hung, out_of=total),
        *_compared(gateway, ledger, total),
    ]


def _compared(gateway: Gateway, ledger: list[dict[str, Any]], total: int) -> list[Figure]:
    rows = gateway.rows()
    tries = gateway.rows("SELECT r.request_id, a.* FROM attempts a JOIN requests r ON r.id = a.request_row")
    reported = [attempt for attempt in tries if attempt["usage_source"] == "reported"]
    billed = {entry["user"]: entry for entry in ledger if "prompt" in entry}
    invented = {attempt["request_id"] for attempt in reported} - billed.keys()
    reported = [attempt for attempt in reported if attempt["request_id"] in billed]
    told = Counter(attempt["request_id"] for attempt in reported)
    # What the provider billed and the gateway never read, because the client had left, is estimated.
    estimated = {a["request_id"] for a in tries if a["usage_source"] == "estimated"}
    unbilled = sum(user not in told and user not in estimated for user in billed)
    of_log, of_provider = Counter(a["request_id"] for a in tries), Counter(entry["user"] for entry in ledger)
    left = {row["request_id"] for row in rows if row["status"] == 499}
    of_left = Counter({id: of_log[id] for id in left})
    unseen = sum(bool(a["cost_usd"]) and a["request_id"] not in of_provider for a in tries)
    cost = sum(
        (PRICE["input"] * billed[id]["prompt"] + PRICE["output"] * billed[id]["completion"]) / 1e6 for id in told
    )
    return [
        equal("R9", "rows, one for each request", len(rows), total),
        equal("R9", "different request ids in them", len({row["request_id"] for row in rows}), total),
        count("R9", "rows left open", sum(row["state"] != "done" for row in rows)),
        count("R9", "attempts at the provider without one in the log", _excess(of_provider, of_log),
              out_of=len(ledger)),
        count("R9", "attempts in the log that the provider never saw, of clients that stayed",
              _excess(of_log - of_left, of_provider)),
        Figure("R9", "... of clients that left before it was sent, and yet not free", str(unseen), "0", unseen == 0),
        count("R9", "billed attempts of which the log says nothing", unbilled, out_of=len(billed)),
        count("R9", "attempts with reported usage that the provider did not bill", len(invented)),
        count("R9", "attempts billed twice", sum(times > 1 for times in told.values())),
        equal("R9", "tokens reported, log and provider", sum(a["tokens_output"] for a in reported),
              sum(billed[id]["completion"] for id in told)),
        equal("R9", "USD for them, log and provider", round(sum(a["cost_usd"] for a in reported), 10), round(cost, 10)),
        equal("R9", "USD over requests and over attempts", round(sum(r["cost_usd"] or 0 for r in rows), 10),
              round(sum(a["cost_usd"] or 0 for a in tries), 10)),
    ]  # fmt: skip


def _excess(some: Counter[str], others: Counter[str]) -> int:
    return (some - others).total()


# --- R10 ---------------------------------------------------------------------------------------------------------


async def killed_while_logging(lab: Lab) -> list[Figure]:
    """R10: killed without a word, again and again; what was acknowledged is in the log."""
    cycles = lab.count(CYCLES, 2)
    return [figure for kind in ("durable", "fast") for figure in await _killed(lab, kind, cycles)]


async def _killed(lab: Lab, durability: str, cycles: int) -> list[Figure]:
    gateway = lab.prepare(f"r10-{durability}", log={"durability": durability})
    try:
        return await _cycles(lab, gateway, durability, cycles)
    finally:
        await gateway.discard()


async def _cycles(lab: Lab, gateway: Gateway, durability: str, cycles: int) -> list[Figure]:
    dice = random.Random(lab.seed)
    acknowledged: dict[str, float] = {}  # id -> seconds before the kill
    starts: list[float] = []
    broken = 0
    for cycle in range(cycles):
        began = time.monotonic()
        gateway.spawn()
        await gateway.is_up()
        client = gateway.client
        if (await client.chat("ok")).is_good:
            starts.append(time.monotonic() - began)
        tally = asyncio.ensure_future(_load_until_dead(client, cycle))
        await asyncio.sleep(0.05 + dice.random() * 0.45)
        at = time.monotonic()
        await gateway.kill()
        for id, answer in await tally:
            if answer.is_good:
                acknowledged[id] = at - answer.ended
        client.close()
        with closing(sqlite3.connect(gateway.database)) as connection:
            broken += connection.execute("PRAGMA integrity_check").fetchone() != ("ok",)
    gateway.spawn()
    await gateway.is_up()
    await gateway.client.chat("ok")  # the log has opened its file by now, and given up what the dead have left
    await gateway.stop()
    there = {row["request_id"] for row in gateway.rows("SELECT request_id FROM requests WHERE state = 'done'")}
    started = len(gateway.rows("SELECT id FROM requests WHERE state = 'started'"))
    missing = [age for id, age in acknowledged.items() if id not in there]
    name = f"{durability}: "
    figures = [
        count("R10", f"{name}integrity_check not ok", broken, out_of=cycles),
        count("R10", f"{name}rows left open after the next start", started),
        below("R10", f"{name}worst start to the first answer", max(starts, default=0.0), 1, "s"),
    ]
    if durability == "durable":
        return [*figures, count("R10", f"{name}acknowledged and lost", len(missing), out_of=len(acknowledged))]
    lost = f"{name}{len(missing)} of {len(acknowledged)} acknowledged were lost; the oldest of them, before the kill"
    return [*figures, below("R10", lost, max(missing, default=0.0) * 1000, WINDOW * 1000, "ms")]


async def _load_until_dead(client: Client, cycle: int) -> list[tuple[str, Answer]]:
    found: list[tuple[str, Answer]] = []

    async def one(worker: int) -> None:
        for number in range(10**6):
            id = f"c{cycle}-{worker}-{number}"
            try:
                answer = await client.chat("ok", stream=number % 3 == 0, id=id)
            except OSError:
                return
            if not answer.is_whole:
                return
            found.append((id, answer))

    await asyncio.gather(*(one(worker) for worker in range(8)))
    return found
