"""R7 clients that leave, R8 providers that drip, R20 clients that do not read."""

from __future__ import annotations

import asyncio
import random
import socket
import time

from benchmarks.soak.client import Answer
from benchmarks.soak.faults import NO_RETRIES
from benchmarks.soak.figure import Figure, below, count, percentile, unmeasured, yes
from benchmarks.soak.lab import Lab, table
from benchmarks.soak.load import closed


async def clients_leave(lab: Lab) -> list[Figure]:
    """R7: the provider is hung up on when the client leaves, before the first byte and in the middle."""
    total = lab.count(500, 40)
    figures: list[Figure] = []
    cases = (
        ("in mid-stream", "words=1000,gap=0.05", True, True),
        ("before the first byte", "ok,delay=20", True, False),
        ("before a whole answer", "ok,delay=20", False, False),
    )
    async with lab.gateway("r7") as gateway:
        for name, model, stream, waits in cases:
            await lab.upstream.reset()
            client = gateway.client
            dice = random.Random(lab.seed)
            left: dict[str, float] = {}
            sent = 0

            async def leave(number: int) -> Answer:
                nonlocal sent
                id = f"r7-{number}"
                connection = await client.connect()  # noqa: B023
                connection.send(client.request(model, stream=stream, id=id))  # noqa: B023
                sent += 1
                if waits:  # noqa: B023
                    await connection.begun
                while (await lab.upstream.stats())["attempts"] < sent:  # noqa: ASYNC110 (until then it was never there)
                    await asyncio.sleep(0.02)
                await asyncio.sleep(0.05 + dice.random() * 0.05)  # noqa: B023
                left[id] = connection.hang_up(rudely=number % 2 == 0)  # noqa: B023
                client.forget(connection)  # noqa: B023
                return connection.answer

            await closed(leave, 20, requests=total)
            open_still = await lab.upstream.quiet(30.0)
            ledger = {entry["user"]: entry for entry in await lab.upstream.ledger()}
            late = [ledger[id]["hung_up"] - at for id, at in left.items() if "hung_up" in ledger.get(id, {})]
            figures += [
                count("R7", f"{name}: still open at the provider 30 s later", open_still, out_of=total),
                below("R7", f"{name}: p99 until the provider is hung up on", percentile(late, 0.99) * 1000, 100, "ms"),
                below("R7", f"{name}: the worst", max(late, default=0.0) * 1000, 500, "ms"),
            ]
        await gateway.stop()
        rows = gateway.rows("SELECT state, status FROM requests")
    unfinished = sum(row["state"] != "done" or row["status"] != 499 for row in rows)
    figures.append(count("R7", "rows that are not final with status 499", unfinished, out_of=total * 3))
    figures.append(count("R7", "rows missing", total * 3 - len(rows)))
    return figures


async def slow_loris(lab: Lab) -> list[Figure]:
    """R8: a provider that drips or says nothing costs its own request its deadline, and others nothing."""
    streams = lab.count(200, 40)
    limits = {"connect": 1, "first_content": 1.0, "idle": 0.8, "total": 1.2}
    # One backend for each case: a breaker that one has opened must not answer for the next.
    backends = lab.backends("up") | {f"slow{n}": table(lab.upstream.port, timeouts=limits) for n in range(5)}
    async with lab.gateway("r8", backends, middleware=NO_RETRIES) as gateway:
        client, drips = gateway.client, gateway.client
        quick = client.request("up/ok")

        async def ask(_: int) -> Answer:
            return await client.send(quick)

        async def drip(_: int) -> Answer:
            return await drips.chat("up/words=10000,gap=0.2", stream=True)

        seconds = lab.seconds(15, 1)
        await closed(ask, 2, seconds=0.3)
        alone = await closed(ask, 2, seconds=seconds)
        dripping = [asyncio.ensure_future(drip(0)) for _ in range(streams)]
        await asyncio.sleep(0.5)
        others = await closed(ask, 2, seconds=seconds)
        cut = sum(task.done() for task in dripping)
        drips.close()
        await asyncio.gather(*dripping)
        cases = (
            ("silence, whole", "hang=0,delay=60", False, 1.2),
            ("silence, stream", "hang=0", True, 1.0),
            ("stall in mid-stream", "hang=3", True, 0.8),
            ("one byte now and then", "fault:drip_for_ever", True, 1.0),
            ("keep-alives only", "fault:keep_alives_only", True, 1.0),
        )
        figures = []
        asked = [
            asyncio.gather(*(client.chat(f"slow{number}/{model}", stream=stream) for _ in range(5)))
            for number, (_, model, stream, _) in enumerate(cases)
        ]
        for (name, _, _, limit), answers in zip(cases, await asyncio.gather(*asked), strict=True):
            figures.append(count("R8", f"{name}: no error in due form", sum(not a.is_openai_error for a in answers)))
            late = max(abs(answer.seconds / limit - 1) for answer in answers)
            figures.append(below("R8", f"{name}: off its deadline of {limit:g} s", late * 100, 10, "%"))
        client.close()
    return [
        count("R8", "others' errors beside the drips", others.bad, out_of=len(others.answers)),
        count("R8", "dripping streams that were cut", cut, out_of=streams),
        below("R8", f"{streams} drips cost others' p99", (others.p(0.99) - alone.p(0.99)) * 1000, 10, "ms"),
        *figures,
    ]


async def slow_readers(lab: Lab) -> list[Figure]:
    """R20: streams that nobody reads hold their provider back, not the gateway's memory."""
    streams = lab.count(500, 4)
    async with lab.gateway("r20") as gateway:
        client = gateway.client
        await asyncio.gather(*(client.chat("words=500", stream=True) for _ in range(8)))  # to warm up
        await gateway.logged(8)
        request = client.request("words=100000", stream=True)
        before = gateway.sample()
        readers = [_deaf(gateway.port, request) for _ in range(streams)]
        began = time.monotonic()
        try:
            blocked = await _blocked(lab, streams, lab.seconds(120, 20))
            after = gateway.sample()
            beside = [await client.chat("ok") for _ in range(100)]
            figures = [
                yes("R20", "the provider's writers are blocked", blocked == streams, f"{blocked} of {streams}"),
                count("R20", "others' errors", sum(not answer.is_good for answer in beside), out_of=100),
            ]
            if before is not None and after is not None:
                each = (after.resident_kb - before.resident_kb) / streams
                figures.append(below("R20", f"memory of each of {streams}", each, 256, "KB"))
            if lab.scale >= 0.5:
                left = await lab.upstream.quiet(60)
                figures.append(count("R20", "not cut at the write deadline", left, out_of=streams))
                figures.append(below("R20", "until they were cut", time.monotonic() - began, 45, "s"))
            else:
                figures.append(unmeasured("R20", "cut after 30 s", "waited for from --scale 0.5 on"))
        finally:
            for reader in readers:
                reader.close()
        client.close()
        figures.append(count("R20", "left open at the provider in the end", await lab.upstream.quiet()))
    return figures


def _deaf(port: int, request: bytes) -> socket.socket:
    """A client that asks, and reads nothing."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    reader.connect(("127.0.0.1", port))
    reader.sendall(request)
    return reader


async def _blocked(lab: Lab, streams: int, seconds: float) -> int:
    """How many of the provider's answers wait, at the most, within some seconds."""
    deadline = time.monotonic() + seconds
    found = 0
    while found < streams and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        found = max(found, int((await lab.upstream.stats())["blocked"]))
    return found
