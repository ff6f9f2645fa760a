"""Which processes came of one child: by the mark in their environment, which they inherit, and by their parents."""

from __future__ import annotations

from pathlib import Path

MARK = "GW_PROCESS"  # the variable that a child and all that it starts carry

_PROC = Path("/proc")


def descendants(pid: int, mark: str) -> list[int]:
    """Every living process that carries the mark or descends from `pid`, without `pid` itself.

    A process that left the group and whose parent has died is found by its mark; one that cleared its environment by
    its parent. Read from /proc: where there is none, nothing is found.
    """
    wanted = f"{MARK}={mark}".encode()
    children: dict[int, list[int]] = {}
    found: set[int] = set()
    for folder in _PROC.glob("[0-9]*"):
        number = int(folder.name)
        try:
            state, parent = _state(folder)
            if state == "Z":
                continue
            children.setdefault(parent, []).append(number)
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.add(number)
        except (OSError, ValueError):
            continue  # it has ended meanwhile, or it is somebody else's
    open_ = [pid, *found]
    while open_:
        for child in children.get(open_.pop(), ()):
            if child not in found:
                found.add(child)
                open_.append(child)
    return sorted(found - {pid})


def _state(folder: Path) -> tuple[str, int]:
    # proc(5): pid (comm) state ppid ...; the name in brackets may hold anything.
    fields = (folder / "stat").read_text("latin-1").rpartition(")")[2].split()
    return fields[0], int(fields[1])
