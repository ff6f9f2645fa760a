"""One request to the faulty provider, and everything that may be written to it: right, half, or wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from gw.adapters.faulty.dialects import TOKENS, AnthropicDialect, OpenAIDialect


class Exchange:
    """What was asked (`json`, `is_stream`), and in which dialect to answer."""

    def __init__(self, path: str, json: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        self.json = json
        self.is_stream = bool(json.get("stream"))
        self.dialect = AnthropicDialect() if path.endswith("/messages") else OpenAIDialect()
        self._writer = writer

    @property
    def prefix(self) -> str:
        """The text that is to be gone on from; empty where the answer is to begin."""
        last = self.json["messages"][-1]
        content = last["content"] if last["role"] == "assistant" else ""
        return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)

    async def write(self, data: bytes) -> None:
        """Bytes as they are. Raises ConnectionResetError where nobody is there any more."""
        if self._writer.transport.is_closing():  # uvloop's own error for that is a RuntimeError
            raise ConnectionResetError("the client hung up")
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, body: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
        """A whole response; `length` is what it says of its length."""
        headers = {"content_type": "application/json"} | headers
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        length = len(body) if length is None else length
        await self.write(f"HTTP/1.1 {status} X\r\n{lines}content-length: {length}\r\n\r\n".encode() + body)

    async def refuse(self, status: int, error: dict[str, Any], **headers: str) -> None:
        """An error status with its body."""
        await self.answer(orjson.dumps(error), status, None, **headers)

    async def open(self) -> None:
        """The head of an event stream."""
        await self.write(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    async def send(self, *pieces: bytes) -> None:
        """Pieces of a stream, one chunk each."""
        for piece in pieces:
            await self.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")

    async def close(self) -> None:
        """The end of a stream in due form."""
        await self.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Reset the connection: a plain close would look like an end to some."""
        transport: Any = self._writer.transport
        transport.abort()

    async def stream(self, *pieces: bytes) -> None:
        """A stream from its head to its end."""
        await self.open()
        await self.send(*pieces)
        await self.close()

    async def begin(self, tokens: int) -> None:
        """A stream up to so many tokens."""
        await self.open()
        await self.send(*self.dialect.begin(), *(self.dialect.text(token) for token in TOKENS[:tokens]))

    async def half(self) -> None:
        """The first two thirds of a whole answer."""
        body = self.dialect.whole()
        head = f"HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        await self.write(head.encode() + body[: len(body) * 2 // 3])

    @staticmethod
    async def silence() -> None:
        """Nothing, until the other side hangs up."""
        await asyncio.Event().wait()
