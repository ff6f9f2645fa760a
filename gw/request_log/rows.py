"""The rows of one exchange: as they go to SQLite, as dictionaries for the spill, and how large they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

from gw.request_log.schema import REQUESTS, TRIES
from gw.request_log.tables import Row, Table, Value, plain


class Rows(NamedTuple):
    """One exchange: its number among those of its process, its row of `requests` and its rows of `tries`."""

    number: int
    request: Row
    tries: Sequence[Row]


def storable(rows: Rows) -> Rows:
    """The same rows with what neither SQLite nor JSON takes left out: half characters, numbers beyond 64 bits."""
    return mapped(rows, plain)


def as_dicts(rows: Rows) -> dict[str, Any]:
    """The same by column, for JSON."""
    request = {"id": rows.number} | REQUESTS.as_dict(rows.request)
    return {"request": request, "tries": [TRIES.as_dict(attempt) for attempt in rows.tries]}


def from_dicts(found: Any) -> Rows:
    """What `as_dicts` made. Raises KeyError, TypeError or ValueError where it is something else."""
    request = found["request"]
    if not isinstance(request["id"], int) or not isinstance(request["instance"], str):
        raise ValueError("the row has no id")
    return Rows(request["id"], REQUESTS.from_dict(request), [TRIES.from_dict(row) for row in found["tries"]])


def size_of(rows: Rows) -> int:
    """How many characters of text a row holds."""
    shape, own = rows.request
    return sum(len(value) for value in chain(shape.texts, own) if isinstance(value, str))


def mapped(rows: Rows, change: Callable[[Value], Value]) -> Rows:
    """The same rows with each value changed."""
    tries = [_mapped(TRIES, attempt, change) for attempt in rows.tries]
    return Rows(rows.number, _mapped(REQUESTS, rows.request, change), tries)


def _mapped(table: Table, row: Row, change: Callable[[Value], Value]) -> Row:
    shape, own = row
    return table.shape((shape.kind, *map(change, shape.shared))), [change(value) for value in own]
