"""`gw explain` and `POST /route`: the decision, reason by reason, and the wire; nothing is called, no key is shown."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from gw.cli import main
from tests.fakes import answers, completion
from tests.running import running, settings

BODY: dict[str, Any] = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}], "seed": 1}
TOML = """
[middleware.fallback]
chain = ["b", "a"]
[backends.a]
adapter = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key = "sk-canary-123456"
models = { "gpt-4" = "gpt-4o" }
[backends.b]
adapter = "anthropic"
api_key = "sk-canary-123456"
models = { "gpt-4" = "claude-sonnet-4-5" }
[backends.c]
adapter = "openai"
models = { "other" = "x" }
api_key = "sk-canary-123456"
"""


def test_post_route_shows_the_decision_and_calls_nobody(tmp_path: Path) -> None:
    with running() as gateway:
        provider = gateway.add_provider(answers(orjson.dumps(completion())))
        backend = {"adapter": "openai", "base_url": provider.url + "/v1", "api_key": "sk-canary-123456"}
        url = gateway.start(settings(tmp_path, backends={"a": backend}))
        response = httpx.post(f"{url}/route", json=BODY, trust_env=False)
        refused = httpx.post(f"{url}/route", json=BODY | {"backend": "nobody"}, trust_env=False)
        bad = httpx.post(f"{url}/route", json={"messages": "Hi"}, trust_env=False)
        assert provider.asked == []
        upstream = provider.url
    page = response.json()
    assert page["candidates"][0] == {
        "backend": "a",
        "adapter": "openai",
        "model": "gpt-4",
        "answers_as": "gpt-4",
        "reason": "first in order",
    }
    assert page["request"]["url"] == upstream + "/v1/chat/completions"
    assert page["request"]["headers"]["authorization"] == "***"
    assert page["request"]["body"] == BODY
    assert "canary" not in response.text
    assert refused.json()["error"]["code"] == "backend_not_found"
    assert bad.status_code == 400


def explain(tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str, toml: str = TOML) -> tuple[int, str]:
    (tmp_path / "gateway.toml").write_text(toml)
    (tmp_path / "body.json").write_bytes(orjson.dumps(BODY))
    status = main(["explain", "--config", str(tmp_path / "gateway.toml"), *words])
    return status, capsys.readouterr().out


def test_a_file_is_explained_candidate_by_candidate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = explain(tmp_path, capsys, str(tmp_path / "body.json"))
    assert status == 0
    assert "1. b (anthropic, claude-sonnet-4-5): first in order" in text
    assert "2. a (openai, gpt-4o)" in text
    assert 'c: does not serve "gpt-4"' in text
    assert "dropped /seed" in text
    assert "canary" not in text


def test_a_curl_command_is_understood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = orjson.dumps(BODY).decode()
    curl = f"curl -X POST http://localhost:3456/v1/a/chat/completions -H 'Content-Type: application/json' -d '{body}'"
    status, text = explain(tmp_path, capsys, curl)
    assert status == 0
    assert "1. a (openai, gpt-4o): named by the client" in text


def test_json_is_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("--json", str(tmp_path / "body.json")), (str(tmp_path / "body.json"), "--json")):
        status, text = explain(tmp_path, capsys, *words)
        assert status == 0
        assert orjson.loads(text)["candidates"][0]["backend"] == "b"


def test_options_may_stand_behind_the_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gateway.toml").write_text(TOML)
    (tmp_path / "body.json").write_bytes(orjson.dumps(BODY))
    config = str(tmp_path / "gateway.toml")
    curl = f"curl localhost/v1/chat/completions -H Content-Type:application/json -d @{tmp_path / 'body.json'}"
    for request in (str(tmp_path / "body.json"), curl):
        assert main(["explain", request, "--config", config, "--json"]) == 0
        assert orjson.loads(capsys.readouterr().out)["candidates"][0]["backend"] == "b"
        assert main(["explain", "--json", request, "--config", config]) == 0
        assert orjson.loads(capsys.readouterr().out)["candidates"][0]["backend"] == "b"
    assert main(["explain", "--config", config, "curl", "localhost/v1/chat/completions", "--json", "{}"]) == 1
    assert capsys.readouterr().out.startswith("refused: 400 invalid_value"), "an option of curl"
    with pytest.raises(SystemExit):
        main(["explain", str(tmp_path / "body.json"), "--jsn"])
    assert "--jsn" in capsys.readouterr().err


def test_a_refused_request_is_explained_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = orjson.dumps(BODY | {"model": "nothing"}).decode()
    curl = f"curl localhost:3456/v1/chat/completions --json '{body}'"
    status, text = explain(tmp_path, capsys, curl)
    assert status == 1
    assert "model_not_found" in text


def test_standard_input_is_read_with_and_without_the_dash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in ((), ("-",)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(orjson.dumps(BODY))))
        status, text = explain(tmp_path, capsys, *words)
        assert status == 0
        assert "1. b (anthropic, claude-sonnet-4-5)" in text


@pytest.mark.parametrize(
    "command",
    [
        "curl -sS --url=localhost:3456/v1/a/chat/completions -HContent-Type:application/json --data-raw '%s'",
        "curl localhost:3456/v1/a/chat/completions -m 5 -XPOST --json='%s' -o answer.json",
        "curl http://user@localhost:3456/v1/a/chat/completions \\\n  -H 'Content-Type: application/json' \\\n  -d '%s'",
        "curl localhost:3456/v1/a/chat/completions --json @body.json",
    ],
)
def test_a_curl_command_may_be_written_in_many_ways(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    body = orjson.dumps(BODY).decode()
    status, text = explain(tmp_path, capsys, command % body if "%s" in command else command)
    assert status == 0
    assert "1. a (openai, gpt-4o): named by the client" in text


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (("nowhere.json",), "nowhere.json cannot be read: No such file"),
        (("curl localhost/v1/chat/completions -d @nowhere",), "nowhere cannot be read"),
        (("curl 'localhost",), "No closing quotation"),
        (("curl localhost:3456/v1/models",), "/v1/models is no chat request"),
        (("one", "two"), "takes one file"),
    ],
)
def test_what_is_no_request_is_told_with_its_cure(
    words: tuple[str, ...], cure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gateway.toml").write_text(TOML)
    assert main(["explain", "--config", str(tmp_path / "gateway.toml"), *words]) == 2
    assert cure in capsys.readouterr().err


def test_a_body_that_is_no_chat_request_is_refused_as_it_would_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, refusal in (("--json '{}'", "refused: 400"), ("-d '{}'", "refused: 415")):
        status, text = explain(tmp_path, capsys, f"curl localhost/v1/chat/completions {options}")
        assert status == 1
        assert refusal in text


def test_the_key_of_a_curl_command_decides_as_it_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = '[middleware.auth.keys.ci]\ntoken = "team-secret-1"\nbackends = ["a"]\n'
    curl = f"curl localhost/v1/chat/completions --json '{orjson.dumps(BODY).decode()}'"
    status, text = explain(tmp_path, capsys, f"{curl} -H 'Authorization: Bearer team-secret-1'", toml=key + TOML)
    assert (status, "key ci" in text) == (0, True)
    assert "1. a (openai" in text
    assert 'b: not allowed for key "ci"' in text
    status, text = explain(tmp_path, capsys, f"{curl} -H 'Authorization: Bearer wrong'", toml=key + TOML)
    assert (status, "401 invalid_api_key" in text) == (1, True)


def test_list_prices_decide_in_the_command_as_they_do_in_the_gateway(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = "[middleware.route]\nprefer_cheapest = true\n" + TOML.replace('chain = ["b", "a"]', "")
    with running() as gateway:
        (tmp_path / "served.toml").write_text(toml)
        url = gateway.start(
            tmp_path / "served.toml", environ={"PORT": "0", "DATABASE_PATH": str(tmp_path / "requests.db")}
        )
        page = httpx.post(f"{url}/route", json=BODY, trust_env=False).json()
    capsys.readouterr()  # its access line
    status, text = explain(tmp_path, capsys, "--json", str(tmp_path / "body.json"), toml=toml)
    assert status == 0
    assert orjson.loads(text)["candidates"] == page["candidates"]
    assert page["candidates"][0]["reason"].startswith("the cheapest: about 0.00")


def test_rules_are_told_up_to_the_one_that_matches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = """
[middleware.route]
rules = [
  { when = "has_tools: true", backend = "b" },
  { when = "model: gpt-* and tokens: < 9", backends = ["c", "a"] },
  { when = "stream: true", backend = "b" },
]
"""
    status, text = explain(tmp_path, capsys, str(tmp_path / "body.json"), toml=rules + TOML)
    assert status == 0
    assert "rule `has_tools: true`: no, `has_tools: true` does not hold" in text
    assert "rule `model: gpt-* and tokens: < 9`: matches" in text
    assert "stream" not in text
    assert "1. c (openai, x): rule `model: gpt-* and tokens: < 9`" in text


def test_what_names_a_credential_is_masked_whatever_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml = TOML.replace(
        "[backends.b]", 'headers = { X-Api-Secret = "hush-hush", X-Team = "sk-canary-123456" }\n[backends.b]'
    )
    curl = f"curl localhost/v1/a/chat/completions --json '{orjson.dumps(BODY).decode()}'"
    status, text = explain(tmp_path, capsys, curl, toml=toml)
    assert status == 0
    assert "hush" not in text
    assert "canary" not in text
    assert "***" in text


def test_tools_that_would_be_dropped_are_not_in_the_wire_that_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = TOML.replace("[middleware.fallback]", "[middleware.fallback]\ndrop_tools = true")
    body = orjson.dumps(BODY | {"tools": ["Read"]}).decode()
    status, text = explain(tmp_path, capsys, f"curl localhost/v1/chat/completions --json '{body}'", toml=toml)
    assert status == 0
    assert "the tools are dropped" in text
    assert '"tools"' not in text


def test_a_backend_that_would_pass_the_request_on_says_for_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = TOML.replace('adapter = "anthropic"', 'adapter = "anthropic"\non_loss = "reroute"')
    status, text = explain(tmp_path, capsys, str(tmp_path / "body.json"), toml=toml)
    assert status == 0
    assert "1. b (anthropic, claude-sonnet-4-5): first in order; passes on what it cannot carry: /seed" in text
