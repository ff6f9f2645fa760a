"""The matcher for plain heads agrees with h11, and no mutation of a request gets a 500, a second answer or silence.

`GW_FUZZ_EXAMPLES` sets how many examples each property is tried with; the default takes a few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import h11
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gw.errors import InvalidRequest
from gw.message import Headers, Request
from gw.server import Limits, Reply
from gw.server.connection import Connection
from gw.server.head import Head, PlainHeads, any_head, plain_head
from gw.server.state import State
from tests.serving import BOTH, Http

EXAMPLES = int(os.environ.get("GW_FUZZ_EXAMPLES", "300"))
LIMITS = Limits()
FUZZ = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)

SDK = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:3456\r\nAccept-Encoding: gzip, deflate\r\n"
    b"Connection: keep-alive\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
    b"User-Agent: OpenAI/Python 2.8.0\r\nX-Stainless-Lang: python\r\nAuthorization: Bearer sk-x\r\n"
    b"X-Request-ID: abc-1\r\nContent-Length: 4\r\n\r\n"
)
HEADS = (
    SDK,
    b"GET /health HTTP/1.1\r\nHost: gw\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n",
    b"GET /v1/models?limit=2&after=x HTTP/1.1\r\nhost: gw.example:80\r\nX-Y: \r\nCookie: a=b; c=d \r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 04\r\nConnection: Keep-Alive\r\nX_Y: z\r\n\r\n",
)
PIECES = (
    b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\0", b"\x7f", b"\x80", b"_", b"%", b"%41", b"#", b"?", b"*", b"//",
    b"0", b",", b"+", b"A", b"HTTP/1.0", b"HTTP/2.0", b"HEAD", b"OPTIONS", b"http://gw", b"\r\n ",
    b"\r\nHost: gw", b"\r\nContent-Length: 4", b"\r\nContent-Length: 5", b"\r\nTransfer-Encoding: chunked",
    b"\r\nTransfer-Encoding: gzip", b"\r\nExpect: 100-continue", b"\r\nConnection: close",
    b"\r\nUpgrade: h2c", b"\r\nConnection: keep-alive", b"\r\nContent-Encoding: gzip", b"\r\nContent-Length : 4",
    b"\r\nX:", b"\r\nx-y: \xe9\t ", b"; ",
)  # fmt: skip

Mutation = tuple[int, int, bytes]
mutations: st.SearchStrategy[list[Mutation]] = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(0, 3), st.sampled_from(PIECES) | st.binary(min_size=1, max_size=3)),
    max_size=4,
)


def mutate(data: bytes, changes: Sequence[Mutation]) -> bytes:
    """Insert, overwrite, delete or double something at some places."""
    for where, kind, piece in changes:
        at = where % (len(data) + 1)
        if kind == 0:
            data = data[:at] + piece + data[at:]
        elif kind == 1:
            data = data[:at] + piece + data[at + len(piece) :]
        elif kind == 2:
            data = data[:at] + data[at + len(piece) :]
        else:  # at the end of a line, where a field would stand
            line = data.find(b"\r\n", at)
            data = data[:line] + piece + data[line:] if line >= 0 else data + piece
    return data


REMEMBERING = PlainHeads(LIMITS)


def read(heads: PlainHeads, text: bytes) -> Head | None:
    """What `heads` makes of a head, with names to it."""
    found = heads.read(text)
    return None if found is None else Head(*found)


@FUZZ
@given(st.sampled_from(HEADS), mutations)
def test_what_the_matcher_takes_h11_takes_with_the_same_result(head: bytes, changes: list[Mutation]) -> None:
    head = mutate(head, changes)
    end = head.find(b"\r\n\r\n")
    if end < 0:
        return
    head = head[: end + 4]
    plain = plain_head(head, LIMITS)
    for _ in range(2):  # the second time from memory
        again = read(REMEMBERING, head)
        assert (again is None) is (plain is None)
        if again is not None and plain is not None:
            assert (again[:3], again[4:]) == (plain[:3], plain[4:])
            assert again.headers.pairs == plain.headers.pairs
    if plain is None:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head + b"x" * plain.length)
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    target = plain.path + ("?" + plain.query if plain.query else "")
    assert request.target.decode() in (target, target + "?")
    assert request.method.decode() == plain.method
    assert request.http_version == b"1.1"
    assert list(request.headers) == plain.headers.pairs
    assert not connection.they_are_waiting_for_100_continue
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert len(body) == plain.length
    assert connection.trailing_data[0] == b""
    assert connection.their_state is h11.DONE  # neither MUST_CLOSE nor MIGHT_SWITCH_PROTOCOL
    # And the checks around h11 find nothing in it.
    checked = any_head(head, LIMITS)
    assert checked[:3] == plain[:3]
    assert checked[4:6] == plain[4:6]
    assert checked.headers.pairs == plain.headers.pairs


@FUZZ
@given(st.sampled_from(HEADS), mutations)
def test_fields_looked_up_in_the_raw_head_are_those_of_the_pairs(head: bytes, changes: list[Mutation]) -> None:
    plain = plain_head(mutate(head, changes), LIMITS)
    if plain is None:
        return
    headers = plain.headers
    for name in ("Host", "content-length", "X-Y", "Authorization", "absent"):
        wanted = [value.decode("latin-1") for key, value in headers.pairs if key.decode() == name.lower()]
        assert headers.get(name, "none") == (wanted[0] if wanted else "none")
        assert headers.get_all(name) == wanted
        assert (name in headers) is bool(wanted)
    assert "sk-x" not in repr(headers)


@FUZZ
@given(st.sampled_from(HEADS), mutations, st.lists(st.sampled_from((b"0", b"5", b"04", b"1234567")), min_size=1))
def test_a_remembered_head_says_what_a_new_one_says_whatever_its_length(
    head: bytes, changes: list[Mutation], lengths: list[bytes]
) -> None:
    heads = PlainHeads(LIMITS)
    head = mutate(head, changes)
    for digits in (b"4", *lengths):
        text = head.replace(b"Length: 4", b"Length: " + digits)
        new, again = plain_head(text, LIMITS), read(heads, text)
        assert (again is None) is (new is None)
        if again is None or new is None:
            continue
        assert (again[:3], again[4:]) == (new[:3], new[4:])
        for _ in range(2):
            for name in ("Host", "Content-Length", "content-length", "X-Request-ID", "Authorization", "absent", "X-Y"):
                assert again.headers.get(name, "none") == new.headers.get(name, "none")
                assert again.headers.get(name) == new.headers.get(name)
                assert again.headers.get_all(name) == new.headers.get_all(name)
                assert (name in again.headers) is (name in new.headers)
            assert again.headers.about(_hosts) == _hosts(new.headers)
            assert again.headers.may_name(b"stainless") == new.headers.may_name(b"stainless")
        assert again.headers.pairs == new.headers.pairs


def _hosts(headers: Headers) -> list[str]:
    return headers.get_all("host")


def test_what_is_asked_of_a_remembered_head_is_answered_once_and_changes_of_one_request_are_its_own() -> None:
    heads, asked = PlainHeads(LIMITS), []

    def question(headers: Headers) -> int:
        asked.append(headers)
        return len(headers.pairs)

    for _ in range(4):
        head = read(heads, SDK)
        assert head is not None
        assert head.headers.about(question) == len(head.headers.pairs) == 10
        head.headers.pairs = []
    assert len(asked) == 2  # the first, which was new, and the first that was remembered


def test_a_head_with_another_length_is_read_from_memory_with_that_length() -> None:
    heads = PlainHeads(LIMITS)
    text = b"POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: %b\r\nAccept: */*\r\n\r\n"
    for digits in (b"0", b"7", b"65", b"00000012", b"%d" % LIMITS.max_body):
        head = read(heads, text % digits)
        assert head is not None
        assert (head.length, head.path, head.query) == (int(digits), "/a", "b")
        assert head.headers.get("content-length") == digits.decode()
    for digits in (b"", b"-1", b"+1", b"1 ", b"1,1", b"1_0", b"0x1", b"\xb2", b"%d" % (LIMITS.max_body + 1), b"0" * 10):
        assert read(heads, text % digits) is None


@pytest.mark.parametrize("head", HEADS[:2])
def test_heads_of_the_usual_clients_take_the_fast_path(head: bytes) -> None:
    assert plain_head(head, LIMITS) is not None


# --- the protocol object with a transport of our own ----------------------------------------------------------------


class Transport(asyncio.Transport):
    """Keeps what is written, in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_paused = False
        self.has_ended = False
        self.is_closed = False

    def write(self, data: Any) -> None:
        assert not self.has_ended, "bytes behind the end"
        if not self.is_closed:
            self.written += data

    def write_eof(self) -> None:
        self.has_ended = True

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.is_closed


