"""Without a key, programs on this machine may use the gateway and web pages may not: tried as a hostile page would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.running import Running, running, settings

HI = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def gw(tmp_path: Path) -> Iterator[Running]:
    with running() as gateway:
        gateway.start(settings(tmp_path))
        yield gateway


def post(gw: Running, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{gw.gateway.url}/v1/chat/completions", json=HI, headers=named, trust_env=False)


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "[::1]", "localhost:3456", "127.0.0.1:3456", "app.localhost"]
)
def test_a_loopback_host_is_served(gw: Running, host: str) -> None:
    assert post(gw, Host=host).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:3456", "127.0.0.1.evil.example", "localhost.evil.example", "192.168.0.1"]
)
def test_a_name_made_to_resolve_to_this_machine_is_refused(gw: Running, host: str) -> None:
    response = post(gw, Host=host)
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "forbidden_origin"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example"])
def test_a_foreign_page_is_refused(gw: Running, origin: str) -> None:
    response = post(gw, Origin=origin)
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers


def test_a_simple_request_that_needs_no_preflight_is_refused(gw: Running) -> None:
    response = httpx.post(
        f"{gw.gateway.url}/v1/chat/completions",
        content=b'{"messages":[{"role":"user","content":"Hi"}]}',
        headers={"Content-Type": "text/plain", "Sec-Fetch-Site": "cross-site"},
        trust_env=False,
    )
    assert response.status_code in (403, 415)


def test_a_preflight_is_not_granted(gw: Running) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    response = httpx.options(f"{gw.gateway.url}/v1/chat/completions", headers=headers, trust_env=False)
    assert "access-control-allow-origin" not in response.headers


def test_a_page_that_cors_names_may(tmp_path: Path) -> None:
    with running() as gateway:
        url = gateway.start(settings(tmp_path, middleware={"cors": {"origins": ["https://app.example"]}}))
        headers = {"Origin": "https://app.example"}
        response = httpx.post(f"{url}/v1/chat/completions", json=HI, headers=headers, trust_env=False)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == "https://app.example"
        assert "Origin" in response.headers["vary"]
        response = httpx.post(f"{url}/v1/chat/completions", json={}, headers=headers, trust_env=False)
        assert response.status_code == 400
        assert response.headers["access-control-allow-origin"] == "https://app.example"


def test_as_soon_as_a_key_is_configured_a_key_is_required(tmp_path: Path) -> None:
    with running() as gateway:
        url = gateway.start(settings(tmp_path), environ={"API_AUTH_TOKEN": "correct-horse"})
        with httpx.Client(base_url=url, trust_env=False) as http:
            for path in ("/metrics", "/queue/status", "/v1/models", "/nothing"):
                response = http.get(path)
                assert response.status_code == 401, path
                assert response.json()["error"]["type"] == "authentication_error"
            assert http.post("/v1/chat/completions", json=HI).status_code == 401
            assert http.get("/health").json() == {"status": "ok"}
            allowed = {"Authorization": "Bearer correct-horse"}
            assert http.get("/metrics", headers=allowed).status_code == 200
            assert "routing" in http.get("/health", headers=allowed).json()
            assert http.post("/v1/chat/completions", json=HI, headers=allowed).status_code == 200
            wrong = {"Authorization": "Bearer correct-horsf"}
            assert http.post("/v1/chat/completions", json=HI, headers=wrong).status_code == 401
