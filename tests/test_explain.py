"""`gw explain` and `POST /route`: the decision, reason by reason, and the wire; nothing is called, no key is shown."""

from __future__ import annotations

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


def explain(tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    (tmp_path / "gateway.toml").write_text(TOML)
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
    status, text = explain(tmp_path, capsys, "--json", str(tmp_path / "body.json"))
    assert status == 0
    assert orjson.loads(text)["candidates"][0]["backend"] == "b"


def test_a_refused_request_is_explained_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = orjson.dumps(BODY | {"model": "nothing"}).decode()
    curl = f"curl localhost:3456/v1/chat/completions --json '{body}'"
    status, text = explain(tmp_path, capsys, curl)
    assert status == 1
    assert "model_not_found" in text
