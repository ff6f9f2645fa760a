"""The tables of the request log: `requests`, one row per exchange, and `attempts`, one row per try at a backend.

A third, `instances`, numbers the processes that write here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gw.request_log import CannotWrite
from gw.request_log.tables import Table

if TYPE_CHECKING:
    import sqlite3

VERSION = 2  # kept in PRAGMA user_version; `migrate` brings older files up to it

# The first nineteen are document A's, by its names; all times are milliseconds.
REQUEST_COLUMNS = {
    "id": "INTEGER PRIMARY KEY",  # our own, see ROWS; a client's X-Request-ID may repeat
    "timestamp": "INTEGER NOT NULL",  # Unix ms
    "backend": "TEXT",  # NULL: refused before anybody was asked
    "backend_type": "TEXT",  # the adapter's name
    "instance": "TEXT",  # the process that wrote the row: host:pid:start
    "working_directory": "TEXT",
    "model": "TEXT",  # what the client asked for
    "session_id": "TEXT",
    "prompt": "TEXT NOT NULL",  # the messages as JSON
    "response": "TEXT",  # the answer's text
    "error": "TEXT",  # NULL: all went well
    "duration_ms": "REAL",
    "tokens_input": "INTEGER",
    "tokens_output": "INTEGER",
    "cost_usd": "REAL",
    "queue_wait_ms": "REAL",
    "degraded": "INTEGER NOT NULL DEFAULT 0",
    "metadata": "TEXT",  # JSON object; `message` is the whole answer where it is more than text
    "created_at": "TEXT DEFAULT CURRENT_TIMESTAMP",
    "request_id": "TEXT",
    "key_name": "TEXT",
    "client": "TEXT",
    "operation": "TEXT",
    "status": "INTEGER",  # what the client got; 499: it hung up
    "stream": "INTEGER NOT NULL DEFAULT 0",
    "first_byte_ms": "REAL",
    "attempts": "INTEGER NOT NULL DEFAULT 0",
    "fallback_from": "TEXT",  # the backend that was asked first, where another one was asked last
    "finish_reason": "TEXT",
    "native_finish_reason": "TEXT",
    "cost_source": "TEXT",  # reported | priced | estimated
    "usage_source": "TEXT",  # reported | estimated (4 characters a token)
    "tokens_cached": "INTEGER",
    "tokens_cache_written": "INTEGER",
    "tokens_reasoning": "INTEGER",
    "error_type": "TEXT",
    "error_code": "TEXT",
    "answered_model": "TEXT",  # the provider's own name for what answered
    "losses": "TEXT",  # JSON array of {pointer, kind}
    "state": "TEXT NOT NULL",  # started | done | lost (its process died before the end)
}

ATTEMPT_COLUMNS = {
    "request_row": "INTEGER NOT NULL",  # requests.id
    "number": "INTEGER NOT NULL",  # from 1
    "backend": "TEXT NOT NULL",
    "model": "TEXT",  # what the backend was asked for
    "started": "INTEGER NOT NULL",  # Unix ms
    "duration_ms": "REAL",
    "first_content_ms": "REAL",
    "status": "INTEGER",  # what the provider said
    "error_type": "TEXT",  # the fault: rate_limit, overload, timeout, connection, ...
    "error": "TEXT",
    "finish_reason": "TEXT",
    "tokens_input": "INTEGER",
    "tokens_output": "INTEGER",
    "tokens_cached": "INTEGER",
    "tokens_cache_written": "INTEGER",
    "tokens_reasoning": "INTEGER",
    "usage_source": "TEXT",
    "cost_usd": "REAL",
    "cost_source": "TEXT",
    "queue_wait_ms": "REAL",
    "upstream_id": "TEXT",
}

# requests.id is ROWS times the number that the file gave to the process, plus a number that the process counts: it is
# known wherever the row waits, no two processes share one, and each appends to one end of the tree. As text with an
# index of its own it would cost 2 us a row in both tables.
ROWS = 10**12

_DETAILS = ("tokens_cached", "tokens_cache_written", "tokens_reasoning")  # shared where they are zero

# A final row replaces its started one; a second copy of it changes nothing. What never changes is not set again, so
# that its index is not touched.
_FINISH = (
    "ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in REQUEST_COLUMNS if name not in ("id", "timestamp", "created_at"))
    + " WHERE requests.state != 'done'"
)

REQUESTS = Table(
    "requests",
    key="id",
    shared=(
        *("backend", "backend_type", "instance", "working_directory", "model", "error", "queue_wait_ms", "degraded"),
        *("metadata", "key_name", "operation", "status", "stream", "attempts", "fallback_from", "finish_reason"),
        *("native_finish_reason", "cost_source", "usage_source", *_DETAILS, "error_type", "error_code"),
        *("answered_model", "losses", "state"),
    ),
    own=("timestamp", "prompt", "request_id", "client"),
    optional=(
        *(("session_id",), ("duration_ms",), ("first_byte_ms",), ("tokens_input", "tokens_output"), _DETAILS),
        *(("cost_usd",), ("response",)),
    ),
    conflict=_FINISH,
)
ATTEMPTS = Table(
    "attempts",
    key="request_row",
    shared=(
        *("number", "backend", "model", "status", "error_type", "error", "finish_reason", *_DETAILS, "usage_source"),
        *("cost_source", "queue_wait_ms"),
    ),
    own=("started",),
    optional=(
        *(("duration_ms",), ("first_content_ms",), ("tokens_input", "tokens_output"), _DETAILS, ("cost_usd",)),
        ("upstream_id",),
    ),
    conflict="ON CONFLICT (request_row, number) DO NOTHING",
)


def _fields(columns: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns.items())


_TABLES = (
    f"CREATE TABLE requests ({_fields(REQUEST_COLUMNS)})",
    # Kept in the order of its requests, in one tree.
    f"CREATE TABLE attempts ({_fields(ATTEMPT_COLUMNS)}, PRIMARY KEY (request_row, number)) WITHOUT ROWID",
    "CREATE TABLE instances (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
)
_INDEXES = (
    "CREATE INDEX requests_timestamp ON requests (timestamp)",
    "CREATE INDEX requests_session ON requests (session_id, timestamp) WHERE session_id IS NOT NULL",
    "CREATE INDEX requests_started ON requests (state) WHERE state = 'started'",
)


def refuse_foreign(connection: sqlite3.Connection) -> None:
    """Raise CannotWrite where the file is not ours to write to, sqlite3.Error where it is no database at all."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise CannotWrite(f"the file has schema version {version}, this gw knows {VERSION}: use the newer gw")
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name IN ('requests', 'attempts', 'instances')"
    if version == 0 and connection.execute(tables).fetchone() is not None:
        raise CannotWrite("the file holds another program's tables: move it away, or set another middleware.log.path")


def migrate(connection: sqlite3.Connection) -> None:
    """Create what is missing, in one transaction. Other processes may do the same at once."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in _TABLES:
                connection.execute(statement)
            for index in _INDEXES:
                connection.execute(index)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
