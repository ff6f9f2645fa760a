"""Any worker's `/metrics` is the exact sum over all workers, dead ones too."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx

from gw.metrics import Metrics
from gw.series import MAX_SERIES, Family
from gw.shared import ForkShared, Shared
from tests.exchanges import exchange
from tests.forking import fork, join
from tests.processes import Process, chat, children_of, gateway


def figure(metrics: Metrics, name: str, **labels: str) -> Any:
    """One series of the JSON page: its value, or all of a histogram; None where there is none."""
    series: Any = metrics.snapshot()[name]
    found = [entry for entry in series if entry["labels"] == labels]
    return found[0].get("value", found[0]) if found else None


def test_each_worker_shows_the_exact_sum_of_all() -> None:
    shared = ForkShared(3)

    def work(worker: int) -> None:
        shared.enter(worker)
        metrics = Metrics(shared, models=["fast-model"])
        for number in range(400):
            metrics.record(exchange(status=200 + worker if number % 2 else 200))

    def read(worker: int) -> None:
        shared.enter(worker)
        metrics = Metrics(shared)
        of_chat = {"operation": "chat", "backend": "fast"}
        assert figure(metrics, "gw_requests_total", **of_chat, status="200") == 3 * 200 + 200
        assert figure(metrics, "gw_requests_total", **of_chat, status="202") == 200
        assert figure(metrics, "gw_attempts_total", backend="fast", outcome="ok") == 1200
        assert figure(metrics, "gw_tokens_total", backend="fast", model="fast-model", kind="output") == 1200 * 20
        assert figure(metrics, "gw_cost_usd_total", backend="fast", model="fast-model", source="reported") == 600.0
        durations = figure(metrics, "gw_request_duration_seconds", **of_chat)
        assert (durations["count"], durations["sum"]) == (1200, 600.0)
        assert (durations["buckets"]["0.25"], durations["buckets"]["0.5"]) == (0, 1200)
        assert b'gw_attempts_total{backend="fast",outcome="ok"} 1200.0' in metrics.exposition()

    assert join(*[fork(lambda worker=worker: work(worker)) for worker in range(3)]) == [0] * 3  # type: ignore[misc]
    assert join(*[fork(lambda worker=worker: read(worker)) for worker in range(3)]) == [0] * 3  # type: ignore[misc]


def test_a_count_is_seen_by_the_other_worker_at_once() -> None:
    shared = ForkShared(2)
    asked, ask = os.pipe()
    told, tell = os.pipe()

    def count() -> None:
        shared.enter(0)
        metrics = Metrics(shared)
        while os.read(asked, 1) == b"+":
            metrics.inc("gw_degraded_total", ("made after the other one looked",))
            os.write(tell, b".")

    def look() -> None:
        shared.enter(1)
        metrics = Metrics(shared)
        for expected in (None, 1, 2, 3):
            assert figure(metrics, "gw_degraded_total", backend="made after the other one looked") == expected
            os.write(ask, b"+")
            assert os.read(told, 1) == b"."
        os.write(ask, b"-")

    assert join(fork(count), fork(look)) == [0, 0]
    for end in (asked, ask, told, tell):
        os.close(end)


def test_a_killed_workers_counters_stay_and_its_gauges_vanish() -> None:
    shared = ForkShared(2)

    def watching(worker: int, rows: int) -> Metrics:
        shared.enter(worker)
        metrics = Metrics(shared)
        metrics.watch("rows_total", "Rows", lambda: rows)
        metrics.watch("waiting", "Rows", lambda: rows, kind="gauge")
        metrics.watch("longest", "Rows", lambda: rows, kind="gauge", over_workers="max")
        return metrics

    def die() -> None:
        metrics = watching(0, 7)
        metrics.record(exchange())
        metrics.publish()
        os.kill(os.getpid(), signal.SIGKILL)

    def figures(metrics: Metrics) -> list[float]:
        requests = figure(metrics, "gw_requests_total", operation="chat", backend="fast", status="200")
        return [requests, *(figure(metrics, name) for name in ("rows_total", "waiting", "longest"))]

    def survive() -> None:
        metrics = watching(1, 5)
        assert figures(metrics) == [1, 12, 12, 7]
        shared.clear(0)  # as the supervisor does when it hears of the death
        assert figures(metrics) == [1, 12, 5, 5]

    def succeed() -> None:
        metrics = watching(0, 2)
        metrics.record(exchange())
        shared.clear(1)
        assert figures(metrics) == [2, 14, 2, 2]

    for work, status in ((die, -signal.SIGKILL), (survive, 0), (succeed, 0)):
        assert join(fork(work)) == [status]


def test_the_number_of_series_is_bounded_over_all_workers() -> None:
    shared = ForkShared(2)

    def fill(worker: int) -> None:
        shared.enter(worker)
        metrics = Metrics(shared)
        for number in range(MAX_SERIES // 2 + 100):
            metrics.inc("gw_degraded_total", (f"{worker} {number}",))

    def read() -> None:
        shared.enter(0)
        metrics = Metrics(shared)
        page: Any = metrics.snapshot()
        assert len(page["gw_degraded_total"]) == MAX_SERIES + 1
        assert figure(metrics, "gw_degraded_total", backend="other") == 200
        metrics.inc("gw_degraded_total", ("0 0",))
        metrics.inc("gw_degraded_total", ("1 0",))  # the other's is its own too
        assert figure(metrics, "gw_degraded_total", backend="1 0") == 2
        assert figure(metrics, "gw_degraded_total", backend="other") == 200

    for work in (lambda: fill(0), lambda: fill(1), read):
        assert join(fork(work)) == [0]


def test_where_the_shared_memory_is_full_nothing_is_lost() -> None:
    shared = ForkShared(1, arena=16_384)
    metrics = Metrics(shared)
    for number in range(1000):
        metrics.inc("gw_degraded_total", (f"b{number}",))
        metrics.observe("gw_queue_wait_seconds", 0.5, (f"b{number}",))
    page: Any = metrics.snapshot()
    assert 10 < len(page["gw_degraded_total"]) < 200
    assert sum(entry["value"] for entry in page["gw_degraded_total"]) == 1000
    assert sum(entry["sum"] for entry in page["gw_queue_wait_seconds"]) == 500.0
    assert figure(metrics, "gw_degraded_total", backend="other") > 800


def test_workers_that_disagree_about_a_metric_do_not_break_the_page() -> None:
    shared = ForkShared(2)

    def work(worker: int, family: Family, labels: tuple[str, ...], shown: int) -> None:
        shared.enter(worker)
        metrics = Metrics(shared)
        metrics.declare(family)
        metrics.inc("mine_total", labels, 1 + worker)
        page: Any = metrics.snapshot()
        assert [entry["value"] for entry in page["mine_total"]] == [shown]
        assert b"mine_total" in metrics.exposition()

    assert join(fork(lambda: work(0, Family("mine_total", "", ("a",)), ("x",), 1))) == [0]
    assert join(fork(lambda: work(1, Family("mine_total", "", ("a", "b")), ("x", "y"), 2))) == [0]
    assert b"mine_total" not in Metrics(shared).exposition()


def test_one_worker_and_many_are_the_same_to_their_users() -> None:
    def pages(shared: Shared | None) -> dict[str, Any]:
        metrics = Metrics(shared, models=["fast-model"], clock=lambda: 5.0)
        metrics.record(exchange(first_content=100.2, stream=True, degraded=True))
        return {name: figures for name, figures in metrics.snapshot().items() if not name.startswith("process_")}

    assert pages(None) == pages(ForkShared(2))


# --- `python -m gw --workers 2` -----------------------------------------------------------------------------------


FRESH = httpx.Limits(max_keepalive_connections=0)  # a connection for each request, so that both workers get some


def _ask(process: Process, times: int) -> None:
    with httpx.Client(trust_env=False, timeout=30, limits=FRESH) as http:
        assert [chat(http, process.url).status_code for _ in range(times)] == [200] * times


def _counted(process: Process) -> set[float]:
    """How many chat requests there were, as the pages of whichever workers take the connections tell it."""
    counts: set[float] = set()
    with httpx.Client(trust_env=False, timeout=30, limits=FRESH) as http:
        for _ in range(12):
            page = http.get(f"{process.url}/metrics?format=json").json()
            counts |= {entry["value"] for entry in page["gw_requests_total"] if entry["labels"]["operation"] == "chat"}
            counts |= {entry["count"] for entry in page["gw_attempt_duration_seconds"]}
    return counts


def test_the_page_of_either_process_is_exact_even_after_one_was_killed(tmp_path: Path) -> None:
    with gateway(tmp_path, "--port", "0", "--workers", "2", RATE_LIMIT_ENABLED="false") as process:
        _ask(process, 40)
        assert _counted(process) == {40}
        killed, _ = children_of(process.popen.pid)
        os.kill(killed, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while len(set(children_of(process.popen.pid)) - {killed}) < 2 and time.monotonic() < deadline:
            os.sched_yield()
        _ask(process, 10)
        assert _counted(process) == {50}
        assert process.stop() == 0
