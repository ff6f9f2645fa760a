"""The rows of one exchange: as they go to SQLite, as dictionaries for the spill, and how large they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from gw.request_log.schema import REQUESTS, TRIES
from gw.request_log.tables import Row, Table, Value, plain

# One exchange: its row of `requests` and its rows of `tries`. The key of each is the number of the exchange among those
# of its process. A plain tuple: one with names costs several times as much.
Rows = tuple[Row, Sequence[Row]]


def number_of(rows: Rows) -> Value:
    """The number of the exchange among those of its process."""
    (_, own), _ = rows
    return own[0]


def storable(rows: Rows) -> Rows:
    """The same rows with what neither SQLite nor JSON takes left out: half characters, numbers beyond 64 bits."""
    return mapped(rows, plain)


def as_dicts(rows: Rows) -> dict[str, Any]:
    """The same by column, for JSON."""
    request, tries = rows
    return {
        "request": {"id": number_of(rows)} | REQUESTS.as_dict(request),
        "tries": [TRIES.as_dict(attempt) for attempt in tries],
    }


def from_dicts(found: Any) -> Rows:
    """What `as_dicts` made. Raises KeyError, TypeError or ValueError where it is something else."""
    request = found["request"]
    number = request["id"]
    if not isinstance(number, int) or not isinstance(request["instance"], str):
        raise ValueError("the row has no id")
    return REQUESTS.from_dict(number, request), [TRIES.from_dict(number, row) for row in found["tries"]]


def size_of(rows: Rows) -> int:
    """How many characters of text a row holds."""
    (shape, own), _ = rows
    return sum(len(value) for value in chain(shape.texts, own) if isinstance(value, str))


def mapped(rows: Rows, change: Callable[[Value], Value]) -> Rows:
    """The same rows with each value changed."""
    request, tries = rows
    return _mapped(REQUESTS, request, change), [_mapped(TRIES, attempt, change) for attempt in tries]


def _mapped(table: Table, row: Row, change: Callable[[Value], Value]) -> Row:
    shape, own = row
    return table.shape((shape.kind, *map(change, shape.shared))), [change(value) for value in own]
