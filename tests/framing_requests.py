"""Requests that two parsers could read in two ways, with the one answer to each; and odd ones that are right."""

from __future__ import annotations

from gw.server import Limits
from tests.attack_world import CANARY, KEY, chat

LIMITS = Limits(max_head=4096, max_fields=30, max_target=1024, max_body=20_000, max_chunks=40)
BODY = chat()
SIZE = b"%d" % len(BODY)
AUTH = b"Host: localhost\r\nAuthorization: Bearer " + KEY.encode() + b"\r\nContent-Type: application/json\r\n"
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\n" + AUTH
CODED = CHAT + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH = b"Content-Length: " + SIZE + b"\r\n\r\n" + BODY
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"


def shown(data: bytes) -> str:
    return data.decode("latin-1").encode("unicode_escape").decode()[:40]


Row = tuple[bytes, int, str]
ROWS: dict[str, Row] = {}


def refuse(name: str, data: bytes, status: int = 400, code: str = "malformed_http") -> None:
    assert name not in ROWS, name
    ROWS[name] = (data, status, code)


# Content-Length: digits by RFC 9110 8.6 and nothing that int() would take beside them.
for value in (
    b"+%b", b"-%b", b"0x%b", b"0o%b", b"%b_0", b"%b.0", b"%be0", b"%b,", b",%b", b"%b,%b", b"%b, %b", b"%b %b",
    b'"%b"', b"%b;q=1", b"%b\x0b", b"\x0c%b", b"%b\t%b", b"%b#", b"%b\xa0", b"\xc2\xa0%b", b"\xef\xbb\xbf%b",
    b"%bL", b"(%b)", b"\xd9\xa4\xd9\xa2", b"\xef\xbc\x94\xef\xbc\x92", b"NaN", b"Infinity", b"null", b"%%30", b"- 1",
):  # fmt: skip
    text = value.replace(b"%b", SIZE)
    refuse(f"Content-Length {shown(value)}", CHAT + b"Content-Length: " + text + b"\r\n\r\n" + BODY)
for value in (b"", b" ", b"\t", b"9" * 16, b"9" * 25, b"1" + b"0" * 400):
    refuse(f"Content-Length {shown(value)}...", CHAT + b"Content-Length: " + value + b"\r\n\r\n")
for value in (b"20001", b"99999", b"999999999999999", b"00000000020001"):
    refuse(f"Content-Length {shown(value)}", CHAT + b"Content-Length: " + value + b"\r\n\r\n", 413, "request_too_large")
for other in (SIZE, b"0", b"1", b"9999", b"", b"x", b"-1"):
    for name in (b"Content-Length", b"content-length", b"CONTENT-LENGTH"):
        two = b"Content-Length: " + SIZE + b"\r\n" + name + b": " + other + b"\r\n\r\n"
        refuse(f"Content-Length twice: {shown(name)} {shown(other)}", CHAT + two + BODY)
refuse("three lengths", CHAT + b"Content-Length: 1\r\n" * 3 + b"\r\n" + BODY)

# Content-Length beside Transfer-Encoding, whichever comes first and whatever it says.
for coding in (b"chunked", b"Chunked", b"CHUNKED", b" chunked", b"\tchunked\t"):
    for length in (b"0", SIZE, b"9999"):
        te, cl = b"Transfer-Encoding:" + coding + b"\r\n", b"Content-Length: " + length + b"\r\n"
        refuse(f"CL.TE {shown(coding)} {shown(length)}", CHAT + cl + te + b"\r\n" + CHUNKS)
        refuse(f"TE.CL {shown(coding)} {shown(length)}", CHAT + te + cl + b"\r\n" + CHUNKS)

