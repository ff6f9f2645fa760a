"""The server's protocol under mutated requests, cut anywhere: every request has one answer, and everything its end.

`GW_FUZZ_EXAMPLES` sets how many conversations are tried; the default takes a few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from itertools import pairwise
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.errors import NotFound
from gw.message import Request
from gw.server import Limits, Reply
from gw.server.connection import Connection
from gw.server.state import State
from tests.attack_world import chat, get, post
from tests.desync_sequences import ROWS as SEQUENCES
from tests.framing_requests import RIGHT
from tests.framing_requests import ROWS as BROKEN
from tests.mutated_requests import FUZZ, PIECES, SEEDS, Transport

LIMITS = Limits(max_head=4096, max_fields=40, max_target=1024, max_body=4096, max_chunks=40)


class Choices:
    """Small decisions read from a string of bytes: one draw of Hypothesis makes a whole conversation."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def below(self, most: int) -> int:
        """A number from 0 to most - 1; 0 when the bytes are used up."""
        self._at += 2
        return int.from_bytes(self._data[self._at - 2 : self._at], "big") % most


# Whatever the tables of attacks hold, a few usual requests, and conversations of several.
CORPUS: Sequence[bytes] = [
    data
    for data in (
        *SEEDS,
        *(data for data, _, _ in BROKEN.values()),
        *(data for data, _ in RIGHT.values()),
        *(row.data for row in SEQUENCES.values()),
        *(get("/health"), post(chat()), post(chat(), "Expect: 100-continue"), get("/stream"), get("/late",
        "Content-Length: 3") + b"abc"),
    )
    if len(data) < 1500
]  # fmt: skip
MORE = (
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n", b"Upgrade: h2c\r\nConnection: Upgrade\r\n", b"Host: b\r\n", b"\r\n\r\n",
    b"0\r\n\r\n", b"5\r\nhello\r\n", b"1;a=b\r\nx\r\n",
    b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n", b"HEAD /next HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.0", b"HTTP/1.1",
    b"ffffffff\r\n", b"X: " + b"y" * 200 + b"\r\n",
)  # fmt: skip
TOKENS = [*PIECES, *MORE]


def conversation(choices: Choices) -> bytes:
    """Up to three requests of the corpus, one behind the other, each with up to four mutations."""
    return b"".join(mutated(CORPUS[choices.below(len(CORPUS))], choices) for _ in range(1 + choices.below(3)))


def mutated(data: bytes, choices: Choices) -> bytes:
    for _ in range(choices.below(5)):
        at = choices.below(len(data) + 1)
        kind = choices.below(7)
        piece = TOKENS[choices.below(len(TOKENS))]
        if kind == 0:
            data = data[:at] + piece + data[at:]
        elif kind == 1:
            data = data[:at] + piece + data[at + len(piece) :]
        elif kind == 2:
            data = data[:at] + data[at + 1 + choices.below(8) :]
        elif kind == 3:
            data = data[:at] + bytes([choices.below(256)]) + data[at + 1 :]
        elif kind == 4:  # a line of its own
            line = data.find(b"\r\n", at) + 2
            data = data[:line] + piece.strip(b"\r\n") + b"\r\n" + data[line:]
        elif kind == 5:  # a line twice
            line, end = data.rfind(b"\r\n", 0, at) + 2, data.find(b"\r\n", at) + 2
            data = data[:end] + data[line:end] + data[end:] if 1 < line < end else data
        else:
            data = data[:at] + data[: choices.below(len(data) + 1)]
    return data


class Pieces:
    """A stream of three pieces."""

    def __init__(self) -> None:
        self._left = 3

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        self._left -= 1
        return b"piece" if self._left >= 0 else b""

    async def aclose(self) -> None:
        self._left = 0


class Server:
    """A handler with habits, and the record of what reached it. `habit`: how it treats bodies and answers."""

    def __init__(self, habit: int, *, plain: bool) -> None:
        self.handled: list[tuple[str, str]] = []  # id, method
        self.refused: list[str] = []
        self._habit = habit
        self.state = State(
            self.handle, LIMITS, matches_plain=plain, refused=lambda address, error, id: self.refused.append(id)
        )

    async def handle(self, request: Request) -> Reply:
        self.handled.append((request.id, request.method))
        assert request.body is not None
        habit = (self._habit + len(self.handled)) % 5
        if habit == 1 or request.path == "/late":
            await asyncio.sleep(0)
            return Reply(200, [], b"unread")
        if habit == 2:
            raise NotFound("nothing here")
        body = await request.body.read()
        if habit == 3 or request.path == "/stream":
            return Reply(200, [("Content-Type", "text/event-stream")], Pieces())
        return Reply(204 if habit == 4 else 200, [], b"" if habit == 4 else body)


_HEAD = re.compile(
    rb"HTTP/1\.1 ([1-5]\d\d) [A-Za-z '-]*\r\n"
    rb"((?:(?:Date|Content-Type|Content-Length|Transfer-Encoding|Connection|X-Request-ID|Retry-After)"
    rb": [ -~]*\r\n)*)\r\n"
)
_CHUNKS = re.compile(rb"(?:0?([1-9a-f][0-9a-f]*)\r\npiece\r\n)*0\r\n\r\n")


