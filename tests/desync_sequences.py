"""Sequences that try to get client and server out of step, each with the answers that it is to have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gw.server import Limits
from tests.attack_world import CANARY, chat, get, post

LIMITS = Limits(max_head=8192, max_body=1_000_000, linger_timeout=0.2)
BODY = chat()
HIDDEN = get("/hidden", f"X-Request-ID: {CANARY}-hidden")  # a request inside a body


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
