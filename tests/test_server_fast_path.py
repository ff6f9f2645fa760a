"""The matcher for plain heads agrees with h11, whatever is mutated, and with itself when it remembers a head.

`GW_FUZZ_EXAMPLES` sets how many examples each property is tried with; the default takes a few seconds.
"""

from __future__ import annotations

from contextlib import suppress

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.errors import InvalidRequest
from gw.message import Headers
from gw.server import Limits
from gw.server.head import Head, PlainHeads, any_head, plain_head
from tests.mutated_requests import FUZZ, HEADS, SDK, Mutation, mutate, mutations

LIMITS = Limits()
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


def test_random_bytes_in_a_head_are_never_more_than_an_invalid_request() -> None:
    @FUZZ
    @given(st.binary(max_size=200))
    def holds(data: bytes) -> None:
        for head in (data + b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n" + data + b"\r\n\r\n"):
            with suppress(InvalidRequest):
                any_head(head[: head.find(b"\r\n\r\n") + 4], LIMITS)

    holds()
