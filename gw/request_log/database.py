"""The SQLite file of the request log: opened with care, written in small transactions, kept short."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from gw.private_database import connect, identity, transaction
from gw.request_log import BadRow, CannotWrite
from gw.request_log.rows import Rows
from gw.request_log.schema import REQUESTS, ROWS, TRIES, migrate, refuse_foreign
from gw.request_log.tables import Shape, Value

DAY = 86_400_000  # milliseconds
STALE = DAY  # a started row of another machine is given up after this long
_BAD_VALUE = (  # what the values themselves are to blame for
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    sqlite3.DataError,
    ValueError,
    OverflowError,
    TypeError,
)
_INSTANCE = REQUESTS.shared.index("instance")


class Database:
    """One connection, used by one thread. Every method raises CannotWrite where SQLite or the disk refuses."""

    def __init__(self, path: Path, *, is_durable: bool, busy_timeout: float) -> None:
        """Open the file, creating it and its folder where they are missing. `busy_timeout` in seconds."""
        self._path = str(path)
        self._first_ids: dict[Value, int] = {}  # by instance
        with _told():
            self._connection = connect(path, partial(_set_up, is_durable=is_durable), busy_timeout=busy_timeout)
            self._file = identity(self._path)

    @property
    def is_moved(self) -> bool:
        """Whether the path no longer leads to the open file: somebody deleted, moved or replaced it."""
        return identity(self._path) != self._file

    def wait_for_locks(self, seconds: float) -> None:
        """How long a lock of somebody else is waited for; 0 gives up on it at once."""
        with _told():
            self._connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

    def write(self, rows: Sequence[Rows]) -> None:
        """Add rows in one transaction, all or none; what is there already and final stays as it is."""
        requests: defaultdict[Shape, list[Value]] = defaultdict(list)
        tries: defaultdict[tuple[int, Shape], list[Value]] = defaultdict(list)
        before: Shape | None = None
        for (shape, own), attempts in rows:
            if shape is not before:  # most are alike
                before, values = shape, requests[shape]
            values += own
            for shape_of_try, own_of_try in attempts:
                tries[self._first_id(shape), shape_of_try] += own_of_try
        firsts = [self._first_id(shape) for shape in requests]
        now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())  # as CURRENT_TIMESTAMP says it
        with _told(), transaction(self._connection) as connection:
            for first, (shape, values) in zip(firsts, requests.items(), strict=True):
                REQUESTS.insert(connection, shape, first, values, [now])
            for (first, shape), values in tries.items():
                TRIES.insert(connection, shape, first, values)

    def _first_id(self, shape: Shape) -> int:
        """What is added to the numbers of a row's process."""
        instance = shape.shared[_INSTANCE]
        first = self._first_ids.get(instance)
        if first is None:
            first = self._first_ids[instance] = self._number(instance) * ROWS
        return first

    def _number(self, instance: Value) -> int:
        """The number by which this file knows a process; it gets one where it is new."""
        with _told(), transaction(self._connection) as connection:
            connection.execute("INSERT OR IGNORE INTO instances (name) VALUES (?)", (instance,))
            (number,) = connection.execute("SELECT id FROM instances WHERE name = ?", (instance,)).fetchone()
        return int(number)

    def mark_lost(self, instance: str, now: float) -> int:
        """Give up the started rows of processes that are no more; `now` in Unix milliseconds. How many there were."""
        query = "SELECT DISTINCT instance FROM requests WHERE state = 'started'"
        lost = 0
        with _told():
            owners = [str(owner) for (owner,) in self._connection.execute(query)]
        for owner in owners:
            if owner == instance:
                continue
            before = now if _is_gone(owner, instance) else now - STALE
            with _told(), transaction(self._connection) as connection:
                lost += connection.execute(
                    "UPDATE requests SET state = 'lost', error = 'the gateway stopped before the answer ended', "
                    "error_type = 'api_error', error_code = 'lost' "
                    "WHERE state = 'started' AND instance = ? AND timestamp <= ?",
                    (owner, before),
                ).rowcount
        return lost

    def delete_before(self, timestamp: float, *, batch: int) -> bool:
        """Delete up to `batch` exchanges older than `timestamp` (Unix ms); whether there may be more."""
        with _told(), transaction(self._connection) as connection:
            old = connection.execute(
                "SELECT id FROM requests WHERE timestamp < ? LIMIT ?", (timestamp, batch)
            ).fetchall()
            connection.executemany("DELETE FROM tries WHERE request_row = ?", old)
            connection.executemany("DELETE FROM requests WHERE id = ?", old)
        return len(old) == batch

    def close(self) -> None:
        """Let go of the file. Never raises."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()


def _set_up(connection: sqlite3.Connection, *, is_durable: bool) -> None:
    refuse_foreign(connection)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'NORMAL'}")
    migrate(connection)


@contextmanager
def _told() -> Iterator[None]:
    """SQLite's and the system's exceptions as ours, in words."""
    try:
        yield
    except _BAD_VALUE as error:
        raise BadRow(f"{type(error).__name__}: {error}") from error
    except (sqlite3.Error, OSError) as error:
        raise CannotWrite(str(error) or type(error).__name__) from error


def _is_gone(owner: str, instance: str) -> bool:
    """Whether the process that wrote `host:pid:start` certainly no longer lives, as seen from `instance`."""
    host, _, pid = owner.rpartition(":")[0].rpartition(":")
    own_host, _, own_pid = instance.rpartition(":")[0].rpartition(":")
    if host != own_host or not pid.isdecimal():
        return False
    if pid == own_pid:
        return True  # this process number, but an earlier start
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
