"""Figures written as Prometheus text or as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

Kind = Literal["counter", "gauge", "histogram"]


class FamilyState(TypedDict):
    """One metric's figures. Each series is (label values, figures): one figure, or a histogram's counts and its sum."""

    help: str
    labels: Sequence[str]
    kind: Kind
    bounds: Sequence[float]  # upper bounds of a histogram's buckets, without +Inf
    series: list[tuple[Sequence[str], Sequence[float]]]


State = dict[str, FamilyState]


def snapshot(state: State) -> dict[str, object]:
    """As JSON: name to a list of {labels, value}, or of {labels, count, sum, buckets} with cumulative buckets."""
    return {name: [_series(family, *series) for series in family["series"]] for name, family in state.items()}


def text(state: State) -> bytes:
    """As Prometheus text, by prometheus-client's writer."""
    from prometheus_client import CollectorRegistry, generate_latest  # heavy, and only wanted here

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(state))
    return generate_latest(registry)


class _Collector:
    def __init__(self, state: State) -> None:
        self._state = state

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for name, family in self._state.items():
            labels = family["labels"]
            if family["kind"] == "histogram":
                histogram = HistogramMetricFamily(name, family["help"], labels=labels)
                for values, figures in family["series"]:
                    histogram.add_metric(values, list(_buckets(family, figures).items()), figures[-1])
                yield histogram
                continue
            plain = (CounterMetricFamily if family["kind"] == "counter" else GaugeMetricFamily)(
                name, family["help"], labels=labels
            )
            for values, figures in family["series"]:
                plain.add_metric(values, figures[0])
            yield plain


def _series(family: FamilyState, values: Sequence[str], figures: Sequence[float]) -> dict[str, object]:
    labels = dict(zip(family["labels"], values, strict=True))
    if family["kind"] != "histogram":
        return {"labels": labels, "value": figures[0]}
    return {
        "labels": labels,
        "count": sum(figures[:-1]),
        "sum": figures[-1],
        "buckets": _buckets(family, figures),
    }


def _buckets(family: FamilyState, figures: Sequence[float]) -> dict[str, float]:
    """Cumulative counts by upper bound, as Prometheus wants them."""
    found: dict[str, float] = {}
    total = 0.0
    for bound, count in zip([*map(repr, family["bounds"]), "+Inf"], figures[:-1], strict=True):
        total += count
        found[bound] = total
    return found
