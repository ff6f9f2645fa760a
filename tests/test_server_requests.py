"""What the server takes, what it refuses and with which answer: tables of raw requests, in both modes."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from gw.message import Request
from gw.server import Limits, Reply
from tests.serving import BOTH, Http, mirror, run, serving

HOST = b"Host: gw\r\n"
POST = b"POST /v1 HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMALL = Limits(max_head=2048, max_fields=10, max_target=256, max_body=1000, max_chunks=20)

# name: (bytes, status, code)
REFUSED: dict[str, tuple[bytes, int, str]] = {
    # line ends, blanks and control bytes in the head
    "bare LF": (b"GET / HTTP/1.1\nHost: gw\n\n", 400, "malformed_http"),
    "one bare LF": (b"GET / HTTP/1.1\r\nHost: gw\nX: y\r\n\r\n", 400, "malformed_http"),
    "CR without LF": (b"GET / HTTP/1.1\r\nHost: gw\r\nX: a\rb\r\n\r\n", 400, "malformed_http"),
    "CR CR LF": (b"GET / HTTP/1.1\r\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    "leading blank line": (b"\r\nGET / HTTP/1.1\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    "leading LF": (b"\nGET / HTTP/1.1\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    "leading space": (b" GET / HTTP/1.1\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    "NUL in a value": (b"GET / HTTP/1.1\r\nHost: gw\r\nX: a\0b\r\n\r\n", 400, "malformed_http"),
    "ESC in a value": (b"GET / HTTP/1.1\r\nHost: gw\r\nX: a\x1bb\r\n\r\n", 400, "malformed_http"),
    "DEL in a value": (b"GET / HTTP/1.1\r\nHost: gw\r\nX: a\x7fb\r\n\r\n", 400, "malformed_http"),
    "vertical tab": (b"GET / HTTP/1.1\r\nHost: gw\r\nX: a\x0bb\r\n\r\n", 400, "malformed_http"),
    "folded field": (b"GET / HTTP/1.1\r\nHost: gw\r\nX: a\r\n b\r\n\r\n", 400, "malformed_http"),
    "folded by tab": (b"GET / HTTP/1.1\r\nHost: gw\r\nX: a\r\n\tb\r\n\r\n", 400, "malformed_http"),
    "blank-only line": (b"GET / HTTP/1.1\r\nHost: gw\r\n \r\n\r\n", 400, "malformed_http"),
    "fold before the first field": (b"GET / HTTP/1.1\r\n Host: gw\r\n\r\n", 400, "malformed_http"),
    "TLS on a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "malformed_http"),
    # names of fields
    "space before the colon": (b"GET / HTTP/1.1\r\nHost: gw\r\nX : a\r\n\r\n", 400, "malformed_http"),
    "no colon": (b"GET / HTTP/1.1\r\nHost: gw\r\nNonsense\r\n\r\n", 400, "malformed_http"),
    "no name": (b"GET / HTTP/1.1\r\nHost: gw\r\n: a\r\n\r\n", 400, "malformed_http"),
    "bracket in a name": (b"GET / HTTP/1.1\r\nHost: gw\r\nX[]: a\r\n\r\n", 400, "malformed_http"),
    "non-ASCII name": (b"GET / HTTP/1.1\r\nHost: gw\r\nX\xe9: a\r\n\r\n", 400, "malformed_http"),
    # the request line
    "two spaces": (b"GET  / HTTP/1.1\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    "tab for space": (b"GET\t/ HTTP/1.1\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    "no version": (b"GET /\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    "lower-case version": (b"GET / http/1.1\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    "word after the version": (b"GET / HTTP/1.1 x\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    "HTTP/9.9": (b"GET / HTTP/9.9\r\nHost: gw\r\n\r\n", 505, "http_version_not_supported"),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: gw\r\n\r\n", 505, "http_version_not_supported"),
    "HTTP/0.9": (b"GET / HTTP/0.9\r\nHost: gw\r\n\r\n", 505, "http_version_not_supported"),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http_version_not_supported"),
    "HTTP/1.10": (b"GET / HTTP/1.10\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    "method with a colon": (b"GE:T / HTTP/1.1\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    # the target
    "relative target": (b"GET x HTTP/1.1\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    "fragment": (b"GET /a#b HTTP/1.1\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    "fragment in the query": (b"GET /a?b#c HTTP/1.1\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    "backslash": (b"GET /a\\b HTTP/1.1\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    "half a percent": (b"GET /a%2 HTTP/1.1\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    "percent and no hex": (b"GET /a%zz HTTP/1.1\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    "non-ASCII path": (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    "star without OPTIONS": (b"GET * HTTP/1.1\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    "CONNECT": (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 400, "malformed_http"),
    "foreign scheme": (b"GET ftp://gw/a HTTP/1.1\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    "user in the target": (b"GET http://u@gw/ HTTP/1.1\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    "no host in the target": (b"GET http:///a HTTP/1.1\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    "long target": (b"GET /" + b"a" * 300 + b" HTTP/1.1\r\nHost: gw\r\n\r\n", 414, "target_too_long"),
    "target a little long": (b"GET /" + b"a" * 256 + b" HTTP/1.1\r\nHost: gw\r\n\r\n", 414, "target_too_long"),
    "endless target": (b"GET /" + b"a" * 400, 414, "target_too_long"),
    # the host
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400, "malformed_http"),
    "two Hosts": (b"GET / HTTP/1.1\r\nHost: gw\r\nHost: gw\r\n\r\n", 400, "malformed_http"),
    "two Hosts, HTTP/1.0": (b"GET / HTTP/1.0\r\nHost: gw\r\nHost: gx\r\n\r\n", 400, "malformed_http"),
    "empty Host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "malformed_http"),
    "path in Host": (b"GET / HTTP/1.1\r\nHost: a/b?x=\r\n\r\n", 400, "malformed_http"),
    "user in Host": (b"GET / HTTP/1.1\r\nHost: u@h\r\n\r\n", 400, "malformed_http"),
    "list in Host": (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, "malformed_http"),
    "words in Host": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "malformed_http"),
    "odd port": (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400, "malformed_http"),
    "long port": (b"GET / HTTP/1.1\r\nHost: a:123456\r\n\r\n", 400, "malformed_http"),
    "open bracket": (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, "malformed_http"),
    # how long the body is
    "length and coding": (
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "malformed_http",
    ),
    "coding and length": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        400,
        "malformed_http",
    ),
    "the same length twice": (POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi", 400, "malformed_http"),
    "two lengths": (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi!", 400, "malformed_http"),
    "list of lengths": (POST + b"Content-Length: 2, 2\r\n\r\nhi", 400, "malformed_http"),
    "plus sign": (POST + b"Content-Length: +2\r\n\r\nhi", 400, "malformed_http"),
    "minus sign": (POST + b"Content-Length: -2\r\n\r\nhi", 400, "malformed_http"),
    "underscore": (POST + b"Content-Length: 1_0\r\n\r\n0123456789", 400, "malformed_http"),
    "hexadecimal length": (POST + b"Content-Length: 0x2\r\n\r\nhi", 400, "malformed_http"),
    "empty length": (POST + b"Content-Length:\r\n\r\n", 400, "malformed_http"),
    "length in other digits": (POST + "Content-Length: ٢\r\n\r\nhi".encode(), 400, "malformed_http"),
    "length of 21 digits": (POST + b"Content-Length: 100000000000000000000\r\n\r\n", 400, "malformed_http"),
    "length of 18 digits": (POST + b"Content-Length: 100000000000000000\r\n\r\n", 400, "malformed_http"),
    "length over the limit": (POST + b"Content-Length: 1001\r\n\r\n", 413, "request_too_large"),
    "over the limit, asking first": (
        POST + b"Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n",
        413,
        "request_too_large",
    ),
    "gzip": (POST + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhi", 415, "unsupported_media_type"),
    # transfer codings
    "coding gzip": (POST + b"Transfer-Encoding: gzip\r\n\r\n", 501, "not_implemented"),
    "coding list": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "not_implemented"),
    "coding twice": (POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n", 501, "not_implemented"),
    "coding xchunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, "not_implemented"),
    "coding identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", 501, "not_implemented"),
    "coding in HTTP/1.0": (
        b"POST / HTTP/1.0\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "malformed_http",
    ),
    # chunks
    "size is no number": (CHUNKED + b"x\r\n", 400, "malformed_http"),
    "size with 0x": (CHUNKED + b"0x2\r\nhi\r\n0\r\n\r\n", 400, "malformed_http"),
    "size with a sign": (CHUNKED + b"+2\r\nhi\r\n0\r\n\r\n", 400, "malformed_http"),
    "size with an underscore": (CHUNKED + b"1_0\r\n", 400, "malformed_http"),
    "size of 20 digits": (CHUNKED + b"00000000000000000002\r\nhi\r\n0\r\n\r\n", 400, "malformed_http"),
    "blank before the size": (CHUNKED + b" 2\r\nhi\r\n0\r\n\r\n", 400, "malformed_http"),
    "blank behind the size": (CHUNKED + b"2 \r\nhi\r\n0\r\n\r\n", 400, "malformed_http"),
    "empty size": (CHUNKED + b"\r\nhi\r\n0\r\n\r\n", 400, "malformed_http"),
    "size ends in LF": (CHUNKED + b"2\nhi\r\n0\r\n\r\n", 400, "malformed_http"),
    "extension with CR": (CHUNKED + b"2;a\rb\r\nhi\r\n0\r\n\r\n", 400, "malformed_http"),
    "extension with LF": (CHUNKED + b"2;a\nhi\r\n0\r\n\r\n", 400, "malformed_http"),
    "extension with NUL": (CHUNKED + b"2;a\0\r\nhi\r\n0\r\n\r\n", 400, "malformed_http"),
    "long extension": (CHUNKED + b"2;" + b"a" * 2048 + b"\r\nhi\r\n0\r\n\r\n", 400, "malformed_http"),
    "endless extension": (CHUNKED + b"2;" + b"a" * 2500, 400, "malformed_http"),
    "many extensions": (
        CHUNKED + b"1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n" * 60,
        413,
        "request_too_large",
    ),
    "chunk too long": (CHUNKED + b"2\r\nhiho\r\n0\r\n\r\n", 400, "malformed_http"),
    "chunk ends in LF": (CHUNKED + b"2\r\nhi\n0\r\n\r\n", 400, "malformed_http"),
    "chunk without an end": (CHUNKED + b"2\r\nhi0\r\n\r\n", 400, "malformed_http"),
    "chunk over the limit": (CHUNKED + b"3e9\r\n", 413, "request_too_large"),
    "chunks over the limit": (CHUNKED + b"1f4\r\n" + b"a" * 500 + b"\r\n1f5\r\n", 413, "request_too_large"),
    "too many chunks": (CHUNKED + b"1\r\na\r\n" * 21, 413, "request_too_large"),
    "folded trailer": (CHUNKED + b"0\r\nX: a\r\n b\r\n\r\n", 400, "malformed_http"),
    "trailer without a colon": (CHUNKED + b"0\r\nX\r\n\r\n", 400, "malformed_http"),
    "trailer ends in LF": (CHUNKED + b"0\r\nX: a\n\r\n", 400, "malformed_http"),
    "NUL in a trailer": (CHUNKED + b"0\r\nX: a\0\r\n\r\n", 400, "malformed_http"),
    "too many trailers": (CHUNKED + b"0\r\n" + b"X: a\r\n" * 11 + b"\r\n", 400, "malformed_http"),
    "long trailers": (CHUNKED + b"0\r\n" + (b"X: " + b"a" * 500 + b"\r\n") * 5 + b"\r\n", 400, "malformed_http"),
    # sizes of the head
    "too many fields": (b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 10 + b"\r\n", 431, "header_too_large"),
    "endless fields": (b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 30, 431, "header_too_large"),
    "long head": (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 2048 + b"\r\n\r\n", 431, "header_too_large"),
    "endless head": (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 3000, 431, "header_too_large"),
}
INTRUDER = b"GET /intruder HTTP/1.1\r\nHost: gw\r\n\r\n"


@pytest.mark.parametrize("http", BOTH)
def test_what_is_not_http_as_it_must_be_gets_one_answer_and_the_connection_ends(http: Http) -> None:
    async def main() -> None:
        reached: list[str] = []

        async def handler(request: Request) -> Reply:
            reached.append(request.path)
            return await mirror(request)

        async with serving(handler, limits=SMALL, http=http) as running:
            for name, (data, status, code) in REFUSED.items():
                client = await running.client(data + INTRUDER)
                answer = await client.answer()
                assert (answer.status, answer.code) == (status, code), name
                assert answer.headers["connection"] == "close", name
                assert answer.headers["x-request-id"], name
                assert await client.rest() == b"", f"{name}: a second answer"
                client.writer.close()
            assert reached == []
            assert len(running.refusals) == len(REFUSED)
            assert {address for address, _ in running.refusals} == {"127.0.0.1"}

    run(main())


def test_the_answer_to_a_broken_line_does_not_repeat_it() -> None:
    async def main() -> None:
        async with serving(mirror) as running:
            client = await running.client(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization : Bearer sk-canary\r\n\r\n")
            answer = await client.answer()
            assert answer.status == 400
            assert b"canary" not in answer.body
            assert "canary" not in str(running.refusals[0][1])

    run(main())


# name: (bytes, what the handler sees)
TAKEN: dict[str, tuple[bytes, dict[str, object]]] = {
    "plain": (b"GET /a HTTP/1.1\r\nHost: gw\r\n\r\n", {"method": "GET", "path": "/a", "query": "", "body": ""}),
    "query": (b"GET /a?b=c?d HTTP/1.1\r\nHost: gw\r\n\r\n", {"path": "/a", "query": "b=c?d"}),
    "empty query": (b"GET /a? HTTP/1.1\r\nHost: gw\r\n\r\n", {"path": "/a", "query": ""}),
    "percent stays": (b"GET /a%2Fb%20 HTTP/1.1\r\nHost: gw\r\n\r\n", {"path": "/a%2Fb%20"}),
    "two slashes": (b"GET //a/../b HTTP/1.1\r\nHost: gw\r\n\r\n", {"path": "//a/../b"}),
    "absolute": (
        b"GET http://x.example:80/a?b HTTP/1.1\r\nHost: gw\r\n\r\n",
        {"path": "/a", "query": "b", "headers": [["host", "x.example:80"]]},
    ),
    "absolute, no path": (b"GET HTTPS://gw?b HTTP/1.1\r\nHost: gw\r\n\r\n", {"path": "/", "query": "b"}),
    "star": (b"OPTIONS * HTTP/1.1\r\nHost: gw\r\n\r\n", {"method": "OPTIONS", "path": "*"}),
    "odd method": (b"BREW /pot HTTP/1.1\r\nHost: gw\r\n\r\n", {"method": "BREW"}),
    "IPv6 host": (b"GET / HTTP/1.1\r\nHost: [::1]:3456\r\n\r\n", {"headers": [["host", "[::1]:3456"]]}),
    "underscore in the host": (b"GET / HTTP/1.1\r\nHost: my_gw:1\r\n\r\n", {"headers": [["host", "my_gw:1"]]}),
    "underscore in a name": (b"GET / HTTP/1.1\r\nHost: gw\r\nX_Y: z\r\n\r\n", {"headers": [["host", "gw"]]}),
    "names in lower case": (
        b"GET / HTTP/1.1\r\nHOST: gw\r\nX-Y:z\r\nX-Y:  Z \r\n\r\n",
        {"headers": [["host", "gw"], ["x-y", "z"], ["x-y", "Z"]]},
    ),
    "trailing blanks": (b"GET / HTTP/1.1\r\nHost: gw\r\nX: y  \r\n\r\n", {"headers": [["host", "gw"], ["x", "y"]]}),
    "empty value": (b"GET / HTTP/1.1\r\nHost: gw\r\nX:\r\n\r\n", {"headers": [["host", "gw"], ["x", ""]]}),
    "tab in a value": (b"GET / HTTP/1.1\r\nHost: gw\r\nX: a\tb\r\n\r\n", {"headers": [["host", "gw"], ["x", "a\tb"]]}),
    "latin-1 value": (b"GET / HTTP/1.1\r\nHost: gw\r\nX: \xe9\r\n\r\n", {"headers": [["host", "gw"], ["x", "é"]]}),
    "length": (POST + b"Content-Length: 2\r\n\r\nhi", {"method": "POST", "body": "hi"}),
    "length with zeros": (POST + b"Content-Length: 0002\r\n\r\nhi", {"body": "hi"}),
    "length of nothing": (POST + b"Content-Length: 0\r\n\r\n", {"body": ""}),
    "identity": (POST + b"Content-Encoding: identity\r\nContent-Length: 2\r\n\r\nhi", {"body": "hi"}),
    "GET with a body": (b"GET / HTTP/1.1\r\nHost: gw\r\nContent-Length: 2\r\n\r\nhi", {"method": "GET", "body": "hi"}),
    "chunks": (CHUNKED + b"2\r\nhi\r\n3\r\n ho\r\n0\r\n\r\n", {"body": "hi ho"}),
    "no chunks": (CHUNKED + b"0\r\n\r\n", {"body": ""}),
    "coding in capitals": (
        POST + b"Transfer-Encoding: CHUNKED\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
        {"body": "0123456789"},
    ),
    "extensions": (CHUNKED + b'2;a=b;c="d e"\r\nhi\r\n0;x\r\n\r\n', {"body": "hi"}),
    "trailers stay outside": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nAuthorization: x\r\n\r\n",
        {"headers": [["host", "gw"], ["transfer-encoding", "chunked"]]},
    ),
    "h2c is declined": (
        b"GET / HTTP/1.1\r\nHost: gw\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
        {"path": "/"},
    ),
    "all fields": (b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 9 + b"\r\n", {"path": "/"}),
    "longest target": (b"GET /" + b"a" * 255 + b" HTTP/1.1\r\nHost: gw\r\n\r\n", {"path": "/" + "a" * 255}),
    "largest body": (POST + b"Content-Length: 1000\r\n\r\n" + b"a" * 1000, {"body": "a" * 1000}),
}


@pytest.mark.parametrize("http", BOTH)
@pytest.mark.parametrize("piece", [0, 1, 7], ids=["at once", "byte by byte", "by sevens"])
def test_what_is_http_reaches_the_handler_as_sent_on_one_connection(http: Http, piece: int) -> None:
    async def main() -> None:
        async with serving(mirror, limits=SMALL, http=http) as running:
            client = await running.client()
            for name, (data, wanted) in TAKEN.items():
                step = piece or len(data)
                for start in range(0, len(data), step):
                    client.send(data[start : start + step])
                    await asyncio.sleep(0)
                answer = await client.answer()
                assert answer.status == 200, name
                assert "connection" not in answer.headers, name
                seen = orjson.loads(answer.body)
                assert seen["client"] == "127.0.0.1"
                assert {key: seen[key] for key in wanted} == wanted, name
            assert running.server.connections == 1
            assert running.refusals == []

    run(main())
