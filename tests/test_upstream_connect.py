"""Connections that cannot be made, each named with its cure, and addresses of either kind."""

from __future__ import annotations

import asyncio
import socket

import pytest

from gw.errors import UpstreamConnectionError
from gw.upstream import HTTPTransport
from tests.event_loops import Run, run
from tests.scripted_provider import OK, whole
from tests.tls_world import ask

__all__ = ["run"]


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("127.0.0.1", "refused the connection"),
        ("localhost", "refused the connection"),
        ("nowhere.invalid", r"cannot be resolved \(DNS\)"),
        ("a" * 70 + ".example", r"cannot be "),
    ],
)
def test_a_host_that_cannot_be_reached_is_named_with_the_cure(run: Run, host: str, says: str) -> None:
    async def main() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port
            transport = HTTPTransport()
            with pytest.raises(UpstreamConnectionError, match=says) as failure:
                await transport(ask(free.getsockname()[1], host=host, scheme="http"))
            assert failure.value.message.startswith(f'backend "acme": {host}:')
            assert "hidden" not in failure.value.message
            await transport.aclose()

    run(main)


def test_a_provider_can_live_at_an_ipv6_address(run: Run) -> None:
    async def main() -> None:
        heads = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(OK)
            await reader.read()
            writer.close()

        try:
            server = await asyncio.start_server(serve, "::1", 0)
        except OSError:
            pytest.skip("this machine has no IPv6")
        port = server.sockets[0].getsockname()[1]
        transport = HTTPTransport()
        assert await whole(await transport(ask(port, host="[::1]", scheme="http"))) == b"hello"
        assert f"Host: [::1]:{port}\r\n".encode() in heads[0]
        await transport.aclose()
        server.close()
        await server.wait_closed()

    run(main)
