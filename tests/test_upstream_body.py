"""Bodies without a socket: our decoders never say anything else than h11, however what comes is cut."""

from __future__ import annotations

import gzip
import time
import zlib
from itertools import pairwise

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gw.upstream.body import Chunked, Inflate, Sized
from gw.upstream.head import Malformed, match_head
from tests.odd_heads import EXAMPLES, ODD


def in_pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def chunked_by_h11(data: bytes) -> tuple[bytes, bytes] | None:
    """The body and what trails it; None for anything but a whole one."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1_000_000)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    body = b""
    try:
        while True:
            event = client.next_event()
            if isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return body, client.trailing_data[0]
            elif not isinstance(event, h11.Response):
                return None
    except h11.RemoteProtocolError:
        return None


def chunked_by_gw(pieces: list[bytes]) -> tuple[bytes, bool] | None:
    decoder, body = Chunked(), b""
    try:
        for number, piece in enumerate(pieces):
            body += decoder.feed(piece)
            if decoder.is_whole:
                return body, decoder.has_surplus or any(pieces[number + 1 :])
    except Malformed:
        pass
    return None


@st.composite
def chunked_bodies(draw: st.DrawFn) -> bytes:
    chunks = draw(st.lists(st.binary(min_size=1, max_size=20), max_size=4))
    data = b""
    for chunk in chunks:
        size = draw(st.sampled_from([b"%x", b"%X", b"0%x", b"%x;a=b", b"%x "])) % len(chunk)
        data += size + b"\r\n" + chunk + b"\r\n"
    data += b"0\r\n" + draw(st.sampled_from([b"", b"", b"X-T: 1\r\n", b"A:\r\nB: c d\r\n"])) + b"\r\n"
    return data + draw(st.sampled_from([b"", b"", b"x", b"HTTP/1.1 200 OK\r\n\r\n"]))


CUTS = st.lists(st.integers(0, 120), max_size=8)


@EXAMPLES
@given(chunked_bodies(), CUTS)
def test_chunks_read_as_h11_reads_them_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    wanted = chunked_by_h11(data)
    assert wanted is not None
    assert chunked_by_gw(in_pieces(data, cuts)) == (wanted[0], bool(wanted[1]))
    assert chunked_by_gw([data[at : at + 1] for at in range(len(data))]) == (wanted[0], bool(wanted[1]))


@settings(EXAMPLES, max_examples=300)
@given(chunked_bodies(), CUTS, st.integers(0, 120), st.sampled_from([*ODD, b"", b"0", b"f", b";"]), st.integers(0, 2))
def test_broken_chunks_are_refused_or_read_as_h11_reads_them(
    data: bytes, cuts: list[int], at: int, odd: bytes, dropped: int
) -> None:
    data = data[:at] + odd + data[at + dropped :]
    found = chunked_by_gw(in_pieces(data, cuts))
    if found is not None and not any(name in data for name in (b"Content-Length", b"Transfer-Encoding")):
        wanted = chunked_by_h11(data)
        assert wanted is not None
        assert found == (wanted[0], bool(wanted[1]))
    assert found == chunked_by_gw([data]), "how it is cut changes nothing"


def test_a_chunk_that_is_cut_inside_its_end_is_checked_all_the_same() -> None:
    good = b"1\r\na\r\n0\r\n\r\n"
    for at in range(len(good)):
        bad = good[:at] + b"!" + good[at + 1 :]
        found = {chunked_by_gw([bad[:cut], bad[cut:]]) for cut in range(len(bad))}
        assert found == ({(b"!", False)} if at == 3 else {None})


def test_a_body_of_known_length_knows_its_surplus() -> None:
    body = Sized(5)
    assert (body.feed(b"hel"), body.is_whole, body.eof()) == (b"hel", False, False)
    assert (body.feed(b"lo"), body.is_whole, body.has_surplus) == (b"lo", True, False)
    body = Sized(5)
    assert (body.feed(b"hello!"), body.is_whole, body.has_surplus) == (b"hello", True, True)


@pytest.mark.parametrize("data", [b"5;" + b" " * 300_000, b"5" + b" " * 300_000, b"0\r\nX:" + b" " * 300_000])
def test_hostile_lines_are_refused_in_linear_time(data: bytes) -> None:
    started = time.process_time()
    with pytest.raises(Malformed):
        Chunked().feed(data)
    assert match_head(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 10_000 + b"c: " + b" " * 60_000) is None
    assert time.process_time() - started < 0.2


def test_compressed_bodies_are_read_in_any_two_pieces_and_several_members() -> None:
    text = b"some text, some text, some text"
    bare = zlib.compress(text)[2:-4]
    for encoding, packed in [
        (b"gzip", gzip.compress(text)),
        (b"gzip", gzip.compress(text[:9]) + gzip.compress(text[9:])),
        (b"deflate", zlib.compress(text)),
        (b"deflate", bare),
    ]:
        for cut in range(len(packed)):
            inflate = Inflate(encoding, 1000)
            assert inflate.feed(packed[:cut]) + inflate.feed(packed[cut:]) == text
            inflate.finish()


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
def test_a_compressed_body_that_is_cut_anywhere_is_not_whole(encoding: bytes) -> None:
    packed = gzip.compress(b"some text") if encoding == b"gzip" else zlib.compress(b"some text")
    for cut in range(1, len(packed)):
        inflate = Inflate(encoding, 1000)
        inflate.feed(packed[:cut])
        with pytest.raises(Malformed, match="cut short"):
            inflate.finish()


def test_what_a_compressed_body_grows_to_is_counted_over_all_pieces() -> None:
    packed = gzip.compress(bytes(1000))
    Inflate(b"gzip", 1000).feed(packed)
    inflate = Inflate(b"gzip", 999)
    half = len(packed) // 2
    inflate.feed(packed[:half])
    with pytest.raises(Malformed, match="limit"):
        inflate.feed(packed[half:])


def test_line_ends_within_chunks_are_content_and_chunks_behind_them_are_found() -> None:
    events = [b"data: %b\r\n\r\n" % (b"x" * size) for size in (20, 300, 20, 21)]
    plain = [b"data: %b\n\n" % (b"x" * size) for size in (24, 300, 24, 21)]
    for pieces in (events, plain, plain + events, events + plain):
        framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        for _ in range(2):  # sizes are remembered
            for end in (b"", b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"18\r\n0\r\n\r\n"):
                body = Chunked()
                left = b"0\r\n\r\n" if end.startswith(b"18") else b""
                assert body.feed(framed + end) == b"".join(pieces) + left
                assert body.is_whole is end.startswith(b"0")
