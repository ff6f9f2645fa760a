"""What `POST /route` says, what the headers say, what the body says and what the log says is the same."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.fakes import answers, by_turns, chunks, completion, sse, streams
from tests.running import Running, running, settings

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
RULES = [
    {"when": "model: smart and stream: true", "backends": ["c", {"backend": "a", "model": "smarter"}]},
    {"when": "header X-Team: red", "backend": "c"},
    {"when": "has_images: true", "backends": ["b", "a"]},
]


@pytest.fixture
def gw() -> Iterator[Running]:
    with running() as gateway:
        yield gateway


def start(gw: Running, folder: Path, **tables: Any) -> str:
    whole, stream = answers(orjson.dumps(completion())), streams(sse(*chunks("Hi")))

    async def script(asked: Any, writer: Any) -> None:
        await (stream if asked.json.get("stream") else whole)(asked, writer)

    own: dict[str, dict[str, Any]] = {
        "a": {"price": {"input": 1, "output": 9}, "context_length": 5000},
        "a2": {"price": {"input": 1, "output": 9}, "context_length": 5000, "weight": 2},
        "b": {"price": {"input": 3, "output": 1}, "models": {"gpt-4": "real-4", "smart": "real-5"}},
        "c": {"price": {"input": 9, "output": 9}, "model": "only"},
    }
    backends = {
        name: {"adapter": "openai", "base_url": gw.add_provider(script).url + "/v1"} | options
        for name, options in own.items()
    }
    middleware = {"rate_limit": {"enabled": False}, "route": {"rules": RULES, "prefer_cheapest": True}}
    return gw.start(settings(folder, backends=backends, middleware=middleware | tables.pop("middleware", {}), **tables))


def some_request(chance: random.Random) -> tuple[str, dict[str, Any], dict[str, str]]:
    content: Any = "x" * 4 * chance.choice([1, 100, 4000, 6000])
    if chance.random() < 0.2:
        content = [{"type": "text", "text": content}, IMAGE]
    body: dict[str, Any] = {"messages": [{"role": "user", "content": content}], "stream": chance.random() < 0.5}
    body["model"] = chance.choice(["gpt-4", "smart", "c", "b/own", "anything"])
    if chance.random() < 0.3:
        body["max_tokens"] = 5
    if chance.random() < 0.2:
        body["tools"] = [TOOL]
    path = "/v1/b/chat/completions" if chance.random() < 0.1 else "/v1/chat/completions"
    return path, body, {"X-Team": "red"} if chance.random() < 0.1 else {}


def test_a_request_goes_where_the_explanation_said(gw: Running, tmp_path: Path) -> None:
    url = start(gw, tmp_path)
    chance = random.Random(5)
    said: list[tuple[str, str]] = []
    with httpx.Client(trust_env=False, base_url=url) as client:
        for _ in range(80):
            path, body, headers = some_request(chance)
            if "b/" not in path:  # /route takes a body only
                page = client.post("/route", json=body, headers=headers).json()
                page = client.post("/route", json=body, headers=headers).json()  # asking changes nothing
                first = page["candidates"][0]
                expected = (first["backend"], first["model"])
            else:
                expected = (
                    "b",
                    {"gpt-4": "real-4", "smart": "real-5", "b/own": "own"}.get(body["model"], body["model"]),
                )
            response = client.post(path, json=body, headers=headers)
            assert response.status_code == 200
            assert response.headers["X-Gateway-Backend"] == expected[0]
            assert (response.headers["X-Gateway-Degraded"], response.headers["X-Gateway-Attempts"]) == ("false", "1")
            if not body["stream"]:
                extras = response.json()
                assert (extras["gateway"]["backend"], extras["degraded"]) == (expected[0], False)
            said.append(expected)
    gw.run(gw.gateway.close())
    with sqlite3.connect(tmp_path / "requests.db") as connection:
        tried = connection.execute("SELECT backend, model FROM attempts ORDER BY request_row").fetchall()
        asked = connection.execute("SELECT backend, attempts, degraded FROM requests ORDER BY id").fetchall()
    connection.close()
    assert [(backend, model) for backend, model in tried if backend] == said
    assert [row for row in asked if row[1]] == [(backend, 1, 0) for backend, _ in said]
    assert {backend for backend, _ in said} == {"a", "a2", "b", "c"}


def test_an_error_says_who_was_asked_and_how_often(gw: Running, tmp_path: Path) -> None:
    down = answers(b'{"error": {"message": "down"}}', status=503)
    refusing = by_turns(answers(b'{"error": {"message": "what?", "code": "odd"}}', status=422))
    backends = {
        name: {"adapter": "openai", "base_url": gw.add_provider(script).url + "/v1", "group": name}
        for name, script in (("one", down), ("two", down), ("strict", refusing))
    }
    middleware = {"fallback": {"retries": 0, "chain": ["one", "two"]}}
    url = gw.start(settings(tmp_path, backends=backends, middleware=middleware))
    with httpx.Client(trust_env=False, base_url=url) as client:
        chat = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
        for body in (chat, chat | {"stream": True}):
            failed = client.post("/v1/chat/completions", json=body)
            assert failed.status_code == 502
            assert (failed.headers["X-Gateway-Backend"], failed.headers["X-Gateway-Attempts"]) == ("two", "2")
            refused = client.post("/v1/chat/completions", json=body | {"backend": "strict"})
            assert refused.status_code == 422
            assert (refused.headers["X-Gateway-Backend"], refused.headers["X-Gateway-Attempts"]) == ("strict", "1")
        unknown = client.post("/v1/chat/completions", json=chat | {"backend": "three"})
        assert (unknown.status_code, "X-Gateway-Backend" in unknown.headers) == (404, False)
