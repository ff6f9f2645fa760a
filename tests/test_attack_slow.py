"""Clients that take their time: each is cut off at its deadline with what fits, and nobody else notices."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import NamedTuple

import pytest

from gw.server import Limits
from tests.attack_world import BYSTANDER, Answer, Raw, World, chat, get, post, world

DEADLINE = 0.4  # seconds, of head and body alike
IDLE = 2.0  # seconds: more than a bystander lets its connection rest, or takes to ask on a new one
LIMITS = Limits(
    head_timeout=DEADLINE,
    body_timeout=DEADLINE,
    write_timeout=DEADLINE,
    idle_timeout=IDLE,
    linger_timeout=0.2,
    min_rate=1_000_000,
    max_body=100_000,
)
LATEST = 20.0  # seconds: far beyond every deadline, and far before a drip ends
BODY = chat()
CODED = post(b"", "Transfer-Encoding: chunked", length=False)
LONG = post(b"", "Content-Length: 50000", length=False)


class Row(NamedTuple):
    """What is sent at once, what drips behind it without end, and the answers; the last one ends the connection."""

    at_once: bytes
    drips: bytes
    statuses: tuple[int, ...]
    earliest: float = DEADLINE - 0.1


ROWS: dict[str, Row] = {
    "a head that stops in its first line": Row(b"POST /v1/ch", b"", (408,)),
    "a head that stops behind its first line": Row(b"GET /health HTTP/1.1\r\n", b"", (408,)),
    "a head that stops before its blank line": Row(get("/health")[:-2], b"", (408,)),
    "a head that stops within its blank line": Row(get("/health")[:-1], b"", (408,)),
    "a head that drips": Row(b"G", b"ET /health", (408,)),
    "fields that drip": Row(get("/health")[:-2], b"X: y\r\n", (408,)),
    "a value that drips": Row(get("/health")[:-2] + b"X: ", b"yyyyyy", (408,)),
    "a target that drips": Row(b"GET /", b"a", (408,)),
    "a second head that drips": Row(get("/health/live") + b"G", b"E", (200, 408)),
    "a second head behind a chat that drips": Row(post(BODY) + b"G", b"E", (200, 408)),
    "a body that never comes": Row(LONG, b"", (408,)),
    "a body that stops": Row(LONG + b"{" * 1000, b"", (408,)),
    "a body that drips": Row(LONG, b"{", (408,)),
    "a body that drips faster, below the rate": Row(LONG, b"{" * 50, (408,)),
    "a body that was asked for and never comes": Row(
        post(b"", "Content-Length: 5000", "Expect: 100-continue", length=False), b"", (408,)
    ),
    "chunks that never come": Row(CODED, b"", (408,)),
    "chunks that stop within a size": Row(CODED + b"1", b"", (408,)),
    "chunks that stop within a chunk": Row(CODED + b"ff\r\nab", b"", (408,)),
    "chunks that stop before the last": Row(CODED + b"2\r\n{}\r\n", b"", (408,)),
    "chunks that stop in the last": Row(CODED + b"2\r\n{}\r\n0\r\n", b"", (408,)),
    "chunks that drip": Row(CODED, b"1\r\n{\r\n", (408,)),
    "a size that drips": Row(CODED, b"0", (408,)),
    "an extension that drips": Row(CODED + b"1;", b"a", (408,)),
    "trailers that drip": Row(CODED + b"2\r\n{}\r\n0\r\n", b"X: y\r\n", (408,)),
    "an early 401 behind which it drips": Row(
        post(b"", "Content-Length: 5000", length=False, key=None), b"x", (401,), 0.0
    ),
    "an early 404 behind which it drips": Row(get("/nothing", "Content-Length: 5000"), b"x", (404,), 0.0),
    "an early 400 behind which it drips": Row(b"GET / HTTP/1.1\r\n\r\n", b"x", (400,), 0.0),
    "an early 413 behind which it drips": Row(get("/health", "Content-Length: 500000"), b"x", (413,), 0.0),
    "a closing 200 behind which it drips": Row(get("/health", "Connection: close"), b"x", (200,), 0.0),
    "silence from the start": Row(b"", b"", (), IDLE - 0.5),
    "silence behind an answer": Row(get("/health/live"), b"", (200,), IDLE - 0.5),
    "silence behind a chat": Row(post(BODY), b"", (200,), IDLE - 0.5),
}


class Seen(NamedTuple):
    answers: list[Answer]
    rest: bytes
    seconds: float


def slow(port: int, row: Row) -> Seen:
    """Be this client until the server has had enough, and tell what was seen and how long it took."""
    began = time.monotonic()
    client = Raw(port)
    with closing(client.socket):
        client.send(row.at_once)
        found = [client.answer() for _ in row.statuses[:-1]]
        at, heard = 0, not row.drips
        while not heard and time.monotonic() - began < LATEST:
            client.send(row.drips[at % len(row.drips) :][:1] if len(row.drips) < 40 else row.drips)
            at += 1
            heard = bool(select.select([client.socket], [], [], 0.01)[0])
        found += [client.answer() for _ in row.statuses[-1:]]
        while row.drips and not select.select([client.socket], [], [], 0.01)[0]:
            client.send(b"x")  # it goes on dripping: that keeps nothing open
            assert time.monotonic() - began < LATEST, "kept open by a drip"
        answers = [answer for answer in found if answer is not None]
        return Seen(answers, client.rest(), time.monotonic() - began)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("slow"), limits=LIMITS) as attacked:
        yield attacked


@pytest.fixture(scope="module")
def seen(attacked: World) -> Iterator[dict[str, object]]:
    """All of them at the same time."""
    with ThreadPoolExecutor(len(ROWS)) as pool:
        waiting = {name: pool.submit(slow, attacked.port, row) for name, row in ROWS.items()}
        yield {name: future.exception(100) or future.result() for name, future in waiting.items()}


@pytest.mark.parametrize("name", ROWS)
def test_a_slow_client_is_cut_off_at_its_deadline(seen: dict[str, object], name: str) -> None:
    found, row = seen[name], ROWS[name]
    if isinstance(found, BaseException):
        raise found
    assert isinstance(found, Seen)
    assert tuple(answer.status for answer in found.answers) == row.statuses
    assert found.rest == b""
    assert row.earliest <= found.seconds < LATEST
    if row.statuses[-1:] == (408,):
        assert (found.answers[-1].code, found.answers[-1].headers["connection"]) == ("request_timeout", "close")


def test_nothing_of_them_reached_a_provider_but_whole_requests(attacked: World, seen: dict[str, object]) -> None:
    assert set(attacked.reached) <= {BODY}


def test_hundreds_who_hold_half_a_head_are_told_so_and_nobody_waits_for_them(attacked: World) -> None:
    clients = []
    try:
        for _ in range(300):
            client = Raw(attacked.port)
            clients.append(client)
            client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: loc")
        assert attacked.ask(post(BYSTANDER)).status == 200
        assert {client.answer().status for client in clients} == {408}  # type: ignore[union-attr]
    finally:
        for client in clients:
            client.socket.close()


def test_who_asks_much_and_reads_nothing_is_cut_off_at_the_write_deadline(attacked: World) -> None:
    client = Raw(attacked.port)
    with closing(client.socket):
        client.socket.setblocking(False)
        request = get("/metrics") * 50
        sent, deadline = 0, time.monotonic() + LATEST
        while time.monotonic() < deadline:
            try:
                sent += client.socket.send(request[sent % len(request) :])
            except BlockingIOError:
                select.select([], [client.socket], [], 0.05)
            except OSError:
                break  # it is broken: the server has had enough
        else:
            raise AssertionError("it is still connected")
    assert attacked.ask(post(BYSTANDER)).status == 200
