"""A provider of a made-up wire, one JSON chunk a line, and a request to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from gw.adapter import Codec, WireRequest
from gw.backend import Backend
from gw.document import Chunk, Completion
from gw.errors import UpstreamError, UpstreamProtocolError
from gw.message import Candidate, Headers, Loss, Request, Summary, Usage
from tests.fakes import FakeTransport, chat_request


class LineCodec:
    """A codec for a made-up wire: one JSON chunk a line, `END` closes it."""

    def __init__(self, request: Request, losses: Sequence[Loss]) -> None:
        key = request.candidate.key
        headers = [("Authorization", key.reveal())] if key else []
        self.wire = WireRequest("POST", "http://x/", headers, b"{}", request.is_stream, "?")
        self.losses = losses
        self.summary = Summary()
        self._ended = False

    @property
    def is_done(self) -> bool:
        return self._ended

    def complete(self, content: bytes) -> Completion:
        self.summary.usage = Usage(1_000_000, 0)
        return Completion(orjson.dumps(orjson.loads(content)["answer"]))

    def feed(self, data: bytes) -> Sequence[Chunk]:
        found = []
        for line in data.splitlines():
            if line == b"END":
                self._ended = True
            elif line == b"ERROR":
                raise UpstreamError("told in the stream")
            else:
                found.append(Chunk(value=orjson.loads(line)))
        return found

    def finish(self) -> Sequence[Chunk]:
        if not self._ended:
            raise UpstreamProtocolError("cut short")
        return ()

    def fail(self, status: int, headers: Headers, content: bytes) -> UpstreamError:
        return UpstreamError(content.decode(), upstream_status=status, fault="dead_key" if status == 401 else "server")


class LineAdapter:
    """Opens LineCodecs; with `tokens`, one of them is handed out by `prepare` for each try."""

    def __init__(self, losses: Sequence[Loss] = ()) -> None:
        self.losses = losses

    def open(self, request: Request) -> Codec:
        return LineCodec(request, self.losses)


def lines(*values: Any) -> bytes:
    return b"".join((value if isinstance(value, bytes) else orjson.dumps(value)) + b"\n" for value in values)


def setting(
    *answers: Any, adapter: LineAdapter | None = None, stream: bool = True, **fields: Any
) -> tuple[Request, FakeTransport, Backend]:
    backend = Backend(name="b", kind="line", adapter=adapter or LineAdapter(), **fields)
    request = chat_request({"stream": stream}, candidates=(Candidate(backend, "m", "gpt-4"),))
    transport = FakeTransport([(200, {}, answer) if isinstance(answer, list) else answer for answer in answers])
    return request, transport, backend
