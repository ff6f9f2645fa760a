"""TLS and everything else that can go wrong before a connection stands: each is refused, and named."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop

from gw.errors import UpstreamConnectionError
from gw.upstream import HTTPTransport
from tests.event_loops import Run, run
from tests.scripted_provider import CHUNKED, OK, SOON, whole
from tests.tls_world import Authority, TLSProvider, ask, authority, tls_scene

__all__ = ["authority", "run"]


def test_a_certificate_of_an_authority_that_was_named_is_accepted(run: Run, authority: Authority) -> None:
    context = authority.server("good")

    async def main() -> None:
        provider = TLSProvider()
        async with tls_scene(provider, context, acme=str(authority.file)) as (transport, port):
            for _ in range(3):
                assert await whole(await transport(ask(port))) == b"hello"
            assert await whole(await transport(ask(port, host="localhost"))) == b"hello"
            assert (provider.connections, provider.requests) == (2, 4)
            assert set(provider.protocols) == {"http/1.1"}

    run(main)


def test_an_authority_counts_for_its_backend_only(run: Run, authority: Authority) -> None:
    context = authority.server("good")

    async def main() -> None:
        provider = TLSProvider()
        async with tls_scene(provider, context, acme=str(authority.file)) as (transport, port):
            assert await whole(await transport(ask(port))) == b"hello"
            with pytest.raises(UpstreamConnectionError, match="authority that is not known here"):
                await transport(ask(port, backend="other"))
            assert provider.requests == 1

    run(main)


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("self-signed", "self-signed"),
        ("stranger", "authority that is not known here: name that authority in ca_file"),
        ("wrong-name", "for another host: check base_url"),
        ("wrong-address", "for another address: check base_url"),
        ("expired", "certificate has expired"),
    ],
)
def test_a_certificate_that_proves_nothing_is_refused(run: Run, authority: Authority, case: str, says: str) -> None:
    host = "127.0.0.1"
    if case == "self-signed":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.folder / "stranger.crt", authority.folder / "stranger.key")
    elif case == "stranger":
        context = authority.server("strange", issuer="stranger")
    elif case == "wrong-name":
        context, host = authority.server(case, host="DNS:elsewhere.example"), "localhost"
    elif case == "wrong-address":
        context = authority.server(case, host="IP:127.0.0.9")
    else:
        context = authority.server(case, is_expired=True)

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's own view of the refusal
        provider = TLSProvider()
        async with tls_scene(provider, context, acme=str(authority.file)) as (transport, port):
            with pytest.raises(UpstreamConnectionError) as failure:
                await transport(ask(port, host=host))
            assert failure.value.message.startswith(f'backend "acme": {host}:{port} failed the TLS check: ')
            assert says in failure.value.message
            assert (failure.value.status, failure.value.code) == (502, "upstream_error")
            assert provider.requests == 0

    run(main)


def test_a_port_that_does_not_speak_tls_is_named(run: Run) -> None:
    async def main() -> None:
        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.transport.abort()

        for serve in (plain, mute):
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            transport = HTTPTransport()
            with pytest.raises(UpstreamConnectionError, match=r"speak https|scheme of base_url"):
                await transport(ask(server.sockets[0].getsockname()[1]))
            await transport.aclose()
            server.close()
            await server.wait_closed()

    run(main)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_holds_nothing_is_named(run: Run, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)

    async def main() -> None:
        transport = HTTPTransport(ca_files={"acme": str(path)})
        with pytest.raises(UpstreamConnectionError, match=r'ca_file ".*ca.pem" holds no certificates'):
            await transport(ask(1))
        await transport.aclose()

    run(main)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\n\r\nhello", CHUNKED + b"5\r\nhello\r\n"], ids=["until-close", "chunked"]
)
def test_a_tls_stream_that_is_cut_without_a_goodbye_is_not_complete(
    run: Run, authority: Authority, answer: bytes
) -> None:
    context = authority.server("good")

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with context.wrap_socket(connection, server_side=True) as tls:
            tls.recv(4096)
            tls.send(answer)
            tls.shutdown(socket.SHUT_WR)  # a FIN without TLS's own goodbye: anybody on the way can send that
            tls.settimeout(SOON)
            with suppress(OSError):
                tls.recv(1)

    async def main() -> None:
        if b"chunked" not in answer and not isinstance(asyncio.get_running_loop(), uvloop.Loop):
            pytest.skip("asyncio's own loop does not tell a cut TLS connection from a closed one; gw runs on uvloop")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            provider = asyncio.create_task(asyncio.to_thread(serve, listener))
            transport = HTTPTransport(ca_files={"acme": str(authority.file)})
            got = await transport(ask(listener.getsockname()[1], stream=True))
            assert await got.body.read() == b"hello"
            with pytest.raises(UpstreamConnectionError, match="in the middle of its answer"):
                await got.body.read()
            await transport.aclose()
            await provider

    run(main)


def test_a_tls_stream_without_a_length_ends_with_the_goodbye(run: Run, authority: Authority) -> None:
    context = authority.server("good")

    async def main() -> None:
        provider = TLSProvider(b"HTTP/1.1 200 OK\r\n\r\nhello", closes=True)
        async with tls_scene(provider, context, acme=str(authority.file)) as (transport, port):
            for stream in (False, True):
                assert await whole(await transport(ask(port, stream=stream))) == b"hello"

    run(main)


def test_what_trails_an_answer_over_tls_never_reaches_the_next_request(run: Run, authority: Authority) -> None:
    context = authority.server("good")

    async def main() -> None:
        provider = TLSProvider(OK + OK.replace(b"hello", b"wrong"))
        async with tls_scene(provider, context, acme=str(authority.file)) as (transport, port):
            for _ in range(3):
                assert await whole(await transport(ask(port))) == b"hello"
            assert provider.connections == 3

    run(main)


def test_cancelling_a_tls_handshake_closes_the_connection(run: Run) -> None:
    async def main() -> None:
        began, ended = asyncio.Event(), asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            began.set()
            while await reader.read(4096):
                pass
            ended.set()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        transport = HTTPTransport()
        task = asyncio.create_task(transport(ask(server.sockets[0].getsockname()[1])))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(SOON):
            await ended.wait()
        await transport.aclose()
        server.close()
        await server.wait_closed()

    run(main)
