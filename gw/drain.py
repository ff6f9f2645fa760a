"""One thread that takes what others put, in order and in batches, so that nobody waits for a disk."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

logger = logging.getLogger("gw.drain")

Item = TypeVar("Item")
Work = Callable[[Sequence[Item]], float | None]
SOON = 0.001  # seconds: what comes after a silence waits only for what comes along with it


class Drain(Generic[Item]):
    """Items put by any thread are handed to `work` by one thread of its own.

    `work` gets up to `batch` items, `gather` seconds after the first of them at the latest, so that it is called once
    for many; what comes after a silence is not kept waiting for others. It says in how many seconds it wants to be
    called again though nothing came (None: not at all). A `put` costs an append; only the first ones after an idle time
    wake the thread. `due` tells of work beside the items: in how many seconds `work` has to be called for it (None:
    there is none, whoever makes some says `wake` where the drain `is_asleep`).
    """

    def __init__(
        self,
        work: Work[Item],
        *,
        name: str,
        gather: float = 0.02,
        batch: int = 64,
        due: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._work = work
        self._gather = gather
        self._batch = batch
        self._due = due
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
        taken = 0.0
        was_idle = False
        while True:
            self._wait(taken, was_idle)
            # Marks are taken first: whatever was put before them is then among the items that follow.
            marks = [self._marks.popleft() for _ in range(len(self._marks))]
            taken = time.monotonic()
            left = len(self.items)
            was_idle = not left
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

    def _wait(self, since: float, was_idle: bool) -> None:
        """Until something has to be done; as long as it may wait, so that it is done for many at once.

        What is in `items` was put after `since`; `was_idle` says that there was none before that either.
        """
        began = time.monotonic()
        is_first = False  # after a silence; then the first item that is put wakes the thread once more
        while not self._urgent:
            now, due = time.monotonic(), self._due()
            if not self.items:
                since = now
            left = math.inf if self._wanted is None else began + self._wanted - now
            if self.items:
                left = min(left, since + self._gather - now)
            if due is not None:
                left = min(left, due)
            if left <= 0.0:
                break
            is_idle = not self.items and due is None
            if is_first or (is_idle and (was_idle or not self._gather)):
                is_first = self._sleep(left, due)
                since = time.monotonic()
                if is_first and not self._urgent:
                    self._signal.wait(min(SOON, self._gather))
                    self._signal.clear()
                if self.items:
                    break
            else:
                # Not asleep until a whole interval has brought nothing: else one client that asks again and again
                # would wake the thread in the middle of most of its requests.
                self._signal.wait(min(left, self._gather))
                self._signal.clear()
            was_idle = is_idle
        self._urgent = self._closed

    def _sleep(self, seconds: float, due: float | None) -> bool:
        """Until somebody wakes it, which is when it says True."""
        self.is_asleep = True
        woken = True  # by what came before it was seen to sleep
        if not self.items and not self._urgent and (due is not None or self._due() is None):
            woken = self._signal.wait(None if seconds == math.inf else seconds)
        self.is_asleep = False
        self._signal.clear()
        return woken

    def _call(self, items: Sequence[Item]) -> None:
        try:
            self._wanted = self._work(items)
        except Exception:
            logger.exception("%s lost %d items", self._thread.name, len(items))
            self._wanted = None
