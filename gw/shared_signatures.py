"""Thought signatures that every worker finds, and the next start too: memory over one SQLite file."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from gw.drain import Drain
from gw.known_secrets import KnownSecrets
from gw.shared import LocalShared, Rows, Shared
from gw.signatures import CAPACITY, ENTRIES, TTL, MemorySignatures, Messages, Row

if TYPE_CHECKING:
    from gw.signature_file import SignatureFile

logger = logging.getLogger("gw.signatures")

QUEUE = 16 * 1024 * 1024  # bytes that wait for the disk at most; what comes beyond that stays in memory only
RECALLED = 1000  # tool calls of one request that are looked for, the last ones
PATIENCE = 0.25  # seconds that a request waits for the file; after that its signatures count as lost
LOOKS, LOOK = 50, 0.002  # how often, and after how many seconds, it is seen whether other workers have written theirs
RETRY = 5.0  # seconds until a file that failed is opened again
WARNING = 60.0  # seconds between two warnings
CLEANING = 600.0  # seconds between two cleanings
_KEPT, _WRITTEN = 0, 1  # the two gauges: rows given to the thread, and rows that it is done with


class _Lookup(NamedTuple):
    scope: str
    call_ids: Sequence[str]
    loop: AbstractEventLoop
    found: Future[list[Row]]


class SharedSignatures(MemorySignatures):
    """This process's memory over a file that all workers share; without `attach` memory alone.

    One thread writes and reads the file. What a worker has kept another finds at once: it waits for what is still
    being written. Blocks that hold one of `secrets` stay in memory, because altered ones would be refused. Where the
    file cannot be used, memory serves, and a warning says why.
    """

    __slots__ = (
        "_clean_at",
        "_done",
        "_drain",
        "_file",
        "_given",
        "_path",
        "_retry_at",
        "_rows",
        "_secrets",
        "_shared",
        "_wall_clock",
        "_warned_at",
    )

    def __init__(
        self,
        shared: Shared | None = None,
        secrets: KnownSecrets | None = None,
        *,
        limit: int = ENTRIES,
        capacity: int = CAPACITY,
        ttl: float = TTL,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(limit=limit, capacity=capacity, ttl=ttl, clock=clock)
        self._shared = shared or LocalShared()
        self._secrets = secrets or KnownSecrets()
        self._wall_clock = wall_clock
        self._path: Path | None = None
        self._drain: Drain[Row | _Lookup] | None = None
        self._rows: Rows | None = None
        self._file: SignatureFile | None = None
        self._retry_at = self._clean_at = 0.0
        self._given = self._done = 0  # bytes: put by the loop's thread, finished by the other
        self._warned_at: float | None = None

    def attach(self, log: Path | None) -> None:
        """Keep everything in a file beside this request log too, from now on. May be called again with another log.

        None is a log that keeps no conversations: what a model thought is not written down either then.
        """
        self._path = None if log is None else Path(f"{log}.signatures")
        if self._drain is None and self._path is not None:
            self._rows = self._shared.gauges("signatures", 2)
            self._drain = Drain(self._work, name="gw-signatures", gather=0.0)
            self._drain.start()

    async def __aenter__(self) -> SharedSignatures:
        return self

    async def __aexit__(self, *_: object) -> None:
        drain, self._drain = self._drain, None
        if drain is not None and await asyncio.to_thread(drain.close, RETRY):
            self._close()

    def keep(self, scope: str, call_ids: Iterable[str], blocks: Any, /) -> None:
        """Remember `blocks` under each id, here at once and in the file soon."""
        content, ids = orjson.dumps(blocks), list(call_ids)
        self.hold(scope, ids, content, self._ttl)
        drain, rows = self._drain, self._rows
        size = len(content) * len(ids)
        if drain is None or rows is None or self._given + size - self._done > QUEUE:
            return
        self._given += size
        rows.own[_KEPT] += len(ids)
        expires = self._wall_clock() + self._ttl
        for call_id in ids:
            drain.put(Row(scope, call_id, expires, content))

    async def recall(self, scope: str, messages: Messages, /) -> None:
        """Bring to memory what the file has of a conversation's tool calls, those of other workers included."""
        drain, rows = self._drain, self._rows
        if drain is None or rows is None:
            return
        wanted = self.unknown(scope, messages)[-RECALLED:]
        if not wanted:
            return
        loop = asyncio.get_running_loop()
        lookup = _Lookup(scope, wanted, loop, loop.create_future())
        kept = rows.total(_KEPT)
        for _ in range(LOOKS):
            if rows.total(_WRITTEN) >= kept:
                break
            await asyncio.sleep(LOOK)
        drain.put(lookup)
        try:
            async with asyncio.timeout(PATIENCE):
                found = {row.call_id: row for row in await lookup.found}
        except TimeoutError:
            return
        now = self._wall_clock()
        self.hold(scope, [call_id for call_id in wanted if call_id not in found], b"", self._ttl)
        for call_id, row in found.items():
            self.hold(scope, (call_id,), row.content, row.expires - now)

    # --- the thread's side --------------------------------------------------------------------------------------

    def _work(self, items: Sequence[Row | _Lookup]) -> float | None:
        from gw.signature_file import CannotKeep

        kept = [item for item in items if not isinstance(item, _Lookup)]
        lookups = [item for item in items if isinstance(item, _Lookup)]
        found: list[list[Row]] = [[] for _ in lookups]
        try:
            file = self._ready(is_wanted=bool(kept))
            if file is not None:
                file.add([row for row in kept if not self._secrets.are_in(row.content.decode())])
                now = self._wall_clock()
                found = [file.find(lookup.scope, lookup.call_ids, now) for lookup in lookups]
                if self._clock() >= self._clean_at:
                    self._clean_at = self._clock() + CLEANING
                    file.clean(now)
        except CannotKeep as error:
            self._close()
            self._retry_at = self._clock() + RETRY
            self._warn(error)
        finally:
            if kept and self._rows is not None:
                self._done += sum(len(row.content) for row in kept)
                self._rows.own[_WRITTEN] += len(kept)
            for lookup, rows in zip(lookups, found, strict=True):
                with contextlib.suppress(RuntimeError):  # its event loop is closed
                    lookup.loop.call_soon_threadsafe(_answer, lookup.found, rows)
        return CLEANING

    def _ready(self, *, is_wanted: bool) -> SignatureFile | None:
        """The open file. It is made when there is something to write, and tried again a while after it failed."""
        from gw.signature_file import SignatureFile  # SQLite: only where something was signed

        if self._file is not None and self._file.is_moved:
            self._close()
        path = self._path
        if self._file is not None and self._file.path != path:
            self._close()
        is_due = self._file is None and self._clock() >= self._retry_at
        if is_due and path is not None and (is_wanted or path.exists()):
            self._file = SignatureFile(path)
        return self._file

    def _warn(self, error: Exception) -> None:
        if self._warned_at is None or self._clock() - self._warned_at >= WARNING:
            self._warned_at = self._clock()
            logger.warning("thought signatures are kept in memory only: %s", error)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _answer(future: Future[list[Row]], rows: list[Row]) -> None:
    if not future.done():
        future.set_result(rows)
