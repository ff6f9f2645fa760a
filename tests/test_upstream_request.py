"""What HTTPTransport sends: the host, one length, no compression, and no header that HTTP cannot carry."""

from __future__ import annotations

import pytest

from tests.event_loops import Run, run
from tests.scripted_provider import OK, says, scene, whole, wire

__all__ = ["run"]


def test_a_request_goes_out_with_host_length_and_no_compression(run: Run) -> None:
    async def main() -> None:
        async with scene(says(OK)) as (provider, transport):
            answer = await transport(wire(provider, headers=[("Authorization", "Bearer k"), ("X-A", "1")]))
            assert (answer.status, await whole(answer)) == (200, b"hello")
            assert answer.headers.get("Content-Type") == "application/json"
            _, head, body = provider.requests[0]
            assert body == b"{}"
            assert head.decode().split("\r\n") == [
                "POST /v1/chat?key=hidden HTTP/1.1",
                f"Host: 127.0.0.1:{provider.port}",
                "Accept-Encoding: identity",
                "Authorization: Bearer k",
                "X-A: 1",
                "Content-Length: 2",
                "",
                "",
            ]

    run(main)


def test_a_get_has_no_length_and_an_empty_post_has_zero(run: Run) -> None:
    async def main() -> None:
        async with scene(says(OK)) as (provider, transport):
            await whole(await transport(wire(provider, method="GET", content=b"")))
            await whole(await transport(wire(provider, content=b"")))
            assert b"Content-Length" not in provider.requests[0][1]
            assert b"Content-Length: 0\r\n" in provider.requests[1][1]

    run(main)


def test_a_large_body_arrives_unchanged(run: Run) -> None:
    async def main() -> None:
        content = bytes(range(256)) * 20_000  # 5 MB
        async with scene(says(OK)) as (provider, transport):
            assert await whole(await transport(wire(provider, content=content))) == b"hello"
            assert provider.requests[0][2] == content

    run(main)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "a\r\nX-B: b"),
        ("X-A", "a\nb"),
        ("X-A", "a\0b"),
        ("X-A", "\u20ac"),
        ("X A", "b"),
        ("X-A:", "b"),
        ("", "b"),
    ],
)
def test_a_header_that_http_cannot_carry_is_a_programming_error(run: Run, name: str, value: str) -> None:
    async def main() -> None:
        async with scene(says(OK)) as (provider, transport):
            with pytest.raises(ValueError, match="header"):
                await transport(wire(provider, headers=[("X-Fine", "yes"), (name, value)]))
            assert provider.peers == []

    run(main)
