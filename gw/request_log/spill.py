"""The file beside the database that takes the rows while the database cannot: one exchange a line, read back once."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import orjson

from gw.request_log.rows import Rows, as_dicts, from_dicts


class Spill:
    """Rows as JSON lines, appended by any process and read back by one of them, a slice at a time.

    What is read back is moved to `<path>.replay` first, so that appending never waits for it. That file stays until
    all of it is written: after a crash it is read again, and rows that are there already are known by their id.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._replayed = Path(f"{path}.replay")
        self._reader: BinaryIO | None = None

    @property
    def has_rows(self) -> bool:
        """Whether anything waits in it."""
        return self._reader is not None or _size(self.path) > 0 or _size(self._replayed) > 0

    def append(self, rows: Sequence[Rows], *, sync: bool) -> None:
        """Add rows, all or none; `sync` waits until the disk has them. Raises OSError."""
        lines = b"".join(orjson.dumps(as_dicts(row)) + b"\n" for row in rows)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked(os.O_CREAT) as file:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                lines = b"\n" + lines  # a crash cut the last line: it must not take the next one with it
            try:
                _write(file, lines)
                if sync:
                    os.fsync(file)
            except OSError:
                os.ftruncate(file, size)
                raise

    def replay(self, write: Callable[[Sequence[Rows]], None], *, batch: int, limit: int) -> int:
        """Hand up to `limit` rows to `write`, `batch` at a time; returns how many lines could not be read.

        Does nothing while another process is at it. Where `write` raises, its rows come again. Raises OSError.
        """
        if self._reader is None:
            self._reader = self._take()
        reader = self._reader
        if reader is None:
            return 0
        unreadable = 0
        for _ in range(max(1, limit // batch)):
            place = reader.tell()
            lines = [line for _ in range(batch) if (line := reader.readline())]
            found = [_row(line) for line in lines if line.strip()]
            rows = [row for row in found if row is not None]
            try:
                write(rows)
            except BaseException:
                reader.seek(place)
                raise
            unreadable += len(found) - len(rows)
            if len(lines) < batch:
                self._replayed.unlink(missing_ok=True)
                self.close()
                break
        return unreadable

    def close(self) -> None:
        """Let go of what is being read back; it begins anew."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _take(self) -> BinaryIO | None:
        """The file to read back, with its lock; None where there is none or another process has it."""
        if _size(self._replayed) < 0:
            if _size(self.path) <= 0:
                return None
            with self._locked() as file:
                if os.fstat(file).st_size and _size(self._replayed) < 0:
                    self.path.rename(self._replayed)
        try:
            file = _open(self._replayed, os.O_RDWR)
        except FileNotFoundError:
            return None  # another process has just finished it
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        if not _is_at(file, self._replayed):
            os.close(file)
            return None
        return os.fdopen(file, "rb")

    @contextmanager
    def _locked(self, flags: int = 0) -> Iterator[int]:
        while True:
            file = _open(self.path, os.O_RDWR | os.O_APPEND | flags)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                if _is_at(file, self.path):  # else it was taken away to be read back while the lock was waited for
                    yield file
                    return
            finally:
                os.close(file)  # gives up the lock, too


def _open(path: Path, flags: int) -> int:
    file = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(f"{path} is no ordinary file")
    return file


def _size(path: Path) -> int:
    """Bytes; -1 where there is no such file."""
    if not os.access(path, os.F_OK):  # nearly always: an exception would cost 10 us for every batch
        return -1
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _row(line: bytes) -> Rows | None:
    try:
        return from_dicts(orjson.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
