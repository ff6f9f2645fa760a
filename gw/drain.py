"""One thread that takes what others put, in order and in batches, so that nobody waits for a disk."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence, Sized
from typing import Generic, TypeVar

logger = logging.getLogger("gw.drain")

Item = TypeVar("Item")
Work = Callable[[Sequence[Item]], float | None]


class Drain(Generic[Item]):
    """Items put by any thread are handed to `work` by one thread of its own.

    `work` gets up to `batch` items, after `gather` seconds in which more of them may come, and says in how many
    seconds it wants to be called again though nothing came (None: not at all). A `put` costs an append; only the
    first one after an idle time wakes the thread. While there is anything in `beside`, a collection that `work` empties
    by itself, it is called every `gather` seconds; who adds to that says `wake` where the drain `is_asleep`.
    """

    def __init__(
        self,
        work: Work[Item],
        *,
        name: str,
        gather: float = 0.02,
        batch: int = 64,
        beside: Sized = (),
    ) -> None:
        self._work = work
        self._gather = gather
        self._batch = batch
        self._beside = beside
        self.items: deque[Item] = deque()  # for reading: what waits
        self._marks: deque[Callable[[], None]] = deque()
        self._signal = threading.Event()
        self.is_asleep = False
        self._urgent = False
        self._closed = False
        self._wanted: float | None = 0.0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def is_running(self) -> bool:
        """Whether its thread lives."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; `work` is called once at once, with nothing or with what is already there."""
        self._thread.start()

    def put(self, item: Item) -> None:
        """Add an item. Never waits."""
        self.items.append(item)
        if self.is_asleep:
            self.wake()

    def wake(self) -> None:
        """Have `work` called soon. Never waits."""
        self.is_asleep = False
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
            left = len(self.items)
            while True:
                size = min(left, self._batch)
                left -= size
                self._call([self.items.popleft() for _ in range(size)])
                if not left:
                    break
            for mark in marks:
                with contextlib.suppress(RuntimeError):  # the event loop that asked is closed
                    mark()
            if self._closed and not self.items and not self._marks:
                return

    def _wait(self) -> None:
        """Until there is something to do, and a little longer so that it is done for many at once."""
        if not self.items and not self._beside and not self._marks and not self._closed and self._wanted != 0.0:
            self.is_asleep = True
            if not self.items and not self._beside and not self._urgent:
                self._signal.wait(self._wanted)
            self.is_asleep = False
            self._signal.clear()
            if (self.items or self._beside) and not self._urgent:
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
