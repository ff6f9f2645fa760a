"""TLS and everything else that can go wrong before a connection stands: each is refused, and named."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import uvloop

from gw.adapter import WireRequest
from gw.backend import Timeouts
from gw.errors import UpstreamConnectionError
from gw.upstream import HTTPTransport
from tests.test_upstream_provider import CHUNKED, OK, SOON, Run, run, whole

__all__ = ["run"]


class Authority:
    """Makes certificates with the openssl command: a CA, and what it or nobody has signed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "ca.crt"
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        self.key = key
        self.made: dict[str, ssl.SSLContext] = {}
        for name in ("ca", "stranger"):
            where = ["-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN=gw test {name}"]
            self.openssl("req", "-x509", "-days", "2", *key, *where, "-addext", "keyUsage=critical,keyCertSign")
        (folder / "index").touch()

    def openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def server(
        self, name: str, *, host: str = "IP:127.0.0.1,DNS:localhost", issuer: str = "ca", is_expired: bool = False
    ) -> ssl.SSLContext:
        """The context of a server with such a certificate; made once per name."""
        if name in self.made:
            return self.made[name]
        (self.folder / f"{name}.ext").write_text(f"subjectAltName={host}\nextendedKeyUsage=serverAuth\n")
        self.openssl("req", *self.key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        if is_expired:
            (self.folder / "ca.cnf").write_text(
                "[ca]\ndefault_ca=d\n[d]\ndatabase=index\nnew_certs_dir=.\nrand_serial=yes\ndefault_md=sha256\n"
                "policy=p\n[p]\ncommonName=supplied\n"
            )
            dates = ["-startdate", "20200101000000Z", "-enddate", "20200201000000Z"]
            signed = ["-cert", "ca.crt", "-keyfile", "ca.key", "-extfile", f"{name}.ext"]
            self.openssl(
                "ca", "-batch", "-config", "ca.cnf", "-in", f"{name}.csr", "-out", f"{name}.crt", *signed, *dates
            )
        else:
            signed = ["-CA", f"{issuer}.crt", "-CAkey", f"{issuer}.key", "-CAcreateserial", "-days", "2"]
            self.openssl(
                "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *signed, "-extfile", f"{name}.ext"
            )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["h2", "http/1.1"])
        context.load_cert_chain(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        self.made[name] = context
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


class TLSProvider:
    """A TLS server on loopback that answers every request alike."""

    def __init__(self, answer: bytes = OK, *, closes: bool = False) -> None:
        self.answer = answer
        self.closes = closes
        self.connections = 0
        self.requests = 0
        self.protocols: list[str | None] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.protocols.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                writer.write(self.answer)
                await writer.drain()
                if self.closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            if self.closes:
                writer.close()
            else:
                writer.transport.abort()


@asynccontextmanager
async def tls_scene(
    provider: TLSProvider, context: ssl.SSLContext, **files: str
) -> AsyncIterator[tuple[HTTPTransport, int]]:
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0, ssl=context)
    transport = HTTPTransport(ca_files=files)
    try:
        yield transport, server.sockets[0].getsockname()[1]
    finally:
        await transport.aclose()
        server.close()
        await server.wait_closed()


def ask(
    port: int, *, host: str = "127.0.0.1", backend: str = "acme", scheme: str = "https", stream: bool = False
) -> WireRequest:
    return WireRequest(
        "GET", f"{scheme}://{host}:{port}/x?key=hidden", [], b"", stream, backend, timeouts=Timeouts(connect=60)
    )


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
