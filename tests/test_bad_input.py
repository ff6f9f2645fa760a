"""Bad input over real HTTP: a clear 4xx in OpenAI's shape, never a 5xx, and nothing of it reaches a provider."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from gw.chat_checks import check_chat
from gw.errors import InvalidRequest
from gw.server import Limits
from tests.fakes import Asked, answers, completion
from tests.running import Running, running, settings

HI = [{"role": "user", "content": "Hi"}]
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def gw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running() as gateway:
        provider = gateway.add_provider(answers(orjson.dumps(completion())))
        gateway.start(
            settings(
                tmp_path_factory.mktemp("bad"),
                backends={"a": {"adapter": "openai", "base_url": provider.url + "/v1", "models": {"gpt-4": "x"}}},
                middleware={"rate_limit": {"enabled": False}},
            ),
            limits=Limits(max_body=100_000),
        )
        yield gateway


@pytest.fixture(scope="module", name="http")
def _http(gw: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gw.gateway.url, trust_env=False, timeout=30) as client:
        yield client


def refused(gw: Running, response: httpx.Response, status: int, code: str, param: str | None) -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param), error
    assert len(error["message"]) > 10
    assert response.headers["x-request-id"]
    assert gw.providers[0].asked == []


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"null", b"5"])
def test_json_that_is_no_object_is_refused(gw: Running, http: httpx.Client, body: bytes) -> None:
    refused(gw, http.post("/v1/chat/completions", content=body, headers=JSON), 400, "invalid_value", None)


@pytest.mark.parametrize("body", [b"", b"{", b"nonsense", b'{"messages": NaN}', b"\xff\xfe"])
def test_what_is_not_json_is_invalid_json(gw: Running, http: httpx.Client, body: bytes) -> None:
    refused(gw, http.post("/v1/chat/completions", content=body, headers=JSON), 400, "invalid_json", None)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": "Hi"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{"role": "king", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"model": 5}, "model"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stop": 5}, "stop"),
        ({"tools": {}}, "tools"),
        ({"tools": ["Read", {"type": "function"}]}, "tools"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"response_format": "json"}, "response_format"),
        ({"stream_options": []}, "stream_options"),
        ({"session_id": "null"}, "session_id"),
        ({"backend": 5}, "backend"),
        ({"model": ".."}, "model"),  # it would lead out of its place in a URL
        ({"model": "a/."}, "model"),
        ({"anthropic": 5}, "anthropic"),
        ({"anthropic": {"betas": ["a\r\nX-Evil: 1"]}}, "anthropic.betas[0]"),  # it would become part of a header
        ({"anthropic": {"betas": ["\u6a21"]}}, "anthropic.betas[0]"),
    ],
)
def test_a_wrong_field_is_named(gw: Running, http: httpx.Client, fields: dict[str, Any], param: str) -> None:
    response = http.post("/v1/chat/completions", json={"model": "gpt-4", "messages": HI} | fields)
    refused(gw, response, 400, "invalid_value", response.json()["error"]["param"])
    assert response.json()["error"]["param"].startswith(param)


def test_too_deep_is_refused(gw: Running, http: httpx.Client) -> None:
    deep = b'{"model":"gpt-4","messages":[{"role":"user","content":"Hi"}],"metadata":' + b"[" * 300 + b"]" * 300 + b"}"
    response = http.post("/v1/chat/completions", content=deep, headers=JSON)
    assert response.status_code == 400
    assert "64" in response.text
    assert gw.providers[0].asked == []


def test_too_large_is_a_413(gw: Running, http: httpx.Client) -> None:
    body = orjson.dumps({"messages": [{"role": "user", "content": "x" * 200_000}]})
    response = http.post("/v1/chat/completions", content=body, headers=JSON)
    refused(gw, response, 413, "request_too_large", None)


def test_too_slow_is_a_408(tmp_path: Path) -> None:
    with running() as gateway, socket.socket() as sock:
        gateway.start(settings(tmp_path), limits=Limits(body_timeout=0.2))
        sock.settimeout(20)
        sock.connect(("127.0.0.1", gateway.gateway.port))
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 5000\r\n\r\n{"
        )
        assert b" 408 " in sock.recv(4096).partition(b"\r\n")[0]


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_does_not_call_itself_json_is_a_415(gw: Running, http: httpx.Client, media_type: str) -> None:
    headers = {"Content-Type": media_type} if media_type else {}
    content = orjson.dumps({"messages": HI})
    response = http.post("/v1/chat/completions", content=content, headers=headers)
    refused(gw, response, 415, "unsupported_media_type", None)


def test_unknown_model_backend_and_path_are_404(gw: Running, http: httpx.Client) -> None:
    response = http.post("/v1/chat/completions", json={"model": "invalid-model", "messages": HI})
    refused(gw, response, 404, "model_not_found", "model")
    response = http.post("/v1/nobody/chat/completions", json={"messages": HI})
    refused(gw, response, 404, "backend_not_found", "backend")
    refused(gw, http.get("/v1/nothing"), 404, "not_found", None)
    assert 'did you mean "/v1/chat/completions"' in http.post("/v1/chat/completion").json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/chat/completions", "POST, OPTIONS"),
        ("DELETE", "/health", "GET, HEAD, OPTIONS"),
        ("POST", "/v1/models", "GET, HEAD, OPTIONS"),
    ],
)
def test_a_wrong_method_is_a_405_with_allow(
    gw: Running, http: httpx.Client, method: str, path: str, allow: str
) -> None:
    response = http.request(method, path)
    refused(gw, response, 405, "method_not_allowed", None)
    assert response.headers["allow"] == allow


def test_options_tells_the_methods_and_head_has_no_body(http: httpx.Client) -> None:
    response = http.options("/v1/models")
    assert (response.status_code, response.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    response = http.head("/health")
    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) > 10


def test_a_refused_exchange_has_its_row(tmp_path: Path) -> None:
    with running() as gateway:
        url = gateway.start(settings(tmp_path))
        headers = {"X-Request-ID": "refused-1"}
        response = httpx.post(f"{url}/v1/chat/completions", json={"messages": "Hi"}, headers=headers, trust_env=False)
        assert response.headers["x-request-id"] == "refused-1"
    with closing(sqlite3.connect(tmp_path / "requests.db")) as database:
        query = "SELECT backend, status, error IS NOT NULL, attempts FROM requests WHERE request_id = 'refused-1'"
        assert database.execute(query).fetchall() == [(None, 400, 1, 0)]


def test_what_the_server_refuses_by_itself_has_its_row_too(tmp_path: Path) -> None:
    with running() as gateway:
        url = gateway.start(settings(tmp_path), limits=Limits(max_body=1000))
        headers = {"X-Request-ID": "refused-2", "Content-Type": "application/json"}
        response = httpx.post(f"{url}/v1/chat/completions", content=b"x" * 2000, headers=headers, trust_env=False)
        assert response.status_code == 413
        request_id = response.headers["x-request-id"]
    with closing(sqlite3.connect(tmp_path / "requests.db")) as database:
        query = "SELECT status, backend, error IS NOT NULL FROM requests WHERE request_id = ?"
        assert database.execute(query, [request_id]).fetchall() == [(413, None, 1)]


def test_what_is_broken_off_at_the_end_of_the_grace_is_not_the_clients_doing(tmp_path: Path) -> None:
    async def silent(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    with running() as gateway:
        provider = gateway.add_provider(silent)
        url = gateway.start(settings(tmp_path, backends={"a": {"adapter": "openai", "base_url": provider.url + "/v1"}}))
        with ThreadPoolExecutor(1) as pool, httpx.Client(trust_env=False, timeout=60) as http:
            asking = pool.submit(http.post, f"{url}/v1/chat/completions", json={"model": "m", "messages": HI})
            while not provider.asked:
                os.sched_yield()
            gateway.run(gateway.gateway.close(grace=0))
            assert isinstance(asking.exception(30), httpx.TransportError)
    with closing(sqlite3.connect(tmp_path / "requests.db")) as database:
        assert database.execute("SELECT status, error_code FROM requests").fetchall() == [(503, "stopped")]


@pytest.mark.parametrize(
    "tool", [True, {"function": True}, {"custom": "x"}, {"function": {}}, {"type": 7}, {"name": ""}]
)
def test_a_list_of_allowed_tools_names_tools(tool: Any) -> None:
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [tool]}}
    with pytest.raises(InvalidRequest) as refused:
        check_chat({"messages": [{"role": "user", "content": "Hi"}], "tool_choice": choice})
    assert str(refused.value.param).startswith("tool_choice.allowed_tools.tools[0]")
