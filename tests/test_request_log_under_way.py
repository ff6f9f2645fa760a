"""An exchange that is not over yet: a row after a moment, ended once, and told as lost where its process has died."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from gw.request_log.under_way import DUE, YOUNG, UnderWay
from tests.exchanges import NOW, exchange
from tests.fakes import FakeClock
from tests.request_log_world import opened, rows


def test_an_exchange_under_way_is_a_started_row_and_ends_once(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    with opened(path) as log:
        one = exchange()
        row = log.begin(one)
        log.flush()
        ((id, state, tokens),) = [(r["id"], r["state"], r["tokens_input"]) for r in rows(path)]
        assert (state, tokens) == ("started", None)
        log.end(row, one)
        log.flush()
        one.attempts[0].summary.cost_usd = 99.0
        log.end(row, one)
        log.flush()
        assert [(r["id"], r["state"], r["cost_usd"]) for r in rows(path)] == [(id, "done", 0.5)]
        assert len(rows(path, "SELECT * FROM attempts")) == 1


def test_only_what_is_still_under_way_after_a_moment_has_a_started_row(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    clock = FakeClock(100.0)
    with opened(path, clock=clock) as log:
        quick, slow = log.begin(exchange(id="quick")), log.begin(exchange(id="slow"))
        log.flush(begun=False)
        assert rows(path) == []
        log.end(quick, exchange(id="quick"))
        clock.now += DUE + 0.001
        log.flush(begun=False)
        assert [(row["request_id"], row["state"]) for row in rows(path)] == [("quick", "done"), ("slow", "started")]
        log.end(slow, exchange(id="slow"))
    assert [(row["request_id"], row["state"]) for row in rows(path)] == [("quick", "done"), ("slow", "done")]


def test_once_one_is_due_those_that_would_be_next_are_taken_along() -> None:
    clock = FakeClock(100.0)
    under_way = UnderWay(clock)
    assert under_way.due() is None
    for row, age in enumerate((DUE, DUE - 0.001, YOUNG, YOUNG - 0.001)):
        under_way[row] = replace(exchange(), started=100.0 - age)
    clock.now -= 0.001
    assert under_way.due() == pytest.approx(0.001)
    assert under_way.take() == []
    clock.now += 0.001
    assert [row for row, _ in under_way.take()] == [0, 1, 2]
    assert under_way.due() == pytest.approx(DUE - YOUNG + 0.001)
    under_way.ask()
    assert [row for row, _ in under_way.take()] == [3]
    assert under_way.due() is None


def test_what_is_over_before_it_is_due_is_not_taken() -> None:
    clock = FakeClock(100.0)
    under_way = UnderWay(clock)
    for row in range(3):
        under_way[row] = exchange()
    del under_way[0], under_way[2]
    clock.now += DUE
    assert [row for row, _ in under_way.take()] == [1]
    assert (under_way.due(), under_way.take()) == (None, [])


def test_rows_left_started_by_a_dead_process_become_lost(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    with opened(path) as log:
        log.begin(exchange(id="mine"))
        log.begin(exchange(id="dead"))
        log.begin(exchange(id="elsewhere"))
        log.flush()
        host, pid, start = rows(path)[0]["instance"].rsplit(":", 2)
        assert pid == str(os.getpid())
        with closing(sqlite3.connect(path)) as connection, connection:
            for name, owner in (("dead", f"{host}:{child.pid}:{start}"), ("elsewhere", f"other-{host}:1:{start}")):
                connection.execute("UPDATE requests SET instance = ? WHERE request_id = ?", (owner, name))
            connection.execute(
                "UPDATE requests SET instance = ? WHERE request_id = 'mine'", (f"{host}:{os.getppid()}:x",)
            )
    with opened(path):
        pass
    states = {row["request_id"]: row["state"] for row in rows(path)}
    assert states == {"mine": "started", "dead": "lost", "elsewhere": "started"}
    with opened(path, wall_clock=FakeClock(NOW + 2 * 86_400)):
        pass
    assert {row["request_id"]: row["state"] for row in rows(path)}["elsewhere"] == "lost"


# --- crashes ------------------------------------------------------------------------------------------------------

WRITER = """
import sys
from gw.request_log.writer import RequestLog
from tests.exchanges import exchange
log = RequestLog(sys.argv[1], durability="durable", retention_days=0)
log.start()
n = 0
while True:
    log.begin(exchange(id="open"))
    row = log.begin(exchange(id=str(n)))
    log.end(row, exchange(id=str(n)))
    log.flush()
    print(n, flush=True)
    n += 1
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    acknowledged = 0
    for cycle in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], cwd=Path(__file__).parents[1], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            for _ in range(5 + 7 * cycle):
                assert child.stdout.readline()
                acknowledged += 1
            child.send_signal(signal.SIGKILL)
            acknowledged += len(child.stdout.readlines())
        assert rows(path, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
        assert rows(path, "SELECT COUNT(*) AS n FROM requests WHERE state = 'done'")[0]["n"] >= acknowledged
    with opened(path) as log:
        log.flush()
    left = rows(path, "SELECT COUNT(*) AS n FROM requests WHERE state = 'started'")
    lost = rows(path, "SELECT COUNT(*) AS n FROM requests WHERE state = 'lost' AND error IS NOT NULL")
    assert left[0]["n"] == 0
    assert lost[0]["n"] >= acknowledged