# Transfer-Encoding: exactly one field, exactly `chunked`.
for coding in (
    b"xchunked", b"chunkedx", b"chunke", b"chunk", b"chunked;q=1", b"chunked; a=b", b'"chunked"', b"identity",
    b"gzip", b"deflate", b"compress", b"br", b"x-chunked", b"chunked, chunked", b"gzip, chunked", b"chunked, gzip",
    b"chunked, identity", b"identity, chunked", b",chunked", b"chunked,", b", chunked", b"cow", b"chunked cow",
    b"nothing, chunked", b"trailers", b"[chunked]", b"chunked/1", b"\xefchunked", b"\xc3\xa7hunked", b"false", b"0",
):  # fmt: skip
    refuse(
        f"Transfer-Encoding {shown(coding)}",
        CHAT + b"Transfer-Encoding: " + coding + b"\r\n\r\n" + CHUNKS,
        501,
        "not_implemented",
    )
for first, second in ((b"chunked", b"chunked"), (b"chunked", b"identity"), (b"identity", b"chunked"), (b"x", b"y")):
    lines = b"Transfer-Encoding: " + first + b"\r\nTransfer-Encoding: " + second + b"\r\n\r\n"
    refuse(f"Transfer-Encoding twice: {shown(first)} {shown(second)}", CHAT + lines + CHUNKS, 501, "not_implemented")
refuse("an empty Transfer-Encoding", CHAT + b"Transfer-Encoding:\r\n\r\n" + CHUNKS, 501, "not_implemented")
refuse("HTTP/1.0 with chunks", CODED.replace(b"HTTP/1.1", b"HTTP/1.0") + CHUNKS)

# Names of fields that a lenient parser takes for framing.
for name in (
    b"Content-Length ", b"Content-Length\t", b" Content-Length", b"Content Length", b"Content-Length:",
    b"Content\x00-Length",
    b"Content-Length\x0b", b"Content-Length\xa0", b"Content-L\xc4\xb1ngth", b"Content-Length\r", b"\tContent-Length",
    b"Transfer-Encoding ", b"Transfer-Encoding\t", b" Transfer-Encoding", b"Transfer Encoding",
    b"Transfer\x00-Encoding",
    b"Transfer-Encoding\x0b", b"Transfer-Encoding\x0c", b"Transfer-Encoding\xa0", b"\x0bTransfer-Encoding",
    b"Transfer-Encoding\r", b"X(y)", b"X[y]", b"X{y}", b"X/y", b"X@y", b"X,y", b"X;y", b"X=y", b"X?y", b'X"y', b"X\\y",
    b"X<y>",
):  # fmt: skip
    refuse(f"the name {shown(name)}", CHAT + name + b": chunked\r\nX: " + CANARY.encode() + b"\r\n\r\n" + CHUNKS)

# Lines: CR LF alone ends one, nothing goes on in a second, and no control byte hides.
for byte in [*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F]:
    refuse(f"byte {byte:02x} in a value", HEALTH + b"X: a" + bytes([byte]) + b"b\r\n\r\n")
