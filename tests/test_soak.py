"""The soaks of `python -m benchmarks.soak`, as short as they can be: what they count must not happen on any machine.

What they measure in milliseconds or megabytes is not looked at here.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.ports import free_port
from benchmarks.soak.__main__ import SOAKS, line
from benchmarks.soak.figure import Figure, below, count, worst
from benchmarks.soak.lab import Lab, lab

SCALE = 0.004
# Soaks of one lane share a provider, and come one after the other; the lanes run side by side. R14 and R21 are tests.
LANES = (
    ("R5", "R1", "R4", "R13"),
    ("R11", "R2", "R7", "R18"),
    ("R16", "R15", "R12", "R20"),
    ("R19", "R10", "R17"),
    ("R8", "R3", "R6", "R9"),
)
Found = Mapping[str, list[Figure] | Exception]


async def _lane(folder: Path, names: tuple[str, ...], found: dict[str, list[Figure] | Exception]) -> Lab:
    async with lab(folder, scale=SCALE) as place:
        for name in names:
            began = time.monotonic()
            try:
                found[name] = await SOAKS[name](place)
            except Exception as error:
                found[name] = error
            print(f"{name} took {time.monotonic() - began:.1f} s")
    return place


async def _all(folder: Path) -> Found:
    found: dict[str, list[Figure] | Exception] = {}
    folders = [folder / f"lane{number}" for number in range(len(LANES))]
    for place in folders:
        place.mkdir()
    places = await asyncio.gather(*(_lane(place, names, found) for place, names in zip(folders, LANES, strict=True)))
    (folder / "last").mkdir()
    async with lab(folder / "last", scale=SCALE) as last:
        last.folders = [each for place in places for each in place.folders]
        found["R22"] = await SOAKS["R22"](last)
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return asyncio.run(_all(tmp_path_factory.mktemp("soak")))


@pytest.mark.parametrize("name", [name for name in SOAKS if name not in ("R14", "R21")])
def test_a_short_soak_counts_nothing_that_must_not_happen(name: str, found: Found) -> None:
    figures = found[name]
    if isinstance(figures, Exception):
        raise figures
    assert figures
    assert [line(figure) for figure in figures if figure.is_count and figure.is_held is False] == []


def test_the_worst_of_several_runs_is_told() -> None:
    runs = [[count("R0", "losses", found), below("R0", "p99", 10 - found, 5, "ms")] for found in (0, 2, 1)]
    assert [figure.found for figure in worst(runs)] == ["2", "10 ms"]
    assert [figure.is_held for figure in worst(runs)] == [False, False]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems let nobody listen at a port that is held")
def test_a_port_that_was_given_to_a_program_is_nobody_elses() -> None:
    port = free_port()
    with socket.socket() as other:
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        other.settimeout(5)
        with pytest.raises(ConnectionRefusedError):  # nobody listens yet
            other.connect(("127.0.0.1", port))
    with socket.create_server(("127.0.0.1", port)) as server, socket.create_connection(server.getsockname()):
        pass
