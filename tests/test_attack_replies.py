"""Nothing of a request becomes a header of its answer, and no middleware can split an answer in two."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from gw.errors import InvalidRequest
from gw.message import Request, Response
from gw.pipeline import ALL, Handler
from tests.attack_world import CANARY, Raw, World, chat, get, post, world
from tests.fakes import answers, completion
from tests.running import running, settings


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    line = b'{"model":"m","message":{"role":"assistant","content":"Hi"},"done":true,"done_reason":"stop"}\n'
    with running() as ollama:
        other = ollama.add_provider(answers(line, content_type="application/x-ndjson"))
        folder = tmp_path_factory.mktemp("replies")
        with world(
            folder, backends=lambda url: {"b": {"adapter": "ollama", "base_url": other.url, "model": "m"}}
        ) as attacked:
            yield attacked


# --- nothing of a request in a header: `read_head` of the world judges every answer ------------------------------

SPLITS = (
    "%0d%0aX-Evil:%20" + CANARY, "%0aSet-Cookie:" + CANARY, "%E5%98%8A%E5%98%8DX:" + CANARY, "%00" + CANARY,
    "%250d%250a" + CANARY, CANARY,
    "';" + CANARY, "%3Cscript%3E" + CANARY, "%25u000a" + CANARY,
)  # fmt: skip


@pytest.mark.parametrize("text", SPLITS)
def test_a_target_never_becomes_a_header(attacked: World, text: str) -> None:
    for path in (
        f"/{text}",
        f"/v1/{text}/chat/completions",
        f"/v1/models/{text}",
        f"/v1/sessions/{text}",
        f"/health?{text}",
        f"/metrics?format={text}",
    ):
        for method in ("GET", "POST", "OPTIONS", "HEAD", "DELETE"):
            attacked.ask(get(path, method=method), method)


FIELDS = (
    "Origin", "Referer", "User-Agent", "Cookie", "Accept", "Accept-Language", "X-Forwarded-For", "X-Forwarded-Host",
    "X-Request-ID", "X-Correlation-ID",
    "Traceparent", "Idempotency-Key", "If-None-Match", "Range", "Access-Control-Request-Method",
    "Access-Control-Request-Headers", "X-Gateway-Backend",
    "X-Gateway-Degraded", "Server-Timing", "Retry-After", "Prefer", "TE", "Trailer", "Upgrade", "Via",
    "X-RateLimit-Limit", "Content-Language",
)  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_never_comes_back(attacked: World, field: str) -> None:
    for value in (CANARY + "!", f"{CANARY} x", f"https://{CANARY}.example", f"{CANARY}\xe9"):
        answer = attacked.ask(post(chat(), f"{field}: {value}"))
        assert answer.status == 200
        attacked.ask(get(f"/{field}", f"{field}: {value}", method="OPTIONS"), "OPTIONS")


IDS = (
    ("abc", True), ("A.b_c-9", True), ("0", True), ("a" * 128, True), (".", True), ("-", True), ("a" * 129, False),
    ("a b", False), ("a/b", False), ("a:b", False),
    ("a;b", False), ("a,b", False), ("a=b", False), ('"a"', False), ("a%0d%0ab", False), ("é", False), ("\xff", False),
    ("a\tb", False), ("<a>", False),
    ("a\\b", False), ("{a}", False), ("$(id)", False), ("a'b", False), ("a@b", False), ("a+b", False), ("a#b", False),
    ("a?b", False), ("a|b", False),
)  # fmt: skip


@pytest.mark.parametrize(("given", "stays"), IDS)
def test_a_request_id_is_the_clients_only_where_it_is_plain(attacked: World, given: str, stays: bool) -> None:
    answer = attacked.ask(get("/health/live", f"X-Request-ID: {given}"), "GET")
    assert (answer.headers["x-request-id"] == given) is stays


def test_of_two_request_ids_none_is_joined(attacked: World) -> None:
    answer = attacked.ask(get("/health/live", "X-Request-ID: one", "X-Request-ID: two"), "GET")
    assert "," not in answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "name", ["a\r\nX-Evil: 1", "a\nb", "é", "模\U0001f600", "a,b", "a b", "\0", "\x7f", "a" * 5000, "\u2028", "~/"]
)
def test_the_name_of_a_dropped_field_cannot_add_a_header(attacked: World, name: str) -> None:
    fields = orjson.loads(chat(backend="b", metadata={name: "x"}, stream=True)) | {name: 1}
    answer = attacked.ask(post(orjson.dumps(fields)))
    assert answer.status == 200
    assert "x-gateway-dropped" in answer.headers


# --- what middleware sets ----------------------------------------------------------------------------------------

BAD_HEADS: dict[str, tuple[int, dict[Any, Any]]] = {
    "CR LF": (200, {"X-Note": "a\r\nX-Evil: 1"}),
    "LF": (200, {"X-Note": "a\nX-Evil: 1"}),
    "CR": (200, {"X-Note": "a\rb"}),
    "two answers": (200, {"X-Note": "a\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"}),
    "NUL": (200, {"X-Note": "a\0b"}),
    "DEL": (200, {"X-Note": "a\x7fb"}),
    "ESC": (200, {"X-Note": "\x1b[31m"}),
    "beyond latin-1": (200, {"X-Note": "模"}),
    "a line separator": (200, {"X-Note": "\u2028"}),
    "a number": (200, {"X-Note": 5}),
    "nothing": (200, {"X-Note": None}),
    "bytes": (200, {"X-Note": b"x"}),
    "a name with a colon": (200, {"X:Note": "x"}),
    "a name with CR LF": (200, {"X\r\nEvil": "x"}),
    "a name with a blank": (200, {"X Note": "x"}),
    "an empty name": (200, {"": "x"}),
    "a name beyond ASCII": (200, {"Ñ": "x"}),
    "a number for a name": (200, {5.5: "x\n"}),
    "status 99": (99, {}),
    "status 100": (100, {}),
    "status 600": (600, {}),
    "status 0": (0, {}),
    "status as text": ("200 OK\r\nX-Evil: 1", {}),  # type: ignore[dict-item]
    "no status": (None, {}),  # type: ignore[dict-item]
}


class Spoiler:
    """A middleware that answers everything with a head that cannot be sent; `raises` puts it on an error instead."""

    operations = ALL

    def __init__(self) -> None:
        self.head: tuple[int, dict[Any, Any]] = (200, {})
        self.raises = False

    async def __call__(self, request: Request, call_next: Handler, /) -> Response:
        status, headers = self.head
        if self.raises:
            raise InvalidRequest("no", status=status, headers=headers)
        response = await call_next(request)
        response.status = status
        response.headers.update(headers)
        return response


@pytest.mark.parametrize("raises", [False, True], ids=["answers", "raises"])
def test_a_head_that_cannot_be_sent_is_one_500_in_the_log_too_and_names_the_middleware(
    tmp_path: Path, raises: bool
) -> None:
    spoiler = Spoiler()
    spoiler.raises = raises
    with running() as gw:
        provider = gw.add_provider(answers(orjson.dumps(completion())))
        backend = {"adapter": "openai", "base_url": provider.url + "/v1", "model": "m"}
        tables = settings(tmp_path, backends={"a": backend}, middleware={"rate_limit": {"enabled": False}})
        gw.start(tables, middleware=[("spoiler", spoiler)])
        for number, (name, head) in enumerate(BAD_HEADS.items()):
            if raises and head[0] is None:
                continue  # an error has a status of its own then
            client = Raw(gw.gateway.port)
            with closing(client.socket):
                spoiler.head = head
                client.send(post(chat(), f"X-Request-ID: spoilt-{number}"))
                found = client.answer()
                spoiler.head, spoiler.raises = (200, {}), False
                client.send(get("/health/live"))
                behind = client.answer()
                spoiler.raises = raises
            assert found is not None, name
            assert found.status == 500, name
            assert 'middleware "spoiler"' in orjson.loads(found.body)["error"]["message"], name
            assert behind is not None, name
            assert behind.status == 200, name
    with closing(sqlite3.connect(tmp_path / "requests.db")) as database:
        rows = database.execute("SELECT request_id, status FROM requests WHERE request_id LIKE 'spoilt-%'").fetchall()
    assert len(rows) >= len(BAD_HEADS) - 1
    assert {status for _, status in rows} == {500}


OUTERMOST = """
class Outermost:
    operations = frozenset({"*"})
    head_only = True

    async def __call__(self, request, call_next):
        response = await call_next(request)
        if request.headers.get("x-fault") == "raise":
            raise RuntimeError("no")
        response.headers["X-Note"] = "a\\r\\nX-Evil: 1"
        return response
"""


def test_a_fault_outside_of_cors_is_a_500_in_the_log_too(tmp_path: Path) -> None:
    (tmp_path / "outermost.py").write_text(OUTERMOST)
    pipeline = ["outermost", "cors", "auth", "rate_limit", "route", "fallback", "log", "translate"]
    middleware = {
        "cors": {"origins": ["https://app.example"]},
        "outermost": {"use": f"{tmp_path}/outermost.py:Outermost"},
    }
    with running() as gw:
        gw.start(settings(tmp_path, pipeline=pipeline, middleware=middleware))
        for fault in ("raise", "head"):
            for stream in (False, True):
                client = Raw(gw.gateway.port)
                with closing(client.socket):
                    client.send(post(chat(stream=stream), f"X-Fault: {fault}", f"X-Request-ID: {fault}-{stream}"))
                    answer = client.answer()
                assert answer is not None
                assert (answer.status, answer.code) == (500, "internal_error")
    with closing(sqlite3.connect(tmp_path / "requests.db")) as database:
        assert database.execute("SELECT DISTINCT status FROM requests").fetchall() == [(500,)]
