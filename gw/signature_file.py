"""Signed blocks in one SQLite file, so that they outlive the process and every worker finds them."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gw.private_database import connect, identity, transaction
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
            self._connection = connect(path, _set_up, busy_timeout=busy_timeout)
            self._identity = identity(str(path))
        self.path = path

    @property
    def is_moved(self) -> bool:
        """Whether the path no longer leads to the open file: somebody deleted, moved or replaced it."""
        return identity(str(self.path)) != self._identity

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
        with _told(self.path), transaction(self._connection) as connection:
            yield connection


def _set_up(connection: sqlite3.Connection) -> None:
    run = connection.execute
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


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """SQLite's and the system's exceptions as ours, in words."""
    try:
        yield
    except (sqlite3.Error, OSError, CannotKeep, ValueError) as error:
        raise CannotKeep(f"{path} cannot be used: {error}") from error
