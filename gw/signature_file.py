"""Signed blocks in one SQLite file, so that they outlive the process and every worker finds them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gw.signatures import Row

CAPACITY = 256 * 1024 * 1024  # bytes of the file; a turn of thinking is some kilobytes
APPLICATION = 0x67772E73  # PRAGMA application_id: "gw.s"
VERSION = 1  # PRAGMA user_version
_SHARE = 10  # a file that is full gives up one row in ten, those that end first

_TABLE = """
CREATE TABLE IF NOT EXISTS blocks (
    scope TEXT NOT NULL, call_id TEXT NOT NULL, expires REAL NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (scope, call_id)
)
"""  # `expires` in Unix seconds


class CannotKeep(Exception):
    """The file took or gave nothing; says why, in words for the operator."""


class SignatureFile:
    """One connection, used by one thread. Every method raises CannotKeep where SQLite or the disk refuses."""

    def __init__(self, path: Path, *, busy_timeout: float = 0.25, capacity: int = CAPACITY) -> None:
        """Open the file for its owner alone, with its folder where that is missing. `busy_timeout` in seconds."""
        self._capacity = capacity
        with _told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _alone(path.parent):
                _create(path)
                self._connection = sqlite3.connect(
                    path, isolation_level=None, timeout=busy_timeout, check_same_thread=False
                )
                try:
                    self._set_up()
                except BaseException:
                    self._connection.close()
                    raise
                self._identity = _identity(path)
        self.path = path

    def _set_up(self) -> None:
        run = self._connection.execute
        (tables,) = run("SELECT COUNT(*) FROM sqlite_master").fetchone()
        (application,) = run("PRAGMA application_id").fetchone()
        (version,) = run("PRAGMA user_version").fetchone()
        if tables and (application, version) != (APPLICATION, VERSION):
            raise CannotKeep("it is a database of something else, or of another version: move it away")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        run(f"PRAGMA application_id = {APPLICATION}")
        run(f"PRAGMA user_version = {VERSION}")
        run(_TABLE)
        run("CREATE INDEX IF NOT EXISTS by_end ON blocks (expires)")

    @property
    def is_moved(self) -> bool:
        """Whether the path no longer leads to the open file: somebody deleted, moved or replaced it."""
        return _identity(self.path) != self._identity

    def add(self, rows: Sequence[Row]) -> None:
        """Write rows, all or none; a later one takes the place of an earlier one with the same id."""
        with self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?)", rows)

    def find(self, scope: str, call_ids: Iterable[str], now: float) -> list[Row]:
        """What is kept under these ids and is not over at `now` (Unix seconds)."""
        query = "SELECT * FROM blocks WHERE scope = ? AND call_id = ? AND expires > ?"
        found = []
        with _told(self.path):
            for call_id in call_ids:
                row = self._connection.execute(query, (scope, call_id, now)).fetchone()
                if row is not None:
                    found.append(Row(*row))
        return found

    def clean(self, now: float) -> None:
        """Delete what is over, and where the file is larger than its capacity, what would be over next."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM blocks WHERE expires <= ?", (now,))
        with self._transaction() as connection:
            names = ("page_count", "freelist_count", "page_size")
            pages, free, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
            if (pages - free) * size > self._capacity:
                (count,) = connection.execute("SELECT COUNT(*) FROM blocks").fetchone()
                connection.execute(
                    "DELETE FROM blocks WHERE rowid IN (SELECT rowid FROM blocks ORDER BY expires LIMIT ?)",
                    (count // _SHARE + 1,),
                )

    def close(self) -> None:
        """Let go of the file. Never raises."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        with _told(self.path):
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time opens the file."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _create(path: Path) -> None:
    # An existing file is not opened here: closing it would take away SQLite's own locks.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        for suffix in ("-wal", "-shm", "-journal"):  # of a file that was deleted: they are not this one's
            Path(f"{path}{suffix}").unlink(missing_ok=True)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """SQLite's and the system's exceptions as ours, in words."""
    try:
        yield
    except (sqlite3.Error, OSError, CannotKeep, ValueError) as error:
        raise CannotKeep(f"{path} cannot be used: {error}") from error


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
