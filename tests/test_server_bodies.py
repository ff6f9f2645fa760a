"""Bodies: asked for when they are read, kept waiting until then, and never an excuse for a second answer."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from gw.errors import InvalidRequest
from gw.message import Request
from gw.server import Limits, Reply
from tests.serving import BOTH, PATIENCE, Http, mirror, run, serving, whole

HOST = b"Host: gw\r\n"
POST = b"POST /v1 HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
INTRUDER = b"GET /intruder HTTP/1.1\r\nHost: gw\r\n\r\n"


@pytest.mark.parametrize("http", BOTH)
@pytest.mark.parametrize("head", [POST + b"Content-Length: 20000000\r\n\r\n", CHUNKED + b"1312D00\r\n"])
def test_a_body_that_nobody_reads_yet_waits_in_the_kernel(http: Http, head: bytes) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def handler(request: Request) -> Reply:
            assert request.body is not None
            await go.wait()
            return Reply(200, [], b"%d" % len(await request.body.read()))

        async with serving(handler, http=http) as running:
            client = await running.client(head + b"a" * 20_000_000)
            await running.until(lambda: running.server.in_flight == 1)
            for _ in range(200):
                await asyncio.sleep(0)
            assert client.writer.transport.get_write_buffer_size() > 5_000_000
            go.set()
            if b"chunked" in head:
                client.send(b"\r\n0\r\n\r\n")
            assert (await client.answer()).body == b"20000000"

    run(main())


@pytest.mark.parametrize("http", BOTH)
@pytest.mark.parametrize("framing", [b"Content-Length: 2\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
def test_100_continue_is_sent_when_the_body_is_read_and_not_before(http: Http, framing: bytes) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def handler(request: Request) -> Reply:
            await go.wait()
            return await mirror(request)

        async with serving(handler, http=http) as running:
            client = await running.client(POST + b"Expect: 100-continue\r\n" + framing)
            await running.until(lambda: running.server.in_flight == 1)
            reading = asyncio.create_task(client.read(25))
            for _ in range(200):
                await asyncio.sleep(0)
            assert not reading.done()
            go.set()
            assert await reading == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(b"hi" if b"Length" in framing else b"2\r\nhi\r\n0\r\n\r\n")
            answer = await client.answer()
            assert orjson.loads(answer.body)["body"] == "hi"
            assert "connection" not in answer.headers

    run(main())


@pytest.mark.parametrize("http", BOTH)
def test_a_body_that_nobody_asked_for_is_never_invited(http: Http) -> None:
    async def main() -> None:
        async with serving(whole(b"no", status=401), http=http) as running:
            client = await running.client(POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (401, "close")
            assert await client.rest() == b""

    run(main())


@pytest.mark.parametrize("http", BOTH)
def test_a_small_body_may_stay_unread(http: Http) -> None:
    async def main() -> None:
        async with serving(whole(b"no", status=401), http=http) as running:
            client = await running.client(
                (POST + b"Content-Length: 2\r\n\r\nhi") * 2 + CHUNKED + b"1\r\na\r\n0\r\n\r\n"
            )
            for _ in range(3):
                answer = await client.answer()
                assert answer.status == 401
                assert "connection" not in answer.headers

    run(main())


@pytest.mark.parametrize("http", BOTH)
@pytest.mark.parametrize("head", [POST + b"Content-Length: 900000\r\n\r\n", CHUNKED + b"DBBA0\r\n"])
def test_an_early_answer_reaches_a_client_that_still_sends(http: Http, head: bytes) -> None:
    async def main() -> None:
        async with serving(whole(b"no", status=401), http=http, limits=Limits(linger_timeout=0.2)) as running:
            client = await running.client(head + b"a" * 40_000)
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (401, "close")
            assert await client.rest() == b""
            client.send(b"a" * 10_000 + INTRUDER)
            assert running.server.connections == 1  # closed now, its reset could overtake the answer
            await running.until(lambda: running.server.connections == 0)

    run(main())


@pytest.mark.parametrize("http", BOTH)
@pytest.mark.parametrize("length", [70_000, 3_000_000])
@pytest.mark.parametrize("chunk", [0, 1_000, 100_000])
def test_a_large_body_arrives_whole(http: Http, length: int, chunk: int) -> None:
    async def main() -> None:
        body = bytes(range(256)) * (length // 256)
        if chunk:
            parts = [body[start : start + chunk] for start in range(0, len(body), chunk)]
            data = CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        else:
            data = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body

        async def handler(request: Request) -> Reply:
            assert request.body is not None
            received = await request.body.read()
            assert received == await request.body.read()
            return Reply(200, [], b"same" if received == body else b"other")

        async with serving(handler, http=http) as running:
            client = await running.client(data + INTRUDER)
            assert (await client.answer()).body == b"same"
            assert (await client.answer()).status == 200

    run(main())


@pytest.mark.parametrize("http", BOTH)
def test_many_tiny_chunks_do_not_hold_up_a_bystander(http: Http) -> None:
    async def main() -> None:
        async with serving(mirror, http=http) as running:
            bystander = await running.client(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await bystander.answer()
            client = await running.client(CHUNKED + b"1\r\na\r\n" * 30_000 + b"0\r\n\r\n")
            await running.until(lambda: running.server.in_flight == 1)
            turns = 0
            while running.server.in_flight:
                bystander.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (await bystander.answer()).status == 200
                turns += 1
            assert turns > 5  # each of its answers takes three turns of the loop or four
            assert len(orjson.loads((await client.answer()).body)["body"]) == 30_000

    run(main())


BROKEN_BODIES = {
    "cut short": (POST + b"Content-Length: 9\r\n\r\nhi", 400),
    "chunks cut short": (CHUNKED + b"5\r\nhi", 400),
    "no last chunk": (CHUNKED + b"2\r\nhi\r\n", 400),
}


@pytest.mark.parametrize("http", BOTH)
@pytest.mark.parametrize("name", BROKEN_BODIES)
def test_a_body_that_ends_too_soon_is_the_clients_error(http: Http, name: str) -> None:
    async def main() -> None:
        data, status = BROKEN_BODIES[name]
        async with serving(mirror, http=http) as running:
            client = await running.client(data)
            client.writer.write_eof()
            answer = await client.answer()
            assert (answer.status, answer.code) == (status, "malformed_http")
            assert await client.rest() == b""

    run(main())


@pytest.mark.parametrize("http", BOTH)
def test_bad_chunks_that_come_later_are_told_by_read(http: Http) -> None:
    async def main() -> None:
        seen: list[InvalidRequest] = []

        async def handler(request: Request) -> Reply:
            assert request.body is not None
            for _ in range(2):
                with pytest.raises(InvalidRequest) as caught:
                    await request.body.read()
                seen.append(caught.value)
            return Reply(400, [], b"bad")

        async with serving(handler, http=http) as running:
            client = await running.client(CHUNKED + b"2\r\nhi\r\n")
            await running.until(lambda: running.server.in_flight == 1)
            client.send(b"zz\r\n" + INTRUDER)
            answer = await client.answer()
            assert (answer.body, answer.headers["connection"]) == (b"bad", "close")
            assert await client.rest() == b""
            assert [error.status for error in seen] == [400, 400]

    run(main())


@pytest.mark.parametrize("http", BOTH)
def test_a_client_that_ended_its_sending_gets_its_answers(http: Http) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def handler(request: Request) -> Reply:
            if request.path == "/slow":
                await go.wait()
            return await mirror(request)

        async with serving(handler, http=http) as running:
            client = await running.client(
                b"GET /quick HTTP/1.1\r\nHost: a\r\n\r\nGET /slow HTTP/1.1\r\nHost: a\r\n\r\n"
            )
            client.writer.write_eof()
            assert orjson.loads((await client.answer()).body)["path"] == "/quick"
            # For all the server can see the client may be gone; one that is there passes over an interim answer.
            assert (await client.answer()).status == 100
            go.set()
            assert orjson.loads((await client.answer()).body)["path"] == "/slow"
            assert await asyncio.wait_for(client.reader.read(), PATIENCE) == b""

    run(main())
