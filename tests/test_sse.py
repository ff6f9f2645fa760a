"""Event streams come out the same however their bytes were cut."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.sse import STRAY, Event, EventTooLarge, JSONArrayDecoder, NDJSONDecoder, SSEDecoder


def decode(*pieces: bytes, limit: int = 1000) -> list[Event]:
    def read(decoder: SSEDecoder, *, resumed: bool) -> list[Event]:
        events = [event for piece in pieces for event in decoder.feed(decoder.resumed(piece) if resumed else piece)]
        return events + decoder.finish()

    events = read(SSEDecoder(limit), resumed=False)
    assert read(SSEDecoder(limit), resumed=True) == events
    return events


def bytewise(data: bytes) -> Iterable[bytes]:
    return (data[i : i + 1] for i in range(len(data)))


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [("", b"a")]),
        (b"data:a\n\n", [("", b"a")]),
        (b"data:  a \n\n", [("", b" a ")]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [("", b"a"), ("", b"b")]),
        (b"data: a\r\rdata: b\r\r", [("", b"a"), ("", b"b")]),
        (b"data: a\r\n\ndata: b\n\r\n", [("", b"a"), ("", b"b")]),
        (b"data: a\ndata: b\n\n", [("", b"a\nb")]),
        (b"data\n\n", [("", b"")]),
        (b"data:\n\n", [("", b"")]),
        (b"event: error\ndata: a\n\n", [("error", b"a")]),
        (b"data: a\nevent: late\n\n", [("late", b"a")]),
        (b"id: 1\nretry: 5\ndata: a\n\n", [("", b"a")]),
        (b": comment\n\n: another\ndata: a\n\n", [("", b"a")]),
        (b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n", [("", b"a"), ("", b"b")]),
        (b"\xef\xbb\xbfdata: a\n\n", [("", b"a")]),
        (b"data: \xef\xbb\xbf\n\n", [("", b"\xef\xbb\xbf")]),
        (b"event: nothing\n\ndata: a\n\n", [("", b"a")]),
        (b"data: a", [("", b"a")]),
        (b"data: a\n", [("", b"a")]),
        (b"data: a\r", [("", b"a")]),
        (b"data: a\n\ndata: b", [("", b"a"), ("", b"b")]),
        (b"data: a:b: c\n\n", [("", b"a:b: c")]),
        (b'{"error":{"code":503}}\n\n', [(STRAY, b'{"error":{"code":503}}')]),
        (b'data: a\n\n[{"error":\n 1}]', [("", b"a"), (STRAY, b'[{"error":\n 1}]')]),
        (b"<html>\n\n</html>", []),
        (b"", []),
        (b"\xef\xbb", []),
        ("data: é\U0001f600\n\n".encode(), [("", "é\U0001f600".encode())]),
    ],
)
def test_a_stream_is_read_by_the_rules_of_the_standard(stream: bytes, events: list[tuple[str, bytes]]) -> None:
    assert decode(stream) == events
    assert decode(*bytewise(stream)) == events
    for cut in range(len(stream)):
        assert decode(stream[:cut], stream[cut:]) == events, cut


@given(
    st.lists(
        st.sampled_from([b"data", b":", b" ", b"\n", b"\r", b"\r\n", b"event", b"x", b"{", b"\n\n", b"data: y\n\n"]),
        max_size=30,
    ),
    st.lists(st.integers(0, 60), max_size=6),
)
def test_any_stream_reads_the_same_however_it_is_cut(tokens: list[bytes], places: list[int]) -> None:
    stream = b"".join(tokens)
    cuts = [0, *sorted(place for place in places if place < len(stream)), len(stream)]
    whole = decode(stream)
    assert decode(*(stream[a:b] for a, b in itertools.pairwise(cuts))) == whole
    assert decode(*bytewise(stream)) == whole


def test_a_decoder_knows_whether_an_event_has_begun() -> None:
    decoder = SSEDecoder()
    assert not decoder.is_inside
    for piece, inside in ((b"data: a\n\n", False), (b"da", True), (b"ta: b\n", True), (b"\n", False), (b"\r", True)):
        decoder.feed(piece)
        assert decoder.is_inside is inside, piece


def test_an_event_that_outgrows_the_limit_is_refused() -> None:
    with pytest.raises(EventTooLarge):
        decode(b"data: " + b"x" * 600, b"x" * 600)
    assert len(decode(b"data: " + b"x" * 600 + b"\n\n", b"data: " + b"x" * 600 + b"\n\n")) == 2


def test_the_cost_of_a_large_event_is_linear_in_its_pieces() -> None:
    def seconds(size: int) -> float:
        piece = b"x" * 512
        decoder = SSEDecoder()
        decoder.feed(b"data: ")
        started = time.thread_time()
        for _ in range(size // len(piece)):
            decoder.feed(piece)
        decoder.feed(b"\n\n")
        return time.thread_time() - started

    small, large = (min(seconds(size) for _ in range(3)) for size in (250_000, 4_000_000))
    assert large < 16 * 6 * small  # sixteen times the bytes; a quadratic cost would be 256 times


def test_only_a_short_event_is_looked_at_again_with_each_piece() -> None:
    decoder = SSEDecoder()
    decoder.feed(b"data: ")
    assert decoder.resumed(b"a") == b"data: a"
    assert not decoder.is_inside
    decoder.feed(b"data: " + b"x" * 5000)
    assert decoder.resumed(b"a") == b"a"
    assert decoder.is_inside


@pytest.mark.parametrize("limit", [5])
def test_a_line_that_outgrows_the_limit_is_refused(limit: int) -> None:
    decoder = NDJSONDecoder(limit)
    assert decoder.feed(b"123456789\n1234") == [b"123456789"]
    with pytest.raises(EventTooLarge):
        decoder.feed(b"56")


@given(st.lists(st.sampled_from([b'{"a":1}', b"\n", b"\r\n", b" ", b"x"]), max_size=20), st.integers(0, 40))
def test_lines_read_the_same_however_they_are_cut(tokens: list[bytes], place: int) -> None:
    stream = b"".join(tokens)

    def lines(*pieces: bytes) -> list[bytes]:
        decoder = NDJSONDecoder()
        found = [line for piece in pieces for line in decoder.feed(piece)]
        return [line.strip() for line in found + decoder.finish()]

    wanted = [line.strip() for line in stream.split(b"\n") if line.strip()]
    assert lines(stream) == lines(stream[:place], stream[place:]) == lines(*bytewise(stream)) == wanted


@pytest.mark.parametrize(
    ("stream", "elements"),
    [
        (b'[{"a":1},\r\n{"b":{"c":[1]}}]', [b'{"a":1}', b'{"b":{"c":[1]}}']),
        (b'[{"a":"}{\\"]"}]', [b'{"a":"}{\\"]"}']),
        (b'[{"a":"\\\\"},{"b":2}]', [b'{"a":"\\\\"}', b'{"b":2}']),
        (b'{"error":{"code":1}}', [b'{"error":{"code":1}}']),
        (b"[]", []),
        (b"", []),
        ('[{"a":"é"}]'.encode(), ['{"a":"é"}'.encode()]),
    ],
)
def test_the_elements_of_an_array_come_out_as_they_are_whole(stream: bytes, elements: list[bytes]) -> None:
    for pieces in ([stream], list(bytewise(stream)), *([stream[:i], stream[i:]] for i in range(len(stream)))):
        decoder = JSONArrayDecoder()
        assert [element for piece in pieces for element in decoder.feed(piece)] == elements
        assert decoder.is_whole
        assert decoder.finish() == []


def test_an_element_that_is_not_closed_is_not_whole() -> None:
    decoder = JSONArrayDecoder()
    assert decoder.feed(b'[{"a":1},{"b":') == [b'{"a":1}']
    assert not decoder.is_whole
    with pytest.raises(EventTooLarge):
        JSONArrayDecoder(limit=5).feed(b'[{"a":"123456"')