def read_answers(written: bytes, methods: dict[bytes, str]) -> list[tuple[int, bytes]]:
    """(status, id) of every answer, read strictly; nothing may stand behind the one that closes."""
    found: list[tuple[int, bytes]] = []
    is_last = False
    while written:
        head = _HEAD.match(written)
        assert head is not None, f"not an answer: {written[:100]!r}"
        written = written[head.end() :]
        if head[1] == b"100":
            continue
        assert not is_last, "an answer behind the last one"
        fields = dict(line.split(b": ", 1) for line in head[2].split(b"\r\n") if line)
        is_last = b"Connection" in fields
        id = fields[b"X-Request-ID"]
        found.append((int(head[1]), id))
        method = methods.get(id)
        if b"Transfer-Encoding" in fields:
            if method != "HEAD":
                chunks = _CHUNKS.match(written)
                assert chunks is not None, f"a stream that does not end: {written[:100]!r}"
                written = written[chunks.end() :]
        elif b"Content-Length" in fields:
            size = int(fields[b"Content-Length"])
            if method is None:  # refused: the last one
                assert is_last
                assert len(written) in (0, size)
                written = b""
            elif method != "HEAD":
                assert len(written) >= size
                written = written[size:]
        else:
            # HTTP/1.0 reads a stream to the end of the connection.
            written = b"" if is_last and head[1] == b"200" and method != "HEAD" else written
    return found


async def turns(connection: Connection, transport: Transport) -> None:
    """Let the loop turn until nothing is at work, or what is at work waits for the client."""
    for _ in range(200):
        if connection.task is None or connection.deadline < inf:
            return
        await asyncio.sleep(0)
    raise AssertionError("at work for ever")


async def converse(server: Server, pieces: Sequence[bytes], how_it_ends: int) -> bytes:
    """What is written to a client that sends these pieces, and then is silent (0), ends sending (1) or leaves (2)."""
    loop = asyncio.get_running_loop()
    unhandled: list[Any] = []
    loop.set_exception_handler(lambda loop, context: unhandled.append(context))
    connection, transport = Connection(server.state), Transport()
    connection.connection_made(transport)
    for piece in pieces:
        await turns(connection, transport)
        assert not transport.is_paused or connection.task is not None or transport.is_closed, "paused for ever"
        if transport.is_closed:
            break
        connection.data_received(piece)
    await turns(connection, transport)
    if how_it_ends == 1 and not transport.is_closed and not connection.eof_received():
        transport.close()
    if how_it_ends == 2:
        connection.connection_lost(ConnectionResetError())
        for _ in range(10):
            await asyncio.sleep(0)
    else:
        for _ in range(10):  # each wait for the client has its deadline; when all have passed, it is over
            await turns(connection, transport)
            if transport.is_closed:
                break
            assert connection.deadline < inf, "nobody's clock is running"
            connection.expire()
            await asyncio.sleep(0)
        await turns(connection, transport)
        assert transport.is_closed, "left open"
        connection.connection_lost(None)
    assert connection.task is None, "still at work"
    assert server.state.in_flight == 0
    assert not server.state.connections
    assert unhandled == []
    return transport.written


def judge(runner: asyncio.Runner, drawn: bytes, *, plain: bool) -> None:
    """Hold the conversation that these bytes stand for, and judge all that was written."""
    choices = Choices(drawn)
    how_it_ends, habit, cuts = choices.below(3), choices.below(5), choices.below(7)
    data = conversation(choices)
    places = sorted({0, len(data), *(choices.below(len(data) + 1) for _ in range(cuts))})
    server = Server(habit, plain=plain)
    written = runner.run(converse(server, [data[start:end] for start, end in pairwise(places)], how_it_ends))
    found = read_answers(written, {id.encode(): method for id, method in server.handled})
    assert all(status < 500 or status in (501, 505) for status, _ in found), found
    ids = [id.decode() for _, id in found]
    wanted = [id for id, _ in server.handled] + server.refused
    assert len(server.refused) <= 1
    assert ids == (wanted[: len(ids)] if how_it_ends == 2 else wanted)


@pytest.mark.parametrize("plain", [True, False], ids=["auto", "h11"])
def test_every_request_has_one_answer_whatever_was_sent(plain: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    with asyncio.Runner() as runner:

        @FUZZ
        @given(st.binary(min_size=80, max_size=80))
        def holds(drawn: bytes) -> None:
            judge(runner, drawn, plain=plain)

        holds()
    assert caplog.records == []


def test_the_corpus_is_large_and_answered_as_it_is() -> None:
    assert len(CORPUS) > 500
    statuses: set[int] = set()
    with asyncio.Runner() as runner:
        for data in CORPUS:
            head = data.find(b"\r\n\r\n") + 4
            for habit, pieces in ((0, [data]), (1, [data[:head], data[head:]])):  # the second answers before the body
                server = Server(habit, plain=True)
                written = runner.run(converse(server, pieces, 1))
                assert not any("hidden" in id for id, _ in server.handled), "a body was taken for a request"
                methods = {id.encode(): method for id, method in server.handled}
                statuses |= {status for status, _ in read_answers(written, methods)}
    assert statuses == {200, 204, 400, 404, 413, 414, 415, 431, 501, 505}
