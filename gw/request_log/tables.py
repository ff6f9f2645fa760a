"""Rows into SQL cheaply: rows of one shape go into one statement, what they have in common is bound once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3

Value = str | int | float | None

SIZES = (64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1)  # rows a statement; few, so that SQLite compiles each of them once
_SIZE = [next((size for size in SIZES if size <= rows), 0) for rows in range(SIZES[0] + 1)]  # by the rows that are left
MAX_SHAPES = 256  # kept of a table
TYPES = frozenset({str, int, float, bool, type(None)})


class Shape:
    """What many rows have in common: which columns they have, and the values that are the same in all of them.

    A table has one of each, so that rows are told apart by whose it is.
    """

    __slots__ = ("given", "kind", "last_text", "shared", "statements", "texts", "width")

    def __init__(
        self, kind: int, shared: Sequence[Value], width: int, last_text: int, statements: dict[int, str]
    ) -> None:
        self.kind = kind
        self.shared = shared  # the values of `Table.shared`
        # As sqlite3 binds them at once; for a bool it looks for an adapter: 2,000 instructions with each statement.
        self.given = [int(value) if isinstance(value, bool) else value for value in shared if value is not None]
        self.texts = [value for value in shared if isinstance(value, str)]
        self.width = width  # values that each row has of its own, its key among them
        self.last_text = last_text  # up to here its own values, but the key, are texts
        self.statements = statements  # by how many rows they insert; for all shapes with these columns


# One row: its own values are its key, less what `insert` adds to it; those of `Table.own`; and those of each group of
# `Table.optional` whose bit is set in the kind of its shape.
Row = tuple[Shape, list[Value]]


class Table:
    """A table whose rows are mostly alike.

    Binding a value costs 0.25 us, binding None 0.9 us (sqlite3 looks for an adapter each time). So the values of the
    `shared` columns, which seldom differ from one row to the next, are bound once for all rows that have the same
    ones, and a column that a row lacks is not named. One statement for 64 rows also gives up the interpreter once
    instead of 64 times while the event loop waits for it.
    """

    def __init__(
        self,
        name: str,
        *,
        key: str,
        shared: Sequence[str],
        own: Sequence[str],
        optional: Sequence[Sequence[str]],
        texts: frozenset[str],
        told: Sequence[str] = (),
        conflict: str,
    ) -> None:
        """`conflict` ends each statement. `texts` are the first of `own` and of what follows it from `optional`.

        `told` are columns that have one value for all rows of an `insert`.
        """
        self.name = name
        self.key = key
        self.shared = tuple(shared)
        self.own = tuple(own)
        self.optional = tuple(map(tuple, optional))
        self._shapes = _Shapes(self)
        self._texts = texts
        self._told = tuple(told)
        self._conflict = conflict
        self._own_names: dict[int, tuple[str, ...]] = {}  # by kind
        self._statements: dict[tuple[int, tuple[str, ...]], dict[int, str]] = {}  # by kind and shared columns

    def insert(
        self, connection: sqlite3.Connection, shape: Shape, first: int, values: list[Value], told: Sequence[Value] = ()
    ) -> None:
        """Add rows of one shape: `values` are those of one row after the other; `first` is added to their keys."""
        given = [*shape.given, *told, first]
        width, start = shape.width, 0
        while start < len(values):
            size = _SIZE[min((len(values) - start) // width, SIZES[0])]
            end = start + size * width
            statement = shape.statements.get(size) or self._statement(shape, size)
            connection.execute(statement, given + values[start:end])
            start = end

    def as_dict(self, row: Row) -> dict[str, Value]:
        """The row by column, without its key."""
        shape, (_, *own) = row
        return dict(zip(self.shared, shape.shared, strict=True)) | dict(zip(self._names(shape.kind), own, strict=True))

    def from_dict(self, key: int, values: Mapping[str, Value]) -> Row:
        """The row that `as_dict` told of; columns that are not there are NULL."""
        kind = 0
        own = [key, *[values.get(name) for name in self.own]]
        for bit, group in enumerate(self.optional):
            if not set(group) <= set(self.shared) and any(values.get(name) is not None for name in group):
                kind |= 1 << bit
                own += [values.get(name) for name in group]
        return self.shape((kind, *[values.get(name) for name in self.shared])), own

    def shape(self, key: tuple[Any, ...]) -> Shape:
        """The one shape of rows that have `key` in common: their kind, and the values of the shared columns."""
        try:
            return self._shapes[key]
        except TypeError:  # something that is no plain value, from somebody's own backend
            return self._shapes[tuple(map(plain, key))]

    def new_shape(self, kind: int, *shared: Value) -> Shape:
        """A shape that is not there yet."""
        columns = tuple([name for name, value in zip(self.shared, shared, strict=True) if value is not None])
        if len(self._statements) >= MAX_SHAPES:
            self._statements.clear()
        statements = self._statements.setdefault((kind, columns), {})
        names = self._names(kind)
        return Shape(kind, shared, 1 + len(names), 1 + len(self._texts.intersection(names)), statements)

    def _names(self, kind: int) -> tuple[str, ...]:
        """The columns of a row's own values."""
        names = self._own_names.get(kind)
        if names is None:
            groups = (group for bit, group in enumerate(self.optional) if kind >> bit & 1)
            names = self._own_names[kind] = (*self.own, *chain.from_iterable(groups))
        return names

    def _statement(self, shape: Shape, size: int) -> str:
        shared = [name for name, value in zip(self.shared, shape.shared, strict=True) if value is not None]
        shared += self._told
        first = len(shared) + 1
        common = [f"?{number}" for number in range(1, first)]
        rows = [
            f"({', '.join([*common, f'?{first} + ?{key}', *(f'?{key + place}' for place in range(1, shape.width))])})"
            for key in range(first + 1, first + 1 + size * shape.width, shape.width)
        ]
        columns = ", ".join((*shared, self.key, *self._names(shape.kind)))
        statement = f"INSERT INTO {self.name} ({columns}) VALUES {', '.join(rows)} {self._conflict}"  # noqa: S608 (our names)
        shape.statements[size] = statement
        return statement


class _Shapes(dict[tuple[Any, ...], Shape]):
    """The shapes of a table by what makes them; one that is not there is made."""

    def __init__(self, table: Table) -> None:
        super().__init__()
        self._table = table

    def __missing__(self, key: tuple[Any, ...]) -> Shape:
        if len(self) >= MAX_SHAPES:
            self.clear()
        shape = self[key] = self._table.new_shape(*key)
        return shape


def plain(value: Any) -> Value:
    """What SQLite and JSON take as it is; half a character is replaced, anything else left out."""
    if type(value) is str:
        return value.encode("utf-8", "replace").decode()
    if type(value) is int and not -(2**63) <= value < 2**63:
        return None
    return value if type(value) in TYPES else None
