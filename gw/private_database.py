"""An SQLite file of gw's own: made for its owner alone, opened by one process at a time, written in transactions."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Identity = tuple[int, int] | None


def connect(path: Path, set_up: Callable[[sqlite3.Connection], None], *, busy_timeout: float) -> sqlite3.Connection:
    """Open the file, creating it and its folder where they are missing; `busy_timeout` in seconds.

    `set_up` looks at what is there and makes the tables, while no other process opens it. Raises sqlite3.Error, OSError
    and whatever `set_up` raises; then nothing is open.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path.parent):
        _create(path)
        connection = sqlite3.connect(path, isolation_level=None, timeout=busy_timeout, check_same_thread=False)
        try:
            set_up(connection)
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.commit()  # as a statement it would give up the interpreter with each of its steps, not once
    except BaseException:
        connection.rollback()
        raise


def identity(path: str) -> Identity:
    """Which file a path leads to now; None for none. It tells an open file that was deleted, moved or replaced."""
    try:
        status = os.stat(path)  # as a Path it takes twice as long, and each batch of the log asks for it twice
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time opens the file: the first removes what a deleted one left and makes the tables."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _create(path: Path) -> None:
    # An existing file is never opened here, its closing would take away SQLite's own locks.
    if path.exists():
        return
    # Somebody deleted the database but not its companions. A process that has not noticed yet still maps the old
    # index; sharing that with a new file would mix two databases.
    for suffix in ("-wal", "-shm", "-journal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    # Only its owner reads it: it holds what people wrote.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
