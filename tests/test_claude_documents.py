"""Document A on the Claude CLI, row by row (A.. are its promises): what its original was seen to break, holds here.

The gateway is started from the document's own `config/backends.json`; only the provider's address is another one.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.claude_fakes import WEB, FakeClaude, until
from tests.fakes import answers, completion
from tests.running import Running, running

CLI: dict[str, Any] = {
    "name": "claude-cli-default",
    "type": "claude-cli",
    "configDir": "~/.claude-inst2",
    "maxConcurrent": 10,
    "queueSize": 50,
    "timeout": 120000,
    "supportsTools": True,
}
GLM: dict[str, Any] = {
    "name": "openrouter-glm",
    "type": "api",
    "provider": "openrouter",
    "baseUrl": "https://openrouter.ai/api/v1",
    "model": "z-ai/glm-4.7",
    "authTokenEnv": "OPENROUTER_API_KEY",
    "costPerRequest": 0.001,
    "supportsTools": False,
}
KIMI = CLI | {
    "name": "claude-cli-kimi",
    "configDir": "~/.claude-inst10",
    "maxConcurrent": 5,
    "queueSize": 25,
    "description": "Kimi K2 via Moonshot API",
}
ROUTING: dict[str, Any] = {
    "defaultBackend": "claude-cli-default",
    "preferCheapest": True,
    "fallbackChain": ["claude-cli-default", "openrouter-glm", "gemini-1.5-pro"],
}
KEY: dict[str, Any] = {"OPENROUTER_API_KEY": "sk-or-test"}
HI = [{"role": "user", "content": "Hello!"}]


class Document:
    """A gateway over the document's file, with the fake as the `claude` in PATH."""

    def __init__(self, gw: Running, folder: Path) -> None:
        self.gw = gw
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        self.fake: FakeClaude
        self.url = ""

    def start(
        self,
        *modes: str,
        backends: Sequence[dict[str, Any]] = (CLI, GLM),
        routing: dict[str, Any] = ROUTING,
        has_word: bool = False,
        **environ: str,
    ) -> str:
        """`modes` of the fake, and whether it waits for the word; `environ` are more variables."""
        self.fake = FakeClaude(self.folder / "bin", *modes, has_word=has_word)
        provider = self.gw.add_provider(answers(orjson.dumps(completion("from the API"))))
        entries = [entry | ({"baseUrl": provider.url} if "baseUrl" in entry else {}) for entry in backends]
        path = self.folder / "backends.json"
        path.write_bytes(orjson.dumps({"backends": entries, "routing": routing}))
        given = {
            "PATH": f"{self.folder / 'bin'}:{os.defpath}",
            "HOME": str(self.home),
            "DATABASE_PATH": str(self.folder / "logs" / "requests.db"),
            "RATE_LIMIT_MAX": "1000",
            "PORT": "0",
        }
        self.url = self.gw.start(path, environ=given | environ)
        return self.url

    def ask(self, path: str = "/v1/chat/completions", **fields: Any) -> httpx.Response:
        return WEB.post(self.url + path, json={"messages": HI} | fields)

    def shell(self, script: str) -> str:
        """Run one of the document's shell blocks."""
        if shutil.which("curl") is None or shutil.which("jq") is None:
            pytest.skip("curl and jq are not installed")
        script = script.replace("http://localhost:3456", self.url).replace("curl ", "curl -sS ")
        done = subprocess.run(
            ["bash", "-euc", script], cwd=self.folder, capture_output=True, text=True, timeout=20, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rows(self, columns: str) -> list[tuple[Any, ...]]:
        """The log's chat rows, after the gateway has ended."""
        self.gw.run(self.gw.gateway.close(0))
        with contextlib.closing(sqlite3.connect(self.folder / "logs" / "requests.db")) as database:
            query = f"SELECT {columns} FROM requests WHERE operation = 'chat' ORDER BY timestamp, rowid"
            return database.execute(query).fetchall()

    def with_tools(self) -> list[dict[str, Any]]:
        """The starts of processes that have tools; a spare has none."""
        starts = self.fake.starts
        return [entry for entry in starts if entry["argv"][entry["argv"].index("--tools") + 1]]

    @contextlib.contextmanager
    def busy(self, times: int, **fields: Any) -> Iterator[None]:
        """So many turns that hang, beside the test."""

        def quietly() -> None:
            with contextlib.suppress(httpx.HTTPError):
                self.ask("/v1/claude-cli-default/chat/completions", **fields)

        threads = [threading.Thread(target=quietly) for _ in range(times)]
        for thread in threads:
            thread.start()
        until(lambda: sum(self.pool()[name] for name in ("active", "queued")) == times)
        yield
        self.gw.run(self.gw.gateway.close(0))
        for thread in threads:
            thread.join(60)

    def pool(self) -> dict[str, Any]:
        pool: dict[str, Any] = WEB.get(f"{self.url}/queue/status").json()["processPool"]
        return pool


@pytest.fixture
def document(tmp_path: Path) -> Iterator[Document]:
    with running() as gw:
        yield Document(gw, tmp_path)


README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def of_readme(containing: str) -> str:
    """The README's one shell block with a text in it."""
    found: str
    (found,) = [text for text in re.findall(r"```bash\n(.*?)```", README, re.S) if containing in text]
    return found.replace("http://127.0.0.1:3456", "http://localhost:3456")


def said(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


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


# --- what is answered, and by whom -------------------------------------------------------------------------------


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


# --- the pool's figures ------------------------------------------------------------------------------------------


def test_a53_to_a57_the_status_pages_are_true_while_turns_run_and_after(document: Document) -> None:
    document.start("hang", backends=(CLI | {"maxConcurrent": 2, "queueSize": 3}, KIMI | {"maxConcurrent": 2}, GLM))
    with document.busy(3):
        pool, health = document.pool(), WEB.get(f"{document.url}/health").json()
    assert pool == {
        "active": 2,
        "queued": 1,
        "maxConcurrent": 4,
        "maxQueue": 28,
        "utilization": 0.5,
        "totalProcessed": 0,
        "totalQueued": 1,
        "totalFailed": 0,
    }
    assert (health["status"], health["backend"]) == ("ok", "intelligent-gateway")
    figures = {"active": 2, "queued": 1, "maxConcurrent": 4, "utilization": 0.5}
    assert health["routing"]["processPool"] == figures
    assert health["routing"]["backends"]["tool"] == 2


def test_a70_a_stuck_process_shows_on_the_queues_page(document: Document) -> None:
    document.start("hang")
    with document.busy(1):
        until(
            lambda: WEB.get(f"{document.url}/queue/status").json()["pools"]["claude-cli-default"]["longest_seconds"] > 0
        )
        pools = WEB.get(f"{document.url}/queue/status").json()["pools"]
    assert pools["claude-cli-default"]["active"] == 1


def test_a56_processed_counts_ends_and_failed_counts_every_failure(document: Document) -> None:
    document.start("answer", "die:broken", "answer")
    for status in (200, 502, 200):
        answer = document.ask(backend="claude-cli-default")
        assert answer.status_code in (status, 200)
    pool = document.pool()
    assert (pool["totalProcessed"], pool["totalFailed"], pool["active"]) == (3, 1, 0)


def test_a65_a_second_instance_has_its_own_folder_and_is_asked_by_name(document: Document) -> None:
    document.start(backends=(CLI, KIMI))
    for name in ("claude-cli-default", "claude-cli-kimi"):
        assert document.ask(f"/v1/{name}/chat/completions", tools=["Read"]).json()["gateway"]["backend"] == name
    folders = [entry["env"]["CLAUDE_CONFIG_DIR"].rpartition("/")[2] for entry in document.with_tools()]
    assert folders == [".claude-inst2", ".claude-inst10"]


def test_a10_and_a70_a_full_instance_leaves_its_turns_to_the_next_of_the_chain(document: Document) -> None:
    routing = ROUTING | {"fallbackChain": ["claude-cli-default", "claude-cli-kimi"]}
    backends = (CLI | {"maxConcurrent": 1, "queueSize": 0}, KIMI)
    document.start("hang", "answer", backends=backends, routing=routing)
    with document.busy(1):
        answer = document.ask(tools=["Read"]).json()
    assert (answer["gateway"]["backend"], answer["degraded"]) == ("claude-cli-kimi", True)


def test_a66_and_a67_tuning_is_read_in_the_documents_units(document: Document) -> None:
    document.start(backends=(CLI | {"maxConcurrent": 20, "queueSize": 100, "timeout": 180000},))
    provider: Any = document.gw.gateway.backends["claude-cli-default"].provider
    assert provider._clocks.turn == 180.0
    assert (document.pool()["maxConcurrent"], document.pool()["maxQueue"]) == (20, 100)


# --- what the original was seen to do with its processes -----------------------------------------------------------


def test_ran_a_prompt_is_never_a_flag_and_may_be_long(document: Document) -> None:
    document.start()
    prompt = "--dangerously-skip-permissions " + "x" * 200_000
    assert document.ask(messages=[{"role": "user", "content": prompt}]).status_code == 200
    assert "skip-permissions" not in str(document.fake.starts[0]["argv"])
    assert document.fake.prompts[0]["message"]["content"][0]["text"] == prompt


def test_ran_system_messages_are_not_dropped(document: Document) -> None:
    document.start()
    document.ask(messages=[{"role": "system", "content": "Be brief."}, *HI])
    assert document.fake.control("initialize")[0]["systemPrompt"] == ["Be brief."]


def test_ran_output_that_is_not_the_protocol_is_no_answer(document: Document) -> None:
    document.start("garbage")
    answer = document.ask(backend="claude-cli-default")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_protocol_error")


def test_ran_a_grandchild_that_holds_the_output_holds_no_request(document: Document) -> None:
    document.start("grandchild:die", backends=(CLI | {"timeout": 60_000},))
    assert said(document.ask(backend="claude-cli-default")) == "started one"
    grandchild = next(entry["grandchild"] for entry in document.fake.entries if "grandchild" in entry)
    until(lambda: grandchild not in document.fake.living())


def test_ran_a_limit_is_a_429_with_the_time_it_is_lifted(document: Document) -> None:
    document.start("error:- You've hit your limit · resets 1pm (Europe/Berlin)")
    answer = document.ask(backend="claude-cli-default")
    assert (answer.status_code, answer.json()["error"]["type"]) == (429, "rate_limit_error")
    assert 0 < int(answer.headers["retry-after"]) <= 86_400


def test_ran_a_client_that_leaves_frees_its_place_and_its_process(document: Document) -> None:
    document.start("hang", backends=(CLI | {"maxConcurrent": 1, "queueSize": 0},))
    with pytest.raises(httpx.ReadTimeout):
        WEB.post(f"{document.url}/v1/chat/completions", json={"messages": HI}, timeout=0.4)
    until(lambda: document.pool()["active"] == 0)
    until(lambda: len(document.fake.living()) <= 1)  # the spare alone


def test_ran_a_wait_in_the_queue_is_in_the_log(document: Document) -> None:
    document.start("held:fine", backends=(CLI | {"maxConcurrent": 1},), has_word=True)
    threads = [threading.Thread(target=document.ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: document.pool()["queued"] == 1)
    queued_at = time.monotonic()
    until(lambda: time.monotonic() > queued_at + 0.05)
    document.fake.word.touch()
    for thread in threads:
        thread.join(60)
    waits = sorted(wait for (wait,) in document.rows("queue_wait_ms"))
    assert waits[0] == 0.0
    assert waits[1] > 50


# --- the README ---------------------------------------------------------------------------------------------------


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
