"""A provider on loopback that misbehaves as each request asks, and keeps books.

A request's model says what is done with it: `ok`, or words of `NAME=VALUE` joined by commas:

    delay=S    seconds of silence before anything        words=N    length of the answer (8)
    gap=S      seconds between the words of a stream     status=N   an error with that status
    after=S    its Retry-After                           tell       ... and its text repeats the key that came
    rst=N close=N nodone=N hang=N    after N words: reset, close, end in due form, silence

or `fault:NAME`, one of `gw drill`'s. The realm is the first segment of the path: what was told to
`/_set` for it goes before the model. `/_stats` and `/_ledger` are the books. Attempts whose request has a `user` are
kept one by one, with times of the system's monotonic clock, which the clients on this machine share.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from collections import Counter
from typing import Any, cast

import orjson
import uvloop

from gw.adapters.faulty.acts import ACTS
from gw.adapters.faulty.exchange import Exchange

WORDS = 8
PROMPT = 9  # tokens that every prompt is billed for
_RESET = struct.pack("ii", 1, 0)
_CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Books:
    """What came, what was billed, and who left."""

    def __init__(self) -> None:
        self.behaviour: dict[str, str] = {}  # by realm
        self.connections = 0
        self.reset()
        self.busy = 0  # requests that are being answered
        self.blocked = 0  # answers that wait for their reader

    def reset(self) -> None:
        self.attempts = self.hangups = self.most = 0
        self.realms: Counter[str] = Counter()
        self.ledger: list[dict[str, Any]] = []

    def stats(self) -> dict[str, Any]:
        names = ("attempts", "hangups", "most", "busy", "blocked", "connections", "realms")
        return {name: getattr(self, name) for name in names}


BOOKS = Books()


class _Writer:
    """As much of a StreamWriter as the faults of the tests ask for."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.transport = connection.transport

    def write(self, data: bytes) -> None:
        if not self._connection.transport.is_closing():
            self._connection.transport.write(data)

    async def drain(self) -> None:
        if self._connection.transport.is_closing():
            raise ConnectionResetError
        await self._connection.drained()


