"""What HTTPTransport makes of answers: whole, streamed, broken and hostile."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable

import pytest

from gw.errors import UpstreamConnectionError, UpstreamError, UpstreamProtocolError
from gw.upstream import HTTPTransport
from tests.event_loops import Run, run
from tests.scripted_provider import (
    CHUNKED,
    OK,
    SOON,
    Peer,
    Provider,
    Script,
    says,
    says_and_closes,
    says_and_hangs,
    says_and_resets,
    scene,
    whole,
    wire,
)

__all__ = ["run"]


# --- whole answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (OK, 200, b"hello"),
        (b"HTTP/1.1 200\r\ncontent-length:5\r\n\r\nhello", 200, b"hello"),
        (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", 200, b"hello"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, 200, b"hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b""),
        (b"HTTP/1.1 307 Away\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n", 307, b""),
        (b"HTTP/1.1 429 Slow Down\r\nContent-Length: 2\r\n\r\n{}", 429, b"{}"),
        (CHUNKED + b"3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\n\r\n", 200, b"hello"),
        (CHUNKED + b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n", 200, b"hello"),
        (b"HTTP/1.1 200 \xfcber\r\nX-L: \xe9\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello"),
    ],
)
def test_an_answer_reads_the_same_whole_and_byte_by_byte(run: Run, answer: bytes, status: int, body: bytes) -> None:
    async def main() -> None:
        drip = [answer[at : at + 1] for at in range(len(answer))]
        async with scene(says(answer), says(*drip), says(answer)) as (provider, transport):
            for stream in (False, True, True):
                got = await transport(wire(provider, stream=stream))
                assert (got.status, await whole(got)) == (status, body)
            assert len(provider.peers) == 1

    run(main)


def test_the_answer_to_head_has_no_body_whatever_it_says(run: Run) -> None:
    async def main() -> None:
        async with scene(says(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"), says(OK)) as (provider, transport):
            answer = await transport(wire(provider, method="HEAD", content=b""))
            assert await whole(answer) == b""
            assert await whole(await transport(wire(provider))) == b"hello"
            assert len(provider.peers) == 1

    run(main)


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_a_body_without_a_length_ends_with_the_connection(run: Run, version: bytes) -> None:
    async def main() -> None:
        head = b"HTTP/" + version + b" 200 OK\r\n\r\n"
        async with scene(says_and_closes(head + b"hel", b"lo")) as (provider, transport):
            for stream in (False, True):
                assert await whole(await transport(wire(provider, stream=stream))) == b"hello"

    run(main)


def test_a_body_without_a_length_that_is_reset_is_not_complete(run: Run) -> None:
    async def main() -> None:
        async with scene(says_and_resets(b"HTTP/1.1 200 OK\r\n\r\nhel")) as (provider, transport):
            with pytest.raises(UpstreamConnectionError):
                await whole(await transport(wire(provider)))

    run(main)


def test_a_stream_gives_each_piece_as_it_comes(run: Run) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.write(CHUNKED)
            for piece in (b"3\r\none\r\n", b"3\r\ntwo\r\n", b"0\r\n\r\n"):
                await go.wait()
                go.clear()
                await peer.write(piece)

        async with scene(script) as (provider, transport):
            answer = await transport(wire(provider, stream=True))
            got = []
            for _ in range(3):
                go.set()
                got.append(await answer.body.read())
            assert got == [b"one", b"two", b""]

    run(main)


# --- broken answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [says_and_closes, says_and_resets], ids=["close", "reset"])
@pytest.mark.parametrize("answer", [OK, CHUNKED + b"5\r\nhello\r\n0\r\nT: 1\r\n\r\n"], ids=["length", "chunked"])
def test_an_answer_that_is_cut_anywhere_is_an_error(run: Run, answer: bytes, ending: Callable[..., Script]) -> None:
    async def main() -> None:
        scripts = [ending(answer[:at]) for at in range(len(answer))]
        async with scene(*scripts) as (provider, transport):
            for at in range(len(answer)):
                with pytest.raises(
                    UpstreamConnectionError, match=r'"acme": 127\.0\.0\.1:\d+ closed the conn'
                ) as failure:
                    await whole(await transport(wire(provider, stream=at % 2 == 0)))
                assert "hidden" not in str(failure.value)
                where = "before it answered" if at == 0 else "in the middle of its answer"
                assert ending is says_and_resets or where in str(failure.value)

    run(main)


def test_what_came_before_a_break_is_given_first(run: Run) -> None:
    async def main() -> None:
        async with scene(says_and_closes(OK[:-2])) as (provider, transport):
            for stream in (True, False):
                answer = await transport(wire(provider, stream=stream))
                assert await answer.body.read() == b"hel"
                for _ in range(2):
                    with pytest.raises(UpstreamConnectionError):
                        await answer.body.read()

    run(main)


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"\r\n" + OK,
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Name: 1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
        b"HTTP/1.1 100 Continue\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n" * 2000 + OK,
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
    ],
)
def test_an_answer_that_is_not_http_is_a_protocol_error_and_is_not_quoted(run: Run, answer: bytes) -> None:
    async def main() -> None:
        async with scene(says_and_hangs(answer)) as (provider, transport):
            with pytest.raises(UpstreamProtocolError, match='backend "acme": 127') as failure:
                await transport(wire(provider))
            assert "aaa" not in str(failure.value)
            async with asyncio.timeout(SOON):
                await provider.peers[0].gone.wait()

    run(main)


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nhelloo\r\n0\r\n\r\n",
        b"x\r\nhello\r\n",
        b"-1\r\n",
        b"0x5\r\nhello\r\n",
        b"\r\nhello",
        b"5\nhello\n0\n\n",
        b"5;\0\r\nhello\r\n",
        b"5;a\rb\r\nhello\r\n",
        b"5;" + b"a" * 5000,
        b"fffffffffffffffff\r\n",
        b"0\r\nno trailer\r\n\r\n",
        b"0\r\n" + b"X: aaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 1000,
        b"0\r\nX: " + b"a" * 20_000,
    ],
)
def test_chunks_that_are_not_chunks_are_a_protocol_error(run: Run, body: bytes) -> None:
    async def main() -> None:
        async with scene(says_and_hangs(CHUNKED + body)) as (provider, transport):
            for stream in (False, True):
                with pytest.raises(UpstreamProtocolError):
                    await whole(await transport(wire(provider, stream=stream)))

    run(main)


@pytest.mark.parametrize("encoding", [b"gzip", b"x-gzip", b"deflate", b"Deflate"])
def test_compression_that_nobody_asked_for_is_undone(run: Run, encoding: bytes) -> None:
    text = b"hello " * 5000
    packed = gzip.compress(text) if b"gzip" in encoding else zlib.compress(text)
    if encoding == b"Deflate":
        packed = packed[2:-4]  # bare, as some servers send it

    async def main() -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: " + encoding + b"\r\nContent-Length: %d\r\n\r\n" % len(packed)
        async with scene(
            says(head + packed), says(head, *(packed[at : at + 7] for at in range(0, len(packed), 7)))
        ) as (
            provider,
            transport,
        ):
            for stream in (False, True):
                answer = await transport(wire(provider, stream=stream))
                assert "content-encoding" not in answer.headers
                assert await whole(answer) == text
            assert len(provider.peers) == 1

    run(main)


def test_a_compressed_answer_that_is_cut_broken_or_a_bomb_is_a_protocol_error(run: Run) -> None:
    def answer(packed: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(packed), packed)

    good = gzip.compress(b"hello " * 100)
    bomb = gzip.compress(bytes(2_000_000))

    async def main() -> None:
        for packed in (good[:-5], b"\x1f\x8b" + good[10:], b"plain text", bomb):
            provider, transport = Provider(says_and_hangs(answer(packed))), HTTPTransport(max_body=1_000_000)
            await provider.open()
            for stream in (False, True):
                with pytest.raises(UpstreamProtocolError):
                    await whole(await transport(wire(provider, stream=stream)))
            await transport.aclose()
            await provider.close()

    run(main)


def test_a_whole_answer_has_a_limit_and_a_stream_has_none(run: Run) -> None:
    async def main() -> None:
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        script = says(CHUNKED, *[chunk] * 20, b"0\r\n\r\n")
        provider, transport = Provider(script), HTTPTransport(max_body=1_000_000)
        await provider.open()
        try:
            with pytest.raises(UpstreamProtocolError, match="limit"):
                await whole(await transport(wire(provider)))
            assert len(await whole(await transport(wire(provider, stream=True)))) == 20 * 65536
        finally:
            await transport.aclose()
            await provider.close()

    run(main)


def test_every_failure_is_a_gateway_error_that_may_be_retried(run: Run) -> None:
    async def main() -> None:
        for script in (says_and_closes(), says_and_resets(OK[:40]), says_and_closes(b"x" * 30)):
            async with scene(script) as (provider, transport):
                with pytest.raises(UpstreamError) as failure:
                    await whole(await transport(wire(provider)))
                assert failure.value.status == 502

    run(main)
