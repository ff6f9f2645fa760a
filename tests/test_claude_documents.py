"""Document A on the Claude CLI, row by row (A.. are its promises), and the README: what is answered, and by whom."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.claude_document import CLI, GLM, KEY, Document, document
from tests.claude_fakes import WEB

__all__ = ["document"]
FIRST = """curl -X POST http://localhost:3456/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -d '{
    "messages": [{"role": "user", "content": "Hello!"}]
  }'"""
TOOLS = """curl -X POST http://localhost:3456/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -d '{
    "messages": [{"role": "user", "content": "List files in current directory"}],
    "working_directory": "/tmp",
    "tools": ["Read", "Glob"]
  }'"""
SESSION = """SESSION_ID=$(curl -X POST http://localhost:3456/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -d '{
    "messages": [{"role": "user", "content": "My name is Alice"}]
  }' | jq -r '.session_id')

# Continue conversation with session_id
curl -X POST http://localhost:3456/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -d "{
    \\"session_id\\": \\"$SESSION_ID\\",
    \\"messages\\": [{\\"role\\": \\"user\\", \\"content\\": \\"What is my name?\\"}]
  }"
"""
STREAM = """curl -X POST http://localhost:3456/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -d '{
    "messages": [{"role": "user", "content": "Write a haiku about AI"}],
    "stream": true
  }'"""


def test_a2_the_first_hello_without_any_key_is_answered_by_the_cli(document: Document) -> None:
    document.start("answer:Hello there")
    answer = orjson.loads(document.shell(FIRST))
    assert answer["choices"][0]["message"]["content"] == "Hello there"
    assert answer["gateway"]["backend"] == "claude-cli-default"


def test_a7_a12_and_a13_tools_by_name_go_to_the_cli_in_the_working_directory(document: Document) -> None:
    document.start(**KEY)
    answer = orjson.loads(document.shell(TOOLS))
    assert answer["gateway"]["backend"] == "claude-cli-default"
    (first,) = document.with_tools()
    assert os.path.realpath(first["cwd"]) == os.path.realpath("/tmp")
    assert first["argv"][first["argv"].index("--tools") + 1] == "Read,Glob"


def test_a12_tools_alone_go_to_the_cli_too(document: Document) -> None:
    document.start(**KEY)
    assert document.ask(tools=["Read", "Glob"]).json()["gateway"]["backend"] == "claude-cli-default"


def test_a8_simple_chat_goes_to_the_cheapest_and_not_to_the_cli(document: Document) -> None:
    document.start(**KEY)
    assert orjson.loads(document.shell(FIRST))["gateway"]["backend"] == "openrouter-glm"
    assert document.fake.starts == []


def test_a9_an_explicit_backend_is_used_or_refused_and_never_replaced(document: Document) -> None:
    document.start(**KEY)
    assert document.ask("/v1/claude-cli-default/chat/completions").json()["gateway"]["backend"] == "claude-cli-default"
    answer = document.ask(backend="claude-cli-defualt")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "backend_not_found")
    assert 'did you mean "claude-cli-default"' in answer.json()["error"]["message"]


def test_a13_a_working_directory_outside_the_roots_is_refused(document: Document) -> None:
    document.start()
    answer = document.ask(tools=["Read"], working_directory="/etc")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden_path")
    assert document.fake.starts == []


def test_a16_context_md_of_the_working_directory_reaches_the_model(document: Document, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "CONTEXT.md").write_text("This is project Zebra.")
    document.start()
    assert document.ask(tools=["Read", "Glob"], working_directory=str(project)).status_code == 200
    assert "project Zebra" in document.fake.control("initialize")[0]["appendSystemPrompt"]


@pytest.mark.parametrize(("environ", "backend"), [({}, "claude-cli-default"), (KEY, "openrouter-glm")])
def test_a17_and_a18_the_session_example_runs_on_the_cli_and_on_an_api(
    document: Document, environ: dict[str, Any], backend: str
) -> None:
    document.start("answer:Hi Alice", "answer:Your name is Alice", **environ)
    answer = orjson.loads(document.shell(SESSION))
    assert answer["gateway"]["backend"] == backend
    if environ:
        told = document.gw.providers[0].asked[-1].json["messages"]
        assert [message["content"] for message in told] == ["My name is Alice", "from the API", "What is my name?"]
    else:
        assert answer["choices"][0]["message"]["content"] == "Your name is Alice"
        asked = [line["message"]["content"][0]["text"] for line in document.fake.prompts]
        assert asked == ["My name is Alice", "What is my name?"]


