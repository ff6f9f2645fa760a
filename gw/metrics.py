"""What the gateway counts: requests, attempts, tokens, cost and latencies, cheap to record, exact over all workers.

Every figure lies in `gw.shared`, so that any worker can show the sum of all, of dead ones too, and none asks another.
`gw.exposition` writes it as Prometheus text.
"""

from __future__ import annotations

import asyncio
import os
import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from gw.exposition import State, snapshot, text
from gw.loop_lag import LoopLag
from gw.message import Attempt, Exchange
from gw.outcome import outcome_of
from gw.series import OTHER, Family, Labels, Row, SeriesTable, series_name
from gw.shared import LocalShared, Rows, Shared

NONE = "none"
PERIOD = 1.0  # seconds: how old the watched figures of other workers may be
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
KINDS = ("input", "output", "cached", "cache_written", "reasoning")  # of tokens
_SUM = len(SECONDS) + 1

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


_OfAttempt: TypeAlias = tuple[Row, Row, Row, Row, Sequence[Row], Row]
"""Where an attempt adds to: attempts, their durations, tokens in, out, of the other KINDS, cost."""


class _Watched(NamedTuple):
    family: Family
    read: Callable[[], float]
    rows: Rows
    before: float  # of a counter: what earlier workers in this place have left


class Metrics:
    """Counters, histograms and gauges of all workers. Recorded on the event loop; a few microseconds a request.

    Make it in the worker, after `Shared.enter`; every worker declares and watches the same metrics. Label values come
    from the configuration, never from clients: a model is a label only if it is among `models`. As a context manager
    it publishes what is watched every PERIOD, for the pages of other workers.
    """

    def __init__(
        self,
        shared: Shared | None = None,
        *,
        models: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`shared` is what the workers share; None is memory of its own, for one worker."""
        self.models = frozenset(models)  # the provider's names that are configured; reload may set it anew
        self._shared = shared if shared is not None else LocalShared()
        self._clock = clock
        self._started = clock()
        self._series = SeriesTable(self._shared)
        self._families: dict[str, Family] = {}
        self._bounds: dict[str, tuple[float, ...]] = {}  # of histograms
        self._watched: dict[str, _Watched] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._lag: LoopLag | None = None
        # The rows that every request or attempt of a kind adds to, found with one look-up.
        self._of_request: dict[tuple[str, str, int], tuple[Row, Row, Row]] = {}
        self._of_attempt: dict[tuple[str, str, str, str | None], _OfAttempt] = {}
        for family in FAMILIES:
            self.declare(family)
        self.watch("gw_uptime_seconds", "Since the start", self.uptime, kind="gauge", over_workers="max")
        self.watch(
            "gw_event_loop_lag_seconds_max",
            "Longest delay of the event loop in the last minute or two",
            lambda: 0.0 if self._lag is None else self._lag.longest,
            kind="gauge",
            over_workers="max",
        )
        self.watch("process_resident_memory_bytes", "Resident memory", resident_memory, kind="gauge")

    def uptime(self) -> float:
        """Seconds since it was made."""
        return self._clock() - self._started

    # --- what is counted -----------------------------------------------------------------------------------------

    def declare(self, family: Family) -> None:
        """Add a metric of your own. ValueError where there is one of this name with other labels or bounds."""
        self._series.declare(family)
        self._families[family.name] = family
        if family.kind == "histogram":
            self._bounds[family.name] = family.bounds

    def watch(
        self,
        name: str,
        help: str,
        read: Callable[[], float],
        *,
        kind: Literal["counter", "gauge"] = "counter",
        over_workers: Literal["sum", "max"] = "sum",
    ) -> None:
        """A figure that somebody else keeps, 0 or more: read for this worker's page, and each PERIOD for the others'.

        The same name again replaces the reader. A counter goes on from what the reader before had, or earlier workers
        in this place; of one that is killed the last PERIOD is missing.
        """
        family = Family(name, help, (), kind, (), over_workers)
        rows = (self._shared.counters if kind == "counter" else self._shared.gauges)(series_name(family, ()), 1)
        known = self._watched.get(name)
        if known is not None and kind == "counter":
            rows.own[0] = known.before + float(known.read())
        before = rows.own[0] if kind == "counter" else 0.0
        self._families[name] = family
        self._watched[name] = _Watched(family, read, rows, before)

    def watching(self) -> Callable[[], None]:
        """What is watched now, to be gone back to: a reload that fails has put other readers in place by then."""
        families, watched = dict(self._families), dict(self._watched)

        def go_back() -> None:
            self._families, self._watched = families, watched

        return go_back

    def inc(self, name: str, labels: Labels = (), by: float = 1) -> None:
        """Add to a counter. KeyError for a name that nobody declared as one."""
        if name in self._bounds:
            raise KeyError(f"{name} is a histogram: use observe")
        self._series.row(name, labels)[0] += by

    def observe(self, name: str, value: float, labels: Labels = ()) -> None:
        """Add a value to a histogram. KeyError for a name that nobody declared as one."""
        bounds = self._bounds[name]
        row = self._series.row(name, labels)
        row[bisect_left(bounds, value)] += 1
        row[-1] += value

    def record(self, exchange: Exchange) -> None:
        """Count one exchange that has ended, with all of its attempts."""
        attempts = exchange.attempts
        backend = attempts[-1].backend if attempts else NONE
        key = exchange.operation, backend, exchange.status
        total, durations, first_contents = self._of_request.get(key) or self._request_rows(*key)
        total[0] += 1.0
        started, ended, began = exchange.started, exchange.ended, exchange.first_content
        _observe(durations, (self._clock() if ended is None else ended) - started)
        if began is not None:
            _observe(first_contents, began - started)
            if exchange.stream and exchange.error is not None:
                self.inc("gw_streams_cut_total", (backend, outcome_of(exchange.error)))
        if exchange.degraded:
            self.inc("gw_degraded_total", (backend,))
        for attempt in attempts:
            self._record_attempt(attempt)

    def _record_attempt(self, attempt: Attempt) -> None:
        backend, model, error, summary = attempt.backend, attempt.model, attempt.error, attempt.summary
        if model not in self.models:
            model = OTHER
        key = backend, model, "ok" if error is None else outcome_of(error), summary.cost_source
        total, durations, inputs, outputs, rest, spent = self._of_attempt.get(key) or self._attempt_rows(*key)
        total[0] += 1.0
        if attempt.ended is not None:
            _observe(durations, attempt.ended - attempt.started)
        if attempt.queue_wait is not None:
            self.observe("gw_queue_wait_seconds", attempt.queue_wait, (backend,))
        if attempt.losses:
            for loss in attempt.losses:
                self.inc("gw_losses_total", (backend, loss.kind))
        usage, cost = summary.usage, summary.cost_usd
        if usage is not None:
            if usage.source != "reported":
                self.inc("gw_estimated_usage_total", (backend,))
            if usage.prompt > 0:
                inputs[0] += usage.prompt
            if usage.completion > 0:
                outputs[0] += usage.completion
            if usage.cached or usage.cache_written or usage.reasoning:
                for row, tokens in zip(rest, (usage.cached, usage.cache_written, usage.reasoning), strict=True):
                    row[0] += max(0, tokens)
        if cost and cost > 0:
            spent[0] += cost

    def _request_rows(self, operation: str, backend: str, status: int) -> tuple[Row, Row, Row]:
        of_kind = operation or NONE, backend
        rows = self._of_request[operation, backend, status] = (
            self._series.row("gw_requests_total", (*of_kind, str(status))),
            self._series.row("gw_request_duration_seconds", of_kind),
            self._series.row("gw_first_content_seconds", of_kind),
        )
        return rows

    def _attempt_rows(self, backend: str, model: str, outcome: str, cost_source: str | None) -> _OfAttempt:
        row = self._series.row
        inputs, outputs, *rest = (row("gw_tokens_total", (backend, model, kind)) for kind in KINDS)
        rows = self._of_attempt[backend, model, outcome, cost_source] = (
            row("gw_attempts_total", (backend, outcome)),
            row("gw_attempt_duration_seconds", (backend,)),
            inputs,
            outputs,
            rest,
            row("gw_cost_usd_total", (backend, model, cost_source or NONE)),
        )
        return rows

    # --- showing it ----------------------------------------------------------------------------------------------

    def exposition(self) -> bytes:
        """Prometheus text of all workers' figures."""
        return self.writer()()

    def writer(self) -> Callable[[], bytes]:
        """Takes the figures as they are now; what it returns writes them, in any thread: 40 ms for 50 backends."""
        return partial(text, self._state())

    def snapshot(self) -> dict[str, object]:
        """The same as JSON: name to a list of {labels, value} or {labels, count, sum, buckets}."""
        return snapshot(self._state())

    def publish(self) -> None:
        """Read what is watched, and write it down for the pages of all workers."""
        for watched in self._watched.values():
            watched.rows.own[0] = watched.before + float(watched.read())

    async def __aenter__(self) -> Metrics:
        loop = asyncio.get_running_loop()
        self._publish_again(loop)
        self._lag = LoopLag(loop.time, loop.call_at)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._lag is not None:
            self._lag.close()
        self.publish()

    def _publish_again(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(PERIOD, self._publish_again, loop)
        self.publish()

    def _state(self) -> State:
        self.publish()
        return {
            family.name: {
                "help": family.help,
                "labels": family.labels,
                "kind": family.kind,
                "bounds": family.bounds,
                "series": self._figures(family),
            }
            for family in self._families.values()
        }

    def _figures(self, family: Family) -> list[tuple[Sequence[str], Sequence[float]]]:
        watched = self._watched.get(family.name)
        if watched is None:
            return self._series.sums(family.name)
        over = max if family.over_workers == "max" else sum
        return [((), [over(row[0] for row in watched.rows.rows)])]


def _observe(row: Row, seconds: float) -> None:
    """Add to one of the histograms over SECONDS."""
    if seconds < 0.0:
        seconds = 0.0
    row[bisect_left(SECONDS, seconds)] += 1.0
    row[_SUM] += seconds


def resident_memory() -> float:
    """Bytes of memory that this process occupies; its peak where the system does not tell the present."""
    try:
        return float(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(peak if sys.platform == "darwin" else peak * 1024)
