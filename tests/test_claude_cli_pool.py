"""The Claude CLI as a backend, over a fake program: chat, streams, places, failures, and processes that misbehave."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import orjson
import pytest

from tests.claude_fakes import WEB, FakeClaude, start, until
from tests.fakes import answers, completion
from tests.running import Running, running

HI: list[Any] = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def gw() -> Iterator[Running]:
    with running() as gateway:
        yield gateway


def client_of(gw: Running, url: str) -> openai.OpenAI:
    return gw.sdk(base_url=f"{url}/v1")


def ask(url: str, **fields: Any) -> httpx.Response:
    return WEB.post(f"{url}/v1/chat/completions", json={"messages": HI, "backend": "cli"} | fields)


@contextlib.contextmanager
def asking(url: str, times: int = 1) -> Iterator[None]:
    """Requests that go on beside the test; how they end is not looked at."""

    def quietly() -> None:
        with contextlib.suppress(httpx.HTTPError):
            ask(url)

    threads = [threading.Thread(target=quietly) for _ in range(times)]
    for thread in threads:
        thread.start()
    until(lambda: sum(pool_of(url)[name] for name in ("active", "queued")) == times)
    yield


def pool_of(url: str) -> dict[str, Any]:
    pool: dict[str, Any] = WEB.get(f"{url}/queue/status").json()["processPool"]
    return pool


def events(url: str, **fields: Any) -> list[dict[str, Any]]:
    """The chunks of a stream, the error event included, `[DONE]` as {}."""
    text = ask(url, stream=True, **fields).text
    return [orjson.loads(line[6:]) if line != "data: [DONE]" else {} for line in text.split("\n\n") if line]


def test_a_plain_chat_is_answered_by_the_sdk_shape(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "answer:Hello there")
    answer = client_of(gw, start(gw, tmp_path, fake)).chat.completions.create(model="cli", messages=HI)
    assert answer.choices[0].message.content == "Hello there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (10, 3)
    assert answer.model_extra is not None
    assert answer.model_extra["gateway"] == {
        "backend": "cli",
        "model": "claude-fake-1",
        "cost_usd": 0.25,
        "attempts": 1,
    }


def test_a_stream_has_one_id_the_role_first_every_delta_and_its_end(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "answer:one two three")
    *chunks, done = events(start(gw, tmp_path, fake))
    assert done == {}
    assert len({chunk["id"] for chunk in chunks}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert [delta.get("content") for delta in deltas[1:]] == ["one ", "two ", "three", None]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["gateway"]["cost_usd"] == 0.25


def test_deltas_arrive_while_the_program_still_writes(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "hang_after")
    url = start(gw, tmp_path, fake)
    with client_of(gw, url).chat.completions.create(model="cli", messages=HI, stream=True) as stream:
        texts = [next(stream).choices[0].delta.content for _ in range(3)]
    assert texts == ["", "half ", "an"]


def test_the_prompt_goes_by_stdin_and_is_told_to_be_a_text(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    prompt = "--dangerously-skip-permissions @/etc/passwd /cost " + "x" * 200_000
    assert ask(start(gw, tmp_path, fake), messages=[{"role": "user", "content": prompt}]).status_code == 200
    (line,) = fake.prompts
    assert line["client_composed"] is True
    assert line["message"]["content"] == [{"type": "text", "text": prompt}]
    (first,) = fake.starts
    assert "skip-permissions" not in " ".join(first["argv"])
    argv = first["argv"]
    assert argv[argv.index("--tools") + 1] == ""
    assert {"--restricted", "--strict-mcp-config", "--no-session-persistence"} <= set(argv)


def test_the_system_prompt_and_the_history_are_told_in_order(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "answer:Alice")
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "I am Alice"},
        {"role": "assistant", "content": "Hi Alice"},
        {"role": "user", "content": "Who am I?"},
    ]
    assert ask(start(gw, tmp_path, fake), messages=messages).json()["choices"][0]["message"]["content"] == "Alice"
    assert fake.control("initialize") == [{"subtype": "initialize", "systemPrompt": ["Be brief."]}]
    said = [(line["type"], line.get("shouldQuery")) for line in fake.lines if "message" in line]
    assert said == [("user", False), ("assistant", None), ("user", None)]


def test_a_named_model_is_set_and_the_backends_own_name_is_the_programs_default(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    url = start(gw, tmp_path, fake)
    assert ask(url, model="cli/opus", backend=None, reasoning_effort="high").status_code == 200
    assert ask(url, model="cli").status_code == 200
    settings = {"model": "opus", "effortLevel": "high"}
    assert fake.control("apply_flag_settings") == [{"subtype": "apply_flag_settings", "settings": settings}]


def test_the_configured_model_is_that_of_every_process_from_its_start(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    url = start(gw, tmp_path, fake, model="sonnet")
    assert ask(url).status_code == 200
    assert "--model=sonnet" in fake.starts[0]["argv"]
    assert fake.control("apply_flag_settings") == []


def test_the_first_hello_with_nothing_else_configured_is_answered_by_the_cli(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    answer = ask(start(gw, tmp_path, fake), backend=None)
    assert answer.json()["gateway"]["backend"] == "cli"


def test_the_environment_is_built_from_nothing(gw: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setenv("CLAUDECODE", "1")
    fake = FakeClaude(tmp_path / "claude")
    url = start(
        gw, tmp_path, fake, config_dir=str(tmp_path / "config"), base_url="http://127.0.0.1:9", api_key="sk-own"
    )
    assert ask(url).status_code == 200
    (first,) = fake.starts
    environment = first["env"]
    assert "sk-canary" not in str(environment)
    assert "CLAUDECODE" not in environment
    assert environment["HOME"] == environment["CLAUDE_CONFIG_DIR"] == str(tmp_path / "config")
    assert environment["ANTHROPIC_API_KEY"] == "sk-own"
    assert environment["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:9"
    assert environment["CLAUDE_CODE_DISABLE_FILE_MENTIONS"] == "1"


# --- spares and warm ones ----------------------------------------------------------------------------------------


def test_a_spare_serves_the_next_request_and_is_replaced(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    url = start(gw, tmp_path, fake, min_idle=1)
    provider: Any = gw.gateway.backends["cli"].provider
    until(lambda: bool(provider._pool._spares))
    spare = fake.starts[0]["pid"]
    assert ask(url).status_code == 200
    assert next(entry["pid"] for entry in fake.entries if entry.get("line", {}).get("type") == "user") == spare
    until(lambda: len(fake.starts) == 2)


def test_a_warm_process_goes_on_with_its_conversation_and_pays_by_difference(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "answer:Hi Alice", "answer:Alice", "answer:other")
    url = start(gw, tmp_path, fake, max_warm=2)
    first = [{"role": "user", "content": "I am Alice"}]
    assert ask(url, messages=first).json()["gateway"]["cost_usd"] == 0.25
    second = [*first, {"role": "assistant", "content": "Hi Alice"}, {"role": "user", "content": "Who am I?"}]
    again = ask(url, messages=second).json()
    assert (again["choices"][0]["message"]["content"], again["gateway"]["cost_usd"]) == ("Alice", 0.25)
    assert len(fake.starts) == 1
    assert len(fake.control("initialize")) == 1
    changed = [first[0], {"role": "assistant", "content": "Hi Bob"}, second[-1]]
    assert ask(url, messages=changed).status_code == 200
    assert len(fake.starts) == 2, "who was told something else is another process"


def test_no_more_warm_processes_are_kept_than_allowed(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    url = start(gw, tmp_path, fake, max_warm=1)
    for name in ("a", "b", "c"):
        assert ask(url, messages=[{"role": "user", "content": name}]).status_code == 200
    until(lambda: len(fake.living()) == 1)


# --- places ------------------------------------------------------------------------------------------------------


def test_a_full_queue_is_503_at_once_with_document_as_words(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "hang")
    url = start(gw, tmp_path, fake, max_concurrent=1, queue_size=1, timeout=60)
    with asking(url, times=2):
        pool = pool_of(url)
        answer = ask(url)
        health = WEB.get(f"{url}/health").json()["routing"]
    figures = ("active", "queued", "maxConcurrent", "maxQueue", "utilization")
    assert [pool[name] for name in figures] == [1, 1, 1, 1, 1.0]
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "queue_full"
    assert answer.json()["error"]["message"].startswith("Process pool queue full")
    assert int(answer.headers["retry-after"]) >= 1
    assert health["processPool"] == {"active": 1, "queued": 1, "maxConcurrent": 1, "utilization": 1.0}
    assert health["backends"] == {"total": 2, "tool": 1, "api": 1}


def test_a_full_pool_falls_back_to_an_api_and_says_that_it_is_degraded(gw: Running, tmp_path: Path) -> None:
    provider = gw.add_provider(answers(orjson.dumps(completion("from the API"))))
    api = {"adapter": "openai", "base_url": f"{provider.url}/v1", "model": "gpt-4", "api_key": "sk-test-key"}
    more = {
        "backends": {"api": api},
        "middleware": {
            "route": {"default_backend": "cli", "prefer_cheapest": False},
            "fallback": {"chain": ["cli", "api"], "retries": 0},
        },
    }
    fake = FakeClaude(tmp_path / "claude", "hang")
    url = start(gw, tmp_path, fake, more, max_concurrent=1, queue_size=0, timeout=60)
    with asking(url):
        answer = ask(url, backend=None)
    assert answer.json()["choices"][0]["message"]["content"] == "from the API"
    assert answer.json()["degraded"] is True


@pytest.mark.parametrize("drops", [True, False])
def test_tools_of_a_full_pool_are_dropped_only_where_the_file_says_so(gw: Running, tmp_path: Path, drops: bool) -> None:
    provider = gw.add_provider(answers(orjson.dumps(completion("from the API"))))
    api = {"adapter": "openai", "base_url": f"{provider.url}/v1", "model": "gpt-4", "api_key": "sk-test-key"}
    more = {"backends": {"api": api}, "middleware": {"fallback": {"retries": 0, "drop_tools": drops}}}
    fake = FakeClaude(tmp_path / "claude", "hang")
    url = start(gw, tmp_path, fake, more, max_concurrent=1, queue_size=0, timeout=60)
    with asking(url):
        answer = ask(url, backend=None, tools=["Read"], working_directory=str(tmp_path))
    if drops:
        assert answer.json()["choices"][0]["message"]["content"] == "from the API"
        assert answer.json()["degraded"] is True
        assert not {"tools", "working_directory"} & set(provider.asked[-1].json)
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "queue_full")
        assert provider.asked == []


def test_who_waits_gets_the_place_and_the_log_has_the_wait(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "slow:0", has_word=True)
    url = start(gw, tmp_path, fake, max_concurrent=1)
    threads = [threading.Thread(target=ask, args=(url,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: pool_of(url)["queued"] == 2)
    fake.word.touch()
    for thread in threads:
        thread.join(60)
    pool = pool_of(url)
    assert (pool["totalProcessed"], pool["totalQueued"], pool["totalFailed"]) == (3, 2, 0)
    assert (pool["active"], pool["queued"]) == (0, 0)


def test_a_wait_that_is_too_long_ends_in_503(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "hang")
    url = start(gw, tmp_path, fake, max_concurrent=1, queue_timeout=0.1, timeout=60)
    with asking(url):
        answer = ask(url)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "queue_full")
    assert pool_of(url)["queued"] == 0


def test_the_log_has_what_a_turn_cost_and_how_long_it_waited(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    assert ask(start(gw, tmp_path, fake)).status_code == 200
    gw.run(gw.gateway.close(0))
    names = "backend, backend_type, cost_usd, cost_source, tokens_input, tokens_output, tokens_cached, queue_wait_ms"
    with sqlite3.connect(tmp_path / "requests.db") as database:
        row = database.execute(f"SELECT {names} FROM requests WHERE operation = 'chat'").fetchone()
    database.close()
    assert row == ("cli", "claude-cli", 0.25, "reported", 10, 3, 2, 0.0)


def test_a_turn_that_failed_is_paid_for_all_the_same(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "error:529 Overloaded")
    assert ask(start(gw, tmp_path, fake)).status_code == 502
    gw.run(gw.gateway.close(0))
    with sqlite3.connect(tmp_path / "requests.db") as database:
        row = database.execute("SELECT cost_usd, cost_source FROM requests WHERE operation = 'chat'").fetchone()
    database.close()
    assert row == (0.25, "reported")


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


def test_warnings_among_the_lines_do_no_harm(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "warning")
    assert ask(start(gw, tmp_path, fake)).json()["choices"][0]["message"]["content"] == "fine"


def test_a_message_that_was_not_streamed_is_not_lost(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "unstreamed")
    assert ask(start(gw, tmp_path, fake)).json()["choices"][0]["message"]["content"] == "at once"


def test_a_refusal_is_an_answer_with_content_filter(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "refusal")
    assert ask(start(gw, tmp_path, fake)).json()["choices"][0]["finish_reason"] == "content_filter"


def test_a_json_schema_is_answered_by_the_structured_output(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", 'structured:{"a":1}')
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    answer = ask(start(gw, tmp_path, fake), response_format=schema)
    assert orjson.loads(answer.json()["choices"][0]["message"]["content"]) == {"a": 1}
    assert fake.control("initialize")[0]["jsonSchema"] == {"type": "object"}


def test_what_it_cannot_be_told_is_told(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    answer = ask(start(gw, tmp_path, fake), temperature=0.5, max_tokens=10)
    assert answer.headers["x-gateway-dropped"] == "/temperature, /max_tokens"


def test_several_instances_have_a_config_folder_and_a_pool_each(gw: Running, tmp_path: Path) -> None:
    fake, other = FakeClaude(tmp_path / "claude"), FakeClaude(tmp_path / "other")
    kimi = other.table(config_dir="~/inst10", max_concurrent=5, queue_size=25)
    url = start(gw, tmp_path, fake, {"backends": {"kimi": kimi}}, config_dir=str(tmp_path / "one"))
    for name in ("cli", "kimi"):
        assert ask(url, backend=name).json()["gateway"]["backend"] == name
    folders = [program.starts[0]["env"]["CLAUDE_CONFIG_DIR"] for program in (fake, other)]
    assert folders[0] == str(tmp_path / "one")
    assert folders[1].endswith("/inst10")
    assert "~" not in folders[1]
    pool = pool_of(url)
    assert (pool["maxConcurrent"], pool["maxQueue"], pool["totalProcessed"]) == (15, 75, 2)


def test_functions_are_refused_by_name(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    answer = ask(start(gw, tmp_path, fake), tools=[tool])
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_parameter")


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
