"""Which processes came of one child: by the mark in their environment, which they inherit, and by their parents."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

MARK = "GW_PROCESS"  # the variable that a child and all that it starts carry

_PROC = Path("/proc")
# Of ps(1) on macOS and the BSDs: every process, with its environment behind its command, nothing cut.
_PS = ("ps", "-axEww", "-o", "pid=,ppid=,stat=,lstart=,command=")
_STARTED = 5  # words of `lstart`: Sun Nov 22 00:33:20 2026


class Living(NamedTuple):
    """One process that runs. `started` tells it from a later one with the same number."""

    parent: int
    started: str
    has_mark: bool


Table = Mapping[int, Living]


def descendants(
    pid: int, mark: str, known: Mapping[int, str], listed: Callable[[bytes], Table], *, is_alive: bool
) -> dict[int, str]:
    """Every living process that carries the mark or descends from `pid`, without `pid` itself, with its start.

    A process that left the group and whose parent has died is found by its mark, one that cleared its environment by
    its parent. One that did both only if it is among `known`, what an earlier call found. Where `pid` is not alive
    its number may be somebody else's by now. Blocks for some milliseconds. Raises OSError where nothing can be listed.
    """
    living = listed(f"{MARK}={mark}".encode())
    children: dict[int, list[int]] = {}
    for number, process in living.items():
        children.setdefault(process.parent, []).append(number)
    found = {number for number, process in living.items() if process.has_mark}
    found |= {number for number, started in (known or {}).items() if number in living and living[number][1] == started}
    open_ = [*found, *([pid] if is_alive else ())]
    while open_:
        for child in children.get(open_.pop(), ()):
            if child not in found:
                found.add(child)
                open_.append(child)
    return {number: living[number].started for number in sorted(found - {pid})}


def from_proc(wanted: bytes) -> dict[int, Living]:
    """Linux: read from /proc."""
    living = {}
    for folder in _PROC.glob("[0-9]*"):
        try:
            # proc(5): pid (comm) state ppid ... starttime; the name in brackets may hold anything.
            fields = (folder / "stat").read_text("latin-1").rpartition(")")[2].split()
            if fields[0] != "Z":
                has_mark = wanted in _environment(folder).split(b"\0")
                living[int(folder.name)] = Living(int(fields[1]), fields[19], has_mark)
        except (OSError, IndexError, ValueError):
            continue  # it has ended meanwhile
    return living


def _environment(folder: Path) -> bytes:
    try:
        return (folder / "environ").read_bytes()
    except OSError:
        return b""  # somebody else's


def from_ps(wanted: bytes) -> dict[int, Living]:
    """macOS and the BSDs: asked of ps, which shows the environment of most of one's own processes."""
    try:
        done = subprocess.run(_PS, capture_output=True, check=False, timeout=10)  # noqa: S603 (a constant)
    except subprocess.TimeoutExpired:
        raise OSError("ps said nothing for 10 s") from None
    if done.returncode != 0:
        raise OSError(f"ps failed: {done.stderr.decode('utf-8', 'replace').strip()[:200]}")
    return read_ps(done.stdout.splitlines(), wanted)


def read_ps(lines: Iterable[bytes], wanted: bytes) -> dict[int, Living]:
    """What ps has listed: number, parent, state, the five words of the start, the command with its environment."""
    living = {}
    for line in lines:
        fields = line.split(None, 3 + _STARTED)
        try:
            number, parent, state = int(fields[0]), int(fields[1]), fields[2]
        except (IndexError, ValueError):
            continue  # the second line of a command that holds a line break
        if not state.startswith(b"Z"):
            started = b" ".join(fields[3 : 3 + _STARTED]).decode("latin-1")
            living[number] = Living(parent, started, wanted in line.split())
    return living


LISTED: Callable[[bytes], Table] = from_proc if sys.platform == "linux" else from_ps
