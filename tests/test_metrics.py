"""Metrics count what happened, and never take a label from a client."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gw.backend import Backends
from gw.endpoints.status import StatusPages
from gw.errors import ClientGone, NotFound, UpstreamConnectionError, UpstreamRefused
from gw.exposition import text
from gw.message import Loss, Request, Usage
from gw.metrics import PERIOD, Metrics
from gw.series import MAX_SERIES, Family
from gw.shared import LocalShared
from tests.exchanges import attempt, exchange, refused

Key = tuple[str, frozenset[str]]


def key(name: str, *values: str) -> Key:
    return name, frozenset(values)


def samples(metrics: Metrics) -> dict[Key, float]:
    """By name and label values, as Prometheus would read them."""
    return dict(_samples(metrics.exposition().decode()))


def _samples(exposed: str) -> Iterator[tuple[Key, float]]:
    for family in text_string_to_metric_families(exposed):
        for sample in family.samples:
            yield key(sample.name, *sample.labels.values()), sample.value


def test_an_exchange_is_counted_with_its_attempts() -> None:
    metrics = Metrics(models=["fast-model"])
    failed = attempt("flat", error=UpstreamConnectionError("no"), status=None, ended=100.2)
    answered = attempt(
        usage=Usage(prompt=10, completion=20, cached=4, reasoning=5), cost_usd=0.25, cost_source="reported"
    )
    answered.losses = [Loss("/a", "dropped"), Loss("/b", "changed")]
    answered.queue_wait = 0.3
    metrics.record(exchange(attempts=[failed, answered], degraded=True, first_content=100.04, stream=True))
    found = samples(metrics)
    assert found[key("gw_requests_total", "chat", "fast", "200")] == 1
    assert found[key("gw_attempts_total", "flat", "connection")] == 1
    assert found[key("gw_attempts_total", "fast", "ok")] == 1
    assert found[key("gw_degraded_total", "fast")] == 1
    assert found[key("gw_losses_total", "fast", "dropped")] == 1
    assert found[key("gw_tokens_total", "fast", "fast-model", "input")] == 10
    assert found[key("gw_tokens_total", "fast", "fast-model", "reasoning")] == 5
    assert found[key("gw_cost_usd_total", "fast", "fast-model", "reported")] == 0.25
    assert found[key("gw_request_duration_seconds_bucket", "chat", "fast", "0.5")] == 1
    assert found[key("gw_request_duration_seconds_bucket", "chat", "fast", "0.25")] == 0
    assert found[key("gw_request_duration_seconds_bucket", "chat", "fast", "+Inf")] == 1
    assert found[key("gw_request_duration_seconds_sum", "chat", "fast")] == 0.5
    assert found[key("gw_first_content_seconds_bucket", "chat", "fast", "0.05")] == 1
    assert found[key("gw_queue_wait_seconds_count", "fast")] == 1
    assert not any(name == "gw_streams_cut_total" for name, _ in found)


def test_a_refused_exchange_is_counted_without_a_backend() -> None:
    metrics = Metrics()
    metrics.record(refused(NotFound("no")))
    assert samples(metrics)[key("gw_requests_total", "chat", "none", "404")] == 1


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ClientGone("gone"), "client_gone"),
        (asyncio.CancelledError(), "client_gone"),
        (UpstreamConnectionError("reset"), "connection"),
        (UpstreamRefused("no"), "refused"),
        (KeyError("bug"), "gateway"),
    ],
)
def test_a_cut_stream_is_counted_by_its_cause(error: BaseException, cause: str) -> None:
    metrics = Metrics()
    cut = attempt(error=error, first_content=100.1)
    metrics.record(exchange(attempts=[cut], error=error, stream=True, first_content=100.1))
    assert samples(metrics)[key("gw_streams_cut_total", "fast", cause)] == 1


def test_a_model_that_nobody_configured_is_no_label() -> None:
    metrics = Metrics(models=["known"])
    metrics.record(exchange(model="from-a-client", operation="chat"))
    exposed = metrics.exposition()
    assert b"from-a-client" not in exposed
    assert b"fast-model" not in exposed
    assert samples(metrics)[key("gw_tokens_total", "fast", "other", "input")] == 10


def test_the_number_of_series_is_bounded() -> None:
    metrics = Metrics()
    for number in range(MAX_SERIES + 100):
        metrics.inc("gw_degraded_total", (f"b{number}",))
        metrics.observe("gw_queue_wait_seconds", 1.0, (f"b{number}",))
    metrics.inc("gw_degraded_total", ("b0",))
    page: Any = metrics.snapshot()
    degraded = {entry["labels"]["backend"]: entry["value"] for entry in page["gw_degraded_total"]}
    waits = {entry["labels"]["backend"]: entry["sum"] for entry in page["gw_queue_wait_seconds"]}
    assert len(degraded) == len(waits) == MAX_SERIES + 1
    assert (degraded["other"], degraded["b0"], waits["other"]) == (100, 2, 100)


def test_a_series_that_nobody_added_to_is_not_shown_unless_it_is_the_only_one() -> None:
    metrics = Metrics()
    metrics.declare(Family("mine_total", "Mine"))
    found = samples(metrics)
    assert found[key("mine_total")] == 0
    assert not any(name == "gw_degraded_total" for name, _ in found)


def test_one_name_for_two_metrics_is_told() -> None:
    metrics = Metrics()
    metrics.declare(Family("mine_total", "Mine", ("a",)))
    metrics.declare(Family("mine_total", "Better told", ("a",)))
    assert b"Better told" in metrics.exposition()
    with pytest.raises(ValueError, match='"mine_total" is there with other labels or bounds'):
        metrics.declare(Family("mine_total", "Mine", ("a", "b")))


def test_other_users_of_the_shared_memory_do_not_show() -> None:
    shared = LocalShared()
    shared.counters("served").own[0] = 5
    assert b"served" not in Metrics(shared).exposition()


def test_a_label_cannot_break_out_of_its_line() -> None:
    metrics = Metrics()
    metrics.inc("gw_degraded_total", ('x"} 1\nfake_total 7\\',))
    assert samples(metrics)[key("gw_degraded_total", 'x"} 1\nfake_total 7\\')] == 1


def test_the_snapshot_is_json() -> None:
    metrics = Metrics()
    metrics.record(exchange())
    found = json.loads(json.dumps(metrics.snapshot()))
    labels = {"operation": "chat", "backend": "fast", "status": "200"}
    assert found["gw_requests_total"] == [{"labels": labels, "value": 1}]
    (histogram,) = found["gw_request_duration_seconds"]
    assert (histogram["count"], histogram["sum"], histogram["buckets"]["+Inf"]) == (1, 0.5, 1)


def test_memory_is_told() -> None:
    assert samples(Metrics())[key("process_resident_memory_bytes")] > 1_000_000


def test_watching_the_same_name_again_replaces_the_reader_and_a_counter_never_goes_back() -> None:
    metrics = Metrics()
    for name, kind in (("gw_log_rows_total", "counter"), ("gw_log_waiting_rows", "gauge")):
        metrics.watch(name, "Rows", lambda: 5, kind=kind)  # type: ignore[arg-type]
        metrics.watch(name, "Rows", lambda: 2, kind=kind)  # type: ignore[arg-type]
    assert samples(metrics)[key("gw_log_rows_total")] == 7
    assert samples(metrics)[key("gw_log_waiting_rows")] == 2


def test_what_a_failed_reload_has_put_in_place_is_undone() -> None:
    metrics = Metrics()
    metrics.watch("gw_log_rows_total", "Rows", lambda: 5)
    go_back = metrics.watching()
    metrics.watch("gw_log_rows_total", "Rows", lambda: 2)
    metrics.watch("gw_other_total", "Others", lambda: 1)
    go_back()
    assert samples(metrics)[key("gw_log_rows_total")] == 5
    assert key("gw_other_total") not in samples(metrics)


def test_a_name_that_nobody_declared_is_an_error() -> None:
    with pytest.raises(KeyError):
        Metrics().inc("no_such_total")


def test_no_figures_at_all_are_a_page_too() -> None:
    assert text({}) == b""


def test_a_counter_is_not_a_histogram() -> None:
    with pytest.raises(KeyError, match="use observe"):
        Metrics().inc("gw_queue_wait_seconds", ("b",))
    with pytest.raises(KeyError):
        Metrics().observe("gw_degraded_total", 1.0, ("b",))


def test_a_watched_counter_goes_on_from_what_was_there_before_a_restart() -> None:
    shared = LocalShared()
    for rows in (3, 4):
        metrics = Metrics(shared)
        metrics.watch("gw_log_rows_total", "Rows", lambda rows=rows: rows)  # type: ignore[misc]
        metrics.watch("gw_log_waiting_rows", "Rows", lambda rows=rows: rows, kind="gauge")  # type: ignore[misc]
        metrics.publish()
    found = samples(metrics)
    assert found[key("gw_log_rows_total")] == 7
    assert found[key("gw_log_waiting_rows")] == 4


def test_what_is_watched_is_published_at_the_start_each_period_and_at_the_end() -> None:
    class Loop(asyncio.SelectorEventLoop):
        now = 0.0

        def time(self) -> float:
            return self.now

    loop, shared, reads = Loop(), LocalShared(), 0

    def read() -> float:
        nonlocal reads
        reads += 1
        return reads

    async def turn(seconds: float) -> int:
        loop.now += seconds
        for _ in range(3):
            await asyncio.sleep(0)
        return reads

    async def run() -> None:
        metrics = Metrics(shared)
        metrics.watch("mine", "Mine", read, kind="gauge")
        async with metrics:
            assert await turn(0) == 1
            assert await turn(PERIOD / 2) == 1
            assert await turn(PERIOD) == 2
            assert await turn(PERIOD * 1.5) == 3
        assert await turn(PERIOD * 9) == 4
        assert samples(metrics)[key("mine")] == 5

    try:
        loop.run_until_complete(run())
    finally:
        loop.close()


def test_the_page_is_written_off_the_event_loop() -> None:
    threads: list[int] = []

    class Figures:
        def writer(self) -> Callable[[], bytes]:
            threads.append(threading.get_ident())
            return self._write

        def _write(self) -> bytes:
            threads.append(threading.get_ident())
            return b"figures"

        def snapshot(self) -> dict[str, Any]:
            return {}

    pages = StatusPages(backends=Backends(), model_names=list, figures=Figures(), problems=list)
    response = asyncio.run(pages.metrics(Request(method="GET", path="/metrics")))
    assert response.content == b"figures"
    assert threads[0] == threading.get_ident() != threads[1]
