"""What the gateway counts: requests, attempts, tokens, cost and latencies, cheap to record and merged over workers.

Counters and histograms are plain dicts of our own; a state of them is plain JSON, so that one worker can show the sum
of all. `gw.exposition` writes them as Prometheus text.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gw.exposition import FamilyState, Kind, State, merge, snapshot, text
from gw.message import Attempt, Exchange
from gw.outcome import outcome_of

Labels = tuple[str, ...]

OTHER = "other"
NONE = "none"
MAX_SERIES = 2000  # of one metric; whatever comes after is counted under "other"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name, what it says, the names of its labels, and for histograms the upper bounds."""

    name: str
    help: str
    labels: Labels = ()
    kind: Kind = "counter"
    bounds: tuple[float, ...] = ()
    over_workers: Literal["sum", "max"] = "sum"


FAMILIES = (
    Family("gw_requests_total", "Requests ended, by what the client got", ("operation", "backend", "status")),
    Family(
        "gw_request_duration_seconds",
        "From a request's head to the end of its answer",
        ("operation", "backend"),
        "histogram",
        SECONDS,
    ),
    Family(
        "gw_first_content_seconds",
        "From a request's head to the first content of a streamed answer",
        ("operation", "backend"),
        "histogram",
        SECONDS,
    ),
    Family("gw_attempts_total", "Tries at a backend; outcome is ok or the fault", ("backend", "outcome")),
    Family(
        "gw_attempt_duration_seconds",
        "From asking a backend to the end of its answer",
        ("backend",),
        "histogram",
        SECONDS,
    ),
    Family("gw_queue_wait_seconds", "Waits in a backend's queue", ("backend",), "histogram", SECONDS),
    Family(
        "gw_tokens_total", "Tokens by kind; cached and cache_written are part of input", ("backend", "model", "kind")
    ),
    Family("gw_estimated_usage_total", "Attempts whose tokens are an estimate", ("backend",)),
    Family("gw_cost_usd_total", "Cost in USD; source is reported, priced or estimated", ("backend", "model", "source")),
    Family("gw_degraded_total", "Requests answered by another backend than asked for", ("backend",)),
    Family("gw_losses_total", "Parts of a request that a backend's wire could not carry", ("backend", "kind")),
    Family("gw_streams_cut_total", "Streams that ended without being whole", ("backend", "cause")),
)


class _Histogram:
    __slots__ = ("counts", "sum")

    def __init__(self, size: int) -> None:
        self.counts = [0] * size
        self.sum = 0.0


