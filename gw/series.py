"""Labelled figures in shared memory: rows of counters that a worker finds by metric and labels, bounded in number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import orjson

from gw.exposition import Kind
from gw.shared import Figures, Shared

Labels = tuple[str, ...]
Row = Figures  # one figure, or a histogram's counts (the last is +Inf) and its sum

OTHER = "other"
MAX_SERIES = 2000  # of one metric; whatever comes after is counted under "other"
_PREFIX = "metric "


class Family(NamedTuple):
    """One metric: its name, what it says, the names of its labels, and for histograms the upper bounds.

    `over_workers` is for watched figures, which are never negative: how those of several workers become one.
    """

    name: str
    help: str
    labels: Labels = ()
    kind: Kind = "counter"
    bounds: tuple[float, ...] = ()
    over_workers: Literal["sum", "max"] = "sum"

    @property
    def size(self) -> int:
        """Values in a row."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1


def series_name(family: Family, labels: Labels) -> str:
    """What the row of a series is called in the shared memory; two ideas of one metric have two names."""
    return _PREFIX + orjson.dumps([family.name, family.size, *labels]).decode()


class SeriesTable:
    """The series of all declared metrics. A worker adds to its own rows; the sums are over all workers, ever."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._families: dict[str, Family] = {}
        self._own: dict[str, dict[Labels, Row]] = {}
        self._made: dict[str, dict[tuple[int, Labels], str]] = {}  # by whomever: (size, labels) -> name of the row
        self._learned = 0  # how many of the shared names have been read
        self._full: set[str] = set()  # metrics that take no more series

    def declare(self, family: Family) -> None:
        """Add a metric. ValueError where there is one of this name with other labels or bounds."""
        known = self._families.get(family.name, family)
        if (known.kind, known.labels, known.bounds) != (family.kind, family.labels, family.bounds):
            raise ValueError(f'metric "{family.name}" is there with other labels or bounds: choose another name')
        self._families[family.name] = family
        self._made.setdefault(family.name, {})
        # Made now, so that there is a place to count in when there is room for nothing else.
        other = (OTHER,) * len(family.labels)
        self._own.setdefault(family.name, {})[other] = self._shared.counters(
            series_name(family, other), family.size
        ).own

    def row(self, name: str, labels: Labels) -> Row:
        """This worker's row of a series; that of "other" where there are too many. KeyError for an unknown metric."""
        row = self._own[name].get(labels)
        return self._make(self._families[name], labels) if row is None else row

    def _make(self, family: Family, labels: Labels) -> Row:
        own, name = self._own[family.name], family.name
        if name not in self._full:
            self._learn()
            made = self._made[name]
            if (family.size, labels) in made or len(made) <= MAX_SERIES:  # one of them is "other"
                try:
                    own[labels] = self._shared.counters(series_name(family, labels), family.size).own
                    return own[labels]
                except MemoryError:
                    pass  # the shared memory is full: there is a place for that
            self._full.add(name)
        return own[(OTHER,) * len(family.labels)]

    def _learn(self) -> None:
        """Read the names of the series that have been made since it was last called, by whomever."""
        names = self._shared.names("counters")
        for name in names[self._learned :]:
            if name.startswith(_PREFIX):
                family, size, *labels = orjson.loads(name.removeprefix(_PREFIX))
                self._made.setdefault(family, {})[size, tuple(labels)] = name
        self._learned = len(names)

    def sums(self, name: str) -> list[tuple[Sequence[str], Sequence[float]]]:
        """Labels and figures of each series of a metric; one with labels that nobody has added to yet is left out."""
        self._learn()
        family = self._families[name]
        found: list[tuple[Sequence[str], Sequence[float]]] = []
        for (size, labels), made in self._made[name].items():
            if size == family.size and len(labels) == len(family.labels):  # else somebody's other idea of this metric
                figures = self._shared.counters(made, size).totals()
                if any(figures) or not labels:
                    found.append((labels, figures))
        return found
