"""A request log over a file in a test's folder, on a clock that is told the time; its rows, and what it spilled."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import orjson

from gw.message import Exchange
from gw.request_log.writer import RequestLog
from tests.exchanges import NOW, backends
from tests.fakes import FakeClock


@contextmanager
def opened(path: Path, **options: Any) -> Iterator[RequestLog]:
    options.setdefault("backends", backends())
    options.setdefault("wall_clock", FakeClock(NOW + 60))
    options.setdefault("busy_timeout", 30.0)
    log = RequestLog(path, **options)
    log.start()
    try:
        yield log
    finally:
        assert log.close(60.0)


def put(log: RequestLog, *exchanges: Exchange) -> None:
    for one in exchanges:
        log.end(log.new_row(), one)
    assert log.flush(60.0)


def rows(path: Path, query: str = "SELECT * FROM requests ORDER BY id") -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query)]


def only(path: Path, **options: Any) -> dict[str, Any]:
    one = options.pop("exchange")
    with opened(path, **options) as log:
        put(log, one)
    (row,) = rows(path)
    return row


def spilled(path: Path) -> list[Any]:
    spill = Path(f"{path}.spill.jsonl")
    return [orjson.loads(line) for line in spill.read_bytes().splitlines()] if spill.exists() else []
