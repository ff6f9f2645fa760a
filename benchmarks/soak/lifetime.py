"""R15 told to end, R16 told to reload, and started again, under load."""

# ruff: noqa: ASYNC110 (other processes send no events: they are looked at)

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time

import tomli_w

from benchmarks.soak.client import Answer, Client
from benchmarks.soak.figure import Figure, below, count, equal, yes
from benchmarks.soak.lab import Gateway, Lab, table
from benchmarks.soak.load import Tally

GRACE = 10.0  # seconds


async def told_to_end(lab: Lab) -> list[Figure]:
    """R15: SIGTERM while streams are open and requests wait; and a second one."""
    streams, queued = lab.count(200, 40), lab.count(50, 10)
    backends = lab.backends("up", max_concurrent=streams, queue_size=queued, queue_timeout=GRACE)
    seconds = lab.seconds(5, 1.0)
    async with lab.gateway("r15", backends, server={"shutdown_grace": GRACE}) as gateway:
        asked = await _under_way(lab, gateway.client, streams, queued, seconds / 10)
        told = time.monotonic()
        gateway.send_signal(signal.SIGTERM)
        refused = await _until_refused(gateway.port)
        answers = await asyncio.gather(*asked)
        status = await gateway.ended(GRACE + 2)
        took = time.monotonic() - told
    rows = gateway.rows("SELECT state, error FROM requests WHERE operation = 'chat'")
    figures = [
        count("R15", f"of {streams} streams and {queued} waiting requests: not whole",
              sum(not a.is_good for a in answers), out_of=len(answers)),
        equal("R15", "rows that are final and without error",
              sum(r["state"] == "done" and not r["error"] for r in rows), streams + queued),
        yes("R15", "ends with status 0", status == 0, str(status)),
        below("R15", "new connections are refused after", refused * 1000, 100, "ms"),
        below("R15", "until it has ended", took, GRACE + 1, "s"),
    ]  # fmt: skip
    return figures + await _told_twice(lab, streams)


async def _under_way(lab: Lab, client: Client, streams: int, queued: int, gap: float) -> list[asyncio.Future[Answer]]:
    """Streams that have begun, of ten words, and requests that wait for their places."""
    await lab.upstream.reset()
    asked: list[asyncio.Future[Answer]] = []
    for _ in range(streams):
        connection = await client.connect()
        asked.append(connection.send(client.request(f"words=10,gap={gap}", stream=True)))
        await connection.begun
    for _ in range(queued):
        connection = await client.connect()
        asked.append(connection.send(client.request("ok")))
    await asyncio.sleep(0.1)
    return asked


async def _until_refused(port: int) -> float:
    """Seconds until nobody can connect."""
    began = time.monotonic()
    while time.monotonic() - began < 5:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)):
                break
        await asyncio.sleep(0.002)
    return time.monotonic() - began


async def _told_twice(lab: Lab, streams: int) -> list[Figure]:
    async with lab.gateway("r15-twice", server={"shutdown_grace": GRACE}) as gateway:
        asked = await _under_way(lab, gateway.client, streams, 0, 30.0)
        gateway.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
        told = time.monotonic()
        gateway.send_signal(signal.SIGTERM)
        await gateway.ended(GRACE)
        took = time.monotonic() - told
        answers = await asyncio.gather(*asked)
    rows = gateway.rows("SELECT state, error FROM requests")
    return [
        below("R15", "a second SIGTERM ends it in", took, 1, "s"),
        equal("R15", "rows of what it broke off: final, with an error",
              sum(r["state"] == "done" and bool(r["error"]) for r in rows), streams),
        count("R15", "answers broken off that look whole", sum(a.is_good for a in answers)),
        count("R15", "requests left open at the provider", await lab.upstream.quiet()),
    ]  # fmt: skip


async def reload_and_restart(lab: Lab) -> list[Figure]:
    """R16: SIGHUP again and again, once with a file that is wrong; then a restart, and one worker that is killed."""
    times = lab.count(20, 3)
    async with lab.gateway("r16") as gateway:
        over = asyncio.Event()
        load = asyncio.ensure_future(_until(gateway.client, over))
        await asyncio.sleep(lab.seconds(1))
        missed = wrongly = 0
        for number in range(times):
            wrongly += not await _reloaded(gateway, lab, None, f"model-{number - 1}" if number else "")
            missed += not await _reloaded(gateway, lab, f"model-{number}", f"model-{number}")
        is_alive = await gateway.ended(0) is None
        over.set()
        tally = await load
    figures = [
        yes("R16", "it lives on after SIGHUP", is_alive),
        count("R16", f"requests that {times * 2} reloads made fail", tally.bad, out_of=len(tally.answers)),
        count("R16", "right files that are not in force 20 s later", missed, out_of=times),
        count("R16", "wrong files that changed anything", wrongly, out_of=times),
    ]
    if not is_alive:
        return figures
    return figures + await _restarted(lab, times)


