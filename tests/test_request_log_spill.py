"""What the database cannot take waits in a spill or in memory, and is made up for once; what is lost is counted."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gw.request_log.writer import BATCH, REPLAY, RequestLog
from tests.exchanges import exchange
from tests.fakes import FakeClock
from tests.request_log_world import opened, put, rows, spilled


def test_a_locked_database_spills_and_is_made_up_for_once(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    clock = FakeClock(1000.0)
    with opened(path, clock=clock, busy_timeout=0.02) as log:
        put(log, exchange(id="before"))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            put(log, exchange(id="during"))
            assert log.problem is not None
            assert "locked" in log.problem
            assert len(spilled(path)) == 1
            put(log, exchange(id="during, too"))
            other.execute("ROLLBACK")
        clock.now += 1.5
        put(log, exchange(id="after"))
        assert log.problem is None
        assert (log.lost, log.spilled) == (0, 2)
        assert sorted(row["request_id"] for row in rows(path)) == ["after", "before", "during", "during, too"]
        assert spilled(path) == []


def test_a_database_that_cannot_be_opened_does_not_stop_anything(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    path.mkdir()
    clock = FakeClock(1000.0)
    with opened(path, clock=clock) as log:
        put(log, *(exchange(id=f"r{n}") for n in range(BATCH + 10)))
        assert log.problem is not None
        path.rmdir()
        clock.now += 1.5
        log.flush()
        assert log.problem is None
        assert len({row["request_id"] for row in rows(path)}) == BATCH + 10


def test_what_was_spilled_is_replayed_by_the_next_start_and_only_once(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    path.mkdir()
    with opened(path) as log:
        put(log, exchange(id="one"), exchange(id="two"))
    kept = Path(f"{path}.spill.jsonl").read_bytes()
    path.rmdir()
    for _ in range(2):  # the second time as if a crash had come between the commit and the emptying
        Path(f"{path}.spill.jsonl").write_bytes(kept)
        with opened(path) as log:
            log.flush()
            assert log.problem is None
        assert [row["request_id"] for row in rows(path)] == ["one", "two"]
        assert len(rows(path, "SELECT * FROM attempts")) == 2


def test_a_long_spill_is_read_back_while_new_rows_are_written(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    path.mkdir()
    clock = FakeClock(1000.0)
    with opened(path, clock=clock) as log:
        put(log, *(exchange(id="old") for _ in range(REPLAY + 10)))
        path.rmdir()
        clock.now += 1.5
        log.flush()
        put(log, exchange(id="new"))
        assert log.flush()
        assert (log.problem, log.waiting) == (None, 0)
    assert len(rows(path)) == REPLAY + 11
    assert list(tmp_path.iterdir()) == [path]


def test_what_another_process_left_in_the_spill_is_found_within_a_second(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    clock = FakeClock(100.0)
    with opened(path, clock=clock) as log, opened(path, queue=0) as other:
        put(log, exchange(id="first"))
        assert other.flush(60.0)
        other.end(other.new_row(), exchange(id="theirs"))
        assert len(spilled(path)) == 1
        clock.now += 1.1
        put(log, exchange(id="second"))
        assert spilled(path) == []
    assert sorted(row["request_id"] for row in rows(path)) == ["first", "second", "theirs"]


def test_a_crash_in_the_middle_of_reading_back_doubles_nothing(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    path.mkdir()
    with opened(path) as log:
        put(log, *(exchange(id=f"r{n}") for n in range(10)))
    path.rmdir()
    replayed = Path(f"{path}.spill.jsonl.replay")
    Path(f"{path}.spill.jsonl").rename(replayed)
    lines = replayed.read_bytes().splitlines(keepends=True)
    with opened(path) as log:
        log.flush()
    assert not replayed.exists()
    replayed.write_bytes(b"".join(lines))
    Path(f"{path}.spill.jsonl").write_bytes(b"".join(lines[:3]))
    with opened(path) as log:
        log.flush()
        log.flush()
        assert log.lost == 0
    assert len(rows(path)) == 10
    assert list(tmp_path.iterdir()) == [path]


def test_a_spill_that_cannot_be_read_back_does_not_stop_the_database(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    (tmp_path / "elsewhere").write_text("{}")
    Path(f"{path}.spill.jsonl").symlink_to(tmp_path / "elsewhere")
    with opened(path) as log:
        put(log, exchange(id="one"), exchange(id="two"))
        assert "cannot be read back" in str(log.problem)
        assert [row["request_id"] for row in rows(path)] == ["one", "two"]


def test_a_spill_that_a_crash_cut_loses_only_the_cut_line(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    path.mkdir()
    spill = Path(f"{path}.spill.jsonl")
    with opened(path) as log:
        put(log, exchange(id="one"))
        with spill.open("ab") as file:
            file.write(b'{"request":{"id":"cut')
        put(log, exchange(id="two"))
    with spill.open("ab") as file:
        file.write(b'{"request":{"id":"spoilt","timestamp":[]},"tries":[]}\n')
    path.rmdir()
    with opened(path) as log:
        log.flush()
        assert log.problem is None
        assert log.lost == 2
    assert [row["request_id"] for row in rows(path)] == ["one", "two"]


def test_where_no_file_can_be_written_rows_wait_in_memory(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.write_text("a file stands where the folder should be")
    clock = FakeClock(1000.0)
    with opened(folder / "requests.db", clock=clock) as log:
        put(log, exchange(id="one"), exchange(id="two"))
        assert "memory" in str(log.problem)
        assert (log.waiting, log.lost) == (2, 0)
        folder.unlink()
        clock.now += 1.5
        log.flush()
        assert log.problem is None
        assert (log.waiting, log.lost) == (0, 0)
        assert [row["request_id"] for row in rows(folder / "requests.db")] == ["one", "two"]


def test_rows_that_no_disk_took_are_counted_as_lost(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.write_text("")
    log = RequestLog(folder / "requests.db")
    log.start()
    put(log, exchange())
    assert log.close(60.0)
    assert log.lost == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_no_half_line_in_the_spill(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    path.mkdir()
    clock = FakeClock(1000.0)
    Path(f"{path}.spill.jsonl").symlink_to("/dev/full")
    with opened(path, clock=clock) as log:
        put(log, exchange(id="one"))
        assert (log.waiting, log.spilled, log.lost) == (1, 0, 0)
        Path(f"{path}.spill.jsonl").unlink()
        path.rmdir()
        clock.now += 1.5
        log.flush()
        assert [row["request_id"] for row in rows(path)] == ["one"]


def test_there_is_one_warning_a_minute(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "requests.db"
    path.mkdir()
    clock = FakeClock(1000.0)
    with opened(path, clock=clock) as log:
        for _ in range(20):
            put(log, exchange())
            clock.now += 2.9
        warnings = [record for record in caplog.records if record.levelname == "WARNING"]
        assert len(warnings) == 1
        assert str(path) in warnings[0].getMessage()
        clock.now += 10
        put(log, exchange())
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 2


def test_an_overfull_queue_spills_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    log = RequestLog(path, queue=3, retention_days=0)
    for n in range(5):
        log.end(log.new_row(), exchange(id=f"r{n}"))
    assert [line["request"]["request_id"] for line in spilled(path)] == ["r3", "r4"]
    log.start()
    assert log.close(60.0)
    assert log.lost == 0
    assert sorted(row["request_id"] for row in rows(path)) == [f"r{n}" for n in range(5)]
