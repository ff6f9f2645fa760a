"""The two tables of the request log: `requests`, one row per exchange, and `attempts`, one row per try at a backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gw.request_log import CannotWrite

if TYPE_CHECKING:
    import sqlite3

VERSION = 1  # kept in PRAGMA user_version; `migrate` brings older files up to it

# The first nineteen are document A's, by its names; all times are milliseconds.
REQUEST_COLUMNS = {
    "id": "TEXT PRIMARY KEY",  # our own; a client's X-Request-ID may repeat
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
    "request_row": "TEXT NOT NULL",  # requests.id
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

REQUEST_NAMES = tuple(name for name in REQUEST_COLUMNS if name != "created_at")
ATTEMPT_NAMES = tuple(ATTEMPT_COLUMNS)
STARTED_NAMES = (
    *("id", "timestamp", "instance", "model", "session_id", "prompt", "request_id", "key_name", "client"),
    *("operation", "stream", "state"),
)


def _fields(columns: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns.items())


_TABLES = (
    f"CREATE TABLE requests ({_fields(REQUEST_COLUMNS)})",
    # Kept in the order of its requests, in one tree: the id costs nothing, it is made when it is read.
    "CREATE TABLE attempts (id TEXT GENERATED ALWAYS AS (request_row || '.' || number) VIRTUAL, "
    f"{_fields(ATTEMPT_COLUMNS)}, PRIMARY KEY (request_row, number)) WITHOUT ROWID",
)
_INDEXES = (
    "CREATE INDEX requests_timestamp ON requests (timestamp)",
    "CREATE INDEX requests_session ON requests (session_id, timestamp) WHERE session_id IS NOT NULL",
    "CREATE INDEX requests_started ON requests (state) WHERE state = 'started'",
)


def _insert(table: str, names: tuple[str, ...], verb: str = "INSERT") -> str:
    return f"{verb} INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


# Written once: a final row replaces its started one, and a second copy of it changes nothing.
FINISH_REQUEST = (
    _insert("requests", REQUEST_NAMES)
    + " ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in REQUEST_NAMES if name != "id")
    + " WHERE requests.state != 'done'"
)
START_REQUEST = _insert("requests", STARTED_NAMES, "INSERT OR IGNORE")
ADD_ATTEMPT = _insert("attempts", ATTEMPT_NAMES, "INSERT OR IGNORE")


def refuse_foreign(connection: sqlite3.Connection) -> None:
    """Raise CannotWrite where the file is not ours to write to, sqlite3.Error where it is no database at all."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise CannotWrite(f"the file has schema version {version}, this gw knows {VERSION}: use the newer gw")
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name IN ('requests', 'attempts')"
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
