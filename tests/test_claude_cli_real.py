"""The real Claude program against a loopback provider: what the fake takes for granted, seen once on the real thing.

Skipped where the program of the `claude_agent_sdk` wheel is not installed (`pip install '.[test-cli]'`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.claude_fakes import WEB, until
from tests.real_claude import PROGRAM, Anthropic, blocks, last_text, tool_results
from tests.running import Running, running, settings

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="the claude_agent_sdk wheel is not installed")

HI: list[Any] = [{"role": "user", "content": "Hi"}]


class Stage:
    """A gateway over the real program over the mock."""

    def __init__(self, gw: Running, folder: Path) -> None:
        self.gw = gw
        self.folder = folder
        self.anthropic = Anthropic()
        self.provider = gw.add_provider(self.anthropic)
        self.url = ""

    def start(self, **options: Any) -> str:
        table = {
            "adapter": "claude-cli",
            "command": PROGRAM,
            "config_dir": str(self.folder / "config"),
            "base_url": self.provider.url,
            "api_key": "sk-test-key",
            "model": "claude-sonnet-4-5",
            "min_idle": 0,
            "max_warm": 0,
            "timeout": 30,
            **options,
        }
        tables = settings(
            self.folder,
            backends={"cli": table},
            server={"shutdown_grace": 0},
            middleware={"fallback": {"retries": 0}},
        )
        self.url = self.gw.start(tables, environ={"PATH": os.defpath})
        return self.url

    def ask(self, text: str, **fields: Any) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": text}], **fields}
        return WEB.post(f"{self.url}/v1/chat/completions", json=body, timeout=40)

    @property
    def body(self) -> dict[str, Any]:
        """The last request that reached the provider."""
        return self.anthropic.bodies[-1]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    (tmp_path / "config").mkdir()
    with running() as gw:
        yield Stage(gw, tmp_path)


def content_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def test_chat_stream_system_prompt_and_history_reach_the_provider_as_they_are(stage: Stage) -> None:
    url = stage.start()
    client = stage.gw.sdk(base_url=f"{url}/v1")
    messages: list[Any] = [
        {"role": "system", "content": "You are a parrot."},
        {"role": "user", "content": "I am Alice"},
        {"role": "assistant", "content": "Hi Alice"},
        {"role": "user", "content": "Who am I?"},
    ]
    with client.chat.completions.create(model="cli", messages=messages, stream=True) as stream:
        texts = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert [text for text in texts if text] == ["Hello ", "from ", "the mock"]
    assert "You are a parrot." in orjson.dumps(stage.body["system"]).decode()
    assert [turn["role"] for turn in stage.body["messages"] if turn["role"] != "system"] == [
        "user",
        "assistant",
        "user",
    ]
    assert last_text(stage.body) == "Who am I?"
    assert not stage.body.get("tools")


def test_a_spare_answers_with_the_model_and_the_prompt_it_is_told_later(stage: Stage) -> None:
    stage.start(min_idle=1)
    pool: Any = stage.gw.gateway.backends["cli"].provider
    until(lambda: bool(pool._pool._spares))
    answer = stage.ask("Hi", model="cli/claude-opus-4-1", reasoning_effort="low")
    assert content_of(answer) == "Hello from the mock"
    assert answer.json()["usage"] == {
        "prompt_tokens": 15,
        "completion_tokens": 4,
        "total_tokens": 19,
        "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert answer.json()["gateway"]["cost_usd"] > 0
    assert "You are a helpful assistant." in orjson.dumps(stage.body["system"]).decode()


def test_a_prompt_is_only_a_text(stage: Stage, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("canary-in-a-file")
    stage.start()
    text = f"/cost @{secret} @/etc/hostname what?"
    assert content_of(stage.ask(text)) == "Hello from the mock"
    assert last_text(stage.body) == text
    assert "canary-in-a-file" not in orjson.dumps(stage.body).decode()


def test_read_and_glob_work_inside_the_working_directory_and_nowhere_else(stage: Stage, tmp_path: Path) -> None:
    project, outside = tmp_path / "project", tmp_path / "outside"
    project.mkdir()
    outside.mkdir()
    (project / "a.txt").write_text("inside-the-root")
    (outside / "b.txt").write_text("outside-the-root")
    (project / "link.txt").symlink_to(outside / "b.txt")
    (project / "CONTEXT.md").write_text("canary of the context")
    stage.anthropic.calls = [
        ("Read", {"file_path": str(project / "a.txt")}),
        ("Glob", {"pattern": "*.txt"}),
        ("Read", {"file_path": str(outside / "b.txt")}),
        ("Read", {"file_path": str(project / "link.txt")}),
        ("Glob", {"pattern": "*.txt", "path": str(outside)}),
    ]
    stage.start(roots=[str(project)])
    answer = content_of(stage.ask("use the tools", tools=["Read", "Glob"], working_directory=str(project)))
    results = [text.strip('"') for text in answer.removeprefix("RESULT ").splitlines()]
    assert len(results) == 5
    assert any("inside-the-root" in text for text in results)
    assert any(text.startswith(("a.txt", str(project / "a.txt"))) for text in results), "Glob found it"
    assert not any("outside-the-root" in text or text.endswith("b.txt") for text in results)
    assert "canary of the context" in orjson.dumps(stage.body["system"]).decode()
    assert {tool["name"] for tool in stage.body["tools"]} == {"Read", "Glob"}


def test_hooks_of_a_project_are_not_run(stage: Stage, tmp_path: Path) -> None:
    project, trace = tmp_path / "project", tmp_path / "trace"
    (project / ".claude").mkdir(parents=True)
    hook = [{"hooks": [{"type": "command", "command": f"touch {trace}"}]}]
    names = ("SessionStart", "UserPromptSubmit", "PreToolUse", "Stop")
    (project / ".claude" / "settings.json").write_bytes(orjson.dumps({"hooks": dict.fromkeys(names, hook)}))
    (project / "a.txt").write_text("x")
    stage.anthropic.calls = [("Read", {"file_path": str(project / "a.txt")})]
    stage.start(roots=[str(project)])
    assert content_of(stage.ask("use the tool", tools=["Read"], working_directory=str(project))).startswith("RESULT")
    assert not trace.exists()


def test_the_next_turn_of_a_conversation_goes_to_the_same_process(stage: Stage) -> None:
    stage.start(max_warm=1)
    first: list[Any] = [{"role": "user", "content": "I am Alice"}]
    said = content_of(stage.ask("", messages=first))
    provider: Any = stage.gw.gateway.backends["cli"].provider
    (worker,) = provider._pool._warm.values()
    again = [*first, {"role": "assistant", "content": said}, {"role": "user", "content": "Who am I?"}]
    assert content_of(stage.ask("", messages=again)) == "Hello from the mock"
    assert list(provider._pool._warm.values()) == [worker]
    texts = [block["text"] for turn in stage.body["messages"] for block in blocks(turn) if "text" in block]
    assert [text for text in texts if not text.startswith("<system-reminder>")] == ["I am Alice", said, "Who am I?"]


def test_the_documents_session_goes_on_with_the_new_message_alone(stage: Stage) -> None:
    stage.start(max_warm=1)
    session = stage.ask("My name is Alice").json()["session_id"]
    assert content_of(stage.ask("What is my name?", session_id=session)) == "Hello from the mock"
    texts = [block["text"] for turn in stage.body["messages"] for block in blocks(turn) if "text" in block]
    said = [text for text in texts if not text.startswith("<system-reminder>")]
    assert said == ["My name is Alice", "Hello from the mock", "What is my name?"]


def test_who_stops_an_answer_goes_on_from_it_in_the_same_process(stage: Stage) -> None:
    url = stage.start(max_warm=1, headers={"X-Team": "search"})
    body = {"messages": [{"role": "user", "content": "hang"}], "stream": True}
    with WEB.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
        next(line for line in answer.iter_lines() if '"half"' in line)
    provider: Any = stage.gw.gateway.backends["cli"].provider
    until(lambda: len(provider._pool._warm) == 1)
    (worker,) = provider._pool._warm.values()
    assert stage.provider.hangups == 1, "the provider is not made to go on"
    going_on: list[Any] = [
        {"role": "user", "content": "hang"},
        {"role": "assistant", "content": "half"},
        {"role": "user", "content": "go on"},
    ]
    answer = stage.ask("", messages=going_on)
    assert content_of(answer) == "Hello from the mock"
    assert list(provider._pool._warm.values()) == [worker]
    assert last_text(stage.body) == "go on"
    assert "half" in orjson.dumps(stage.body["messages"]).decode()
    assert stage.anthropic.headers[-1]["x-team"] == "search"


def test_a_client_that_leaves_ends_the_process(stage: Stage) -> None:
    url = stage.start()
    body = {"messages": [{"role": "user", "content": "hang"}], "stream": True}
    with WEB.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=20) as answer:
        next(answer.iter_lines())
    until(lambda: stage.provider.hangups == 1)
    until(lambda: WEB.get(f"{url}/queue/status").json()["processPool"]["active"] == 0)


def test_a_limit_of_the_provider_is_a_429(stage: Stage) -> None:
    stage.start()
    answer = stage.ask("limit")
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")


def test_a_conversation_in_a_folder_is_resumed_with_what_its_tools_have_read(stage: Stage, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "a.txt").write_text("canary-read-by-the-tool")
    stage.anthropic.calls = [("Read", {"file_path": str(project / "a.txt")})]
    stage.start(roots=[str(project)], resume=True)
    first: list[Any] = [{"role": "user", "content": "use the tool"}]
    said = content_of(stage.ask("", messages=first, tools=["Read"], working_directory=str(project)))
    again = [*first, {"role": "assistant", "content": said}, {"role": "user", "content": "and now?"}]
    content_of(stage.ask("", messages=again, tools=["Read"], working_directory=str(project)))
    assert "canary-read-by-the-tool" in tool_results(stage.body)[0]
    assert last_text(stage.body) == "and now?"
