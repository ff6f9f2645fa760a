"""Turns of the Claude CLI that fail and processes that misbehave, over a fake program: told, and none is left."""

from __future__ import annotations

import socket
import sqlite3
from pathlib import Path

import orjson
import pytest

from tests.claude_fakes import HI, WEB, FakeClaude, ask, gw, pool_of, start, until
from tests.running import Running

__all__ = ["gw"]


# --- failures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("mode", "status", "code"),
    [
        ("error:429 API Error: Request rejected (429)", 429, "rate_limit_exceeded"),
        ("error:- You've hit your limit · resets 1pm (Europe/Berlin)", 429, "rate_limit_exceeded"),
        ("error:401 Failed to authenticate. API Error: 401", 502, "upstream_auth_error"),
        ("error:- Not logged in · Please run /login", 502, "upstream_auth_error"),
        ("error:529 API Error: 529 Overloaded", 502, "upstream_error"),
        ("error:- Request timed out", 504, "upstream_timeout"),
        ("error:400 API Error: 400 max_tokens is wrong", 400, None),
        ("error:- Prompt is too long", 400, "context_length_exceeded"),
        ("success_error:something", 502, "upstream_error"),
        ("die:some reason", 502, "upstream_protocol_error"),
        ("garbage", 502, "upstream_protocol_error"),
        ("huge", 502, "upstream_protocol_error"),
    ],
)
def test_a_failure_before_the_first_delta_is_a_status(
    gw: Running, tmp_path: Path, mode: str, status: int, code: str | None, stream: bool
) -> None:
    fake = FakeClaude(tmp_path / "claude", mode)
    url = start(gw, tmp_path, fake)
    answer = ask(url, stream=stream)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    if "limit" in mode:
        assert 0 < int(answer.headers["retry-after"]) <= 86_400
    pool = pool_of(url)
    assert (pool["active"], pool["totalFailed"]) == (0, 1)
    until(lambda: not fake.living())


@pytest.mark.parametrize("mode", ["die_after", "reconnect"])
def test_a_failure_after_the_first_delta_ends_the_stream_in_an_error(gw: Running, tmp_path: Path, mode: str) -> None:
    fake = FakeClaude(tmp_path / "claude", mode, has_word=True)
    url = start(gw, tmp_path, fake)
    body = {"messages": HI, "backend": "cli", "stream": True}
    lines = []
    with WEB.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
        for line in answer.iter_lines():
            lines.append(line)
            if '"an"' in line:
                fake.word.touch()
    assert lines[-2].startswith('data: {"error":'), "no [DONE], no finish"
    assert '"type":"api_error"' in lines[-2]
    assert not any('"finish_reason":"stop"' in line for line in lines)


def test_a_turn_that_takes_too_long_is_a_504_and_its_process_is_gone(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "hang", "answer")
    url = start(gw, tmp_path, fake, timeout=0.5)
    answer = ask(url)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
    until(lambda: not fake.living())
    assert pool_of(url)["active"] == 0


def test_a_turn_that_failed_is_paid_for_all_the_same(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "error:529 Overloaded")
    assert ask(start(gw, tmp_path, fake)).status_code == 502
    gw.run(gw.gateway.close(0))
    with sqlite3.connect(tmp_path / "requests.db") as database:
        row = database.execute("SELECT cost_usd, cost_source FROM requests WHERE operation = 'chat'").fetchone()
    database.close()
    assert row == (0.25, "reported")


def test_a_program_that_is_too_old_is_refused_with_the_cure(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", version="2.1.100")
    url = start(gw, tmp_path, fake)
    answer = ask(url)
    assert answer.status_code == 503
    assert "2.1.248 or newer" in answer.json()["error"]["message"]
    state = WEB.get(f"{url}/health").json()["backends"]["cli"]
    assert state["ready"] is False
    assert "2.1.248 or newer" in state["problem"]
    assert fake.starts == []


def test_without_a_program_the_backend_says_what_to_install(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    url = start(gw, tmp_path, fake, command="no-such-claude")
    answer = ask(url)
    assert answer.status_code == 503
    assert "no-such-claude" in answer.json()["error"]["message"]


# --- processes that misbehave ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["hang", "hang_after", "ignore_term"])
def test_a_client_that_leaves_ends_its_process_and_frees_its_place(gw: Running, tmp_path: Path, mode: str) -> None:
    fake = FakeClaude(tmp_path / "claude", mode, "answer")
    url = start(gw, tmp_path, fake, max_concurrent=1, queue_size=0)
    body = orjson.dumps({"messages": HI, "backend": "cli", "stream": mode != "hang"})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=60) as client:
        client.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        until(lambda: fake.turns == 1)
        told = b""
        while mode != "hang" and b'"an"' not in told:
            told += client.recv(65536)
    until(lambda: pool_of(url)["active"] == 0)
    assert ask(url).status_code == 200
    until(lambda: not fake.living())


@pytest.mark.parametrize("detail", ["", ":hang", ":die"])
def test_what_a_process_has_started_ends_with_it(gw: Running, tmp_path: Path, detail: str) -> None:
    fake = FakeClaude(tmp_path / "claude", f"grandchild{detail}")
    answer = ask(start(gw, tmp_path, fake))
    assert answer.json()["choices"][0]["message"]["content"] == "started one"
    until(lambda: not fake.living())


def test_closing_the_gateway_leaves_no_process(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    url = start(gw, tmp_path, fake, min_idle=2, max_warm=2)
    assert ask(url).status_code == 200
    until(lambda: len(fake.starts) >= 3)
    gw.run(gw.gateway.close(0))
    assert fake.living() == []


def test_a_question_of_the_program_is_answered_with_no(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "asks")
    assert ask(start(gw, tmp_path, fake)).json()["choices"][0]["message"]["content"] == "deny"
