"""One thread that takes what others put, in order and in batches, so that nobody waits for a disk."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

logger = logging.getLogger("gw.drain")

Item = TypeVar("Item")
Work = Callable[[Sequence[Item]], float | None]


class Drain(Generic[Item]):
    """Items put by any thread are handed to `work` by one thread of its own.

    `work` gets up to `batch` items, after `gather` seconds in which more of them may come, and says in how many
    seconds it wants to be called again though nothing came (None: not at all). A `put` costs an append; only the
    first one after an idle time wakes the thread.
    """

    def __init__(self, work: Work[Item], *, name: str, gather: float = 0.02, batch: int = 64) -> None:
        self._work = work
        self._gather = gather
        self._batch = batch
        self._items: deque[Item] = deque()
        self._marks: deque[Callable[[], None]] = deque()
        self._signal = threading.Event()
        self._asleep = False
        self._urgent = False
        self._closed = False
        self._wanted: float | None = 0.0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_running(self) -> bool:
        """Whether its thread lives."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; `work` is called once at once, with nothing or with what is already there."""
        self._thread.start()

    def put(self, item: Item) -> None:
        """Add an item. Never waits."""
        self._items.append(item)
        if self._asleep:
            self._asleep = False
            self._signal.set()

    def when_done(self, call: Callable[[], None]) -> None:
        """Call back, in the drain's thread, when everything put before now has been worked on. Does not gather."""
        self._marks.append(call)
        self._urgent = True
        self._signal.set()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything put before now has been worked on; False where `timeout` seconds were not enough."""
        done = threading.Event()
        self.when_done(done.set)
        return done.wait(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Work on what is left, then end the thread; False where it still lives after `timeout` seconds."""
        self._closed = True
        self._urgent = True
        self._signal.set()
        if self.is_running:
            self._thread.join(timeout)
        return not self.is_running

    def _run(self) -> None:
        while True:
            self._wait()
            # Marks are taken first: whatever was put before them is then among the items that follow.
            marks = [self._marks.popleft() for _ in range(len(self._marks))]
            left = len(self._items)
            while True:
                size = min(left, self._batch)
                left -= size
                self._call([self._items.popleft() for _ in range(size)])
                if not left:
                    break
            for mark in marks:
                with contextlib.suppress(RuntimeError):  # the event loop that asked is closed
                    mark()
            if self._closed and not self._items and not self._marks:
                return

    def _wait(self) -> None:
        """Until there is something to do, and a little longer so that it is done for many at once."""
        if not self._items and not self._marks and not self._closed and self._wanted != 0.0:
            self._asleep = True
            if not self._items and not self._urgent:
                self._signal.wait(self._wanted)
            self._asleep = False
            self._signal.clear()
            if self._items and not self._urgent:
                self._signal.wait(self._gather)
        elif not self._urgent and self._wanted != 0.0:
            self._signal.wait(self._gather)
        self._signal.clear()
        self._urgent = self._closed

    def _call(self, items: Sequence[Item]) -> None:
        try:
            self._wanted = self._work(items)
        except Exception:
            logger.exception("%s lost %d items", self._thread.name, len(items))
            self._wanted = None
