"""Chats with the Claude CLI, over a fake program: what that is started with and told, and what the client reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import orjson
import pytest

from tests.claude_fakes import HI, FakeClaude, ask, gw, start
from tests.running import Running

__all__ = ["gw"]


def client_of(gw: Running, url: str) -> openai.OpenAI:
    return gw.sdk(base_url=f"{url}/v1")


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


def test_functions_are_refused_by_name(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    answer = ask(start(gw, tmp_path, fake), tools=[tool])
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_parameter")
