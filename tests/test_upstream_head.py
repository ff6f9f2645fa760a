"""Heads without a socket: ours are what they seem, and our matcher never says anything else than h11."""

from __future__ import annotations

import re
from itertools import pairwise

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gw.raw_headers import KnownHeaders, RawHeaders
from gw.upstream.head import CHUNKED, UNTIL_CLOSE, Head, HeadReader, HeadWriter, Malformed, match_head, parse_target
from tests.odd_heads import CANONICAL, EXAMPLES, mutated_heads

# --- our heads --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "host", "port", "authority", "target"),
    [
        ("https://api.example/v1/chat", "api.example", 443, "api.example", "/v1/chat"),
        ("https://api.example:443", "api.example", 443, "api.example", "/"),
        ("http://api.example:8080/a?b=c#d", "api.example", 8080, "api.example:8080", "/a?b=c"),
        ("http://[::1]:9/x", "::1", 9, "[::1]:9", "/x"),
        ("https://b\u00fccher.example/", "xn--bcher-kva.example", 443, "xn--bcher-kva.example", "/"),
    ],
)
def test_a_url_is_taken_apart(url: str, host: str, port: int, authority: str, target: str) -> None:
    found = parse_target("POST", url)
    assert (found.host, found.port, found.authority) == (host, port, authority)
    assert found.start == f"POST {target} HTTP/1.1\r\nHost: {authority}\r\nAccept-Encoding: identity\r\n"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a/?secret",
        "http:///x?secret",
        "http://me:secret@a/",
        "http://a b/",
        "http://a/secret b",
        "http://a/b\x00secret",
        "http://a/\u00e9secret",
        "http://a:99999/?secret",
        "http://[::1/?secret",
    ],
)
def test_a_url_that_cannot_be_asked_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(ValueError, match=r"provider's|request to") as failure:
        parse_target("POST", url)
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize("method", ["", "GET /x HTTP/1.1\r\nX:", "G T"])
def test_a_method_is_a_token(method: str) -> None:
    with pytest.raises(ValueError, match="method"):
        parse_target(method, "http://a/")


@pytest.mark.parametrize("name", ["Host", "content-length", "Transfer-Encoding", "Connection", "Accept-Encoding"])
def test_headers_that_are_the_transports_own_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"the header {name} is the transport's own"):
        HeadWriter().write("", [(name, "x")], None)


@EXAMPLES
@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=12)), max_size=4))
def test_a_head_holds_exactly_the_headers_that_were_given_or_is_refused(headers: list[tuple[str, str]]) -> None:
    writer = HeadWriter()
    start = parse_target("POST", "http://a/x").start
    try:
        head = writer.write(start, headers, 3)
    except ValueError:
        return
    server = h11.Connection(h11.SERVER)
    server.receive_data(head)
    request = server.next_event()
    assert isinstance(request, h11.Request)
    given_ = [(name.lower().encode(), value.strip(" \t").encode("latin-1")) for name, value in headers]
    assert list(request.headers)[2:-1] == given_


def test_a_value_that_cannot_be_sent_is_not_told() -> None:
    for value in ("sk-secret\n", "sk-secret\u20ac", "sk-secret\x7f"):
        with pytest.raises(ValueError, match="the value of the header Authorization") as failure:
            HeadWriter().write("", [("Authorization", value)], None)
        assert "secret" not in repr(failure.value)
        assert failure.value.__cause__ is None


def test_a_writer_does_not_remember_without_bound() -> None:
    writer = HeadWriter()
    for number in range(5000):
        writer.write("a\r\nb\r\nc\r\n", [(f"X-{number}", "v")], None)
    assert len(writer._names) <= 1025
    assert len(writer._heads) <= 256


# --- the provider's heads ---------------------------------------------------------------------------------------