for byte in (0x00, 0x08, 0x0B, 0x0C, 0x1B, 0x7F):
    refuse(f"byte {byte:02x} in the target", b"GET /hea" + bytes([byte]) + b"lth HTTP/1.1\r\nHost: localhost\r\n\r\n")
    refuse(f"byte {byte:02x} in the method", b"GE" + bytes([byte]) + b"T /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
for at, line in enumerate((b"GET /health HTTP/1.1", b"Host: localhost", b"A: b", b"")):
    whole = [b"GET /health HTTP/1.1\r\n", b"Host: localhost\r\n", b"A: b\r\n", b"\r\n"]
    for end in (b"\n", b"\r", b"\r\r\n", b"\n\r\n" if at < 3 else b"\n\n"):
        broken = b"".join([*whole[:at], line + end, *whole[at + 1 :]])
        refuse(f"line {at} ends in {shown(end)}", broken)
for fold in (b"\r\n ", b"\r\n\t", b"\r\n  \t ", b"\n ", b"\r "):
    refuse(f"folded by {shown(fold)}", HEALTH + b"X: a" + fold + b"b\r\n\r\n")
    refuse(f"a folded length by {shown(fold)}", CHAT + b"Content-Length:" + fold + SIZE + b"\r\n\r\n" + BODY)
    refuse(f"a folded coding by {shown(fold)}", CHAT + b"Transfer-Encoding:" + fold + b"chunked\r\n\r\n" + CHUNKS)
refuse("a fold before the first field", b"GET /health HTTP/1.1\r\n Host: localhost\r\n\r\n")
refuse("a blank-only line", HEALTH + b" \r\n\r\n")
refuse("a tab-only line", HEALTH + b"\t\r\n\r\n")
for before in (b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b"\r\n\r\n", b"\xef\xbb\xbf", b"0\r\n\r\n", b"\x16\x03\x01"):
    refuse(f"{shown(before)} before the request", before + HEALTH + b"\r\n")

# The request line.
for line in (
    b"GET /health", b"GET /health ", b"GET  /health HTTP/1.1", b"GET /health  HTTP/1.1", b"GET /health HTTP/1.1 ",
    b"GET\t/health HTTP/1.1", b"GET /health\tHTTP/1.1", b"GET /health HTTP/1.1 HTTP/1.1", b" GET /health HTTP/1.1",
    b"GET /health HTTP/1.1.1", b"GET /health HTTP/01.1", b"GET /health HTTP/1.01", b"GET /health HTTP/11",
    b"GET /health HTTP/1",
    b"GET /health HTTP/1.", b"GET /health HTTP/.1", b"GET /health HTTP/x.y", b"GET /health HTTP/-1.1",
    b"GET /health HTTP/1,1",
    b"GET /health http/1.1", b"GET /health Http/1.1", b"GET /health HTTPS/1.1", b"GET /health ICY/1.1",
    b"GET /health HTTP 1.1",
    b"GET /health HTTP//1.1", b"GET /health HTTP/1 .1", b"GET /health HTTP/\xef\xbc\x91.1", b"GET /health HTTP/1.1\x00",
    b"GE T /health HTTP/1.1", b"GE(T) /health HTTP/1.1", b"G\xc3\x8aT /health HTTP/1.1", b'"GET" /health HTTP/1.1',
    b"GET: /health HTTP/1.1",
    b"GET, /health HTTP/1.1", b"{GET} /health HTTP/1.1", b"/health HTTP/1.1", b"HTTP/1.1 200 OK", b"GET", b"x", b"{}",
):  # fmt: skip
    refuse(f"the line {shown(line)}", line + b"\r\nHost: localhost\r\n\r\n")
for version in (b"0.9", b"1.2", b"1.9", b"2.0", b"3.0", b"9.9", b"0.0"):
    data = b"GET /health HTTP/" + version + b"\r\nHost: localhost\r\n\r\n"
    refuse(f"version {shown(version)}", data, 505, "http_version_not_supported")
refuse("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http_version_not_supported")

# The target (RFC 9112 3.2): a path, an http(s) URL, or `*` with OPTIONS.
for target in (
    b"health", b"?health", b"#", b"/health#x", b"/health?a#b", b"/he\\alth", b"\\health", b"/health%", b"/health%2",
    b"/health%zz",
    b"/health%u0041", b"/h\xc3\xa9alth", b"/health?\xff", b"/health<", b"/health>", b'/health"', b"/health^",
    b"/health`", b"/health{x}",
    b"/health|x", b"/[health]", b"*", b"*/health", b"/health/*#", b"ftp://localhost/health", b"file:///etc/passwd",
    b"javascript:alert(1)",
    b"localhost:80", b"localhost", b"//", b"http:/health", b"http:health", b"http://", b"http:///health",
    b"http://a@localhost/health",
    b"http://a:b@localhost/health", b"http://local host/health", b"http://localhost:x/health",
    b"http://localhost:123456/health",
    b"http://[::1/health", b"http://::1/health", b"http://a,b/health", b"http://localhost\\@b/health",
    b"ws://localhost/health",
    b"gopher://localhost/", b"httpx://localhost/health", b"http://localhost/health#x", b"http://localhost/he\\alth",
):  # fmt: skip
    if target in (b"//",):
        continue
    refuse(f"the target {shown(target)}", b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
for line in (
    b"CONNECT localhost:80",
    b"CONNECT evil.example:443",
    b"CONNECT [::1]:22",
    b"OPTIONS **",
    b"OPTIONS *x",
    b"POST *",
):
    refuse(f"the target of {shown(line)}", line + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
for size, tail in (
    (1025, b" HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    (3000, b" HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    (3000, b""),
):
    refuse(
        f"a target of {size} bytes{' without end' * (not tail)}", b"GET /" + b"a" * size + tail, 414, "target_too_long"
    )

# Host: one, by grammar.
for host in (
    b"", b" ", b"a b", b"a/b", b"a?b", b"a#b", b"a@b", b"a\\b", b"a,b", b"a, b", b"a:b", b"a:", b"a:1:2", b"a:-1",
    b"a:+1", b"a:123456",
    b":80", b"[", b"]", b"[]:", b"[::1", b"::1", b"[::1]]", b"[::1]x", b"[g::1]", b"[::1%25eth0]", b"a<b>", b"a;b",
    b"a=b", b'"a"', b"a|b",
    b"a^b", b"a%zz", b"(a)", b"{a}", b"a`b`", b"h\xc3\xb6st", b"\xe2\x80\x8b", b"localhost\xa0", b"http://localhost",
    b"a/../b:80?x=",
    b"localhost/health?x=", b"localhost:80/..", b"localhost%0d%0a", b"a:0x50", b"a:\xd9\xa8",
):  # fmt: skip
    refuse(f"Host {shown(host)}", b"GET /health HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
refuse("no Host", b"GET /health HTTP/1.1\r\n\r\n")
refuse("no Host but X-Forwarded-Host", b"GET /health HTTP/1.1\r\nX-Forwarded-Host: localhost\r\n\r\n")
for pair in (
    (b"localhost", b"localhost"),
    (b"localhost", b"evil.example"),
    (b"evil.example", b"localhost"),
    (b"a", b""),
):
    lines = b"".join(b"Host: " + host + b"\r\n" for host in pair)
    refuse(f"two Hosts: {shown(b' '.join(pair))}", b"GET /health HTTP/1.1\r\n" + lines + b"\r\n")
refuse("two Hosts apart", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: y\r\nhOST: b\r\n\r\n")
refuse("two Hosts beside an absolute target", b"GET http://localhost/health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
refuse("a bad Host beside an absolute target", b"GET http://localhost/health HTTP/1.1\r\nHost: a b\r\n\r\n")

# Sizes of the head.
refuse("31 fields", HEALTH + b"A: b\r\n" * 30 + b"\r\n", 431, "header_too_large")
refuse("fields without end", HEALTH + b"A: b\r\n" * 60, 431, "header_too_large")
refuse("a head of 5000 bytes", HEALTH + b"A: " + b"b" * 5000 + b"\r\n\r\n", 431, "header_too_large")
refuse("a head without end", HEALTH + b"A: " + b"b" * 9000, 431, "header_too_large")
refuse("a name without end", HEALTH + b"b" * 9000, 431, "header_too_large")
refuse("one line without end", b"A" * 9000, 414, "target_too_long")
refuse(
    "a large head and a large body",
    CHAT + b"A: " + b"b" * 5000 + b"\r\nContent-Length: 9\r\n\r\n",
    431,
    "header_too_large",
)

# A body in a coding.
for coding in (b"gzip", b"deflate", b"br", b"zstd", b"identity, gzip", b"GZIP", b"x-gzip", b"aes128gcm"):
    lines = b"Content-Encoding: " + coding + b"\r\nContent-Length: " + SIZE + b"\r\n\r\n"
    refuse(f"Content-Encoding {shown(coding)}", CHAT + lines + BODY, 415, "unsupported_media_type")

# Sizes of chunks and what stands behind them.
for digits in (
    b"", b" ", b"x", b"-1", b"+5", b"0x5", b"5_0", b"5 ", b" 5", b"\t5", b"5\t", b"5\x00", b"\x005", b"5\x0b", b"0x",
    b"5,5", b"5.0", b"5h", b"'5'",
    b"5#", b"5\xa0", b"\xd9\xa5", b"\xef\xbc\x95", b"000000005", b"00000000000000000005", b"FFFFFFFFFFFFFFFFFF",
    b"100000005", b"--5", b"5=5", b"5 ;a",
    b"5\r", b"5;\r", b"5;a\rb", b"5;a\x00b", b"5;a\x0bb", b"5;a\x7fb", b'5;a="\r"', b"5;\x01", b"5;\xff", b"5:5",
    b"5&a",
):  # fmt: skip
    refuse(f"a chunk of size {shown(digits)}", CODED + digits + b"\r\nhello\r\n0\r\n\r\n")
for digits in (b"5\n", b"5;a\n", b"5;a\nb\n", b"5\n\r\n", b"\n5\r\n"):
    refuse(f"a line of a size {shown(digits)}", CODED + digits + b"hello\r\n0\r\n\r\n")
for end in (b"", b"\n", b"\r", b"\r\r\n", b"x\r\n", b"xx", b" \r\n", b"\n\n", b"\0\0", b"0\r\n"):
    refuse(f"a chunk that ends in {shown(end)}", CODED + b"5\r\nhello" + end + b"0\r\n\r\n0\r\n\r\n")
refuse("a chunk longer than its size", CODED + b"2\r\nhello\r\n0\r\n\r\n")
refuse("a chunk shorter than its size", CODED + b"9\r\nhello\r\n0\r\n\r\n" + b"0\r\n\r\n")
refuse("a chunk of 4 GB", CODED + b"FFFFFFFF\r\nx", 413, "request_too_large")
refuse("a chunk over the limit", CODED + b"4e21\r\nx", 413, "request_too_large")
refuse("chunks over the limit", CODED + b"3e8\r\n%b\r\n" % (b"x" * 1000) * 19 + b"3e9\r\n", 413, "request_too_large")
refuse("41 chunks", CODED + b"1\r\nx\r\n" * 41, 413, "request_too_large")
refuse("a long extension", CODED + b"5;" + b"a" * 5000 + b"\r\nhello\r\n0\r\n\r\n")
refuse("an extension without end", CODED + b"5;" + b"a" * 9000)
refuse("many extensions", CODED + (b"1;" + b"a" * 200 + b"\r\nx\r\n") * 30)
refuse("a size without end", CODED + b"0" * 9000)
for trailer in (
    b"X", b"X:a\nY:b", b"X: a\r\n b", b"X: a\0b", b"X: a\rb", b": a", b"X : a", b"X y: a", b" X: a", b"X\x00: a",
    b"X: \x1b", b"X: \x7f", b"(): a",
    b"GET /intruder HTTP/1.1", b"Transfer-Encoding: gzip", b"Transfer-Encoding: x",
):  # fmt: skip
    refuse(f"a trailer {shown(trailer)}", CODED + b"%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (len(BODY), BODY, trailer))
refuse("31 trailers", CODED + b"0\r\n" + b"A: b\r\n" * 31 + b"\r\n")
refuse("long trailers", CODED + b"0\r\n" + (b"A: " + b"b" * 900 + b"\r\n") * 6 + b"\r\n")
refuse("a trailer without end", CODED + b"0\r\nA: " + b"b" * 9000)
refuse("the end of the chunks in LF", CODED + b"0\n\n")
refuse("the end of the trailers in LF", CODED + b"0\r\nA: b\r\n\n")

RIGHT: dict[str, tuple[bytes, int]] = {  # the request, and how many reach the provider
    "plain": (CHAT + b"" + LENGTH, 1),
    "zeros before the length": (CHAT + b"Content-Length: 000" + SIZE + b"\r\n\r\n" + BODY, 1),
    "blanks around the length": (CHAT + b"Content-Length: \t " + SIZE + b" \t\r\n\r\n" + BODY, 1),
    "chunks": (CODED + CHUNKS, 1),
    "CHUNKED": (CHAT + b"TRANSFER-ENCODING: CHUNKED\r\n\r\n" + CHUNKS, 1),
    "chunks byte by byte": (CODED + b"".join(b"2\r\n%b\r\n" % BODY[at : at + 2] for at in range(0, len(BODY) // 2 * 2,
    2))
        + (b"1\r\n%b\r\n" % BODY[-1:] if len(BODY) % 2 else b"") + b"0\r\n\r\n", 1),
    "extensions": (CODED + b'%x;a=b;c="d"\r\n%b\r\n0;e\r\n\r\n' % (len(BODY), BODY), 1),
    "trailers": (CODED + CHUNKS[:-2] + b"X: y\r\nContent-Length: 9\r\n\r\n", 1),
    "a trailer that names the host": (CODED + CHUNKS[:-2] + b"Host: evil.example\r\nContent-Type: text/html\r\n\r\n",
    1),
    "framing with an underscore": (CHAT + b"Content_Length: 9\r\n" + LENGTH, 1),
    "a coding with an underscore": (CHAT + b"Transfer_Encoding: chunked\r\n" + LENGTH, 1),
    "X-Content-Length": (CHAT + b"X-Content-Length: 0\r\n" + LENGTH, 1),
    "Connection names the length": (CHAT + b"Connection: Content-Length\r\n" + LENGTH, 1),
    "identity": (CHAT + b"Content-Encoding: identity\r\n" + LENGTH, 1),
    "TE": (CHAT + b"TE: trailers, gzip;q=0\r\nConnection: TE\r\n" + LENGTH, 1),
    "expects 100-continue": (CHAT + b"Expect: 100-continue\r\n" + LENGTH, 1),
    "expects 100-Continue in chunks": (CODED[:-2] + b"Expect: 100-Continue\r\n\r\n" + CHUNKS, 1),
    "h2c": (HEALTH + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", 0),
    "websocket": (HEALTH + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AA==\r\n\r\n", 0),
    "TLS upgrade": (HEALTH + b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n\r\n", 0),
    "absolute": (b"GET http://localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n", 0),
    "absolute with another Host": (b"GET http://localhost/health HTTP/1.1\r\nHost: evil.example\r\n\r\n", 0),
    "absolute in capitals": (b"GET HTTP://localhost:80/health HTTP/1.1\r\nHost: localhost\r\n\r\n", 0),
    "latin-1 in a value": (HEALTH + b"X: \xe9\xff\x80\r\n\r\n", 0),
    "a tab in a value": (HEALTH + b"X: a\tb\r\n\r\n", 0),
    "a length of nothing": (b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 0),
    "GET with a body": (HEALTH + b"Content-Length: 5\r\n\r\nGET /", 0),
    "GET with chunks": (HEALTH + b"Transfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\n\r\n", 0),
    "a target of 1024 bytes": (b"GET /health?" + b"a" * 1016 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 0),
    "30 fields": (HEALTH + b"A: b\r\n" * 29 + b"\r\n", 0),
    "forwarding fields": (HEALTH + b"X-Forwarded-For: 1.2.3.4\r\nForwarded: for=x\r\nVia: 1.1 x\r\n\r\n", 0),
}  # fmt: skip
