"""No mutation of a request gets a 500, a second answer or silence: the protocol object over a transport in memory.

`GW_FUZZ_EXAMPLES` sets how many examples each property is tried with; the default takes a few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from itertools import pairwise

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gw.message import Request
from gw.server import Limits, Reply
from gw.server.connection import Connection
from gw.server.state import State
from tests.mutated_requests import EXAMPLES, FUZZ, HEADS, SEEDS, Transport, mutate, mutations
from tests.serving import BOTH, Http


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
