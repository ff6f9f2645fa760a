"""What must be exact across the worker processes of one machine: rate limits, breakers, gauges and counters.

`LocalShared` is for one worker. `ForkShared` keeps everything in one anonymous shared mapping, made in the supervisor
and inherited by fork; its locks are POSIX record locks, which the kernel frees when their holder dies. Times are
`time.monotonic`, which on Linux (CLOCK_MONOTONIC) and macOS (mach_absolute_time) is one clock for all processes.

Three kinds of named float64 arrays, found or made by name in any process at any time:

    cells      one array that everybody reads and writes, under its lock        (breaker state)
    gauges     an array per worker; a worker's part is zeroed when it is dead   (in flight, queued)
    counters   an array per worker; a worker's part outlives it                 (metrics)

A worker writes only its own part of gauges and counters, so these need no lock; who reads adds the parts up.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from fcntl import LOCK_EX, LOCK_UN, lockf
from typing import Any, Literal, NoReturn, TypeAlias

from gw.sliding_window import Admission, LocalWindows, SharedWindows

Kind = Literal["cells", "gauges", "counters"]
_KINDS: tuple[Kind, ...] = ("cells", "gauges", "counters")

Figures: TypeAlias = "memoryview[float] | list[float]"
"""An array of float64: in memory that is shared, or where there is only one worker a list: half the price."""


class Cells:
    """A few float64 values that all workers share; integers are exact up to 2 ** 53.

    Hold `lock()` to read and write them together. A holder may be killed between two stores: store in an order in
    which every state is sound. Do not wait, and do not take another lock, while holding one.
    """

    __slots__ = ("_lock", "values")

    def __init__(self, values: Figures, lock: AbstractContextManager[Any]) -> None:
        self.values = values
        self._lock = lock

    def lock(self) -> AbstractContextManager[Any]:
        """Excludes every other process and thread that asks for it; freed by the kernel when its holder dies."""
        return self._lock


class Rows:
    """A row of float64 values per worker. Write `own`, in one thread; read the sum of all rows.

    `own` is another row once `Shared.enter` was called: do not keep it from before the fork.
    """

    __slots__ = ("_lock", "own", "rows")

    def __init__(self, rows: Sequence[Figures], worker: int, lock: AbstractContextManager[Any]) -> None:
        self.rows = rows
        self.own = rows[worker]
        self._lock = lock

    def total(self, index: int = 0) -> float:
        """The sum of one value over all workers."""
        return sum(row[index] for row in self.rows)

    def totals(self) -> list[float]:
        """The sums of all values."""
        return [sum(column) for column in zip(*self.rows, strict=True)]

    def lock(self) -> AbstractContextManager[Any]:
        """For a decision that must not be taken twice, such as the last place in a queue: read `total`, then write."""
        return self._lock


class Shared(ABC):
    """What the workers of one gateway know together."""

    admit: Callable[[bytes, int, float, float], Admission]
    """Count one request of a key at `now` (monotonic seconds) if `limit` per `window` seconds allows it.

    Its arguments are key, limit, window and now; `limit` is from 1 to `sliding_window.MAX_LIMIT`. A request that is
    refused counts for nothing.
    """

    @abstractmethod
    def cells(self, name: str, count: int) -> Cells:
        """The `count` cells of that name, zero at first. ValueError where the name has another count."""

    @abstractmethod
    def gauges(self, name: str, count: int = 1) -> Rows:
        """The `count` gauges of that name, zero at first. ValueError where the name has another count."""

    @abstractmethod
    def counters(self, name: str, count: int = 1) -> Rows:
        """The `count` counters of that name, zero at first. ValueError where the name has another count."""

    @abstractmethod
    def names(self, kind: Kind) -> list[str]:
        """Every name of a kind that any process has made, oldest first."""

    @abstractmethod
    def enter(self, worker: int) -> None:
        """Told in a worker right after the fork: which row (0 to workers - 1) is its own from now on."""

    @abstractmethod
    def clear(self, worker: int) -> None:
        """Told by the supervisor when a worker is dead: its gauges are zeroed, its counters stay."""


class LocalShared(Shared):
    """For one worker: plain memory, and locks that only keep threads apart."""

    def __init__(self) -> None:
        self.admit = LocalWindows().admit
        self._cells: dict[str, Cells] = {}
        self._rows: dict[tuple[Kind, str], Rows] = {}

    def cells(self, name: str, count: int) -> Cells:
        found = self._cells.get(name)
        if found is None:
            found = self._cells[name] = Cells(_zeros(count), threading.Lock())
        return found if len(found.values) == count else _refuse("cells", name, len(found.values), count)

    def gauges(self, name: str, count: int = 1) -> Rows:
        return self._rows_of("gauges", name, count)

    def counters(self, name: str, count: int = 1) -> Rows:
        return self._rows_of("counters", name, count)

    def _rows_of(self, kind: Kind, name: str, count: int) -> Rows:
        found = self._rows.get((kind, name))
        if found is None:
            found = self._rows[kind, name] = Rows([_zeros(count)], 0, threading.Lock())
        return found if len(found.own) == count else _refuse(kind, name, len(found.own), count)

    def names(self, kind: Kind) -> list[str]:
        return list(self._cells) if kind == "cells" else [name for of, name in self._rows if of == kind]

    def enter(self, worker: int) -> None:
        pass

    def clear(self, worker: int) -> None:
        pass


class ForkShared(Shared):
    """For several workers, forked from the process that makes this object. A touch costs a few microseconds.

    `arena` is the room for all named arrays, in bytes; only what is used becomes real memory. Reading or writing a
    value takes no lock: a float64 in its own word is read and written whole on every machine with 64 bits.
    """

    def __init__(self, workers: int, arena: int = 16 * 1024 * 1024) -> None:
        self._locks = _LockFile()
        windows = SharedWindows.size()
        memory = memoryview(mmap.mmap(-1, windows + arena))
        self.admit = SharedWindows(memory[:windows], self._locks.fileno()).admit
        self._directory = _Directory(memory[windows:], self._lock(SharedWindows.STRIPES), workers + 1)
        self._supervisor = self._worker = workers  # the supervisor's own row is the last
        self._cells: dict[str, Cells] = {}
        self._rows: dict[tuple[Kind, str], Rows] = {}

    def cells(self, name: str, count: int) -> Cells:
        found = self._cells.get(name)
        if found is None:
            at, rows = self._directory.find("cells", name, count)
            found = self._cells[name] = Cells(rows[0], self._lock(_FIRST_LOCK + at))
        return found if len(found.values) == count else _refuse("cells", name, len(found.values), count)

    def gauges(self, name: str, count: int = 1) -> Rows:
        return self._rows_of("gauges", name, count)

    def counters(self, name: str, count: int = 1) -> Rows:
        return self._rows_of("counters", name, count)

    def _rows_of(self, kind: Kind, name: str, count: int) -> Rows:
        found = self._rows.get((kind, name))
        if found is None:
            at, rows = self._directory.find(kind, name, count)
            found = self._rows[kind, name] = Rows(rows, self._worker, self._lock(_FIRST_LOCK + at))
        return found if len(found.own) == count else _refuse(kind, name, len(found.own), count)

    def _lock(self, offset: int) -> _RecordLock:
        return _RecordLock(self._locks, offset)

    def names(self, kind: Kind) -> list[str]:
        return [name for of, name in self._directory.entries() if of == kind]

    def enter(self, worker: int) -> None:
        if not 0 <= worker < self._supervisor:
            raise ValueError(f"worker {worker} is none of 0 to {self._supervisor - 1}")
        self._worker = worker
        self.clear(worker)
        for rows in self._rows.values():
            rows.own = rows.rows[worker]

    def clear(self, worker: int) -> None:
        for (kind, _), rows in self._directory.entries().items():
            if kind == "gauges":
                row = rows[worker]
                for index in range(len(row)):
                    row[index] = 0.0


_FIRST_LOCK = 4096  # offsets below are the stripes' and the directory's


class _LockFile:
    """A file without a name, whose bytes are the locks; nothing is ever written to it. Closed with its last lock."""

    __slots__ = ("__weakref__", "number")

    def __init__(self) -> None:
        if sys.platform == "linux":
            self.number = os.memfd_create("gw-locks")
        else:
            import tempfile  # brings the decompressors and random numbers along, and Linux needs none of them

            self.number, path = tempfile.mkstemp()
            os.unlink(path)
        weakref.finalize(self, os.close, self.number)

    def fileno(self) -> int:
        """For `lockf`."""
        return self.number


class _RecordLock:
    """One byte of the lock file, held by one thread of one process."""

    __slots__ = ("_file", "_number", "_offset", "_threads")

    def __init__(self, file: _LockFile, offset: int) -> None:
        self._file = file  # stays open while there is a lock in it
        self._number = file.number
        self._offset = offset
        self._threads = threading.Lock()  # record locks do not tell the threads of a process apart

    def __enter__(self) -> None:
        self._threads.acquire()
        try:
            lockf(self._number, LOCK_EX, 1, self._offset)
        except BaseException:
            self._threads.release()
            raise

    def __exit__(self, *exception: object) -> None:
        lockf(self._number, LOCK_UN, 1, self._offset)
        self._threads.release()


class _Directory:
    """Named arrays in shared memory: a log of records that only grows, read on by each process when it needs to.

    Word 0 is the end of the log. A record is its length in words, kind, values in a row, length of the name in bytes,
    the name, then the rows. Moving the end is what makes a record exist, so a half-written one never does.
    """

    __slots__ = ("_bytes", "_entries", "_floats", "_lock", "_places", "_read", "_rows", "_words")

    def __init__(self, memory: memoryview[int], lock: _RecordLock, rows: int) -> None:
        self._bytes = memory
        self._words: memoryview[int] = memory.cast("q")
        self._floats: memoryview[float] = memory.cast("d")
        self._lock = lock
        self._rows = rows
        self._read = 1
        self._entries: dict[tuple[Kind, str], list[memoryview[float]]] = {}
        self._places: dict[tuple[Kind, str], int] = {}  # how many were made before it

    def find(self, kind: Kind, name: str, count: int) -> tuple[int, list[memoryview[float]]]:
        """The rows of that name, made if nobody has yet, and a number that is theirs alone."""
        with self._lock:
            if (kind, name) not in self.entries():
                self._append(kind, name, count)
            rows = self.entries()[kind, name]
        return self._places[kind, name], rows

    def entries(self) -> dict[tuple[Kind, str], list[memoryview[float]]]:
        """Everything that anybody has made so far, oldest first."""
        words = self._words
        while self._read < words[0]:
            at = self._read
            kind, count, length = _KINDS[words[at + 1]], words[at + 2], words[at + 3]
            name = bytes(self._bytes[8 * (at + 4) : 8 * (at + 4) + length]).decode()
            first = at + 4 + -(-length // 8)
            rows = 1 if kind == "cells" else self._rows
            self._entries[kind, name] = [
                self._floats[first + row * count : first + (row + 1) * count] for row in range(rows)
            ]
            self._places[_KINDS[words[at + 1]], name] = len(self._places)
            self._read = at + words[at]
        return self._entries

    def _append(self, kind: Kind, name: str, count: int) -> None:
        words, at, encoded = self._words, max(self._words[0], 1), name.encode()
        room = 4 + -(-len(encoded) // 8) + count * (1 if kind == "cells" else self._rows)
        if at + room > len(words):
            raise MemoryError(f"no room for {kind} {name!r}: {len(self._bytes)} bytes hold {len(self._entries)} names")
        self._bytes[8 * at : 8 * (at + room)] = bytes(8 * room)  # somebody may have been killed in the middle of this
        words[at + 1], words[at + 2], words[at + 3] = _KINDS.index(kind), count, len(encoded)
        self._bytes[8 * (at + 4) : 8 * (at + 4) + len(encoded)] = encoded
        words[at] = room
        words[0] = at + room


def _zeros(count: int) -> list[float]:
    return [0.0] * count


def _refuse(kind: Kind, name: str, found: int, wanted: int) -> NoReturn:
    raise ValueError(f"{kind} {name!r} has {found} values, not {wanted}: two parts use one name")
