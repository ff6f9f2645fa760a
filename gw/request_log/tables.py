"""Rows into SQL cheaply: rows of one shape go into one statement, what they have in common is bound once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

Value = str | int | float | None

# One row as (kind, shared, own): `shared` are the values of `Table.shared`, `own` those of `Table.own`, followed by
# those of each group of `Table.optional` whose bit is set in `kind`.
Row = tuple[int, tuple[Value, ...], list[Value]]

SIZES = (64, 32, 16, 8, 4, 2, 1)  # rows a statement; few different ones, so that SQLite compiles each of them once
MAX_STATEMENTS = 1000  # texts kept


class Table:
    """A table whose rows are mostly alike.

    Binding a value costs 0.25 us, binding None 0.9 us (sqlite3 looks for an adapter each time). So the values of the
    `shared` columns, which seldom differ from one row to the next, are bound once for all rows that have the same
    ones, and a column that a row lacks is not named. One statement for 64 rows also gives up the interpreter once
    instead of 64 times while the event loop waits for it. In all, 118,000 instructions a row became 34,000.
    """

    def __init__(
        self,
        name: str,
        *,
        key: str,
        shared: Sequence[str],
        own: Sequence[str],
        optional: Sequence[Sequence[str]],
        conflict: str,
    ) -> None:
        """`key` is the column that `insert` is told beside the row; `conflict` ends each statement."""
        self.name = name
        self.key = key
        self.shared = tuple(shared)
        self.own = tuple(own)
        self.optional = tuple(map(tuple, optional))
        self._conflict = conflict
        self._own_names: dict[int, tuple[str, ...]] = {}  # by kind
        self._statements: dict[tuple[tuple[str, ...], int, int], str] = {}

    def insert(self, connection: sqlite3.Connection, keys: Iterable[int], rows: Iterable[Row]) -> None:
        """Add rows, each with its key. Raises TypeError for a shared value that is no plain one."""
        groups: dict[tuple[int, tuple[Value, ...]], list[Value]] = {}
        for key, (kind, shared, own) in zip(keys, rows, strict=True):
            values = groups.get((kind, shared))
            if values is None:
                groups[kind, shared] = [key, *own]
            else:
                values.append(key)
                values += own
        for (kind, shared), values in groups.items():
            given = [value for value in shared if value is not None]
            names = tuple([name for name, value in zip(self.shared, shared, strict=True) if value is not None])
            width = 1 + len(self._names(kind))
            start = 0
            for size in SIZES:
                while len(values) - start >= size * width:
                    end = start + size * width
                    connection.execute(self._statement(names, kind, size), [*given, *values[start:end]])
                    start = end

    def as_dict(self, row: Row) -> dict[str, Value]:
        """The row by column, without its key."""
        kind, shared, own = row
        return dict(zip(self.shared, shared, strict=True)) | dict(zip(self._names(kind), own, strict=True))

    def from_dict(self, values: Mapping[str, Value]) -> Row:
        """The row that `as_dict` told of; columns that are not there are NULL."""
        kind = 0
        own = [values.get(name) for name in self.own]
        for bit, group in enumerate(self.optional):
            if not set(group) <= set(self.shared) and any(values.get(name) is not None for name in group):
                kind |= 1 << bit
                own += [values.get(name) for name in group]
        return kind, tuple([values.get(name) for name in self.shared]), own

    def _names(self, kind: int) -> tuple[str, ...]:
        """The columns of a row's own values."""
        names = self._own_names.get(kind)
        if names is None:
            groups = (group for bit, group in enumerate(self.optional) if kind >> bit & 1)
            names = self._own_names[kind] = (*self.own, *chain.from_iterable(groups))
        return names

    def _statement(self, shared: tuple[str, ...], kind: int, size: int) -> str:
        known = self._statements.get((shared, kind, size))
        if known is not None:
            return known
        own = self._names(kind)
        common = [f"?{number}" for number in range(1, len(shared) + 1)]
        width = 1 + len(own)
        first = len(shared) + 1
        rows = [
            f"({', '.join([*common, *(f'?{number}' for number in range(start, start + width))])})"
            for start in range(first, first + size * width, width)
        ]
        columns = ", ".join((*shared, self.key, *own))
        statement = f"INSERT INTO {self.name} ({columns}) VALUES {', '.join(rows)} {self._conflict}"  # noqa: S608 (our names)
        if len(self._statements) >= MAX_STATEMENTS:
            self._statements.clear()
        self._statements[shared, kind, size] = statement
        return statement