async def _reloaded(gateway: Gateway, lab: Lab, model: str | None, expected: str) -> bool:
    """Reload with a file that has this model, or with a wrong one: whether what is served then is what it should be."""
    path, right = gateway.folder / "gateway.toml", gateway.folder / "right.toml"
    if not right.exists():
        right.write_text(path.read_text())
    more = {"extra": table(lab.upstream.port, models={model or "never": "m"})}
    path.write_text(right.read_text() + (tomli_w.dumps({"backends": more}) if model else "port = ="))
    gateway.send_signal(signal.SIGHUP)
    client = gateway.client
    if model is None:
        await asyncio.sleep(lab.seconds(1, 0.2))
    deadline = time.monotonic() + 20
    try:
        while True:
            served = (await client.get("/v1/models")).body
            is_right = expected.encode() in served and b"never" not in served
            if is_right or time.monotonic() > deadline:
                return is_right
            await asyncio.sleep(0.02)
    except OSError:
        return False
    finally:
        client.close()


async def _until(client: Client, over: asyncio.Event) -> Tally:
    """Load, until it is over; who is refused is told as an answer without status."""

    async def ask(number: int) -> Answer:
        try:
            answer = await client.chat("ok,delay=0.01", stream=number % 3 == 0)
        except OSError:
            answer = Answer(time.monotonic())
            await asyncio.sleep(0.002)
        return answer

    async def one() -> Tally:
        tally = Tally()
        while not over.is_set():
            tally.answers.append(await ask(len(tally.answers)))
        return tally

    tallies = await asyncio.gather(*(one() for _ in range(16)))
    return Tally([answer for tally in tallies for answer in tally.answers])


async def _restarted(lab: Lab, times: int) -> list[Figure]:
    gaps = []
    broken = asked = 0
    async with lab.gateway("r16-again") as gateway:
        for _ in range(max(2, times // 4)):
            over = asyncio.Event()
            load = asyncio.ensure_future(_until(gateway.client, over))
            await asyncio.sleep(0.2)
            gateway.send_signal(signal.SIGTERM)
            await gateway.ended()
            down = time.monotonic()
            gateway.spawn()
            await gateway.is_up()
            gaps.append(time.monotonic() - down)
            await asyncio.sleep(0.2)
            over.set()
            tally = await load
            asked += len(tally.answers)
            broken += sum(answer.status != 0 and not answer.is_good for answer in tally.answers)
    return [
        count("R16", "restart: requests that failed, other than by a refused connection", broken, out_of=asked),
        below("R16", "restart: from the old one's end until the new one listens", max(gaps) * 1000, 300, "ms"),
        *await _a_worker_dies(lab),
    ]


async def _a_worker_dies(lab: Lab) -> list[Figure]:
    """With two workers one is killed: the other serves, and there are two again."""
    async with lab.gateway("r16-workers", server={"workers": 2}) as gateway:
        client = gateway.client
        workers = _children(gateway)
        if not workers:
            return []
        over = asyncio.Event()
        load = asyncio.ensure_future(_until(client, over))
        while "gw listens" not in gateway.output:  # one that dies before all are ready is a start that failed
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        os.kill(workers[0], signal.SIGKILL)
        deadline = time.monotonic() + 30
        while (len(now := _children(gateway)) < 2 or workers[0] in now) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        over.set()
        tally = await load
        answer = await client.chat("ok")
        is_whole = len(_children(gateway)) == 2
    cut = sum(not answer.is_good for answer in tally.answers)
    return [
        yes("R16", "a killed worker is replaced", is_whole and answer.is_good),
        count("R16", "requests cut with it: at most what it had in hand", cut, 16, out_of=len(tally.answers)),
    ]


def _children(gateway: Gateway) -> list[int]:
    try:
        with open(f"/proc/{gateway.pid}/task/{gateway.pid}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []
