"""The request log's thread: exchanges in, rows out, to SQLite where it takes them and to the spill where not."""

from __future__ import annotations

import logging
import os
import secrets as randomness
import socket
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gw.backend import Backends
from gw.drain import Drain
from gw.known_secrets import KnownSecrets
from gw.message import Exchange
from gw.request_log import BadRow, CannotWrite
from gw.request_log.content import Content
from gw.request_log.row_maker import RowMaker
from gw.request_log.rows import Rows, number_of, size_of, storable
from gw.request_log.spill import Spill
from gw.request_log.under_way import DUE, UnderWay

if TYPE_CHECKING:
    from gw.request_log.database import Database

logger = logging.getLogger("gw.log")

Durability = Literal["fast", "durable"]

BATCH = 64  # rows a transaction: larger ones hold the interpreter too long
QUEUE = 10_000  # exchanges that may wait for the thread; beyond, the event loop spills by itself
HELD = 64 * 1024 * 1024  # characters kept in memory where neither the database nor the spill can be written
ROW_SIZE = 2048  # characters that a row counts for beside its texts
REPLAY = 512  # rows read back from the spill in one go
RETRY = 1.0  # seconds until a failed database is tried again
WARNING = 60.0  # seconds between two warnings
HOUR = 3600.0
DAY = 86_400.0
DELETED = 500  # rows a transaction of the retention


class RequestLog:
    """Writes exchanges to the SQLite file `path`. All but `flush` and `close` return at once.

    Rows go to the database in batches of 64, at most 20 ms after what they tell of; an exchange that is over within
    14 ms is written once. Where the database is locked, full, deleted or unreadable, they go to the spill beside it,
    and from there back as soon as it is well.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        content: Content = "full",
        durability: Durability = "fast",
        retention_days: int = 30,
        secrets: KnownSecrets | None = None,
        backends: Backends | None = None,
        busy_timeout: float = 0.5,
        queue: int = QUEUE,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(path)
        self.spill = Spill(Path(f"{self.path}.spill.jsonl"))
        self.written = 0  # rows, since the start
        self.spilled = 0
        self.lost = 0
        self._is_durable = durability == "durable"
        self._retention = retention_days * DAY
        self._busy_timeout = busy_timeout
        self._queue_size = queue
        self._clock = clock
        self._wall_clock = wall_clock
        start = f"{int(wall_clock() * 1000):011x}{randomness.token_hex(4)}"
        instance = f"{socket.gethostname()}:{os.getpid()}:{start}"
        self._numbers = count(1)
        self._instance = instance
        self._maker = RowMaker(content, instance, secrets or KnownSecrets(), backends, clock)
        self._under_way = UnderWay(clock)
        self._drain: Drain[tuple[int, Exchange]] = Drain(
            self._work, name="gw-request-log", gather=DUE, batch=BATCH, due=self._under_way.due
        )
        self._queue = self._drain.items
        self._database: Database | None = None
        self._held: list[Rows] = []
        self._held_size = 0
        self._is_impatient = False
        self._is_behind = False  # rows wait in the spill
        self._look_at = 0.0  # when to look for rows that another process has left there
        self._retry_at = 0.0
        self._warned_at: float | None = None
        self._cause: str | None = None
        self._clean_at = 0.0

    @property
    def problem(self) -> str | None:
        """None, or why the database is not written to, and where the rows are meanwhile."""
        if self._cause is None:
            return None
        place = "memory" if self._held else str(self.spill.path)
        return f"request log {self.path}: {self._cause}; rows wait in {place} until it can be written to"

    @property
    def waiting(self) -> int:
        """Rows that are not written yet: in the queue and in memory."""
        return len(self._drain) + len(self._held)

    def start(self) -> None:
        """Start the thread, which opens the database."""
        self._drain.start()

    def new_row(self) -> int:
        """A number that no other row of this process has."""
        return next(self._numbers)

    def begin(self, exchange: Exchange) -> int:
        """Note that an exchange is under way; the number of its row."""
        row = next(self._numbers)
        self._under_way[row] = exchange
        if self._drain.is_asleep:
            self._drain.wake()
        return row

    def end(self, row: int, exchange: Exchange) -> None:
        """Write down an exchange that is over and will not change any more."""
        self._under_way.pop(row, None)
        if len(self._queue) >= self._queue_size:
            # The thread cannot keep up or hangs in a write: who makes the rows now pays for them.
            self._keep(self._maker.cleaned(self._made(self._maker.finished, [(row, exchange)])))
        else:
            self._drain.put((row, exchange))

    def when_written(self, call: Callable[[], None], *, begun: bool = False) -> None:
        """Call back, in the log's thread, when everything that has ended by now is written or spilled.

        With `begun` also what is under way has its rows then, however young it is.
        """
        if begun:
            self._under_way.ask()
        self._drain.when_done(call)

    def flush(self, timeout: float | None = None, *, begun: bool = True) -> bool:
        """Wait for what `when_written` calls back for; False after `timeout` seconds."""
        if begun:
            self._under_way.ask()
        return self._drain.flush(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Write what is left and let go of the file; False where that takes longer than `timeout` seconds."""
        if not self._drain.close(timeout):
            return False
        self._finish()
        return True

    # --- the thread's side ------------------------------------------------------------------------------------------

    def _work(self, ended: Sequence[tuple[int, Exchange]]) -> float | None:
        finished = self._made(self._maker.finished, ended)
        # Searched for secrets together: what a search costs is mostly its beginning.
        made = self._maker.cleaned(finished + self._made(self._maker.started, self._under_way.take()))
        finished, started = made[: len(finished)], made[len(finished) :]
        if not self._is_ready():
            self._keep(finished)
        elif self._has_taken(lambda: self._write(finished, started), finished):
            self._has_taken(self._recover) and self._has_taken(self._clean)
        if self._database is None:
            return max(DUE, self._retry_at - self._clock())
        if self._is_behind:
            return DUE  # there is more to read back
        return max(DUE, self._clean_at - self._clock())

    def _made(self, make: Callable[[int, Exchange], Rows], exchanges: Sequence[tuple[int, Exchange]]) -> list[Rows]:
        rows = []
        for number, exchange in exchanges:
            try:
                rows.append(make(number, exchange))
            except Exception:
                self.lost += 1
                logger.exception("request log %s: a row of request %s is lost", self.path, exchange.id)
        return rows

    def _has_taken(self, step: Callable[[], None], rows: Sequence[Rows] = ()) -> bool:
        """Do one step with the database; where it refuses, `rows` are kept elsewhere."""
        try:
            step()
        except CannotWrite as error:
            self._fail(error, rows)
            return False
        return True

    def _is_ready(self, *, anyway: bool = False) -> bool:
        """Whether there is a database to write to; a failed one is tried again after a while."""
        from gw.request_log.database import Database  # SQLite is loaded in the thread, when the log is used

        try:
            if self._database is not None and self._database.is_moved:
                self._drop()
            if self._database is None:
                if self._clock() < self._retry_at and not anyway:
                    return False
                # A lock that was waited for once is not waited for again: the thread must not fall behind.
                self._is_impatient = self._cause is not None
                patience = 0.0 if self._is_impatient else self._busy_timeout
                self._database = Database(self.path, is_durable=self._is_durable, busy_timeout=patience)
                self._clean_at = 0.0
        except CannotWrite as error:
            self._fail(error, ())
        return self._database is not None

    def _write(self, finished: Sequence[Rows], started: Sequence[Rows] = ()) -> None:
        database = self._database
        assert database is not None
        if not finished and not started:
            return
        try:
            database.write([*finished, *started])
        except BadRow:
            finished = self._write_singly(database, finished)
        if database.is_moved:
            # Written to a file that nobody can find any more. A second copy would do no harm.
            raise CannotWrite("the file was deleted or replaced while it was written to")
        self.written += len(finished)

    def _write_singly(self, database: Database, finished: Sequence[Rows]) -> list[Rows]:
        """One of them is spoilt: the others must not suffer for it, and of itself what can be written is."""
        written = []
        for row in finished:
            try:
                database.write([storable(row)])
                written.append(row)
            except BadRow as error:
                self.lost += 1
                logger.error("request log %s: row %s is lost: %s", self.path, number_of(row), error)
        return written

    def _recover(self) -> None:
        """Write what was kept while the database did not take it."""
        now = self._clock()
        if now < self._look_at and not (self._held or self._is_behind or self._is_impatient or self._cause):
            return  # the spill's two paths are not asked for with each batch
        self._look_at = now + RETRY
        while self._held:
            self._write(self._held[:BATCH])
            self._held_size -= sum(map(_size, self._held[:BATCH]))
            del self._held[:BATCH]
        self._is_behind = self.spill.has_rows
        if self._is_behind:
            try:
                unreadable = self.spill.replay(self._write, batch=BATCH, limit=REPLAY)
                self.lost += unreadable
            except OSError as error:
                self._note(f"the spill cannot be read back: {error}")
                return
            self._is_behind = self.spill.has_rows
        if self._cause is not None and not self._is_behind:
            self._cause = None
            logger.info("request log %s: written to again, nothing is left in its spill", self.path)
        if self._database is not None and self._is_impatient:
            self._is_impatient = False
            self._database.wait_for_locks(self._busy_timeout)

    def _clean(self) -> None:
        """At start and every hour: give up what a crash left, delete what is too old, a little at a time."""
        database, now = self._database, self._clock()
        if database is None or now < self._clean_at:
            return
        wall = self._wall_clock()
        database.mark_lost(self._instance, wall * 1000)
        has_more = False
        if self._retention:
            has_more = database.delete_before((wall - self._retention) * 1000, batch=DELETED)
        self._clean_at = now + (DUE if has_more else HOUR)

    def _fail(self, error: CannotWrite, rows: Sequence[Rows]) -> None:
        self._drop()
        self._retry_at = self._clock() + RETRY
        self._keep(rows)
        self._note(str(error))

    def _keep(self, rows: Sequence[Rows]) -> None:
        """Spill rows; hold them in memory where that cannot be written either, up to a limit."""
        if not rows:
            return
        try:
            self.spill.append([storable(row) for row in rows], sync=self._is_durable)
            self.spilled += len(rows)
            self._is_behind = True
        except OSError as error:
            lost = 0
            for row in rows:
                if self._held_size + _size(row) <= HELD:
                    self._held.append(row)
                    self._held_size += _size(row)
                else:
                    lost += 1
            self.lost += lost
            if lost:
                self._note(f"rows are being lost, {self.lost} so far: the spill cannot be written, {error}")

    def _note(self, cause: str) -> None:
        """Remember a problem, and warn of it once a minute."""
        self._cause = cause
        if self._warned_at is None or self._clock() - self._warned_at >= WARNING:
            self._warned_at = self._clock()
            logger.warning("%s; free the disk, the lock or the path, nothing else is needed", self.problem)

    def _drop(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _finish(self) -> None:
        """The last try, once the thread has ended: rows in memory go to whatever takes them."""
        if (self._held or self.spill.has_rows) and self._is_ready(anyway=True):
            self._has_taken(self._recover)
        held, self._held, self._held_size = self._held, [], 0
        self._keep(held)
        if self._held:
            self.lost += len(self._held)
            logger.error("request log %s: %d rows lost at the end, no disk took them", self.path, len(self._held))
        self.spill.close()
        self._drop()


def _size(rows: Rows) -> int:
    """Roughly how many characters a row holds in memory."""
    return ROW_SIZE + size_of(rows)
