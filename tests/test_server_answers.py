"""What a handler may answer, and what becomes of one that fails."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gw.errors import GatewayError, NotFound, Unavailable
from gw.message import Request
from gw.server import Reply
from gw.server.response import _NAMES, _lines, http_date, reply_head
from tests.serving import BOTH, Client, Http, mirror, run, serving, whole

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("http", BOTH)
def test_an_answer_has_its_date_its_length_and_the_handlers_fields(http: Http) -> None:
    async def main() -> None:
        async with serving(whole(b"hi", headers=[("X-One", "1"), ("x-two", "é\t2")]), http=http) as running:
            client = await running.client(GET)
            answer = await client.answer()
            assert answer.headers["x-one"] == "1"
            assert answer.headers["x-two"] == "é\t2"
            assert answer.headers["content-length"] == "2"
            assert re.fullmatch(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", answer.headers["date"])

    run(main())


def test_a_date_is_written_as_http_writes_it() -> None:
    assert http_date(784111777) == "Sun, 06 Nov 1994 08:49:37 GMT"  # the example of RFC 9110 5.6.7


FIELDS = st.lists(
    st.tuples(
        st.sampled_from(("X-A", "x-a", "Server-Timing", "Date", "connection", "X B", "", "X\r\nY", "X:")),
        st.text(st.sampled_from("az09 \t\xe9\xa0\u20ac\r\n\0\x7f\x85"), max_size=3) | st.just("v" * 60),
    ),
    max_size=4,
)


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(FIELDS, st.booleans())
def test_a_field_that_went_out_before_is_judged_and_written_like_a_new_one(
    fields: list[tuple[str, str]], keep_alive: bool
) -> None:
    sent = [(name, value) for name, value in fields if name.lower() not in ("date", "connection")]
    is_good = all(
        re.fullmatch(r"[A-Za-z-]+", name) and re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", value) for name, value in sent
    )
    for _ in range(2):
        if not is_good:
            with pytest.raises(ValueError, match=r"header|latin-1"):
                reply_head(Reply(200, fields, b""), "r-1", 3, keep_alive=keep_alive)
            continue
        head = reply_head(Reply(200, fields, b""), "r-1", 3, keep_alive=keep_alive).decode("latin-1")
        lines = head.split("\r\n")
        assert lines[0] == "HTTP/1.1 200 OK"
        assert lines[1].startswith("Date: ")
        assert lines[2:] == [
            *(f"{name}: {value}" for name, value in sent),
            "X-Request-ID: r-1",
            "Content-Length: 3",
            *([] if keep_alive else ["Connection: close"]),
            "",
            "",
        ]


def test_the_handlers_own_lines_stand_around_its_fields() -> None:
    reply = Reply(200, {"X-A": "1"}.items(), b"", "X-First: a\r\n", "X-Last: z\r\n")
    lines = reply_head(reply, "r-1", 0, keep_alive=True).split(b"\r\n")
    assert lines[2:6] == [b"X-First: a", b"X-A: 1", b"X-Last: z", b"X-Request-ID: r-1"]


def test_what_is_remembered_of_answers_is_bounded() -> None:
    for number in range(5_000):
        reply_head(Reply(200, [("X-Number", str(number)), (f"X-{number}", "a" * 5_000)], b""), "r", 0, keep_alive=True)
    assert max(len(_lines), len(_NAMES)) <= 1024
    assert max(map(len, _lines.values())) <= 48


def test_framing_and_identity_are_the_servers_own() -> None:
    own = [
        ("Content-Length", "99"),
        ("transfer-encoding", "chunked"),
        ("CONNECTION", "upgrade"),
        ("X-Request-ID", "theirs"),
        ("Date", "yesterday"),
        ("Keep-Alive", "timeout=9"),
    ]

    async def main() -> None:
        async with serving(whole(b"hi", headers=own)) as running:
            client = await running.client(GET * 2)
            for _ in range(2):  # names are judged once and remembered
                answer = await client.answer()
                assert answer.body == b"hi"
                assert set(answer.headers) == {"date", "x-request-id", "content-length"}
                assert answer.headers["x-request-id"] != "theirs"
                assert answer.headers["date"] != "yesterday"

    run(main())


BAD_HEADERS = [
    ("X", "a\r\nSet-Cookie: b"),
    ("X", "a\nb"),
    ("X", "a\rb"),
    ("X", "a\0b"),
    ("X", "a\x7f"),
    ("X", "€"),
    ("X Y", "a"),
    ("X:", "a"),
    ("X\r\nY", "a"),
    ("", "a"),
    ("é", "a"),
]


def test_a_header_that_must_not_be_sent_is_a_500_and_nothing_of_it_goes_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        for header in BAD_HEADERS:
            async with serving(whole(b"hi", headers=[("Content-Type", "a/b"), header])) as running:
                client = await running.client(GET * 2)
                for _ in range(2):
                    answer = await client.answer()
                    assert (answer.status, answer.code) == (500, "internal_error"), header
                    assert set(answer.headers) == {"date", "x-request-id", "content-length", "content-type"}

    run(main())
    assert len(caplog.records) == 2 * len(BAD_HEADERS)


@pytest.mark.parametrize("status", [99, 100, 101, 600, 0, -1])
def test_a_status_that_is_none_is_a_500(status: int, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(whole(b"", status=status)) as running:
            client = await running.client(GET)
            assert (await client.answer()).status == 500

    run(main())
    assert caplog.records


def test_a_status_without_a_phrase_is_sent() -> None:
    async def main() -> None:
        async with serving(whole(b"", status=529)) as running:
            client = await running.client(GET)
            assert (await client.answer()).status == 529

    run(main())


async def fails(request: Request) -> Reply:
    raise ZeroDivisionError("secret detail")


async def leaks_a_cancellation(request: Request) -> Reply:
    raise asyncio.CancelledError


async def answers_nothing(request: Request) -> Reply:
    return None  # type: ignore[return-value]


@pytest.mark.parametrize("http", BOTH)
@pytest.mark.parametrize("handler", [fails, leaks_a_cancellation, answers_nothing])
def test_a_handler_that_fails_is_a_500_a_log_line_and_no_more(
    http: Http, handler: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(handler, http=http) as running:  # type: ignore[arg-type]
            client = await running.client(b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: mine\r\n\r\n" * 2)
            for _ in range(2):
                answer = await client.answer()
                assert (answer.status, answer.code) == (500, "internal_error")
                assert b"secret detail" not in answer.body
                assert b"mine" in answer.body
            assert running.refusals == []

    run(main())
    assert [(record.name, record.levelno) for record in caplog.records] == [("gw.server", logging.ERROR)] * 2
    assert "mine" in caplog.text


@pytest.mark.parametrize(
    "error",
    [NotFound("no such thing", headers={"X-Why": "so"}), Unavailable("later", retry_after=1.2), GatewayError("bug")],
)
def test_a_gateway_error_is_answered_as_it_says(error: GatewayError) -> None:
    async def handler(request: Request) -> Reply:
        raise error

    async def main() -> None:
        async with serving(handler) as running:
            client = await running.client(GET * 2)
            for _ in range(2):
                answer = await client.answer()
                assert (answer.status, answer.code) == (error.status, error.code)
                assert answer.headers["content-type"] == "application/json"
                assert answer.headers.get("x-why") == error.headers.get("X-Why")
                assert answer.headers.get("retry-after") == ("2" if error.retry_after else None)

    run(main())


def test_https_is_served_and_a_client_that_leaves_is_noticed(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate for this test and is not installed")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    new = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run([*new, *subject, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)

    async def handler(request: Request) -> Reply:
        if request.path == "/slow":
            await asyncio.Event().wait()
        return await mirror(request)

    async def main() -> None:
        async with serving(handler, ssl=context) as running:
            trust = ssl.create_default_context(cafile=str(cert))
            reader, writer = await asyncio.open_connection("127.0.0.1", running.server.port, ssl=trust)
            client = Client(reader, writer)
            body = b"x" * 200_000
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + body + GET)
            assert body in (await client.answer()).body
            assert (await client.answer()).status == 200
            client.send(GET.replace(b"/ ", b"/slow "))
            await running.until(lambda: running.server.in_flight == 1)
            writer.close()
            await running.until(lambda: running.server.in_flight == 0)

    run(main())
