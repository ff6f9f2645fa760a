"""R11: a log that cannot be written: locked, deleted, full, read-only. Serving goes on, and no row is lost."""

# ruff: noqa: ASYNC221, ASYNC240 (a moment of blocking does no harm here)

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing, suppress
from itertools import count as numbers
from pathlib import Path

from benchmarks.soak.client import Answer, Client
from benchmarks.soak.figure import Figure, below, count, percentile, unmeasured, yes
from benchmarks.soak.lab import Gateway, Lab
from benchmarks.soak.load import closed

Trouble = Callable[[Gateway, Path], AbstractAsyncContextManager[None]]
_CAPBSET_DROP = 24  # prctl(2)
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2  # capabilities(7): what root ignores a file's mode by


class _NotHere(Exception):
    """This machine cannot be brought into that trouble."""


async def log_in_trouble(lab: Lab) -> list[Figure]:
    """R11, one trouble after the other."""
    troubles = [_told(lab, name, trouble) for name, trouble in TROUBLES.items()]
    if lab.scale < 0.05:  # only counts are looked at then
        found = await asyncio.gather(*troubles)
    else:
        found = [await trouble for trouble in troubles]
    return [figure for figures in found for figure in figures]


async def _told(lab: Lab, name: str, trouble: Trouble) -> list[Figure]:
    try:
        return await _in_trouble(lab, name, trouble)
    except _NotHere as why:
        return [unmeasured("R11", name, str(why))]


async def _in_trouble(lab: Lab, name: str, trouble: Trouble) -> list[Figure]:
    from_start = trouble is _read_only  # a file that is open already does not mind
    gateway = lab.prepare(f"r11-{name.replace(' ', '-')}")
    place = gateway.folder / "log"
    place.mkdir()
    before: dict[str, Answer] = {}
    async with AsyncExitStack() as stack:
        if trouble is _full:
            await stack.enter_async_context(_small_disk(place))
        stack.push_async_callback(gateway.discard)
        in_trouble = trouble(gateway, place)
        if from_start:
            await in_trouble.__aenter__()
        gateway.spawn(_root_obeys_modes)
        await gateway.is_up()
        client = gateway.client
        if not from_start:
            before = await _asked(client, "before", lab.seconds(5, 0.3))
            await asyncio.sleep(0.1)
            await in_trouble.__aenter__()
        seconds = lab.seconds(30, 1.5)
        during = await _asked(client, "during", seconds)
        health = (await client.get("/health")).json["status"]
        figures = await gateway.figures()
        await in_trouble.__aexit__(None, None, None)
        after = await _asked(client, "after", lab.seconds(5, 0.3))
        healthy = await _healthy_again(client)
        client.close()
        await gateway.stop()
        with closing(sqlite3.connect(place / "requests.db")) as connection:
            rows = connection.execute("SELECT request_id, COUNT(*) FROM requests GROUP BY request_id").fetchall()
            intact = connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        spilled = any(path.stat().st_size for path in place.glob("*.spill.jsonl*"))
    wanted = during | after | ({} if trouble is _deleted else before)
    warnings = gateway.output.count("nothing else is needed")
    told = f"{health}, then {'ok' if healthy else 'not ok'}{', rows still spilled' if spilled else ''}"
    return [
        count("R11", f"{name}: requests not answered", sum(not a.is_good for a in (before | during | after).values()),
              out_of=len(before | during | after)),
        count("R11", f"{name}: rows missing afterwards", len(set(wanted) - {id for id, _ in rows}), out_of=len(wanted)),
        count("R11", f"{name}: rows twice", sum(times > 1 for id, times in rows if id)),
        count("R11", f"{name}: rows told as lost", int(figures.get("gw_log_lost_rows_total", 0))),
        yes("R11", f"{name}: /health says degraded, then ok; the file is sound",
            health == "degraded" and healthy and not spilled and intact, told + ("" if intact else ", broken")),
        count("R11", f"{name}: warnings in {seconds:.3g} s", warnings, 1 + int(seconds // 60)),
        below("R11", f"{name}: added to p99", _p99(during) - _p99(before or after), 5, "ms"),
    ]  # fmt: skip


def _p99(answers: dict[str, Answer]) -> float:
    return percentile((answer.seconds for answer in answers.values()), 0.99) * 1000


async def _asked(client: Client, phase: str, seconds: float) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    number = numbers()

    async def ask(_: int) -> Answer:
        id = f"{phase}-{next(number)}"
        found[id] = await client.chat("ok,words=50", id=id)
        await asyncio.sleep(0.005)
        return found[id]

    await closed(ask, 4, seconds=seconds)
    return found


async def _healthy_again(client: Client) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (await client.get("/health")).json["status"] == "ok":
            return True
        await asyncio.sleep(0.05)
    return False


def _root_obeys_modes() -> None:
    """In the child: root, too, may write only what the mode of a file allows."""
    if os.geteuid() == 0:
        prctl = ctypes.CDLL(None).prctl
        prctl(_CAPBSET_DROP, _DAC_OVERRIDE, 0, 0, 0)
        prctl(_CAPBSET_DROP, _DAC_READ_SEARCH, 0, 0, 0)


@asynccontextmanager
async def _small_disk(place: Path) -> AsyncIterator[None]:
    if os.geteuid():
        raise _NotHere("a small disk can be mounted by root only")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        raise _NotHere(f"root may not mount here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


# --- the troubles ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _locked(gateway: Gateway, place: Path) -> AsyncIterator[None]:
    with closing(sqlite3.connect(place / "requests.db", isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


@asynccontextmanager
async def _deleted(gateway: Gateway, place: Path) -> AsyncIterator[None]:
    # Something stands in its place until it is over: else it is made anew at once.
    for path in place.glob("requests.db*"):
        path.unlink()
    (place / "requests.db").mkdir()
    yield
    (place / "requests.db").rmdir()


@asynccontextmanager
async def _read_only(gateway: Gateway, place: Path) -> AsyncIterator[None]:
    place.chmod(0o500)
    yield
    place.chmod(0o700)


@asynccontextmanager
async def _full(gateway: Gateway, place: Path) -> AsyncIterator[None]:
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    yield
    filler.unlink()


@asynccontextmanager
async def _nothing_grows(gateway: Gateway, place: Path) -> AsyncIterator[None]:
    """A quota that is used up: of this process, so its output is struck, too."""
    limit = resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (0, limit[1]))
    yield
    resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, limit)


TROUBLES: dict[str, Trouble] = {
    "locked": _locked,
    "deleted": _deleted,
    "read-only folder": _read_only,
    "disk full": _full,
    "quota used up": _nothing_grows,
}
