"""Sequences that try to get client and server out of step: bodies nobody reads, early answers, pipelines, half-closes.

All of them hinge on what happens to bytes behind an answer: they are the next request, or they are thrown away and the
connection ends; they are never answered as something that the client did not send as a request.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from gw.server import Limits
from tests.attack_world import CANARY, KEY, PATIENCE, Raw, World, chat, get, post, world
from tests.desync_sequences import BODY, LIMITS, ROWS, chunked


@pytest.fixture(scope="module", params=["auto", "h11"])
def attacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("desync"), limits=LIMITS, server={"http": request.param}) as attacked:
        yield attacked


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
