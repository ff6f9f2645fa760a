"""Certificates from the openssl command, a provider that shows them, and a transport that asks it."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gw.adapter import WireRequest
from gw.backend import Timeouts
from gw.upstream import HTTPTransport
from tests.scripted_provider import OK


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