class Metrics:
    """Counters, histograms and gauges of one process. Recorded on the event loop; a few microseconds a request.

    Label values come from the configuration, never from clients: a model is a label only if it is among `models`.
    """

    def __init__(
        self,
        *,
        models: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.models = frozenset(models)  # the provider's names that are configured; reload may set it anew
        self._clock = clock
        self._started = clock()
        self._families: dict[str, Family] = {}
        self._counters: dict[str, dict[Labels, float]] = {}
        self._histograms: dict[str, dict[Labels, _Histogram]] = {}
        self._watched: dict[str, Callable[[], float]] = {}
        for family in FAMILIES:
            self.declare(family)
        self.watch("gw_uptime_seconds", "Since the start", self.uptime, kind="gauge", over_workers="max")
        self.watch("process_resident_memory_bytes", "Resident memory", resident_memory, kind="gauge")

    def uptime(self) -> float:
        """Seconds since it was made."""
        return self._clock() - self._started

    def declare(self, family: Family) -> None:
        """Add a metric of your own; the same name again replaces its description."""
        self._families[family.name] = family
        if family.kind == "histogram":
            self._histograms.setdefault(family.name, {})
        else:
            self._counters.setdefault(family.name, {})

    def watch(
        self,
        name: str,
        help: str,
        read: Callable[[], float],
        *,
        kind: Kind = "counter",
        over_workers: Literal["sum", "max"] = "sum",
    ) -> None:
        """A figure that somebody else keeps: read when it is asked for. The same name again replaces the reader."""
        self._families[name] = Family(name, help, (), kind, (), over_workers)
        self._watched[name] = read

    def inc(self, name: str, labels: Labels = (), by: float = 1) -> None:
        """Add to a counter. KeyError for a name that nobody declared."""
        series = self._counters[name]
        if labels not in series:
            labels = _bounded(series, labels)
        series[labels] = series.get(labels, 0) + by

    def observe(self, name: str, value: float, labels: Labels = ()) -> None:
        """Add a value to a histogram. KeyError for a name that nobody declared."""
        series = self._histograms[name]
        histogram = series.get(labels)
        bounds = self._families[name].bounds
        if histogram is None:
            labels = _bounded(series, labels)
            histogram = series.setdefault(labels, _Histogram(len(bounds) + 1))
        histogram.counts[bisect_left(bounds, value)] += 1
        histogram.sum += value

    def record(self, exchange: Exchange) -> None:
        """Count one exchange that has ended, with all of its attempts."""
        last = exchange.attempt
        backend = last.backend if last is not None else NONE
        operation = exchange.operation or NONE
        self.inc("gw_requests_total", (operation, backend, str(exchange.status)))
        ended = exchange.ended if exchange.ended is not None else self._clock()
        self.observe("gw_request_duration_seconds", max(0.0, ended - exchange.started), (operation, backend))
        if exchange.first_content is not None:
            waited = max(0.0, exchange.first_content - exchange.started)
            self.observe("gw_first_content_seconds", waited, (operation, backend))
            if exchange.stream and exchange.error is not None:
                self.inc("gw_streams_cut_total", (backend, outcome_of(exchange.error)))
        if exchange.degraded:
            self.inc("gw_degraded_total", (backend,))
        for attempt in exchange.attempts:
            self._record_attempt(attempt)

    def _record_attempt(self, attempt: Attempt) -> None:
        backend, summary = attempt.backend, attempt.summary
        self.inc("gw_attempts_total", (backend, outcome_of(attempt.error)))
        if attempt.ended is not None:
            self.observe("gw_attempt_duration_seconds", max(0.0, attempt.ended - attempt.started), (backend,))
        if attempt.queue_wait is not None:
            self.observe("gw_queue_wait_seconds", attempt.queue_wait, (backend,))
        for loss in attempt.losses:
            self.inc("gw_losses_total", (backend, loss.kind))
        model = attempt.model if attempt.model in self.models else OTHER
        usage = summary.usage
        if usage is not None:
            if usage.source != "reported":
                self.inc("gw_estimated_usage_total", (backend,))
            for kind, tokens in (
                ("input", usage.prompt),
                ("output", usage.completion),
                ("cached", usage.cached),
                ("cache_written", usage.cache_written),
                ("reasoning", usage.reasoning),
            ):
                if tokens > 0:
                    self.inc("gw_tokens_total", (backend, model, kind), tokens)
        if summary.cost_usd is not None and summary.cost_usd > 0:
            source = summary.cost_source or NONE
            self.inc("gw_cost_usd_total", (backend, model, source), summary.cost_usd)

    def state(self) -> State:
        """All figures as plain JSON values, to be merged with those of other workers."""
        return {name: self._state_of(family) for name, family in self._families.items()}

    def exposition(self, others: Sequence[State] = ()) -> bytes:
        """Prometheus text of this process's figures, merged with the states of `others`."""
        return text(merge([self.state(), *others]))

    def snapshot(self, others: Sequence[State] = ()) -> dict[str, object]:
        """The same as JSON: name to a list of {labels, value} or {labels, count, sum, buckets}."""
        return snapshot(merge([self.state(), *others]))

    def _state_of(self, family: Family) -> FamilyState:
        series: list[tuple[list[str], list[float]]] = []
        read = self._watched.get(family.name)
        if read is not None:
            series.append(([], [float(read())]))
        elif family.kind == "histogram":
            histograms = list(self._histograms[family.name].items())  # a copy: other threads may add to it
            series += [(list(labels), [*histogram.counts, histogram.sum]) for labels, histogram in histograms]
        else:
            series += [(list(labels), [value]) for labels, value in list(self._counters[family.name].items())]
        return {
            "help": family.help,
            "labels": list(family.labels),
            "kind": family.kind,
            "bounds": list(family.bounds),
            "over_workers": family.over_workers,
            "series": series,
        }


def resident_memory() -> float:
    """Bytes of memory that this process occupies; its peak where the system does not tell the present."""
    try:
        return float(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(peak if sys.platform == "darwin" else peak * 1024)


def _bounded(series: Collection[Labels], labels: Labels) -> Labels:
    return labels if len(series) < MAX_SERIES else (OTHER,) * len(labels)
