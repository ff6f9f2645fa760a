"""`POST /v1/chat/completions`: OpenAI's chat completions, whole and streamed, with the extras of both documents."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import orjson

from gw.document import Completion
from gw.endpoints.event_stream import EventStream, splice
from gw.endpoints.late import Late
from gw.endpoints.patience import Patient, Quiet
from gw.errors import InvalidRequest
from gw.estimate import total_cost
from gw.known_secrets import KnownSecrets
from gw.message import Exchange, Request, Response
from gw.pipeline import Handler
from gw.schema import LARGE, decode_chat
from gw.server import Reply
from gw.stream import Stream
from gw.successor import CONTINUES

# X-Accel-Buffering: nginx in front must not collect events.
STREAM_LINES = "Content-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"
JSON_LINES = "Content-Type: application/json\r\n"


KEEP_ALIVE = 15.0  # seconds of silence before a comment keeps a stream alive


class ChatCompletions:
    """The front door that speaks OpenAI's chat completions. `keep_alive` are seconds of silence before a comment."""

    operation = "chat"

    def __init__(self, *, keep_alive: float = KEEP_ALIVE, secrets: KnownSecrets | None = None) -> None:
        self._quiet = Quiet(keep_alive)
        self._secrets = secrets or KnownSecrets()

    async def decode(self, request: Request) -> None:
        """Read and check the body, and put it into the request.

        Raises InvalidRequest (400, 408, 413, 415) before anything is forwarded.
        """
        _check_media_type(request)
        raw = await request.body.read() if request.body is not None else b""
        if len(raw) > LARGE:
            await _let_others_pass()
        _take(request, raw)
        if len(raw) > LARGE:
            await _let_others_pass()

    def decode_at_once(self, request: Request) -> bool:
        """`decode` where there is nothing to wait for: a small body that came with its head. Whether it was."""
        raw: bytes | None = getattr(request.body, "whole", None)
        if raw is None or len(raw) > LARGE:
            return False
        if request.headers.get("content-type") != "application/json":  # hardly ever, and to ask takes a frame
            _check_media_type(request)
        _take(request, raw)
        return True

    async def answer(self, request: Request, inner: Handler) -> Response:
        """`inner`'s answer to a request for a stream. One that does not begin in time is answered all the same: its
        head goes out with a comment, and what comes later, an error too, comes as events."""
        work: Patient[Response] = Patient(self._quiet)
        return work.result if work.start(inner(request)) or await work else Response(Late(work))

    def encode(
        self,
        exchange: Exchange,
        response: Response,
        ended: Callable[[Exchange, BaseException | None], Awaitable[None] | None],
        timing: str = "",
    ) -> Reply | None:
        """The answer as the client reads it; None for content that is already bytes.

        `ended`: see EventStream; `timing`: the line Server-Timing, if any.
        """
        content = response.content
        if isinstance(content, Completion):
            raw = splice(content.came or content.raw, extras(exchange))  # a property costs a Python call
            return Reply(response.status, response.headers.items(), raw, JSON_LINES, timing)
        if isinstance(content, Stream):
            options = exchange.request.peek().get("stream_options") if exchange.request is not None else None
            body = EventStream(
                content,
                exchange,
                include_usage=bool(options and options.get("include_usage")),
                extras=extras,
                ended=partial(ended, exchange),
                quiet=self._quiet,
                secrets=self._secrets,
            )
            return Reply(response.status, response.headers.items(), body, STREAM_LINES, timing)
        return None


async def _let_others_pass() -> None:
    """To receive 5 MB, to read them and to send them takes some ms each, and nobody shall wait for two of these.

    A request that came meanwhile is read in one turn of the loop, answered in the next, and sent in the third.
    """
    for _ in range(3):
        await asyncio.sleep(0)


def _take(request: Request, raw: bytes) -> None:
    document = decode_chat(raw)
    chat = document.peek()
    exchange = request.exchange
    exchange.request = document
    exchange.model = chat.get("model")
    exchange.stream = chat.get("stream") is True
    exchange.session_id = chat.get("session_id")
    request.document = document


def extras(exchange: Exchange) -> bytes:
    """What gw adds to an answer, as a JSON object: `degraded`, `session_id`, `gateway`."""
    attempts = exchange.attempts
    more: dict[str, Any] = {"degraded": exchange.degraded}
    if exchange.session_id is not None:
        more["session_id"] = exchange.session_id
    if attempts:
        attempt = attempts[-1]
        summary = attempt.summary
        cost = summary.cost_usd
        if len(attempts) > 1:  # one that broke and was gone on from has cost something, too
            told = total_cost(exchange)
            cost = told[0] if told is not None else None
        more["gateway"] = {
            "backend": attempt.backend,
            "model": summary.model or attempt.model,
            "cost_usd": cost,
            "attempts": len(attempts),
        }
        if CONTINUES in exchange.attributes:
            more["gateway"]["continued"] = True
    return orjson.dumps(more)


def _check_media_type(request: Request) -> None:
    """A web page can send any body without asking first, but not one that calls itself JSON."""
    value = request.headers.get("content-type")
    media_type = value.partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise InvalidRequest(
            f"a chat request is JSON: send Content-Type: application/json{f' (found {media_type!r})' if value else ''}",
            status=415,
            code="unsupported_media_type",
        )
