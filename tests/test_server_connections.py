"""Requests on one connection: answered in their order, kept or closed as both sides said, each with its id."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import orjson
import pytest

from gw.message import Request
from gw.server import Reply
from tests.serving import BOTH, Http, mirror, run, serving, whole


@pytest.mark.parametrize("http", BOTH)
def test_pipelined_requests_are_answered_one_at_a_time_in_order(http: Http) -> None:
    async def main() -> None:
        at_work: list[int] = []

        async def handler(request: Request) -> Reply:
            at_work.append(1)
            assert sum(at_work) == 1
            await asyncio.sleep(0)
            at_work.append(-1)
            return await mirror(request)

        async with serving(handler, http=http) as running:
            client = await running.client(
                b"".join(
                    b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n%03d" % (number, number)
                    if number % 3
                    else b"POST /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n%03d\r\n0\r\n\r\n"
                    % (number, number)
                    for number in range(500)
                )
            )
            for number in range(500):
                seen = orjson.loads((await client.answer()).body)
                assert (seen["path"], seen["body"]) == (f"/{number}", f"{number:03}")

    run(main())


@pytest.mark.parametrize("http", BOTH)
def test_a_flood_of_pipelined_requests_waits_in_the_kernel(http: Http) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def handler(request: Request) -> Reply:
            await go.wait()
            return Reply(200, [], b"")

        async with serving(handler, http=http) as running:
            client = await running.client(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await running.until(lambda: running.server.in_flight == 1)
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 1_000_000)
            for _ in range(200):
                await asyncio.sleep(0)
            # What the server did not take is still with the client: 28 MB less what two sockets hold.
            assert client.writer.transport.get_write_buffer_size() > 10_000_000
            go.set()
            assert (await client.answer()).status == 200

    run(main())


# name: (request, method, whether the connection is kept)
ENDS: dict[str, tuple[bytes, str, bool]] = {
    "HTTP/1.1": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET", True),
    "keep-alive": (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", "GET", True),
    "Keep-Alive": (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n", "GET", True),
    "close": (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "GET", False),
    "close in a list": (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: TE, Close\r\n\r\n", "GET", False),
    "close in a second field": (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
        "GET",
        False,
    ),
    "HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", "GET", False),
    "HTTP/1.0 keep-alive": (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET", False),
    "HEAD": (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD", True),
    "HEAD, HTTP/1.0": (b"HEAD / HTTP/1.0\r\n\r\n", "HEAD", False),
}


@pytest.mark.parametrize("http", BOTH)
@pytest.mark.parametrize("name", ENDS)
def test_the_connection_is_kept_or_closed_as_both_sides_said(http: Http, name: str) -> None:
    async def main() -> None:
        data, method, kept = ENDS[name]
        async with serving(whole(b"four"), http=http) as running:
            client = await running.client(data)
            answer = await client.answer(method)
            assert answer.headers["content-length"] == "4"
            assert answer.body == (b"" if method == "HEAD" else b"four")
            assert answer.headers.get("connection") == (None if kept else "close")
            if kept:
                client.send(data)
                assert (await client.answer(method)).status == 200
            else:
                assert await client.rest() == b""

    run(main())


@pytest.mark.parametrize("http", BOTH)
@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_no_body_and_no_length(http: Http, status: int) -> None:
    async def main() -> None:
        async with serving(whole(b"", status=status), http=http) as running:
            client = await running.client(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
            for _ in range(2):
                answer = await client.answer()
                assert answer.status == status
                assert "content-length" not in answer.headers

    run(main())


IDS: Sequence[tuple[str, bool]] = [
    ("abc", True),
    ("A.b_c-9", True),
    ("a" * 128, True),
    ("a" * 129, False),
    ("a b", False),
    ("a/b", False),
    ("é", False),
    ('"a"', False),
]


@pytest.mark.parametrize("http", BOTH)
def test_a_request_id_is_the_clients_if_it_is_plain_and_new_otherwise(http: Http) -> None:
    async def main() -> None:
        async with serving(mirror, http=http) as running:
            client = await running.client()
            made = set()
            for given, stays in IDS:
                client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: " + given.encode("latin-1") + b"\r\n\r\n")
                answer = await client.answer()
                assert answer.headers["x-request-id"] == orjson.loads(answer.body)["id"]
                assert (answer.headers["x-request-id"] == given) is stays
                made.add(answer.headers["x-request-id"])
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            made.add((await client.answer()).headers["x-request-id"])
            assert len(made) == len(IDS) + 1

    run(main())