class _Connection(asyncio.Protocol):
    """Requests one after the other."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._entry: dict[str, Any] | None = None
        self._is_busy = False
        self._writable: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        # Little in the kernel: that a reader has stopped is to be felt here.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        BOOKS.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        BOOKS.connections -= 1
        if self._is_busy:
            BOOKS.hangups += 1
            self._note(hung_up=time.monotonic())
            self.done()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    async def drained(self) -> None:
        """Until the gateway has read enough."""
        if self._writable is not None:
            BOOKS.blocked += 1
            try:
                await self._writable
            finally:
                BOOKS.blocked -= 1
        else:
            await asyncio.sleep(0)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._is_busy:
            self._next()

    def _next(self) -> None:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(fields.get("content-length", "0"))
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        path = lines[0].split(" ")[1]
        body = rest[:length]
        if path.startswith("/_"):
            self._control(path, body)
            return
        self._answer(path, orjson.loads(body), fields)

    def _control(self, path: str, body: bytes) -> None:
        answer: Any = {}
        if path == "/_stats":
            answer = BOOKS.stats()
        elif path == "/_ledger":
            answer = BOOKS.ledger
        elif path == "/_set":
            BOOKS.behaviour = orjson.loads(body)
        elif path == "/_reset":
            BOOKS.reset()
        data = orjson.dumps(answer)
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(data) + data)

    # --- one attempt --------------------------------------------------------------------------------------------

    def _answer(self, path: str, given: dict[str, Any], fields: dict[str, str]) -> None:
        realm = path.split("/")[1]
        BOOKS.attempts += 1
        BOOKS.busy += 1
        BOOKS.most = max(BOOKS.most, BOOKS.busy)
        BOOKS.realms[realm] += 1
        self._is_busy = True
        self._entry = None
        model = BOOKS.behaviour.get(realm) or str(given.get("model"))
        if given.get("user"):
            self._entry = {"user": given["user"], "realm": realm, "model": model, "at": time.monotonic()}
            BOOKS.ledger.append(self._entry)
        if model.startswith("fault:"):
            self._spawn(self._fault(model.removeprefix("fault:"), path, given))
            return
        told = dict(word.partition("=")[::2] for word in model.split(","))
        reply = _Reply(self, told, bool(given.get("stream")), fields.get("authorization", ""))
        delay = float(told.get("delay", 0))
        if not reply.is_slow:
            if delay:
                self._timer = asyncio.get_running_loop().call_later(delay, reply.at_once)
            else:
                reply.at_once()
        else:
            self._spawn(reply.slowly(delay))

    def _spawn(self, work: Any) -> None:
        self._task = asyncio.get_running_loop().create_task(work)

    async def _fault(self, name: str, path: str, given: dict[str, Any]) -> None:
        try:
            await ACTS[name](Exchange(path, given, cast(asyncio.StreamWriter, _Writer(self))))
        except (ConnectionError, RuntimeError):
            pass
        else:
            self.done()

    def _note(self, **facts: Any) -> None:
        if self._entry is not None:
            self._entry |= facts

    def bill(self, words: int) -> None:
        """The answer is whole, and so is what it costs."""
        self._note(prompt=PROMPT, completion=words)

    def done(self) -> None:
        """The attempt is over."""
        if self._is_busy:
            self._is_busy = False
            BOOKS.busy -= 1
            if self._buffer and not self.transport.is_closing():
                self._next()

    def cut(self, *, gently: bool) -> None:
        """End the connection in the middle."""
        self._note(cut=time.monotonic())
        self.done()
        if gently:
            self.transport.close()
        else:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()


class _Reply:
    """What one request gets, at once or slowly."""

    def __init__(self, connection: _Connection, told: dict[str, str], is_stream: bool, key: str) -> None:
        self._connection = connection
        self._told = told
        self._is_stream = is_stream
        self._key = key
        self._words = int(told.get("words", WORDS))
        self._gap = float(told.get("gap", 0))
        self._fault = next((name for name in ("rst", "close", "nodone", "hang") if name in told), "")
        self.is_slow = bool(self._fault) or (is_stream and (self._gap > 0 or self._words > 200))

    def at_once(self) -> None:
        connection = self._connection
        if "status" in self._told:
            connection.transport.write(self._refusal())
        elif self._is_stream:
            connection.transport.write(_CHUNKED + _framed(*_begin(), *map(_word, range(self._words)), *self._finish()))
            connection.bill(self._words)
        else:
            body = _whole(self._words)
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
            connection.transport.write(head + body)
            connection.bill(self._words)
        connection.done()

    async def slowly(self, delay: float) -> None:
        if delay:
            await asyncio.sleep(delay)
        connection = self._connection
        transport = connection.transport
        if not self._is_stream:
            transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n{")
        else:
            transport.write(_CHUNKED + _framed(*_begin()))
            stop = int(self._told[self._fault]) if self._fault else self._words
            for number in range(min(stop, self._words)):
                transport.write(_WORDS[number % len(_WORDS)])
                if self._gap:
                    await asyncio.sleep(self._gap)
                elif number % 256 == 255:
                    await connection.drained()
        if self._fault == "hang":
            await asyncio.Event().wait()
        elif self._fault in ("rst", "close"):
            await asyncio.sleep(0.005)  # a reset takes along what the other side has not read yet
            connection.cut(gently=self._fault == "close")
        elif self._fault == "nodone":
            transport.write(b"0\r\n\r\n")
            connection.done()
        else:
            transport.write(_framed(*self._finish()))
            connection.bill(self._words)
            connection.done()

    def _finish(self) -> list[bytes]:
        usage = {"prompt_tokens": PROMPT, "completion_tokens": self._words, "total_tokens": PROMPT + self._words}
        last = _chunk({}, "stop"), b"data: " + orjson.dumps(_SHELL | {"choices": [], "usage": usage}) + b"\n\n"
        return [*last, b"data: [DONE]\n\n", b""]

    def _refusal(self) -> bytes:
        told = f" The key was {self._key}." if "tell" in self._told else ""
        body = orjson.dumps({"error": {"message": f"the provider says no.{told}", "type": "server_error"}})
        after = f"retry-after: {self._told['after']}\r\n" if "after" in self._told else ""
        return f"HTTP/1.1 {self._told['status']} X\r\n{after}content-length: {len(body)}\r\n\r\n".encode() + body


_SHELL = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "real"}


def _chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: " + orjson.dumps(_SHELL | {"choices": [choice]}) + b"\n\n"


def _begin() -> list[bytes]:
    return [_chunk({"role": "assistant", "content": ""})]


def _word(number: int) -> bytes:
    return _chunk({"content": f"word{number % 1000:03} "})


def _whole(words: int) -> bytes:
    text = "".join(f"word{number % 1000:03} " for number in range(words))
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": PROMPT, "completion_tokens": words, "total_tokens": PROMPT + words}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return orjson.dumps(_SHELL | {"object": "chat.completion", "choices": choices, "usage": usage})


def _framed(*events: bytes) -> bytes:
    """As chunks of HTTP; an empty one is the last."""
    return b"".join(b"%x\r\n" % len(event) + event + b"\r\n" for event in events)


_WORDS = [_framed(_word(number)) for number in range(1000)]


async def _main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1])))
