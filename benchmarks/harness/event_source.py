"""A provider of event streams that is much faster than any gateway: prepared bytes, pushed by asyncio.

    python -m benchmarks.harness.event_source PORT

The request's path says what is streamed: `/openai/COUNT/MS/...` sends COUNT events of 240 bytes, one every MS
milliseconds (0: all at once); `/anthropic/...` the same in Anthropic's dialect. Each event carries the time at which
it was sent, so that the reader can tell how long it took.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time

import uvloop

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_PATH = re.compile(rb"POST /(openai|anthropic)/(\d+)/(\d+)/")
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
STAMP = 18  # digits of time.monotonic_ns


def _event(dialect: bytes, text: bytes) -> bytes:
    if dialect == b"anthropic":
        data = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":'
            b'{"type":"text_delta","text":"' + text + b'"}}\n\n'
        )
    else:
        data = (
            b'data: {"id":"chatcmpl-9Xk2mQ4rT7","object":"chat.completion.chunk","created":1700000000,'
            b'"model":"gpt-4o-mini","system_fingerprint":"fp_44709d6fcb","choices":[{"index":0,"delta":{"content":"'
            + text
            + b'"},"logprobs":null,"finish_reason":null}]}\n\n'
        )
    return data


def _first(dialect: bytes) -> bytes:
    if dialect == b"anthropic":
        return (
            b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message","role":'
            b'"assistant","model":"claude-sonnet-4-5","content":[],"stop_reason":null,"usage":{"input_tokens":9,'
            b'"output_tokens":1}}}\n\nevent: content_block_start\ndata: {"type":"content_block_start","index":0,'
            b'"content_block":{"type":"text","text":""}}\n\n'
        )
    return _event(dialect, b"").replace(b'{"content":""}', b'{"role":"assistant","content":""}')


def _last(dialect: bytes) -> bytes:
    if dialect == b"anthropic":
        return (
            b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\nevent: message_delta\n'
            b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9}}\n\n'
            b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
        )
    finish = _event(dialect, b"").replace(b'{"content":""}', b"{}").replace(b'reason":null', b'reason":"stop"')
    return finish + b"data: [DONE]\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n"


class _Source(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or len(body) < int(length[1] if length else 0):
            return
        self._buffer = b""
        found = _PATH.match(head)
        assert found is not None, head[:80]
        dialect, count, pause = found[1], int(found[2]), int(found[3]) / 1000
        self._transport.write(_HEAD + _chunk(_first(dialect)))
        if pause == 0:
            events = [_chunk(_event(dialect, b"x" * 50 + _stamp())) for _ in range(count)]
            self._transport.write(b"".join(events) + _chunk(_last(dialect)) + b"0\r\n\r\n")
        else:
            self._send_at(asyncio.get_running_loop().time() + pause, dialect, count, pause)

    def _send_at(self, due: float, dialect: bytes, left: int, pause: float) -> None:
        # By what is due, not by when the last one went: else a stream falls behind, and falls into step with others.
        asyncio.get_running_loop().call_at(due, self._send, due, dialect, left, pause)

    def _send(self, due: float, dialect: bytes, left: int, pause: float) -> None:
        if self._transport.is_closing():
            return
        if left == 0:
            self._transport.write(_chunk(_last(dialect)) + b"0\r\n\r\n")
            return
        self._transport.write(_chunk(_event(dialect, b"x" * 50 + _stamp())))
        self._send_at(due + pause, dialect, left - 1, pause)


def _stamp() -> bytes:
    return b"%0*d" % (STAMP, time.monotonic_ns())


async def _main(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Source, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1])))
