"""Every exchange becomes one row in SQLite, with its answer, its tokens, its cost and each of its attempts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gw.backend import Backends
from gw.document import Chunk, Completion, Frame, Run, parts_of
from gw.errors import ConfigError
from gw.known_secrets import KnownSecrets
from gw.message import Exchange, Request, Response
from gw.metrics import Metrics
from gw.pipeline import Handler
from gw.request_log.answers import said_by
from gw.request_log.content import ANSWER, TRUNCATED
from gw.request_log.writer import RequestLog
from gw.stream import Stream

if TYPE_CHECKING:
    from gw.request_log.conversations import Conversations

ROW = "gw.log.row"  # the attribute of an exchange that holds the number of its row, 0 once that is final
CONTINUES = "gw.continues"  # ... that a middleware sets before it asks on in mid-stream: the answer so far stands
MAX_ANSWER = 8 * 1024 * 1024  # bytes of raw answer kept for one exchange
CLOSING = 20.0  # seconds for the last rows at the end
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})  # status pages, scrapes and preflights: no rows


class Log:
    """Writes what passes to the SQLite file `path`, off the event loop.

    `content` says what is kept of prompts and answers: everything but media, lengths only, or nothing. With
    `durability` "fast" a crash may lose the last 20 ms; with "durable" the app awaits `settle` before it lets the end
    of an answer go; else `settle` is None. Rows older than `retention_days` are deleted; 0 keeps them for ever. Where
    the database cannot be written to, serving goes on: rows wait in `<path>.spill.jsonl`, and `problem` says why.
    """

    settle: Callable[[Exchange], Awaitable[None]] | None = None

    def __init__(
        self,
        *,
        path: str | Path = "logs/requests.db",
        content: Literal["full", "redacted", "none"] = "full",
        durability: Literal["fast", "durable"] = "fast",
        retention_days: int = 30,
        metrics: Metrics | None = None,
        backends: Backends | None = None,
        secrets: KnownSecrets | None = None,
    ) -> None:
        if retention_days < 0:
            raise ConfigError([f"retention_days: found {retention_days}; expected 0 (for ever) or a number of days"])
        self._keeps_answers = content != "none"
        self._keeps_all = content == "full"
        self._log = RequestLog(
            path,
            content=content,
            durability=durability,
            retention_days=retention_days,
            secrets=secrets,
            backends=backends,
        )
        self._begin, self._end = self._log.begin, self._log.end
        if durability == "durable":
            self.settle = self._settle
        if metrics is not None:
            self._publish(metrics)

    async def __aenter__(self) -> Log:
        self._log.start()
        await self._written()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._log.close, CLOSING)

    @property
    def problem(self) -> str | None:
        """Why rows do not reach the database just now, for /health; None where they do."""
        return self._log.problem

    @property
    def conversations(self) -> Conversations | None:
        """What it has kept of conversations; None where it does not keep them whole."""
        if not self._keeps_all:
            return None
        from gw.request_log.conversations import Conversations  # SQLite: only where a session is continued

        return Conversations(self._log.path)

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        exchange = request.exchange
        attributes = exchange.attributes
        if exchange.request is None:
            exchange.request = request.document
        if ROW not in attributes:
            attributes[ROW] = self._begin(exchange)
        elif exchange.response and CONTINUES not in attributes:
            exchange.response = []  # of an earlier try, of which nothing reached the client
        response = await call_next(request)
        if self._keeps_answers:
            content = response.content
            if isinstance(content, Completion):  # before Stream, which is abstract: to ask for that costs 0.4 us
                exchange.response.append(content.raw)
                attributes[ANSWER] = said_by(content) if content.text is None else content.text
            elif isinstance(content, Stream):
                response.content = content.observed(_Answer(exchange))
        return response

    def ended(self, exchange: Exchange) -> None:
        """Write an exchange down. It is over: nothing of it changes any more."""
        attributes = exchange.attributes
        row = attributes.get(ROW)
        if row == 0:
            return
        if row is None:
            if exchange.method in _SAFE_METHODS:
                return
            row = self._log.new_row()
        attributes[ROW] = 0
        self._end(row, exchange)

    async def flush(self) -> None:
        """Wait until every exchange that has begun or ended by now is written or spilled."""
        await self._written(begun=True)

    async def _settle(self, exchange: Exchange) -> None:
        """Wait until the disk has an exchange that has ended; one whose answer lacks only its last bytes is ended."""
        self.ended(exchange)
        if ROW in exchange.attributes:
            await self._written()

    async def _written(self, *, begun: bool = False) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def resolve() -> None:
            if not future.done():
                future.set_result(None)

        def tell() -> None:
            loop.call_soon_threadsafe(resolve)

        self._log.when_written(tell, begun=begun)
        await future

    def _publish(self, metrics: Metrics) -> None:
        log = self._log
        metrics.watch("gw_log_rows_total", "Rows written to the request log", lambda: log.written)
        metrics.watch("gw_log_spilled_rows_total", "Rows that went to the spill first", lambda: log.spilled)
        metrics.watch("gw_log_lost_rows_total", "Rows that could not be kept anywhere", lambda: log.lost)
        metrics.watch("gw_log_waiting_rows", "Rows that wait for the writer", lambda: log.waiting, kind="gauge")


class _Answer:
    """Keeps the raw chunks of a stream, up to a limit; they are read in the log's thread.

    Of pieces of text that are alike only the texts are kept, and they end up as one chunk: else a long answer would
    take fifty times its size for as long as it lasts.
    """

    __slots__ = ("_exchange", "_frame", "_room", "_text")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._room = MAX_ANSWER
        self._frame: Frame | None = None
        self._text = bytearray()  # what came within the frame

    def chunks(self, chunks: Sequence[Chunk]) -> None:
        for part in parts_of(chunks):
            if isinstance(part, Run):
                if part.frame is not self._frame:
                    self._close(part.frame)
                self._text += self._fitting(part.texts)
            else:
                if self._frame is not None:
                    self._close(None)
                if raw := self._fitting([part.raw]):
                    self._exchange.response.append(raw)

    def end(self, error: BaseException | None) -> None:
        self._close(None)

    def _close(self, frame: Frame | None) -> None:
        """What came within the frame so far is one chunk; what comes next has another one, or none."""
        if self._frame is not None and self._text:
            self._exchange.response.append(bytes(self._text).join(self._frame))
            self._text.clear()
        self._frame = frame

    def _fitting(self, pieces: list[bytes]) -> bytes:
        """As many of them as there is room for, joined."""
        joined = b"".join(pieces)
        self._room -= len(joined)
        if self._room >= 0:
            return joined
        self._exchange.attributes[TRUNCATED] = True
        count = len(pieces)
        while self._room < 0:
            count -= 1
            self._room += len(pieces[count])
        return b"".join(pieces[:count])
