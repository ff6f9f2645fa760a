"""Sequences that try to get client and server out of step: bodies nobody reads, early answers, pipelines, half-closes.

All of them hinge on what happens to bytes behind an answer: they are the next request, or they are thrown away and the
connection ends; they are never answered as something that the client did not send as a request.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest

from gw.server import Limits
from tests.attack_world import CANARY, KEY, PATIENCE, Raw, World, chat, get, post, world

LIMITS = Limits(max_head=8192, max_body=1_000_000, linger_timeout=0.2)
BODY = chat()
HIDDEN = get("/hidden", f"X-Request-ID: {CANARY}-hidden")  # a request inside a body


@pytest.fixture(scope="module", params=["auto", "h11"])
def attacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("desync"), limits=LIMITS, server={"http": request.param}) as attacked:
        yield attacked


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"


def with_body(method: str, path: str, body: bytes, *lines: str, coded: bool = False) -> bytes:
    framing = "Transfer-Encoding: chunked" if coded else f"Content-Length: {len(body)}"
    return get(path, framing, *lines, method=method) + (chunked(body) if coded else body)


class Row(NamedTuple):
    """What is sent, the answers in order, and whether the connection is kept. `end`: the client ends its sending."""

    data: bytes
    statuses: Sequence[int]
    kept: bool
    reaching: int = 0
    end: bool = False
    methods: Sequence[str] = ()
    along: bool = True  # whether an intruder follows at once


ROWS: dict[str, Row] = {}

# CL.0 and TE.0: a body where none is expected is a body all the same, whatever the page makes of the request.
for method, path, status in (
    ("GET", "/health", 200), ("HEAD", "/health", 200), ("OPTIONS", "/health", 204), ("DELETE", "/health", 405),
    ("POST", "/health", 405), ("PUT", "/health", 405), ("GET", "/v1/models", 200), ("POST", "/v1/models", 405),
    ("GET", "/nothing", 404), ("POST", "/nothing", 404), ("OPTIONS", "/nothing", 404), ("OPTIONS", "*", 404),
    ("GET", "/v1/chat/completions", 405), ("OPTIONS", "/v1/chat/completions", 204), ("TRACE", "/health", 405),
    ("BREW", "/health", 405), ("PATCH", "/v1/chat/completions", 405), ("GET", "/metrics", 200), ("get", "/health", 405),
):  # fmt: skip
    ROWS[f"CL.0 {method} {path}"] = Row(with_body(method, path, HIDDEN), [status], True, methods=[method])
    ROWS[f"TE.0 {method} {path}"] = Row(with_body(method, path, HIDDEN, coded=True), [status], True, methods=[method])
    ROWS[f"nothing {method} {path}"] = Row(with_body(method, path, b"", coded=True), [status], True, methods=[method])
for fault, size in (("no number", b"zz"), ("a sign", b"+5"), ("a blank", b" 5")):
    data = get("/health", "Transfer-Encoding: chunked") + size + b"\r\nhello\r\n0\r\n\r\n"
    ROWS[f"chunks that nobody reads, with {fault}"] = Row(data, [400], False)

# 0.CL: an answer before the body was sent is the last one, and what comes then is thrown away.
for coded, lines in ((False, ["Content-Length: 400"]), (True, ["Transfer-Encoding: chunked"])):
    kind = "chunks" if coded else "length"
    for name, expect in (("", []), (" and Expect", ["Expect: 100-continue"])):
        refused = get("/v1/chat/completions", *lines, *expect, method="POST", key=None)
        typed = get("/v1/chat/completions", *lines, *expect, "Content-Type: text/plain", method="POST")
        for status, data in (
            (404, get("/nothing", *lines, *expect, method="POST")),
            (405, get("/health", *lines, *expect, method="PUT")),
            (200, get("/health", *lines, *expect)),
            (401, refused),
            (415, typed),
        ):
            ROWS[f"early {status}, {kind}{name}"] = Row(data, [status], False, along=not coded)
            ROWS[f"early {status}, {kind}{name}, and then more"] = Row(data, [status], False, along=False)
ROWS["early 413 and Expect"] = Row(
    get("/v1/chat/completions", "Content-Length: 1000001", "Expect: 100-continue", method="POST"), [413], False
)
ROWS["early 505 and Expect"] = Row(
    get("/x", "Content-Length: 5", "Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/3.0"), [505], False
)
ROWS["an expectation that nobody knows"] = Row(post(BODY, "Expect: 200-ok"), [200], True, 1)
ROWS["two expectations"] = Row(post(BODY, "Expect: 100-continue", "Expect: 100-continue"), [200], True, 1)
ROWS["an expectation without a body"] = Row(get("/health", "Expect: 100-continue"), [200], True)
ROWS["an expectation of HTTP/1.0"] = Row(
    post(BODY, "Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0"), [200], False, 1
)

# Pipelines: in order, one at a time, and nothing behind the last.
three = [(post(chat(f"pipe {at}")), 200) for at in range(3)]
ROWS["three chats"] = Row(b"".join(data for data, _ in three), [200, 200, 200], True, 3)
ROWS["chat, health, chat"] = Row(three[0][0] + get("/health") + three[1][0], [200, 200, 200], True, 2)
ROWS["chunks, health, chunks"] = Row(
    2 * (post(b"", "Transfer-Encoding: chunked", length=False) + chunked(BODY) + get("/health")), [200] * 4, True, 2
)
ROWS["HEAD between"] = Row(
    get("/health") + get("/health", method="HEAD") + post(BODY), [200, 200, 200], True, 1, methods=["GET", "HEAD"]
)
ROWS["a bad one behind a good one"] = Row(post(BODY) + b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", [200, 505], False, 1)
ROWS["a bad one behind chunks"] = Row(
    post(b"", "Transfer-Encoding: chunked", length=False) + chunked(BODY) + b"\r\nGET / HTTP/1.1\r\n\r\n",
    [200, 400],
    False,
    1,
)
ROWS["a blank line between"] = Row(post(BODY) + b"\r\n" + get("/health"), [200, 400], False, 1)
ROWS["a body that is longer than its length"] = Row(post(BODY) + b"{}" + get("/health"), [200, 400], False, 1)
ROWS["close in the first of two"] = Row(post(BODY, "Connection: close") + post(BODY), [200], False, 1)
ROWS["HTTP/1.0 in the first of two"] = Row(post(BODY).replace(b"1.1\r", b"1.0\r") + post(BODY), [200], False, 1)
ROWS["a bad body, then a good one"] = Row(post(b"{") + post(BODY), [400, 200], True, 1)
ROWS["a wrong key, then a right one"] = Row(post(BODY, key="x") + post(BODY), [401, 200], True, 1)
ROWS["a wrong key with chunks, then a right one"] = Row(
    post(b"", "Transfer-Encoding: chunked", length=False, key=None) + chunked(BODY) + post(BODY), [401, 200], True, 1
)
ROWS["fifty of them"] = Row(get("/health/live") * 50, [200] * 50, True)

# Upgrade: nobody changes the protocol, so what follows is HTTP.
for upgrade in ("h2c", "websocket", "TLS/1.0", "HTTP/2.0", "h2c, websocket", "x" * 500):
    lines = [f"Upgrade: {upgrade}", "Connection: Upgrade"]
    ROWS[f"Upgrade {upgrade[:20]}, then another"] = Row(get("/health", *lines) + get("/health"), [200, 200], True)
    ROWS[f"Upgrade {upgrade[:20]} with a body"] = Row(post(BODY, *lines), [200], True, 1)
    ROWS[f"Upgrade {upgrade[:20]} with chunks"] = Row(
        post(b"", *lines, "Transfer-Encoding: chunked", length=False) + chunked(BODY) + post(BODY), [200, 200], True, 2
    )
ROWS["Upgrade, then the preface of HTTP/2"] = Row(
    get("/health", "Upgrade: h2c", "Connection: Upgrade") + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [200, 505], False
)

# The client ends its sending: what is whole is answered, what is not is told so or left.
ROWS["half-closed behind a chat"] = Row(post(BODY), [200], False, 1, end=True)
ROWS["half-closed behind two"] = Row(post(BODY) + get("/health"), [200, 200], False, 1, end=True)
ROWS["half-closed within a body"] = Row(post(BODY)[:-5], [400], False, end=True)
ROWS["half-closed within chunks"] = Row(
    post(b"", "Transfer-Encoding: chunked", length=False) + chunked(BODY)[:-9], [400], False, end=True
)
ROWS["half-closed within the last chunk"] = Row(
    post(b"", "Transfer-Encoding: chunked", length=False) + chunked(BODY)[:-2], [400], False, end=True
)
ROWS["half-closed behind a wish for 100"] = Row(
    post(b"", "Content-Length: 50", "Expect: 100-continue", length=False), [400], False, end=True
)
ROWS["half-closed within a head"] = Row(post(BODY)[:40], [], False, end=True)
ROWS["half-closed within a second head"] = Row(post(BODY) + b"GET /he", [200], False, 1, end=True)
ROWS["half-closed without a byte"] = Row(b"", [], False, end=True)


@pytest.mark.parametrize("name", ROWS)
def test_client_and_server_stay_in_step_or_part(attacked: World, name: str) -> None:
    row = ROWS[name]
    before = len(attacked.reached)
    found = attacked.attack(row.data, row.statuses, kept=row.kept, methods=row.methods, end=row.end, along=row.along)
    assert not any(CANARY in answer.headers["x-request-id"] for answer in found)
    assert len(attacked.reached) == before + row.reaching


# Without those whose first answer need not wait for the body: it may come before the body does, and is the last then.
@pytest.mark.parametrize(
    "name", [name for name, row in ROWS.items() if row.kept and row.reaching and row.statuses[0] == 200]
)
def test_the_same_byte_by_byte(attacked: World, name: str) -> None:
    row = ROWS[name]
    client = Raw(attacked.port)
    with closing(client.socket):
        for at in range(len(row.data)):
            client.send(row.data[at : at + 1])
        found = [client.answer(method) for method in (*row.methods, *["POST"] * 50)[: len(row.statuses)]]
        assert [answer and answer.status for answer in found] == list(row.statuses)


def test_a_pipeline_is_answered_in_its_order(attacked: World) -> None:
    client = Raw(attacked.port)
    with closing(client.socket):
        ids = [f"pipe-{at}" for at in range(200)]
        client.send(
            b"".join(
                post(chat(name), f"X-Request-ID: {name}") if at % 5 else get("/health/live", f"X-Request-ID: {name}")
                for at, name in enumerate(ids)
            )
        )
        assert [client.answer().headers["x-request-id"] for _ in ids] == ids  # type: ignore[union-attr]


@pytest.mark.parametrize("status", [401, 404, 413])
def test_a_client_that_sends_much_behind_an_early_answer_reads_it_and_is_then_cut_off(
    attacked: World, status: int
) -> None:
    line = {401: post(b"", "Content-Length: 900000", length=False, key="x"), 404: b"", 413: b""}[status]
    if status == 404:
        line = post(b"", "Content-Length: 900000", length=False, path="/nothing")
    if status == 413:
        line = post(b"", "Content-Length: 90000000", length=False)
    client = Raw(attacked.port)
    with closing(client.socket):
        client.send(line + b"x" * 30_000)
        answer = client.answer()
        assert answer is not None
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        client.send(b"x" * 4_000_000)  # more than the server drains: the send is broken off
        assert client.rest() == b""


def test_what_is_thrown_away_behind_an_early_answer_has_its_limit(tmp_path: Path) -> None:
    with world(tmp_path, limits=Limits(linger_timeout=60.0, linger_bytes=50_000)) as attacked:
        client = Raw(attacked.port)
        with closing(client.socket):
            client.send(post(b"", "Content-Length: 900000", length=False, path="/nothing"))
            answer = client.answer()
            assert answer is not None
            assert answer.status == 404
            with pytest.raises((BrokenPipeError, ConnectionResetError)):  # at once, and not when the time is over
                client.socket.sendall(b"x" * 20_000_000)


def test_a_body_is_not_invited_before_it_is_wanted_and_then_once(attacked: World) -> None:
    for path, wanted in (("/v1/chat/completions", b"HTTP/1.1 100 Continue\r\n\r\n"), ("/nothing", b"HTTP/1.1 404 ")):
        client = Raw(attacked.port)
        with closing(client.socket):
            client.send(post(b"", f"Content-Length: {len(BODY)}", "Expect: 100-continue", length=False, path=path))
            first = client.socket.recv(len(wanted), socket.MSG_WAITALL)
            assert first == wanted
            if path == "/nothing":
                continue
            client.send(BODY)
            head = client.socket.recv(20)
            assert head.startswith(b"HTTP/1.1 200")


def test_a_reset_at_any_place_disturbs_nobody(attacked: World) -> None:
    data = post(BODY) + post(b"", "Transfer-Encoding: chunked", length=False) + chunked(BODY)
    for size in range(0, len(data), 5):
        sock = socket.create_connection(("127.0.0.1", attacked.port), timeout=PATIENCE)
        sock.sendall(data[:size])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    assert attacked.ask(post(BODY)).status == 200


def test_each_refusal_is_counted_and_has_its_row_and_the_intruder_has_none(attacked: World) -> None:
    text = attacked.ask(get("/metrics"), "GET").body.decode()
    assert "gw_refused_total" in text
    assert "intruder" not in text
    assert orjson.loads(attacked.ask(get("/health"), "GET").body)["status"] == "ok"
    assert KEY not in text
