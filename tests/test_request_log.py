"""The request log writes each exchange once, whatever happens to the file."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.errors import ClientGone, NotFound, UpstreamConnectionError, UpstreamRefused
from gw.known_secrets import KnownSecrets
from gw.message import Exchange, Loss, Usage
from gw.request_log.answers import messages_of
from gw.request_log.under_way import DUE, YOUNG, UnderWay
from gw.request_log.writer import BATCH, DELETED, REPLAY, RequestLog
from gw.secret import Secret
from gw.sessions import new_id
from tests.exchanges import NOW, attempt, backends, chunk, completion, exchange, refused

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


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@contextmanager
def opened(path: Path, **options: Any) -> Iterator[RequestLog]:
    options.setdefault("backends", backends())
    options.setdefault("wall_clock", Clock(NOW + 60))
    options.setdefault("busy_timeout", 30.0)
    log = RequestLog(path, **options)
    log.start()
    try:
        yield log
    finally:
        assert log.close(60.0)


def put(log: RequestLog, *exchanges: Exchange) -> None:
    for one in exchanges:
        log.end(log.new_row(), one)
    assert log.flush(60.0)


def rows(path: Path, query: str = "SELECT * FROM requests ORDER BY id") -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query)]


def only(path: Path, **options: Any) -> dict[str, Any]:
    one = options.pop("exchange")
    with opened(path, **options) as log:
        put(log, one)
    (row,) = rows(path)
    return row


def spilled(path: Path) -> list[Any]:
    spill = Path(f"{path}.spill.jsonl")
    return [orjson.loads(line) for line in spill.read_bytes().splitlines()] if spill.exists() else []


# --- rows ---------------------------------------------------------------------------------------------------------


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


def test_new_sessions_are_in_the_order_of_their_time() -> None:
    ids = [new_id(NOW + n / 1000) for n in range(100)]
    assert sorted(ids) == ids
    assert len({new_id(NOW) for _ in range(100)}) == 100
    for id in map(uuid.UUID, ids):
        assert (id.version, id.variant) == (7, uuid.RFC_4122)


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


# --- content ------------------------------------------------------------------------------------------------------


def test_a_streamed_answer_is_put_together_from_its_chunks(tmp_path: Path) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "get", "arguments": ""}}
    pieces = [
        chunk(role="assistant", content=""),
        chunk(content="Let "),
        chunk(content="me see."),
        chunk(tool_calls=[call]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": '{"a":'}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": "1}"}}]),
        b'{"choices":[],"usage":{"prompt_tokens":1}}',
    ]
    row = only(tmp_path / "requests.db", exchange=exchange(response=pieces, stream=True))
    assert row["response"] == "Let me see."
    assert json.loads(row["metadata"])["message"] == {
        "role": "assistant",
        "content": "Let me see.",
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "get", "arguments": '{"a":1}'}}],
    }


PIECES = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(["content", "reasoning_content"]), st.text(max_size=6)), max_size=40
)


@given(PIECES, st.booleans())
def test_a_streamed_answer_is_the_sum_of_its_pieces(pieces: list[tuple[int, str, str]], in_order: bool) -> None:
    if in_order:
        pieces = sorted(pieces, key=lambda piece: piece[:2])
    expected: dict[int, dict[str, str]] = {}
    for index, name, text in pieces:
        said = expected.setdefault(index, {"role": "assistant"})
        said[name] = said.get(name, "") + text
    found = messages_of([chunk(index, **{name: text}) for index, name, text in pieces])
    assert found == [expected[index] for index in sorted(expected)]


def test_chunks_that_only_look_alike_are_told_apart() -> None:
    alike = [chunk(content="a") for _ in range(20)]
    broken = chunk(content="b").replace(b'"b"', rb'"\x"')
    other = chunk(content='"}}]}')
    more = chunk(content="d", refusal="e")
    raw = [*alike, broken, *alike, other, chunk(tool_calls=[{"index": 0, "id": "c"}]), *alike, more, *alike]
    (message,) = messages_of(raw)
    assert message["content"] == "a" * 40 + '"}}]}' + "a" * 20 + "d" + "a" * 20
    assert (message["tool_calls"], message["refusal"]) == ([{"id": "c"}], "e")


def test_a_whole_answer_with_tool_calls_can_be_rebuilt(tmp_path: Path) -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    row = only(tmp_path / "requests.db", exchange=exchange(response=[completion(None, tool_calls=calls)]))
    message = json.loads(row["metadata"])["message"]
    assert (row["response"], message["content"], message["tool_calls"]) == ("", None, calls)


def test_several_choices_are_all_kept(tmp_path: Path) -> None:
    one = exchange(response=[chunk(0, content="a"), chunk(1, content="b"), chunk(0, content="c")])
    row = only(tmp_path / "requests.db", exchange=one)
    assert row["response"] == "ac"
    assert [message["content"] for message in json.loads(row["metadata"])["messages"]] == ["ac", "b"]


def test_media_is_elided_to_type_size_and_hash(tmp_path: Path) -> None:
    image, sound = os.urandom(200_001), os.urandom(300)
    encoded, tone = base64.b64encode(image).decode(), base64.b64encode(sound).decode()
    uri = f"data:image/png;base64,{encoded}"
    parts = [
        {"type": "text", "text": f"see ![it]({uri}) and data: that is none, data:a;base64 neither"},
        {"type": "image_url", "image_url": {"url": uri}},
        {"type": "image_url", "image_url": {"url": "data:image/svg+xml,%3Csvg%3E"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/cat.jpg"}},
        {"type": "input_audio", "input_audio": {"data": tone, "format": "wav"}},
    ]
    one = exchange(messages=[{"role": "user", "content": parts}], response=[completion(f"here: {uri}")])
    row = only(tmp_path / "requests.db", exchange=one)
    label = f"data:image/png;elided;size=200001;sha256={hashlib.sha256(image).hexdigest()[:16]}"
    text, picture, drawing, link, audio = json.loads(row["prompt"])[0]["content"]
    assert text["text"] == f"see ![it]({label}) and data: that is none, data:a;base64 neither"
    assert picture["image_url"]["url"] == label
    assert drawing["image_url"]["url"].startswith("data:image/svg+xml;elided;size=9;sha256=")
    assert link["image_url"]["url"] == "https://example.org/cat.jpg"
    assert audio["input_audio"]["data"].endswith(f"size=300;sha256={hashlib.sha256(sound).hexdigest()[:16]}")
    assert row["response"] == f"here: {label}"
    assert encoded[:100].encode() not in (tmp_path / "requests.db").read_bytes()


def test_redacted_keeps_roles_and_lengths_only(tmp_path: Path) -> None:
    quoted = UpstreamRefused("you wrote: my password is tulip", code="content_policy")
    one = exchange(
        messages=[
            {"role": "system", "content": "tulip"},
            {"role": "user", "content": [{"type": "text", "text": "tulip"}]},
        ],
        response=[completion("tulips", reasoning_content="a tulip")],
        error=quoted,
        attempts=[attempt(error=quoted)],
        attributes={"team.note": "tulip"},
    )
    path = tmp_path / "requests.db"
    row = only(path, exchange=one, content="redacted")
    assert json.loads(row["prompt"]) == [
        {"role": "system", "content": "[5 characters]"},
        {"role": "user", "content": [{"type": "text", "text": "[5 characters]"}]},
    ]
    assert (row["response"], row["error"]) == ("[6 characters]", "content_policy")
    assert b"tulip" not in path.read_bytes()


def test_none_keeps_no_content_but_the_figures(tmp_path: Path) -> None:
    row = only(tmp_path / "requests.db", exchange=exchange(), content="none")
    assert (row["prompt"], row["response"], row["tokens_input"]) == ("", None, 10)


def test_a_known_secret_is_found_nowhere(tmp_path: Path) -> None:
    canary = 'sk-canary-"0123456789/+é'
    forms = [canary, base64.b64encode(b"user:" + canary.encode()).decode(), "sk-canary-%220123456789%2F%2B%C3%A9"]
    text = " and ".join(forms)
    one = exchange(
        id=canary,
        messages=[{"role": "user", "content": text}],
        response=[completion(text, reasoning_content=text)],
        error=UpstreamRefused(text),
        attempts=[attempt(error=UpstreamRefused(text))],
        session_id=canary,
        path=f"/v1/{canary}/chat",
        attributes={"team.note": text},
    )
    path = tmp_path / "requests.db"
    with opened(path, secrets=KnownSecrets([Secret(canary)])) as log:
        put(log, one)
        for sink in tmp_path.iterdir():
            assert b"canary" not in sink.read_bytes(), sink
            assert forms[1][12:24].encode() not in sink.read_bytes(), sink
    path.unlink()
    path.mkdir()
    with opened(path, secrets=KnownSecrets([Secret(canary)])) as log:
        put(log, one)
        assert spilled(path)
        assert b"canary" not in Path(f"{path}.spill.jsonl").read_bytes()


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


def test_one_secret_among_many_rows_is_found(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    many = [exchange(id=f"r{n}") for n in range(200)]
    many[150].attempts[0].summary.finish_reason = "sk-canary-0123456789"
    with opened(path, secrets=KnownSecrets([Secret("sk-canary-0123456789")])) as log:
        put(log, *many)
        assert b"canary" not in Path(f"{path}-wal").read_bytes()
    assert b"canary" not in path.read_bytes()
    assert len(rows(path)) == 200


# --- started and lost ---------------------------------------------------------------------------------------------


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
    clock = Clock(100.0)
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
    clock = Clock(100.0)
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
    clock = Clock(100.0)
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
    with opened(path, wall_clock=Clock(NOW + 2 * 86_400)):
        pass
    assert {row["request_id"]: row["state"] for row in rows(path)}["elsewhere"] == "lost"


# --- trouble ------------------------------------------------------------------------------------------------------


def test_a_locked_database_spills_and_is_made_up_for_once(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    clock = Clock(1000.0)
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
    clock = Clock(1000.0)
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
    clock = Clock(1000.0)
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
    clock = Clock(100.0)
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
    clock = Clock(1000.0)
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
    clock = Clock(1000.0)
    Path(f"{path}.spill.jsonl").symlink_to("/dev/full")
    with opened(path, clock=clock) as log:
        put(log, exchange(id="one"))
        assert (log.waiting, log.spilled, log.lost) == (1, 0, 0)
        Path(f"{path}.spill.jsonl").unlink()
        path.rmdir()
        clock.now += 1.5
        log.flush()
        assert [row["request_id"] for row in rows(path)] == ["one"]


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


def test_there_is_one_warning_a_minute(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "requests.db"
    path.mkdir()
    clock = Clock(1000.0)
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


# --- retention ----------------------------------------------------------------------------------------------------


def test_rows_older_than_the_retention_are_deleted_with_their_attempts(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    day = 86_400
    clock, wall = Clock(1000.0), Clock(NOW)
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
