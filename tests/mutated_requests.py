"""Requests of usual clients, their mutations, and a transport in memory, for the tests of the server's protocol."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("GW_FUZZ_EXAMPLES", "300"))
FUZZ = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)

SDK = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:3456\r\nAccept-Encoding: gzip, deflate\r\n"
    b"Connection: keep-alive\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
    b"User-Agent: OpenAI/Python 2.8.0\r\nX-Stainless-Lang: python\r\nAuthorization: Bearer sk-x\r\n"
    b"X-Request-ID: abc-1\r\nContent-Length: 4\r\n\r\n"
)
HEADS = (
    SDK,
    b"GET /health HTTP/1.1\r\nHost: gw\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n",
    b"GET /v1/models?limit=2&after=x HTTP/1.1\r\nhost: gw.example:80\r\nX-Y: \r\nCookie: a=b; c=d \r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 04\r\nConnection: Keep-Alive\r\nX_Y: z\r\n\r\n",
)
PIECES = (
    b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\0", b"\x7f", b"\x80", b"_", b"%", b"%41", b"#", b"?", b"*", b"//",
    b"0", b",", b"+", b"A", b"HTTP/1.0", b"HTTP/2.0", b"HEAD", b"OPTIONS", b"http://gw", b"\r\n ",
    b"\r\nHost: gw", b"\r\nContent-Length: 4", b"\r\nContent-Length: 5", b"\r\nTransfer-Encoding: chunked",
    b"\r\nTransfer-Encoding: gzip", b"\r\nExpect: 100-continue", b"\r\nConnection: close",
    b"\r\nUpgrade: h2c", b"\r\nConnection: keep-alive", b"\r\nContent-Encoding: gzip", b"\r\nContent-Length : 4",
    b"\r\nX:", b"\r\nx-y: \xe9\t ", b"; ",
)  # fmt: skip

Mutation = tuple[int, int, bytes]
mutations: st.SearchStrategy[list[Mutation]] = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(0, 3), st.sampled_from(PIECES) | st.binary(min_size=1, max_size=3)),
    max_size=4,
)


def mutate(data: bytes, changes: Sequence[Mutation]) -> bytes:
    """Insert, overwrite, delete or double something at some places."""
    for where, kind, piece in changes:
        at = where % (len(data) + 1)
        if kind == 0:
            data = data[:at] + piece + data[at:]
        elif kind == 1:
            data = data[:at] + piece + data[at + len(piece) :]
        elif kind == 2:
            data = data[:at] + data[at + len(piece) :]
        else:  # at the end of a line, where a field would stand
            line = data.find(b"\r\n", at)
            data = data[:line] + piece + data[line:] if line >= 0 else data + piece
    return data


SEEDS = (
    SDK + b"body",
    HEADS[1],
    HEADS[2],
    b"POST /c HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nbody\r\n1\r\n!\r\n0\r\nT: u\r\n\r\n",
    b"POST /e HTTP/1.1\r\nHost: gw\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody",
    b"HEAD /h HTTP/1.1\r\nHost: gw\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: gw\r\nConnection: TE\r\n\r\n",
    b"GET http://gw/a HTTP/1.1\r\nHost: gw\r\nUpgrade: h2c\r\n\r\n",
    b"GET /o HTTP/1.0\r\n\r\n",
)


class Transport(asyncio.Transport):
    """Keeps what is written, in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_paused = False
        self.has_ended = False
        self.is_closed = False

    def write(self, data: Any) -> None:
        assert not self.has_ended, "bytes behind the end"
        if not self.is_closed:
            self.written += data

    def write_eof(self) -> None:
        self.has_ended = True

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.is_closed
