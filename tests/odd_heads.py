"""Heads of answers as they should be, and what makes them odd."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

EXAMPLES = settings(max_examples=120, deadline=None, derandomize=True)

CANONICAL = [
    b"HTTP/1.1 200 OK\r\nDate: now\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nServer: x\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n",
    b"HTTP/1.1 429 Too Many\r\nretry-after: 3\r\ncontent-length: 2\r\nKeep-Alive: timeout=5\r\n\r\n",
]
ODD = [
    b"\r\n",
    b"\n",
    b" ",
    b"\t",
    b":",
    b"\0",
    b"\r",
    b"\x80",
    b"Content-Length: 4\r\n",
    b"Transfer-Encoding: chunked\r\n",
]
ODD += [
    b"connection: close\r\n",
    b"Set-Cookie: a\r\nSet-Cookie: b\r\n",
    b"HTTP/1.1 ",
    b"1",
    b"+",
    b",",
    b"a: \r\n",
    b"X:y\r\n",
]


@st.composite
def mutated_heads(draw: st.DrawFn) -> bytes:
    head = draw(st.sampled_from(CANONICAL))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(head)))
        match draw(st.sampled_from(["insert", "delete", "replace"])):
            case "insert":
                head = head[:at] + draw(st.sampled_from(ODD)) + head[at:]
            case "delete":
                head = head[:at] + head[at + draw(st.integers(1, 4)) :]
            case _:
                head = head[:at] + draw(st.binary(min_size=1, max_size=2)) + head[at + 1 :]
    return head