def by_h11(block: bytes) -> tuple[int, list[tuple[bytes, bytes]], int] | None:
    """Status, headers and length as h11 sees them."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(block)
    try:
        event = client.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, h11.Response):
        return None
    fields = dict(event.headers)
    if b"transfer-encoding" in fields:
        length = CHUNKED
    elif b"content-length" in fields:
        length = int(fields[b"content-length"])
    else:
        length = UNTIL_CLOSE
    return event.status_code, [(bytes(name), bytes(value)) for name, value in event.headers], length


@settings(EXAMPLES, max_examples=300)
@given(mutated_heads())
def test_the_matcher_accepts_only_what_h11_accepts_with_the_same_result(data: bytes) -> None:
    head = match_head(data + b"body")
    if head is None:
        return
    assert by_h11(data[: head.size]) == (head.status, head.headers.pairs, head.length)
    assert head.is_reusable
    assert not head.encoding


@settings(EXAMPLES, max_examples=300)
@given(mutated_heads(), st.lists(st.integers(0, 200), max_size=4))
def test_a_head_in_pieces_is_what_h11_makes_of_it_or_refused(data: bytes, cuts: list[int]) -> None:
    head, rest = read_head(data + b"body", cuts)
    if head is not None:
        size = len(data) + 4 - len(rest)
        judged = by_h11(data[:size])
        assert judged is not None
        assert (head.status, head.headers.pairs) == judged[:2]
        assert head.length == (0 if head.status in (204, 304) else judged[2])


def read_head(data: bytes, cuts: list[int]) -> tuple[Head | None, bytes]:
    reader = HeadReader("GET")
    edges = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    try:
        for start, end in pairwise(edges):
            head = reader.feed(data[start:end])
            if head is not None:
                return head, reader.rest + data[end:]
    except Malformed:
        pass
    return None, b""


@pytest.mark.parametrize("head", CANONICAL)
def test_a_canonical_head_is_read_in_any_two_pieces(head: bytes) -> None:
    wanted = match_head(head)
    assert wanted is not None
    for cut in range(len(head)):
        found, rest = read_head(head + b"body", [cut])
        assert found is not None
        assert rest == b"body"
        assert found.headers.pairs == wanted.headers.pairs
        assert all(getattr(found, name) == getattr(wanted, name) for name in Head.__slots__ if name != "headers")


def test_the_canonical_heads_do_not_need_h11() -> None:
    assert [head and (head.status, head.length, head.keep_for) for head in map(match_head, CANONICAL)] == [
        (200, 12, None),
        (200, CHUNKED, None),
        (429, 2, 5.0),
    ]


def test_a_field_that_comes_twice_is_kept_and_framing_that_comes_twice_is_h11s_to_judge() -> None:
    cookies = CANONICAL[0].replace(b"Date: now", b"Set-Cookie: a\r\nSet-Cookie: b")
    head = match_head(cookies)
    assert head is not None
    assert by_h11(cookies) == (head.status, head.headers.pairs, head.length)
    for twice in (b"Content-Length: 12", b"Content-Length: 13", b"Transfer-Encoding: chunked", b"Connection: close"):
        assert match_head(CANONICAL[0].replace(b"Date: now", b"Connection: keep-alive\r\n" + twice)) is None


@settings(EXAMPLES, max_examples=300)
@given(
    mutated_heads(),
    st.sampled_from([b"", b"0", b"7", b"000007", b"7 ", b"+7", b"7,7", b"9" * 16, b"7\r\nA: b", b"7\n"]),
)
def test_a_head_that_comes_again_with_another_length_is_what_h11_makes_of_it(data: bytes, length: bytes) -> None:
    match_head(data + b"body")
    again = re.sub(rb"(?i)(content-length: )[0-9]+", lambda found: found[1] + length, data)
    for _ in range(2):
        head = match_head(again + b"another")
        if head is not None:
            assert by_h11(again[: head.size]) == (head.status, head.headers.pairs, head.length)
            assert int(head.headers.get("content-length", str(CHUNKED))) == head.length


def test_a_length_in_a_body_is_none_of_its_head() -> None:
    for head in (CANONICAL[1], CANONICAL[0].replace(b"Content-Length: 12", b"Content-Length: 12 ")):
        for _ in range(2):
            found = match_head(head + b"5\r\nContent-Length: 9\r\n\r\n")
            assert found is not None
            assert found.size == len(head)
            assert found.length in (12, CHUNKED)


def test_a_head_that_comes_again_is_known_by_what_stands_around_its_length() -> None:
    seen = [match_head(CANONICAL[0].replace(b"12", length).replace(b"now", b"later")) for length in (b"34", b"56")]
    assert [head and head.length for head in seen] == [34, 56]
    assert [head and type(head.headers) for head in seen] == [RawHeaders, KnownHeaders]
