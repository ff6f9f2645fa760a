"""The request log as SQL: `requests` has one row per exchange, `attempts` one per try at a backend.

Most exchanges have one try, and nearly all that is known of it is in their row already: so `attempts` is a view of
those rows and of the table `tries`, which has the others: that saves a fifth of what an exchange costs. The table
`instances` numbers the processes that write here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gw.request_log import CannotWrite
from gw.request_log.tables import Table

if TYPE_CHECKING:
    import sqlite3

VERSION = 2  # kept in PRAGMA user_version

# The first nineteen are those of anthropic-headless-api, by its names; all times are milliseconds.
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
    # Of the one try that an exchange had, where `tries` has no row of it:
    "try_model": "TEXT",  # what the backend was asked for
    "try_status": "INTEGER",  # what the provider said
    "try_delay_ms": "REAL",  # from the request to the try
    "try_ms": "REAL",  # how long it took; duration_ms is longer by what gw itself needs
    "upstream_id": "TEXT",  # the provider's id of the answer
}

TRY_COLUMNS = {
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
# index of its own it would cost 1 us a row.
ROWS = 10**12

_DETAILS = ("tokens_cached", "tokens_cache_written", "tokens_reasoning")  # shared where they are zero

# A final row replaces its started one; a second copy of it changes nothing. What never changes is not set again, so
# that its index is not touched.
_FINISH = (
    "ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(
        f"{name} = excluded.{name}" for name in REQUEST_COLUMNS if name not in ("id", "timestamp", "created_at")
    )
    + " WHERE requests.state != 'done'"
)

# Bits of a row's kind: which groups of `REQUESTS.optional` it has.
HAS_SESSION, HAS_RESPONSE, HAS_UPSTREAM_ID, HAS_TIMESTAMP, HAS_DURATION, HAS_TRY = (1 << n for n in range(6))
HAS_FIRST_BYTE, HAS_TOKENS, HAS_DETAILS, HAS_COST = (1 << n for n in range(6, 10))

REQUESTS = Table(
    "requests",
    key="id",
    shared=(
        *("backend", "backend_type", "instance", "working_directory", "model", "error", "queue_wait_ms", "degraded"),
        *("metadata", "key_name", "operation", "status", "stream", "attempts", "fallback_from", "finish_reason"),
        *("native_finish_reason", "cost_source", "usage_source", *_DETAILS, "error_type", "error_code"),
        *("answered_model", "losses", "state", "try_model", "try_status"),
    ),
    own=("prompt", "request_id", "client"),
    optional=(
        *(("session_id",), ("response",), ("upstream_id",), ("timestamp",), ("duration_ms",)),
        *(("try_delay_ms", "try_ms"), ("first_byte_ms",), ("tokens_input", "tokens_output"), _DETAILS, ("cost_usd",)),
    ),
    texts=frozenset({"prompt", "request_id", "client", "session_id", "response", "upstream_id"}),
    told=("created_at",),  # where SQLite finds the time by itself, it does so for each row: 1,700 instructions
    conflict=_FINISH,
)
TRIES = Table(
    "tries",
    key="request_row",
    shared=tuple(name for name in TRY_COLUMNS if name not in ("request_row", "started", "duration_ms")),
    own=("started", "duration_ms"),
    optional=(),
    texts=frozenset(),
    conflict="ON CONFLICT (request_row, number) DO NOTHING",
)


def _fields(columns: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns.items())


# A try's columns, as the row of a request with one try tells them.
_ONLY_TRY = {name: name for name in TRY_COLUMNS} | {
    "request_row": "id AS request_row",
    "number": "1 AS number",
    "model": "try_model AS model",
    "started": "timestamp + CAST(try_delay_ms AS INTEGER) AS started",
    "duration_ms": "try_ms AS duration_ms",
    "first_content_ms": "first_byte_ms - try_delay_ms AS first_content_ms",
    "status": "try_status AS status",
    "error_type": "NULL AS error_type",
    "error": "NULL AS error",
}
_TABLES = (
    f"CREATE TABLE requests ({_fields(REQUEST_COLUMNS)})",
    # Kept in the order of its requests, in one tree.
    f"CREATE TABLE tries ({_fields(TRY_COLUMNS)}, PRIMARY KEY (request_row, number)) WITHOUT ROWID",
    f"CREATE VIEW attempts AS SELECT {', '.join(_ONLY_TRY[name] for name in TRY_COLUMNS)} FROM requests "  # noqa: S608
    f"WHERE try_ms IS NOT NULL UNION ALL SELECT {', '.join(TRY_COLUMNS)} FROM tries",
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
    if version == 1:
        raise CannotWrite("the file is of a gw from before the first release: move it away, a new one is made")
    tables = "SELECT name FROM sqlite_master WHERE name IN ('requests', 'attempts', 'tries', 'instances')"
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
