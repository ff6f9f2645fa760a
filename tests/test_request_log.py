"""The request log writes each exchange once: one row, and one for each try, whatever it was and however it ended."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from gw.errors import ClientGone, NotFound, UpstreamConnectionError
from gw.message import Exchange, Loss, Usage
from gw.request_log.writer import BATCH
from tests.exchanges import NOW, attempt, chunk, completion, exchange, refused
from tests.request_log_world import only, opened, put, rows

QUERIES = (  # document A, as a reader types them
    "SELECT id, backend, duration_ms, cost_usd FROM requests ORDER BY timestamp DESC LIMIT 10;",
    "SELECT backend, COUNT(*) as count FROM requests GROUP BY backend;",
    "SELECT backend, SUM(cost_usd) as total_cost FROM requests GROUP BY backend;",
    "SELECT COUNT(*) FROM requests WHERE degraded = 1;",
    "SELECT COUNT(*) as errors FROM requests WHERE error IS NOT NULL;",
    "SELECT AVG(duration_ms) FROM requests;",
    "SELECT SUM(cost_usd) FROM requests;",
    "SELECT * FROM requests LIMIT 10;",
)


def test_an_exchange_is_one_row_with_the_columns_of_document_a(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "requests.db"
    row = only(path, exchange=exchange(session_id="s-1", first_content=100.2))
    expected = {
        "timestamp": int(NOW * 1000),
        "backend": "fast",
        "backend_type": "openai",
        "working_directory": None,
        "model": "gpt-4",
        "session_id": "s-1",
        "prompt": '[{"role":"user","content":"Hello!"}]',
        "response": "Hi Alice",
        "error": None,
        "duration_ms": 500.0,
        "tokens_input": 10,
        "tokens_output": 20,
        "cost_usd": 0.5,
        "cost_source": "reported",
        "usage_source": "reported",
        "queue_wait_ms": None,
        "degraded": 0,
        "request_id": "req-1",
        "key_name": "anonymous",
        "operation": "chat",
        "status": 200,
        "stream": 0,
        "first_byte_ms": 200.0,
        "attempts": 1,
        "answered_model": "fast-model",
        "state": "done",
    }
    assert {name: row[name] for name in expected} == expected
    assert list(row)[:19] == [
        *("id", "timestamp", "backend", "backend_type", "instance", "working_directory", "model", "session_id"),
        *("prompt", "response", "error", "duration_ms", "tokens_input", "tokens_output", "cost_usd"),
        *("queue_wait_ms", "degraded", "metadata", "created_at"),
    ]
    assert row["created_at"]


def test_the_queries_of_document_a_run_as_written(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    with opened(path) as log:
        failed = exchange(attempts=[attempt("flat", error=UpstreamConnectionError("no"), status=None)], status=502)
        failed.error = failed.attempts[0].error
        put(log, exchange(), exchange(degraded=True), failed)
        with closing(sqlite3.connect(path)) as connection:
            answers = [connection.execute(query).fetchall() for query in QUERIES]
    assert len(answers[0]) == 3
    assert sorted(answers[1]) == [("fast", 2), ("flat", 1)]
    assert sorted(answers[2]) == [("fast", 1.0), ("flat", None)]
    assert [answers[n] for n in (3, 4, 5, 6)] == [[(1,)], [(1,)], [(500.0,)], [(1.0,)]]
    assert len(answers[7]) == 3


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the sqlite3 command is not installed")
def test_the_sqlite3_command_reads_a_log_that_is_being_written(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "requests.db"
    with opened(path) as log:
        put(log, exchange())
        for query in QUERIES:
            found = subprocess.run(
                ["sqlite3", "logs/requests.db", query], cwd=tmp_path, capture_output=True, check=True
            )
            assert found.stdout, query
            assert not found.stderr, query


def test_every_try_is_a_row_of_attempts_and_failed_ones_have_no_tokens(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    failed = attempt("flat", error=UpstreamConnectionError("refused"), status=None, ended=100.1)
    answered = attempt(started=100.1, usage=Usage(prompt=1_000_000, completion=0), finish_reason="stop")
    answered.losses = [Loss("/messages/0/name", "dropped")]
    answered.queue_wait = 0.25
    row = only(path, exchange=exchange(attempts=[failed, answered], degraded=True))
    first, second = rows(path, "SELECT * FROM attempts ORDER BY number")
    assert (row["attempts"], row["fallback_from"], row["backend"], row["degraded"]) == (2, "flat", "fast", 1)
    assert (row["cost_usd"], row["cost_source"]) == (1.0, "priced")
    assert row["losses"] == '[{"pointer":"/messages/0/name","kind":"dropped"}]'
    assert row["queue_wait_ms"] == 250.0
    assert {first["request_row"], second["request_row"]} == {row["id"]}
    assert (first["error_type"], first["error"], first["tokens_input"], first["cost_usd"]) == (
        "connection",
        "refused",
        None,
        None,
    )
    assert (second["number"], second["tokens_input"], second["finish_reason"]) == (2, 1_000_000, "stop")
    assert second["started"] == int((NOW + 0.1) * 1000)


def test_attempts_tells_of_the_only_try_though_its_request_tells_of_it_too(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    only_try = attempt(usage=Usage(3, 4, cached=1), first_content=100.2, upstream_id="chatcmpl-1", finish_reason="stop")
    row = only(path, exchange=exchange(attempts=[only_try], first_content=100.2))
    (told,) = rows(path, "SELECT * FROM attempts")
    assert told == {
        "request_row": row["id"],
        "number": 1,
        "backend": "fast",
        "model": "fast-model",
        "started": int((NOW + 0.01) * 1000),
        "duration_ms": 490.0,
        "first_content_ms": 190.0,
        "status": 200,
        "error_type": None,
        "error": None,
        "finish_reason": "stop",
        "tokens_input": 3,
        "tokens_output": 4,
        "tokens_cached": 1,
        "tokens_cache_written": 0,
        "tokens_reasoning": 0,
        "usage_source": "reported",
        "cost_usd": 11e-6,
        "cost_source": "priced",
        "queue_wait_ms": None,
        "upstream_id": "chatcmpl-1",
    }


def test_each_of_many_different_rows_is_written_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    sent = []
    for n in range(333):
        usage = None if n % 5 == 0 else Usage(n, 2 * n, cached=n % 3, reasoning=n % 2)
        error = UpstreamConnectionError(f"e{n}") if n % 7 == 0 else None
        tried = attempt(usage=usage, cost_usd=n / 8, cost_source="reported", first_content=100.1 if n % 4 else None)
        sent.append(
            exchange(
                id=f"r{n}",
                timestamp=NOW + n,
                session_id=f"s{n}" if n % 3 else None,
                stream=n % 2 == 0,
                model=f"m{n % 11}",
                first_content=100.1 if n % 4 else None,
                response=[] if n % 6 == 0 else [completion(f"answer {n}")],
                attempts=[attempt("flat", error=error, ended=100.02), tried] if error is not None else [tried],
            )
        )
    with opened(path) as log:
        put(log, *sent)
    found = {row["request_id"]: row for row in rows(path)}
    tries = rows(path, "SELECT * FROM attempts ORDER BY request_row, number")
    assert len(found) == 333
    for n, one in enumerate(sent):
        row, last = found[f"r{n}"], one.attempts[-1].summary
        assert (row["timestamp"], row["session_id"], row["model"]) == (int((NOW + n) * 1000), one.session_id, one.model)
        assert (row["cost_usd"], row["first_byte_ms"]) == (n / 8, 100.0 if n % 4 else None)
        assert (row["response"], row["attempts"]) == (f"answer {n}" if n % 6 else None, len(one.attempts))
        assert last.usage is not None
        assert (row["tokens_input"], row["tokens_cached"]) == (last.usage.prompt, last.usage.cached)
        told = [(t["number"], t["backend"], t["error"]) for t in tries if t["request_row"] == row["id"]]
        assert told == [(k, a.backend, str(a.error) if a.error else None) for k, a in enumerate(one.attempts, 1)]


def test_a_batch_of_any_size_is_one_row_for_each_of_its_exchanges(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    with opened(path) as log:
        for size in range(1, BATCH + 2):
            numbers = []
            for n in range(size):
                tried = [attempt("flat", error=UpstreamConnectionError("e")), attempt()]
                one = exchange(id=f"{size}.{n}", attempts=tried, first_content=100.1)
                numbers.append((log.begin(one), one))
            if size % 2:
                log.flush()  # each has a started row, too
            for number, one in numbers:
                log.end(number, one)
            log.flush()
        total = (BATCH + 1) * (BATCH + 2) // 2
        assert (log.written, log.spilled, log.lost) == (total, 0, 0)
    found = rows(path, "SELECT request_id, state FROM requests")
    assert sorted(row["request_id"] for row in found) == sorted(
        f"{s}.{n}" for s in range(1, BATCH + 2) for n in range(s)
    )
    assert {row["state"] for row in found} == {"done"}
    assert rows(path, "SELECT number, COUNT(*) AS n FROM attempts GROUP BY 1") == [
        {"number": 1, "n": total},
        {"number": 2, "n": total},
    ]


def test_a_refused_exchange_is_a_row_without_a_backend(tmp_path: Path) -> None:
    row = only(tmp_path / "requests.db", exchange=refused(NotFound("no such model", code="model_not_found")))
    assert (row["backend"], row["status"], row["error"]) == (None, 404, "no such model")
    assert (row["error_type"], row["error_code"], row["attempts"]) == ("invalid_request_error", "model_not_found", 0)


def test_a_client_that_hung_up_is_billed_by_estimate(tmp_path: Path) -> None:
    gone = attempt(first_content=100.1, error=ClientGone("gone"), output_characters=41)
    one = exchange(
        messages=[{"role": "user", "content": "x" * 400}],
        attempts=[gone],
        response=[chunk(content="x" * 41)],
        status=0,
        error=ClientGone("gone"),
        stream=True,
    )
    row = only(tmp_path / "requests.db", exchange=one)
    assert (row["tokens_input"], row["tokens_output"], row["usage_source"]) == (100, 11, "estimated")
    assert row["cost_usd"] == pytest.approx((100 * 1.0 + 11 * 2.0) / 1e6)
    assert (row["cost_source"], row["status"], row["error"]) == ("estimated", 499, "the client hung up")


def test_a_stream_that_broke_is_billed_by_estimate_and_a_try_before_it_is_not(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    broken = UpstreamConnectionError("reset")
    tries = [
        attempt(error=UpstreamConnectionError("refused"), status=None),
        attempt(error=broken, first_content=100.1, output_characters=8),
    ]
    only(path, exchange=exchange(attempts=tries, response=[], error=broken, stream=True))
    found = rows(path, "SELECT tokens_input, tokens_output, usage_source FROM attempts ORDER BY number")
    assert [tuple(row.values()) for row in found] == [(None, None, None), (1, 2, "estimated")]


def test_what_was_seen_is_counted_from_the_answer_where_the_codec_did_not(tmp_path: Path) -> None:
    one = exchange(attempts=[attempt()], response=[chunk(content="abcd"), chunk(content="efgh")])
    assert only(tmp_path / "requests.db", exchange=one)["tokens_output"] == 2


def test_an_internal_error_tells_its_class_only(tmp_path: Path) -> None:
    row = only(tmp_path / "requests.db", exchange=exchange(error=KeyError("prompt text"), status=500))
    assert row["error"] == "internal error: KeyError"


@pytest.mark.parametrize(
    "one",
    [
        exchange(body={"messages": "no list"}),
        exchange(body={"messages": [1, None, {"content": {"deep": [[]]}}]}, attempts=[attempt()]),
        exchange(response=[b"{", b"[]", b'{"choices":[1,{"delta":[]},{"index":"x","delta":{"content":3}}]}']),
        exchange(id="\ud800\0", model="\udfff", client="\ud800"),
        exchange(attempts=[attempt(usage=Usage(prompt=10**30, completion=-1), cost_usd=float("nan"))]),
        exchange(attributes={"team.object": object(), "team.set": {1}}),
        exchange(ended=None),
        exchange(attempts=[attempt(finish_reason=["stop"])], session_id=7, model=["gpt-4"]),
        exchange(attempts=[attempt(finish_reason=["stop"]), attempt(finish_reason={"a": 1})]),
    ],
)
def test_odd_values_never_cost_the_row(tmp_path: Path, one: Exchange) -> None:
    path = tmp_path / "requests.db"
    with opened(path) as log:
        put(log, one, exchange())
        assert (log.problem, log.lost, log.written) == (None, 0, 2)
    assert len(rows(path)) == 2
