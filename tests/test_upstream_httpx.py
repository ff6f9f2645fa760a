"""HTTPXTransport: the same laws where a proxy or HTTP/2 is wanted."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
from contextlib import AbstractAsyncContextManager

import pytest

from gw.adapter import WireResponse
from gw.backend import Timeouts
from gw.errors import UpstreamConnectionError, UpstreamError, UpstreamProtocolError, UpstreamTimeout
from gw.upstream import HTTPXTransport
from tests.deadlines import timed
from tests.event_loops import Run, run
from tests.scripted_provider import (
    CHUNKED,
    OK,
    SECOND,
    Provider,
    Script,
    gone,
    playing,
    says,
    says_and_closes,
    says_and_hangs,
    says_and_resets,
    whole,
    wire,
)
from tests.tls_world import Authority, TLSProvider, ask, authority, tls_scene

__all__ = ["authority", "run"]


def scene(*scripts: Script) -> AbstractAsyncContextManager[tuple[Provider, HTTPXTransport]]:
    return playing(HTTPXTransport(), *scripts)


async def whole_or_broken_for_good(answer: WireResponse) -> bytes:
    try:
        return await whole(answer)
    except UpstreamError:
        with pytest.raises(UpstreamError):
            await answer.body.read()
        raise


def test_httpx_is_not_imported_before_it_is_used() -> None:
    code = "import sys, gw.upstream as u; u.HTTPXTransport(); sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_request_goes_out_as_it_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # nothing is taken from the environment

    async def main() -> None:
        redirect = b"HTTP/1.1 307 Away\r\nLocation: /elsewhere\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
        async with scene(says(OK), says(redirect), says(OK)) as (provider, transport):
            answer = await transport(wire(provider, headers=[("Authorization", "Bearer k")]))
            assert (answer.status, await whole(answer)) == (200, b"hello")
            _, head, body = provider.requests[0]
            assert body == b"{}"
            names = [line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:-2]]
            assert sorted(names) == [b"accept-encoding", b"authorization", b"content-length", b"host"]
            assert b"Accept-Encoding: identity\r\n" in head
            assert (await transport(wire(provider))).status == 307
            await whole(await transport(wire(provider)))
            assert b"cookie" not in provider.requests[2][1].lower()

    run(main)


@pytest.mark.parametrize(("name", "value"), [("X-A", "a\r\nX-B: b"), ("X A", "b"), ("Content-Length", "9")])
def test_a_header_that_http_cannot_carry_is_a_programming_error(run: Run, name: str, value: str) -> None:
    async def main() -> None:
        async with scene(says(OK)) as (provider, transport):
            with pytest.raises(ValueError, match="header"):
                await transport(wire(provider, headers=[(name, value)]))

    run(main)


def test_answers_are_read_whole_streamed_and_decompressed(run: Run) -> None:
    async def main() -> None:
        packed = gzip.compress(b"hello")
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        for script in (says(OK), says(CHUNKED + b"3\r\nhel\r\n", b"2\r\nlo\r\n0\r\n\r\n"), says(head + packed)):
            async with scene(script) as (provider, transport):
                for stream in (False, True):
                    answer = await transport(wire(provider, stream=stream))
                    assert await whole(answer) == b"hello"
                    assert "content-encoding" not in answer.headers
                    assert await answer.body.read() == b""

    run(main)


def test_what_trails_an_answer_never_reaches_the_next_request(run: Run) -> None:
    async def main() -> None:
        async with scene(says(OK + SECOND), says(OK)) as (provider, transport):
            for _ in range(3):
                assert await whole(await transport(wire(provider))) == b"hello"
            assert len(provider.peers) == 3

    run(main)


@pytest.mark.parametrize(
    "script",
    [
        says_and_closes(),
        says_and_closes(OK[:-1]),
        says_and_resets(OK[:-1]),
        says_and_closes(CHUNKED + b"5\r\nhel"),
        says_and_closes(b"garbage\r\n\r\n"),
        says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx"),
        says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx"),
    ],
)
def test_a_broken_answer_is_an_upstream_error_and_is_not_quoted(run: Run, script: Script) -> None:
    async def main() -> None:
        async with scene(script) as (provider, transport):
            with pytest.raises(
                (UpstreamConnectionError, UpstreamProtocolError), match='backend "acme": 127'
            ) as failure:
                await whole_or_broken_for_good(await transport(wire(provider)))
            assert "garbage" not in str(failure.value)
            assert "hidden" not in str(failure.value)

    run(main)


def test_deadlines_are_kept(run: Run) -> None:
    async def main() -> None:
        async with scene(says_and_hangs(CHUNKED + b"5\r\nhello\r\n")) as (provider, transport):

            async def ask_whole() -> None:
                await whole(await transport(wire(provider, timeouts=Timeouts(total=0.2))))

            with pytest.raises(UpstreamTimeout):
                await ask_whole()  # imports httpx and reads the certificate authorities, once
            assert "(total)" in await timed(ask_whole, 0.2)
            answer = await transport(wire(provider, stream=True, timeouts=Timeouts(idle=0.15)))
            assert await answer.body.read() == b"hello"
            answer.body.commit()
            assert "(idle)" in await timed(answer.body.read, 0.15)
            for peer in provider.peers:
                await gone(peer)
        async with scene(says_and_hangs()) as (provider, transport):
            request = wire(provider, stream=True, timeouts=Timeouts(first_content=0.1))
            with pytest.raises(UpstreamTimeout):
                await transport(request)
            said = await timed(lambda: transport(request), 0.1)
            assert "(first_content)" in said

    run(main)


@pytest.mark.parametrize("pieces", [(), (CHUNKED + b"5\r\nhello\r\n",)])
def test_cancelling_or_closing_frees_the_connection_at_once(run: Run, pieces: tuple[bytes, ...]) -> None:
    async def main() -> None:
        async with scene(says_and_hangs(*pieces)) as (provider, transport):

            async def ask_whole() -> None:
                await whole(await transport(wire(provider)))

            task = asyncio.create_task(ask_whole())
            await provider.asked.wait()
            for _ in range(100):
                await asyncio.sleep(0)  # what it says comes
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await gone(provider.peers[0])
            if pieces:
                answer = await transport(wire(provider))
                await answer.body.read()
                await answer.body.aclose()
                await answer.body.aclose()
                await gone(provider.peers[1])
                with pytest.raises(UpstreamConnectionError, match="closed by its reader"):
                    await answer.body.read()

    run(main)


def test_a_proxy_is_asked_in_the_providers_place(run: Run) -> None:
    async def main() -> None:
        proxy = Provider(says(OK))
        await proxy.open()
        transport = HTTPXTransport(proxy=f"http://me:secret@127.0.0.1:{proxy.port}")
        request = wire(proxy)
        request.url = "http://far.invalid/v1"
        assert await whole(await transport(request)) == b"hello"
        assert proxy.requests[0][1].startswith(b"POST http://far.invalid/v1 HTTP/1.1\r\n")
        assert b"proxy-authorization: basic " in proxy.requests[0][1].lower()
        await transport.aclose()
        await proxy.close()

    run(main)


def test_a_proxy_that_refuses_is_named(run: Run) -> None:
    async def main() -> None:
        proxy = Provider(says_and_closes(b"HTTP/1.1 403 Private words\r\nContent-Length: 0\r\n\r\n"))
        await proxy.open()
        transport = HTTPXTransport(proxy=f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(UpstreamConnectionError, match="the proxy would not connect") as failure:
            await transport(ask(443, host="far.invalid"))
        assert "Private" not in str(failure.value)
        await transport.aclose()
        await proxy.close()

    run(main)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "127.0.0.1:8080", "http://", "nonsense"])
def test_a_proxy_that_is_no_http_url_is_refused_when_it_is_configured(proxy: str) -> None:
    with pytest.raises(ValueError, match="proxy must be"):
        HTTPXTransport(proxy=proxy)


def test_certificates_are_checked_against_the_ca_file(run: Run, authority: Authority) -> None:
    context = authority.server("good")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        async with tls_scene(TLSProvider(), context) as (_, port):
            trusting, strict = HTTPXTransport(ca_file=str(authority.file)), HTTPXTransport()
            assert await whole(await trusting(ask(port))) == b"hello"
            with pytest.raises(UpstreamConnectionError, match="authority that is not known here"):
                await strict(ask(port))
            await trusting.aclose()
            await strict.aclose()

    run(main)


@pytest.mark.parametrize(
    ("url", "says_what"),
    [("http://127.0.0.1:1/", "refused the connection"), ("http://a.invalid/", "cannot be resolved")],
)
def test_a_host_that_cannot_be_reached_is_named(run: Run, url: str, says_what: str) -> None:
    async def main() -> None:
        transport = HTTPXTransport()
        request = ask(1)
        request.url = url
        with pytest.raises(UpstreamError, match=says_what):
            await transport(request)
        await transport.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await transport(request)

    run(main)