async def echo(request: Request) -> Reply:
    assert request.body is not None
    body = await request.body.read()
    return Reply(200, [], b"%b %b %b" % (request.method.encode(), request.path.encode(), body))


async def turns(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something has come about, or so often that it never will."""
    for _ in range(60):
        if condition():
            return
        await asyncio.sleep(0)


async def converse(pieces: Sequence[bytes], http: Http) -> bytes:
    """All that a server writes to a client that sends these pieces and then ends its sending."""
    state = State(echo, Limits(), matches_plain=http == "auto", refused=None)
    connection, transport = Connection(state), Transport()
    connection.connection_made(transport)
    for piece in pieces:
        await turns(lambda: not transport.is_paused or transport.is_closed)
        assert not transport.is_paused or transport.is_closed, "paused for ever"
        if not transport.is_closed:
            connection.data_received(piece)
    await turns(lambda: connection.task is None)
    if not transport.is_closed and not connection.eof_received():
        transport.close()
    await turns(lambda: connection.task is None)
    assert connection.task is None, "no answer"
    assert state.in_flight == 0
    assert transport.is_closed or transport.has_ended, "left open"
    connection.connection_lost(None)
    assert not state.connections
    return transport.written


_ANSWER = re.compile(rb"HTTP/1\.1 (\d+) [^\r]*\r\n((?:[^\r\n]+\r\n)*)\r\n")
_VARYING = re.compile(rb"(Date|X-Request-ID): [^\r]*\r\n")


def answers(written: bytes) -> list[tuple[int, bytes, bytes]]:
    """What was written, read strictly: (status, fields, body), without interim answers."""
    found: list[tuple[int, bytes, bytes]] = []
    is_last = False
    while written:
        match = _ANSWER.match(written)
        assert match is not None, f"not an answer: {written[:80]!r}"
        status, fields = int(match[1]), match[2]
        written = written[match.end() :]
        if status == 100:
            continue
        assert not is_last, "an answer behind the last one"
        is_last = b"Connection: close" in fields
        length = re.search(rb"Content-Length: (\d+)", fields)
        assert length is not None
        size = int(length[1])
        body, written = (b"", written) if written[:5] == b"HTTP/" or not written else (written[:size], written[size:])
        assert len(body) in (0, size)  # none for HEAD
        if status >= 400 and body:  # which of two faults is seen first may depend on the cut, their code does not
            fields, body = fields.replace(length[0], b""), orjson.loads(body)["error"]["code"].encode()
        found.append((status, _VARYING.sub(b"", fields), body))
    return found


SEEDS = (
    SDK + b"body",
    HEADS[1],
    HEADS[2],
    b"POST /c HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nbody\r\n1\r\n!\r\n0\r\nT: u\r\n\r\n",
    b"POST /e HTTP/1.1\r\nHost: gw\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody",
    b"HEAD /h HTTP/1.1\r\nHost: gw\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: gw\r\nConnection: TE\r\n\r\n",
    b"GET http://gw/a HTTP/1.1\r\nHost: gw\r\nUpgrade: h2c\r\n\r\n",
    b"GET /o HTTP/1.0\r\n\r\n",
)
conversations = st.lists(st.tuples(st.sampled_from(SEEDS), mutations), min_size=1, max_size=3).map(
    lambda parts: b"".join(mutate(seed, changes) for seed, changes in parts)
)


@pytest.mark.parametrize("http", BOTH)
def test_mutated_requests_get_no_500_no_silence_and_nothing_behind_the_last_answer(
    http: Http, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "gw.server")
    with asyncio.Runner() as runner:

        @FUZZ
        @given(conversations, st.lists(st.integers(0, 10_000), max_size=6))
        def holds(data: bytes, cuts: list[int]) -> None:
            wanted = answers(runner.run(converse([data], http)))
            for status, _, _ in wanted:
                assert status != 500
                assert status < 500 or status in (501, 505)
            places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
            pieces = [data[start:end] for start, end in pairwise(places)]
            assert answers(runner.run(converse(pieces, http))) == wanted, "another answer when cut otherwise"

        holds()
    assert caplog.records == []


@settings(FUZZ, max_examples=max(20, EXAMPLES // 10))
@given(conversations)
def test_both_modes_answer_the_same_byte_by_byte(data: bytes) -> None:
    async def main() -> None:
        pieces = [data[at : at + 1] for at in range(len(data))]
        wanted = answers(await converse([data], "auto"))
        for http in BOTH:
            assert answers(await converse(pieces, http)) == wanted

    asyncio.run(main())


def test_a_request_whose_client_is_gone_at_once_still_reaches_the_handler_and_is_cancelled_there() -> None:
    seen: list[str] = []

    async def handler(request: Request) -> Reply:
        seen.append(request.path)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        raise AssertionError

    async def main() -> None:
        state = State(handler, Limits(), matches_plain=True, refused=None)
        connection = Connection(state)
        connection.connection_made(Transport())
        connection.data_received(HEADS[1])
        connection.connection_lost(None)
        await turns(lambda: connection.task is None)
        assert state.in_flight == 0

    asyncio.run(main())
    assert seen == ["/health", "cancelled"]


def test_every_seed_is_answered_as_it_is() -> None:
    for seed in SEEDS:
        for http in BOTH:
            found = answers(asyncio.run(converse([seed], http)))
            assert [status for status, _, _ in found] == [200], seed


def test_random_bytes_in_a_head_are_never_more_than_an_invalid_request() -> None:
    @FUZZ
    @given(st.binary(max_size=200))
    def holds(data: bytes) -> None:
        for head in (data + b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n" + data + b"\r\n\r\n"):
            with suppress(InvalidRequest):
                any_head(head[: head.find(b"\r\n\r\n") + 4], LIMITS)

    holds()
