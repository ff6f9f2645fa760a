"""Where a key is set, everything wants it but the bare word of /health; what is kept belongs to its key."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from tests.attack_world import KEY, World, chat, get, post, world

ANN, BOB = "access-ann-e4da3b7fbbce", "access-bob-1679091c5a88"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("access")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[World]:
    keys = {"ann": {"token_env": "ANN"}, "bob": {"token_env": "BOB"}}
    with world(folder, environ={"ANN": ANN, "BOB": BOB}, middleware={"auth": {"keys": keys}}) as served:
        yield served


SESSION = "00000000-0000-4000-8000-000000000000"
PATHS = (
    "/", "/metrics", "/metrics?format=json", "/queue/status", "/route", "/v1/models", "/v1/models/m",
    "/v1/chat/completions", "/v1/a/chat/completions",
    "/v1/sessions", f"/v1/sessions/{SESSION}", "/nothing", "/v1", "/v1/", "/favicon.ico", "/robots.txt", "/docs",
    "/openapi.json", "/admin", "/key/generate",
    "/.env", "/debug", "/v1/embeddings", "/v1/responses", "/v1/messages", "/v1/files", "/mcp", "/prompts/test",
    "/config/update", "/model/info",
    # the same places in other words
    "//metrics", "/metrics/", "/METRICS", "/Metrics", "/%6detrics", "/metrics%20", "/metrics%00", "/metrics;a=b",
    "/./metrics", "/v1/../metrics",
    "/health/../metrics", "/health/..%2fmetrics", "/health%2f..%2fmetrics", "/health;/../metrics", "/health//metrics",
    "/health/metrics", "/health/",
    "/health.json", "/HEALTH", "//health", "/health%3f", "/healthx", "/v1/health/chat/completions",
    "/v1/%68ealth/chat/completions", "/static/../metrics",
    "http://localhost/metrics", "http://localhost/health/../metrics", "http://localhost//metrics",
)  # fmt: skip
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get", "X")
TRICKS = (
    "X-Original-URL: /health",
    "X-Rewrite-URL: /health",
    "X-HTTP-Method-Override: OPTIONS",
    "X-Forwarded-For: 127.0.0.1",
    "Sec-Fetch-Mode: cors",
)


@pytest.mark.parametrize("path", PATHS)
def test_without_its_key_nothing_is_shown(served: World, path: str) -> None:
    for method in METHODS:
        answer = served.ask(get(path, method=method, key=None), method)
        assert answer.status == 401, (method, answer)
        assert method == "HEAD" or answer.code == "invalid_api_key"
        assert "allow" not in answer.headers
    for trick in TRICKS:
        assert served.ask(get(path, trick, key=None), "GET").status == 401


@pytest.mark.parametrize(
    "path",
    ["/health", "/health/live", "/health/ready", "/live", "/ready", "/health?verbose=1", "http://localhost/health"],
)
def test_health_says_one_word_to_strangers(served: World, path: str) -> None:
    answer = served.ask(get(path, key=None), "GET")
    assert answer.status == 200
    assert orjson.loads(answer.body) == {"status": "ok"}
    assert served.ask(get(path, method="HEAD", key=None), "HEAD").body == b""
    wrong = served.ask(get(path, key="wrong"), "GET")
    assert orjson.loads(wrong.body) == {"status": "ok"}


def test_health_says_more_to_who_has_a_key(served: World) -> None:
    assert {"status", "routing", "backends", "version"} <= orjson.loads(served.ask(get("/health"), "GET").body).keys()


@pytest.mark.parametrize("path", ["/metrics", "/queue/status", "/v1/models", "/v1/sessions"])
def test_with_its_key_it_is_shown(served: World, path: str) -> None:
    for key in (KEY, ANN):
        assert served.ask(get(path, key=key), "GET").status == 200


def test_a_stranger_learns_nothing_of_what_there_is(served: World) -> None:
    """The same bytes, the id and the time apart, for what exists and what does not."""
    seen = {
        served.ask(get(path, key=None), "GET").body
        for path in ("/metrics", "/nothing", "/v1/models/m", f"/v1/sessions/{SESSION}")
    }
    seen |= {
        served.ask(post(body, key=None)).body
        for body in (chat(), chat(model="nobody"), chat(backend="nobody"), b"{", b"")
    }
    assert len(seen) == 1


def test_a_body_without_a_key_is_not_even_read(served: World) -> None:
    waiting = post(b"", "Content-Length: 1000000", "Expect: 100-continue", length=False, key=None)
    assert served.attack(waiting, [401], kept=False)[0].code == "invalid_api_key"


# --- sessions and rows -------------------------------------------------------------------------------------------


def begun(served: World, key: str, text: str) -> str:
    answer = served.ask(post(chat(text), key=key))
    assert answer.status == 200
    return str(orjson.loads(answer.body)["session_id"])


def listed(served: World, key: str) -> set[str]:
    return {entry["id"] for entry in orjson.loads(served.ask(get("/v1/sessions", key=key), "GET").body)["data"]}


def test_a_session_belongs_to_its_key(served: World) -> None:
    anns, bobs = begun(served, ANN, "the word is anemone"), begun(served, BOB, "the word is begonia")
    for stranger, session in ((BOB, anns), (ANN, bobs), (KEY, anns)):
        before = len(served.reached)
        refused = served.ask(post(chat("what was it?", session_id=session), key=stranger))
        unknown = served.ask(post(chat("what was it?", session_id=SESSION), key=stranger))
        assert (refused.status, refused.code) == (unknown.status, unknown.code) == (404, "session_not_found")
        assert refused.body.replace(session.encode(), b"") == unknown.body.replace(SESSION.encode(), b"")
        for method in ("GET", "DELETE"):
            assert served.ask(get(f"/v1/sessions/{session}", method=method, key=stranger), method).status == 404
        assert session not in listed(served, stranger)
        route = served.ask(post(chat("x", session_id=session), key=stranger, path="/route"))
        assert b"anemone" not in route.body
        assert b"begonia" not in route.body
        assert len(served.reached) == before
    assert anns in listed(served, ANN)
    assert served.ask(post(chat("what was it?", session_id=anns), key=ANN)).status == 200
    assert b"anemone" in served.reached[-1]
    assert served.ask(get(f"/v1/sessions/{bobs}", method="DELETE", key=BOB), "DELETE").status in (200, 204)


def test_rows_carry_the_name_of_their_key_and_never_the_key(folder: Path, tmp_path: Path) -> None:
    with world(tmp_path, environ={"ANN": ANN}, middleware={"auth": {"keys": {"ann": {"token_env": "ANN"}}}}) as served:
        for key in (ANN, KEY, None):
            served.ask(post(chat("whose row"), f"X-Request-ID: row-of-{len(key or '')}", key=key))
    with closing(sqlite3.connect(tmp_path / "requests.db")) as database:
        rows = dict(
            database.execute("SELECT request_id, key_name FROM requests WHERE request_id LIKE 'row-of-%'").fetchall()
        )
    assert rows == {f"row-of-{len(ANN)}": "ann", f"row-of-{len(KEY)}": "default", "row-of-0": "anonymous"}
    assert not any(ANN.encode() in path.read_bytes() for path in tmp_path.iterdir())


# --- web pages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost", "http://127.0.0.1:3000"])
def test_cors_is_off_unless_configured(served: World, origin: str) -> None:
    asks = ["Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization"]
    for path in ("/v1/chat/completions", "/v1/models", "/metrics", "/nothing"):
        for key in (KEY, None):
            for method, lines in (("OPTIONS", asks), ("GET", [])):
                answer = served.ask(get(path, f"Origin: {origin}", *lines, method=method, key=key), method)
                assert not any(name.startswith("access-control") for name in answer.headers)
                assert answer.status == 401 or key is not None
