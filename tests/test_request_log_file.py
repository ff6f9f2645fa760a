"""The file of the request log: deleted under it, written by several, another program's, freed of old rows."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from gw.request_log.writer import DELETED
from tests.exchanges import NOW, exchange
from tests.fakes import FakeClock
from tests.request_log_world import opened, put, rows, spilled


@pytest.mark.parametrize("companions", [True, False])
def test_a_deleted_file_is_made_anew_and_nothing_goes_to_the_deleted_one(tmp_path: Path, companions: bool) -> None:
    path = tmp_path / "logs" / "requests.db"
    with opened(path) as log:
        put(log, exchange(id="old"))
        if companions:
            shutil.rmtree(path.parent)
        else:
            path.unlink()
        put(log, exchange(id="new"))
        assert [row["request_id"] for row in rows(path)] == ["new"]
        put(log, exchange(id="newer"))
    assert [row["request_id"] for row in rows(path)] == ["new", "newer"]
    assert rows(path, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]


def test_two_logs_on_a_deleted_file_meet_again_in_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    with opened(path) as one, opened(path) as other:
        put(one, exchange(id="1"))
        put(other, exchange(id="2"))
        path.unlink()
        put(one, exchange(id="3"))
        put(other, exchange(id="4"))
        put(one, exchange(id="5"))
    assert sorted(row["request_id"] for row in rows(path)) == ["3", "4", "5"]
    assert rows(path, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]


WORKER = """
import sys
from gw.request_log.writer import RequestLog
from tests.exchanges import exchange
log = RequestLog(sys.argv[1], retention_days=0, busy_timeout=30.0)
log.start()
for name in ("deleted", "theirs"):
    log.end(log.new_row(), exchange(id=name))
    log.flush()
    print(log.problem, flush=True)
    sys.stdin.readline()
log.close()
"""


def test_a_worker_that_has_not_noticed_a_deletion_harms_nobody(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(path)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "None\n"
        path.unlink()
        with opened(path) as log:
            put(log, *(exchange(id="ours") for _ in range(100)))
            assert log.problem is None
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline() == "None\n"
            put(log, exchange(id="ours"))
            assert (log.problem, log.lost) == (None, 0)
        child.communicate("\n")
    assert rows(path, "SELECT request_id, COUNT(*) AS n FROM requests GROUP BY 1 ORDER BY 1") == [
        {"request_id": "ours", "n": 101},
        {"request_id": "theirs", "n": 1},
    ]
    assert rows(path, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    path.write_bytes(b"somebody's notes\n" * 100)
    with opened(path) as log:
        put(log, exchange())
        assert "not a database" in str(log.problem)
    assert path.read_bytes() == b"somebody's notes\n" * 100
    assert len(spilled(path)) == 1


def test_a_file_of_a_later_gw_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with opened(path) as log:
        put(log, exchange())
        assert "schema version 99" in str(log.problem)


def test_a_log_of_another_program_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE requests (id TEXT PRIMARY KEY)")
    before = path.read_bytes()
    with opened(path) as log:
        put(log, exchange())
        assert "another program's tables: move it away" in str(log.problem)
    assert path.read_bytes() == before
    assert len(spilled(path)) == 1


def test_several_logs_write_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    with opened(path) as one, opened(path) as other:
        for _ in range(200):
            one.end(one.new_row(), exchange(id="same"))
            other.end(other.new_row(), exchange(id="same"))
        assert one.flush(60.0)
        assert other.flush(60.0)
    assert (one.lost, other.lost) == (0, 0)
    with opened(path) as log:  # picks up what a lock may have spilled
        log.flush()
    assert len(rows(path, "SELECT DISTINCT id FROM requests")) == 400


# --- retention ----------------------------------------------------------------------------------------------------


def test_rows_older_than_the_retention_are_deleted_with_their_attempts(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    day = 86_400
    clock, wall = FakeClock(1000.0), FakeClock(NOW)
    with opened(path, clock=clock, wall_clock=wall, retention_days=30) as log:
        put(log, *(exchange(id="old", timestamp=NOW - 31 * day) for _ in range(DELETED + 5)))
        put(log, exchange(id="new", timestamp=NOW - 29 * day))
        assert len(rows(path)) == DELETED + 6
        clock.now += 3601
        log.flush()
        assert len(rows(path)) == 6
        clock.now += 0.1
        log.flush()
        assert [row["request_id"] for row in rows(path)] == ["new"]
        assert len(rows(path, "SELECT * FROM attempts")) == 1


def test_no_retention_keeps_rows_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    with opened(path, retention_days=0) as log:
        put(log, exchange(timestamp=1.0))
    with opened(path, retention_days=0) as log:
        log.flush()
        assert len(rows(path)) == 1
