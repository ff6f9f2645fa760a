"""Waiting for something without being bound to it: a wait that falls silent for too long gives way, and goes on later.

    patient = Patient(quiet)
    if patient.start(awaitable) or await patient:    done; what it gave is `patient.result`, what it raised is raised
        ...                                          else it was silent for as long as `quiet` says: `await` it again

There is no task and no timer for a wait, so that nothing is paid for by those that are never silent: the coroutine is
driven step by step by whoever awaits it, in that task, and one coarse timer serves all.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

from gw.outcome import is_being_cancelled

T = TypeVar("T")
Steps = Generator[Any, Any, Any]
_PARTS = 16  # looks in one span of silence: it is noticed at most a sixteenth too late


class Quiet:
    """Notices waits that last longer than `interval` seconds."""

    __slots__ = ("_interval", "now", "timer", "waits")

    def __init__(self, interval: float) -> None:
        if interval <= 0:
            raise ValueError("the interval of keep-alives is more than 0 seconds")
        self.now = 0  # looks so far
        self.waits: set[Patient[Any]] = set()
        self._interval = interval
        self.timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Look after `waits`, for as long as there are any. Call it where there is no `timer`."""
        self.timer = asyncio.get_running_loop().call_later(self._interval / _PARTS, self._look)

    def _look(self) -> None:
        self.timer = None
        if not self.waits:
            return
        self.watch()
        self.now += 1
        silent = self.now - _PARTS
        for wait in [wait for wait in self.waits if wait.since <= silent]:
            wait.give_way()


class Patient(Generic[T]):
    """One awaitable after the other, each waited for in as many goes as it takes, to its end or to `give_up`.

    To the task that awaits it first, it stands in for the future that the coroutine hangs on, by asyncio's own protocol
    for such (`asyncio.isfuture`): callbacks and cancellation are passed straight through, so that a wait which is not
    called away costs no further turn of the loop. That tells how the task is woken; from then on the task is given the
    future itself, for which asyncio has a shorter way, and only a silence comes between the two.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_context",
        "_future",
        "_steps",
        "_wake",
        "is_waiting",
        "quiet",
        "result",
        "since",
    )

    result: T

    def __init__(self, quiet: Quiet) -> None:
        self.is_waiting = False  # something was started that has not ended
        self.since = 0  # in looks of Quiet: when the silence began
        self._asyncio_future_blocking = False
        self._context: contextvars.Context | None = None
        self._future: asyncio.Future[Any] | None = None  # what the coroutine hangs on; None: it is to go on
        self.quiet = quiet
        self._steps: Steps
        self._wake: Callable[[Any], object] | None = None

    def start(self, work: Awaitable[T]) -> bool:
        """Begin to wait. Whether it is done already; raises what it raises."""
        steps = work.__await__()
        try:
            future = steps.send(None)
        except StopIteration as stop:
            self.result = stop.value
            return True
        if future is not None:
            future._asyncio_future_blocking = False
        self._future = future
        self._steps = steps
        self.is_waiting = True
        return False

    def __await__(self) -> Generator[Any, Any, bool]:
        """Drive the coroutine: True when it is done, False when it was silent."""
        assert self.is_waiting, "start it first"
        steps, quiet = self._steps, self.quiet
        self.since = quiet.now
        quiet.waits.add(self)
        if quiet.timer is None:
            quiet.watch()
        try:
            while True:
                future = self._future
                try:
                    if future is None:
                        yield None
                    elif not future.done():
                        awaited = self if self._wake is None else future
                        awaited._asyncio_future_blocking = True
                        yield awaited
                        if not future.done():
                            return False
                except BaseException as error:
                    future = steps.throw(error)
                else:
                    future = steps.send(None)
                if future is not None:
                    future._asyncio_future_blocking = False
                self._future = future
        except StopIteration as stop:
            self.result = stop.value
            self.is_waiting = False
            return True
        except BaseException:
            self.is_waiting = False
            self._wake = self._context = None  # the task's: it keeps the error, and the error this frame
            raise
        finally:
            quiet.waits.discard(self)

    def patiently(self) -> Awaitable[None]:
        """Wait to the end, however silent it is. Raises what the coroutine raises."""
        return _Rest(self)

    async def give_up(self) -> None:
        """Cancel what is waited for, and wait until it has ended."""
        if not self.is_waiting:
            return
        if self._future is not None:
            self._future.cancel()
        try:
            await _Rest(self, asyncio.CancelledError())
        except asyncio.CancelledError:
            if is_being_cancelled():
                raise
        except Exception:  # noqa: S110 (it was to end, and it has)
            pass

    def rest(self, error: BaseException | None) -> Generator[Any, Any, None]:
        """For `_Rest`: as if nobody stood between the task and what the coroutine hangs on."""
        if not self.is_waiting:
            return
        steps = self._steps
        try:
            while True:
                future = self._future
                try:
                    if error is None and (future is None or not future.done()):
                        if future is not None:  # as the coroutine left it
                            future._asyncio_future_blocking = True
                        yield future
                except BaseException as thrown:
                    error = thrown
                thrown_in, error = error, None
                self._future = steps.send(None) if thrown_in is None else steps.throw(thrown_in)
        except StopIteration as stop:
            self.result = stop.value
        finally:
            self.is_waiting = False

    # --- in place of the future ---------------------------------------------------------------------------------

    def get_loop(self) -> asyncio.AbstractEventLoop:
        assert self._future is not None
        return self._future.get_loop()

    def add_done_callback(self, wake: Callable[[Any], object], *, context: contextvars.Context | None = None) -> None:
        self._wake, self._context = wake, context
        self._future.add_done_callback(wake, context=context)  # type: ignore[union-attr]

    def cancel(self, msg: Any = None) -> bool:
        return self._future is not None and self._future.cancel(msg)

    def give_way(self) -> None:
        """Wake the task, and leave what the coroutine hangs on alone."""
        future, wake = self._future, self._wake
        if future is None or wake is None or future.done():
            return
        self._wake = None
        if not future.remove_done_callback(wake):  # another task waits by now than the one that could be woken so
            return
        called_away: asyncio.Future[None] = future.get_loop().create_future()
        called_away.add_done_callback(wake, context=self._context)
        called_away.set_result(None)


class _Rest:
    __slots__ = ("_error", "_patient")

    def __init__(self, patient: Patient[Any], error: BaseException | None = None) -> None:
        self._patient = patient
        self._error = error

    def __await__(self) -> Generator[Any, Any, None]:
        return self._patient.rest(self._error)