def test_a17_and_a18_a_session_with_tools_goes_on_without_naming_them_again(document: Document, tmp_path: Path) -> None:
    document.start("answer:Hi Alice", "answer:Your name is Alice", **KEY)
    first = document.ask(tools=["Read"], working_directory=str(tmp_path)).json()
    again = document.ask(session_id=first["session_id"]).json()
    assert again["gateway"]["backend"] == "claude-cli-default"
    assert again["session_id"] == first["session_id"]


def test_a19_and_a20_a_stream_is_events_and_done(document: Document) -> None:
    document.start("answer:An old silent pond")
    *chunks, done = [line[6:] for line in document.shell(STREAM).split("\n\n") if line]
    assert done == "[DONE]"
    assert {orjson.loads(chunk)["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len(chunks) >= 5
    assert orjson.loads(chunks[0])["id"].startswith("chatcmpl-")


def test_a10_and_a21_a_full_queue_falls_back_to_an_api_and_says_so(document: Document) -> None:
    chat_first = {"name": "claude-cli-default", "maxConcurrent": 1, "queueSize": 0}
    backends = (CLI | chat_first, GLM | {"costPerRequest": 1})
    document.start("hang", backends=backends, **KEY)
    routing: Any = document.gw.gateway.config.middleware["route"].keywords
    assert routing["default_backend"] == "claude-cli-default"
    with document.busy(1):
        answer = document.ask(session_id=None)
        assert answer.json()["degraded"] is False, "plain chat is the API's own"
        tools = document.ask(tools=["Read"])
        explicit = document.ask(backend="claude-cli-default")
    for refused in (tools, explicit):
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_full")
        assert refused.json()["error"]["message"].startswith("Process pool queue full")
        assert int(refused.headers["retry-after"]) >= 1


def test_a38_the_config_folder_is_expanded(document: Document) -> None:
    document.start()
    document.ask()
    assert document.fake.starts[0]["env"]["CLAUDE_CONFIG_DIR"].endswith("/.claude-inst2")
    assert "~" not in document.fake.starts[0]["env"]["CLAUDE_CONFIG_DIR"]


def test_a47_and_a73_a_cli_without_a_price_answers_and_its_reported_cost_is_in_the_log(document: Document) -> None:
    document.start()
    assert document.ask().json()["gateway"]["cost_usd"] == 0.25
    columns = "backend, cost_usd, cost_source, queue_wait_ms, tokens_input, tokens_output, tokens_cached"
    assert document.rows(columns) == [("claude-cli-default", 0.25, "reported", 0.0, 10, 3, 2)]


# --- the README -----------------------------------------------------------------------------------------------------


README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def of_readme(containing: str) -> str:
    """The README's one shell block with a text in it."""
    found: str
    (found,) = [text for text in re.findall(r"```bash\n(.*?)```", README, re.S) if containing in text]
    return found.replace("http://127.0.0.1:3456", "http://localhost:3456")


def test_the_readmes_request_with_tools_runs(document: Document) -> None:
    document.start("answer:A gateway.")
    (document.folder / "CONTEXT.md").write_text("This is project Zebra.")
    answer = orjson.loads(document.shell(of_readme("Analyze the codebase structure")))
    assert answer["choices"][0]["message"]["content"] == "A gateway."
    assert os.path.realpath(document.with_tools()[0]["cwd"]) == os.path.realpath(document.folder)
    assert "project Zebra" in str(document.fake.control("initialize"))


def test_the_readmes_session_runs_and_is_forgotten(document: Document) -> None:
    document.start("answer:Hi Alice", "answer:Your name is Alice")
    out = document.shell(of_readme("SESSION_ID"))
    assert "Your name is Alice" in out
    assert out.endswith('"object":"session.deleted","deleted":true}')
    assert WEB.get(f"{document.url}/v1/sessions").json()["data"] == []


def test_ci_installs_what_the_readme_says_and_so_runs_the_real_program() -> None:
    folder = Path(__file__).parents[1] / ".ci"
    ci = [line.strip() for line in (folder / "run").read_text(encoding="utf-8").splitlines()]
    install, run = of_readme("&& pytest").strip().split(" && ")
    assert install == "pip install -e '.[test-cli]'"
    assert install.replace("install", "install --quiet") in ci
    assert run in ci
    lock = folder / "requirements.lock"
    assert not lock.exists() or "claude-agent-sdk==" in lock.read_text(encoding="utf-8")
