"""What may be fetched for a provider that cannot: allowed hosts, public addresses, within bounds, nothing else."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from gw.errors import InvalidRequest
from gw.message import Request
from gw.remote_media import Address, Fetch, MediaFetcher, is_public
from tests.fakes import Asked, LoopbackProvider, Script, answers, chat_request

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 24
PNG_URI = "data:image/png;base64," + base64.b64encode(PNG).decode()


def asking(*urls: str, kind: str = "image_url") -> Request:
    holder = {"image_url": "url", "file": "file_data"}[kind]
    content = [{"type": "text", "text": "Look"}, *({"type": kind, kind: {holder: url}} for url in urls)]
    return chat_request({"messages": [{"role": "user", "content": content}]})


def parts_of(request: Request) -> list[Any]:
    assert request.document is not None
    return list(request.document.peek()["messages"][0]["content"])


def resolver(*addresses: str) -> Any:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


def anywhere(address: Address) -> bool:
    return True


async def fetched(
    script: Script,
    path: str = "/a.png",
    *,
    allowed: Any = anywhere,
    rules: Mapping[str, Any] | None = None,
    **more: Any,
) -> tuple[Request, LoopbackProvider]:
    """Fetch `path` of a server that is called images.test and lives on loopback."""
    async with LoopbackProvider(script) as server:
        port = server.url.rpartition(":")[2]
        fetch = Fetch(**{"hosts": (f"images.test:{port}",), **(rules or {})})
        fetcher = MediaFetcher(fetch, resolver=resolver("127.0.0.1"), is_allowed=allowed)
        return await fetcher.inline(asking(f"http://images.test:{port}{path}", **more)), server


def refused(work: Any, param: str = "messages[0].content[1].image_url.url") -> str:
    with pytest.raises(InvalidRequest) as caught:
        asyncio.run(work)
    assert caught.value.param == param
    return caught.value.message


def test_an_image_at_an_address_becomes_a_data_uri_and_the_clients_request_stays() -> None:
    async def scene() -> None:
        async with LoopbackProvider(answers(PNG, content_type="image/png")) as server:
            port = server.url.rpartition(":")[2]
            fetcher = MediaFetcher(Fetch((f"images.test:{port}",)), resolver=resolver("127.0.0.1"), is_allowed=anywhere)
            request = asking(f"http://images.test:{port}/a.png", f"http://images.test:{port}/a.png")
            inlined = await fetcher.inline(request)
            assert parts_of(inlined)[1]["image_url"] == {"url": PNG_URI}
            assert parts_of(inlined)[2]["image_url"] == {"url": PNG_URI}
            assert parts_of(request)[1]["image_url"]["url"].startswith("http://")
            assert len(server.asked) == 1  # the same address twice is fetched once
            assert server.asked[0].headers["host"] == f"images.test:{port}"
            assert server.asked[0].headers["accept-encoding"] == "identity"

    asyncio.run(scene())


def test_a_request_without_addresses_is_passed_on_as_it_is() -> None:
    request = asking(PNG_URI)
    assert asyncio.run(MediaFetcher(Fetch(("*",))).inline(request)) is request


def test_what_the_provider_follows_itself_is_left_to_it() -> None:
    request = asking("https://www.youtube.com/watch?v=1")
    assert asyncio.run(MediaFetcher(Fetch(("*",))).inline(request, leave=lambda url: "youtube" in url)) is request


def test_a_file_keeps_its_type_and_its_place() -> None:
    request, _ = asyncio.run(fetched(answers(b"%PDF-1.7", content_type="application/pdf"), "/a.pdf", kind="file"))
    assert parts_of(request)[1]["file"]["file_data"].startswith("data:application/pdf;base64,")


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254"),
        *("0.0.0.0", "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "::", "::1"),
        *("fe80::1", "fc00::1", "fd12::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1"),
        *("2002:7f00:1::", "2002:a00:1::", "2001:db8::1", "fec0::1", "::7f00:1"),
    ],
)
def test_no_inner_address_counts_as_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_by_default_a_listed_host_with_an_inner_address_is_never_connected_to() -> None:
    async def scene() -> None:
        async with LoopbackProvider(answers(PNG, content_type="image/png")) as server:
            port = server.url.rpartition(":")[2]
            for host in ("images.test", "127.0.0.1", "localhost"):
                fetcher = MediaFetcher(Fetch((f"{host}:{port}", "*")), resolver=resolver("127.0.0.1"))
                with pytest.raises(InvalidRequest, match="no public address"):
                    await fetcher.inline(asking(f"http://{host}:{port}/a.png"))
            with pytest.raises(InvalidRequest, match="no public address"):  # the system's own resolver
                await MediaFetcher(Fetch((f"localhost:{port}",))).inline(asking(f"http://localhost:{port}/a.png"))
            assert server.asked == []

    asyncio.run(scene())


def test_one_inner_address_among_public_ones_is_enough_to_refuse() -> None:
    fetcher = MediaFetcher(Fetch(("images.test",)), resolver=resolver("1.1.1.1", "10.0.0.1"))
    assert "no public address" in refused(fetcher.inline(asking("https://images.test/a.png")))


def test_a_redirect_is_checked_like_the_first_address() -> None:
    def allowed(address: Address) -> bool:
        return str(address) == "127.0.0.1"

    async def scene(location: str, resolved: Mapping[str, str]) -> str:
        async def resolve(host: str, port: int) -> Sequence[str]:
            return [resolved[host]]

        async with LoopbackProvider(answers(b"", status=302, location=location)) as server:
            port = server.url.rpartition(":")[2]
            rules = Fetch((f"images.test:{port}", "inner.test"))
            with pytest.raises(InvalidRequest) as caught:
                await MediaFetcher(rules, resolver=resolve, is_allowed=allowed).inline(
                    asking(f"http://images.test:{port}/")
                )
            assert len(server.asked) == 1
            return caught.value.message

    known = {"images.test": "127.0.0.1", "inner.test": "10.0.0.1"}
    assert "no public address" in asyncio.run(scene("http://inner.test/", known))
    assert 'host "169.254.169.254"' in asyncio.run(scene("http://169.254.169.254/latest/meta-data", known))
    assert "only http and https" in asyncio.run(scene("file:///etc/passwd", known))


def test_a_redirect_to_an_allowed_place_is_followed_a_few_times() -> None:
    async def onward(asked: Asked, writer: asyncio.StreamWriter) -> None:
        steps = int(asked.path.strip("/"))
        script = (
            answers(PNG, content_type="image/png") if steps == 0 else answers(b"", status=301, location=f"/{steps - 1}")
        )
        await script(asked, writer)

    request, server = asyncio.run(fetched(onward, "/3"))
    assert parts_of(request)[1]["image_url"]["url"] == PNG_URI
    assert [asked.path for asked in server.asked] == ["/3", "/2", "/1", "/0"]
    assert "redirects" in refused(fetched(onward, "/4"))


@pytest.mark.parametrize(
    ("hosts", "url"),
    [
        (("images.test",), "http://other.test/"),
        (("images.test",), "http://images.test.evil/"),
        (("images.test",), "http://images.test:8080/"),
        (("*.images.test",), "http://images.test/"),
        (("*.images.test",), "http://evilimages.test/"),
        (("images.test:8443",), "https://images.test/"),
        (("*",), "http://images.test:22/"),
    ],
)
def test_a_host_that_is_not_listed_is_not_even_resolved(hosts: tuple[str, ...], url: str) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        raise AssertionError("resolved")

    assert "not in fetch.hosts" in refused(MediaFetcher(Fetch(hosts), resolver=resolve).inline(asking(url)))


@pytest.mark.parametrize("url", ["http://user:pass@images.test/", "http://images.test:99999/", "http:///x", "https://"])
def test_a_strange_address_is_refused(url: str) -> None:
    fetcher = MediaFetcher(Fetch(("*",)), resolver=resolver("1.1.1.1"))
    assert refused(fetcher.inline(asking(url))).startswith("this address cannot be fetched: ")


def test_the_size_is_bounded_whether_it_is_told_or_not() -> None:
    async def untold(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nConnection: close\r\n\r\n" + PNG + b"x" * 2000)
        await writer.drain()
        writer.close()

    rules = {"max_bytes": 1000}
    assert "max_bytes" in refused(fetched(answers(b"x" * 1001, content_type="image/png"), rules=rules))
    assert "max_bytes" in refused(fetched(untold, rules=rules))


def test_the_time_is_bounded() -> None:
    async def silent(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    assert "within 0.05 s" in refused(fetched(silent, rules={"timeout": 0.05}))


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (answers(b"nothing here", status=404), "status 404"),
        (answers(b"<html></html>", content_type="text/html"), "no image there but text/html"),
        (answers(b"MZ", content_type="application/x-msdownload"), "neither media nor text"),
        (answers(b"", content_type="image/png"), "with nothing"),
        (answers(PNG, content_type="image/png", content_encoding="gzip"), "compressed"),
    ],
)
def test_what_is_no_image_is_not_passed_off_as_one(script: Script, why: str) -> None:
    assert why in refused(fetched(script))


def test_nothing_is_fetched_where_no_host_is_named() -> None:
    with pytest.raises(ValueError, match=r"fetch\.hosts"):
        MediaFetcher(Fetch())
