"""OpenAI's event stream as it goes to the client: `data: {chunk}`, the extras on the last chunk, `data: [DONE]`.

Whole events only, and what arrived in one read leaves in one write. A stream that breaks ends in one `error` event,
without a finish reason and without `[DONE]` (the SDKs raise on it). While nothing comes, comments keep the connection
alive.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson

from gw.attempt import close_open
from gw.document import Chunk, Frame, Run, parts_of
from gw.endpoints.late import Late
from gw.endpoints.patience import Patient, Quiet
from gw.errors import ClientGone, GatewayError
from gw.estimate import account, total_usage
from gw.known_secrets import KnownSecrets
from gw.message import Exchange
from gw.stream import Outlet, Stream

logger = logging.getLogger("gw.endpoints")

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
_NO_SECRETS = KnownSecrets()
_OPEN = 0x7B  # the brace
_BEGIN, _BETWEEN, _END = b"data: ", b"\n\ndata: ", b"\n\n"
# A finish reason that is not null, in compact and in spaced JSON. Inside a text its quotes would be escaped.
_FINISHED, _FINISHED_SPACED = b'"finish_reason":"', b'"finish_reason": "'


class EventStream:
    """A `ByteStream` over a stream of chunks. `ended` is called once, with None for complete or what broke it.

    Where nothing comes for as long as `quiet` says, a comment goes out: between events, never inside one.
    """

    __slots__ = (
        "_around",
        "_ended",
        "_exchange",
        "_extras",
        "_finishing",
        "_frame",
        "_held",
        "_include_usage",
        "_is_late",
        "_is_over",
        "_joint",
        "_reading",
        "_secrets",
        "_stream",
        "_write",
    )

    _write: Callable[[bytes], object]

    def __init__(
        self,
        stream: Stream,
        exchange: Exchange,
        *,
        include_usage: bool,
        extras: Callable[[Exchange], bytes],
        ended: Callable[[BaseException | None], Awaitable[None] | None],
        quiet: Quiet | None = None,
        secrets: KnownSecrets = _NO_SECRETS,
    ) -> None:
        self._stream = stream
        self._secrets = secrets
        self._reading: Patient[Sequence[Chunk]] | None = None if quiet is None else Patient(quiet)
        self._is_late = isinstance(stream, Late)  # the first comment is due: its head waits for some bytes
        self._exchange = exchange
        self._include_usage = include_usage
        self._extras = extras
        self._ended = ended
        self._held: bytes | None = None  # the last chunk so far: the extras ride on it
        self._finishing = False  # a finish reason was seen
        self._frame: Frame | None = None  # of the chunks that went out last, and the same of their events:
        self._around: Frame = ()
        self._joint: bytes | None = None  # what stands between the texts of two; None where each has its text twice
        self._is_over = False

    async def read(self) -> bytes:
        if self._is_late:
            self._is_late = False
            return KEEP_ALIVE
        while not self._is_over:
            try:
                reading = self._reading
                if reading is None:
                    chunks = await self._stream.read()
                elif (not reading.is_waiting and reading.start(self._stream.read())) or await reading:
                    chunks = reading.result
                else:
                    return KEEP_ALIVE
                if chunks:
                    if data := self._pass_on(chunks):
                        return data
                    continue
            except GatewayError as error:
                return await self._break(error)
            except Exception as error:
                logger.exception("request %s: a middleware broke the stream", self._exchange.id)
                failure = GatewayError("the gateway failed in mid-stream; the log has the reason")
                failure.__cause__ = error
                return await self._break(failure)
            return await self._finish()
        return b""

    def pass_on_to(self, write: Callable[[bytes], object], outlet: Outlet) -> None:
        """See `gw.stream.Stream`."""
        self._write = write
        self._stream.pass_on_to(self._take, outlet)

    def _take(self, chunks: Sequence[Chunk]) -> None:
        reading = self._reading
        if reading is not None:
            reading.since = reading.quiet.now
        if type(chunks) is Run and chunks.opened is None and not self._finishing:  # nearly always
            self._write(self._events(chunks))
        elif data := self._pass_on(chunks):
            self._write(data)

    def _pass_on(self, chunks: Sequence[Chunk]) -> bytes:
        parts = parts_of(chunks)
        if not self._finishing:
            self._finishing = any(map(_is_finishing, parts))
        return self._hold_back(parts) if self._finishing else b"".join(map(self._events, parts))

    def _hold_back(self, parts: Sequence[Run | Chunk]) -> bytes:
        """All but the last chunk, on which the extras are to ride."""
        if not self._include_usage:
            parts = [part for part in parts if not _is_bare_usage(part)]
        if not parts:
            return b""
        *others, last = parts
        data = [] if self._held is None else [_event(self._held)]
        *rest, self._held = last.raws if isinstance(last, Run) else [last.raw]
        return b"".join([*data, *map(self._events, others), *map(_event, rest)])

    def _events(self, part: Run | Chunk) -> bytes:
        """A chunk, or all of a run, as events."""
        if not isinstance(part, Run):
            return _event(part.raw)
        if part.frame is not self._frame:
            self._see(part.frame)
        if part.padded is None and self._joint is not None:
            return self._joint.join(part.texts).join(self._around)
        return _event(_BETWEEN.join(part.raws))

    def _see(self, frame: Frame) -> None:
        first, *between, last = frame
        self._frame = frame
        self._around = (_BEGIN + first, *between, last + _END)
        self._joint = None if between else last + _BETWEEN + first

    async def _finish(self) -> bytes:
        self._is_over = True
        await self._tell(None)
        if self._held is None:
            return DONE
        return _event(splice(self._held, self._extras(self._exchange))) + DONE

    async def _break(self, error: GatewayError) -> bytes:
        self._is_over = True
        # A held chunk carries the finish reason: passing it on would make the break look like an end.
        self._held = None
        await close_open(self._exchange, error)
        await self._close()
        await self._tell(error)
        return _event(orjson.dumps(self._secrets.body(error) | _usage_so_far(self._exchange)))

    async def aclose(self) -> None:
        was_over, self._is_over = self._is_over, True
        if self._reading is not None:
            await self._reading.give_up()
        await self._close()
        if not was_over:
            await self._tell(ClientGone("the client hung up in mid-stream"))

    async def _close(self) -> None:
        try:
            await self._stream.aclose()
        except Exception:  # anybody's stream; its exchange is ended all the same
            logger.exception("request %s: a middleware's stream failed while it was closed", self._exchange.id)

    async def _tell(self, error: BaseException | None) -> None:
        waiting = self._ended(error)
        if waiting is not None:
            await waiting


def _event(raw: bytes) -> bytes:
    return _BEGIN + raw + _END


def _usage_so_far(exchange: Exchange) -> dict[str, Any]:
    """What a broken stream has cost in tokens, for its error event; nothing where no provider began to answer."""
    account(exchange)
    usage = total_usage(exchange)
    if usage is None:
        return {}
    counts = {"prompt_tokens": usage.prompt, "completion_tokens": usage.completion, "total_tokens": usage.total}
    return {"usage": counts | {"source": usage.source}}


def _is_finishing(part: Run | Chunk) -> bool:
    """Whether it carries a finish reason, which no run does."""
    if isinstance(part, Run):
        return False
    raw = part.raw
    # find(), because `in` asks bytes first whether they are a number: 0.5 us for the exception.
    return raw.find(_FINISHED) >= 0 or raw.find(_FINISHED_SPACED) >= 0


def _is_bare_usage(part: Run | Chunk) -> bool:
    """The chunk that only `stream_options.include_usage` asks for: usage, and no choices."""
    if isinstance(part, Run) or part.raw.find(b'"usage"') < 0:
        return False
    value = part.peek()
    return bool(value.get("usage")) and not value.get("choices")


def splice(raw: bytes, extras: bytes) -> bytes:
    """A JSON object with the members of another one, `extras`, at its end."""
    end = raw.rstrip()
    return end[:-1] + (b"," if end[-2] != _OPEN else b"") + extras[1:]
