"""Waiting for something without being bound to it: a wait that falls silent for too long gives way, and goes on later.

    work = Patient(awaitable, quiet)
    if await work.has_come(): work.result()       True: it is done; False: it was silent for as long as `quiet` says
                                                  and may be waited for again

There is no task and no timer for a wait, so nothing is paid for by those that are never silent: the coroutine is
driven step by step by whoever awaits `has_come`, in that task, and one coarse timer serves all.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_PARTS = 16  # looks in one span of silence: it is noticed at most a sixteenth too late


class Quiet:
    """Notices waits that last longer than `interval` seconds."""

    __slots__ = ("_interval", "_timer", "_waits", "now")

    def __init__(self, interval: float) -> None:
        if interval <= 0:
            raise ValueError("the interval of keep-alives is more than 0 seconds")
        self.now = 0  # looks so far
        self._interval = interval
        self._waits: set[_Wait] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, wait: _Wait) -> None:
        """Look after a wait until `forget`."""
        self._waits.add(wait)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval / _PARTS, self._look)

    def forget(self, wait: _Wait) -> None:
        """It is over."""
        self._waits.discard(wait)

    def _look(self) -> None:
        self._timer = None
        if not self._waits:
            return
        self._timer = asyncio.get_running_loop().call_later(self._interval / _PARTS, self._look)
        self.now += 1
        silent = self.now - _PARTS
        for wait in [wait for wait in self._waits if wait.since <= silent]:
            wait.give_way()


class _Wait:
    """Stands in for the future that a coroutine waits for: the task waits for this one, and may be called away.

    It is a future by asyncio's own protocol for such (`asyncio.isfuture`): the future's callbacks and its
    cancellation are passed straight through, so that a wait which is not called away costs no turn of the loop.
    """

    __slots__ = ("_asyncio_future_blocking", "_context", "_loop", "_wake", "future", "since")

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self._asyncio_future_blocking = False
        self._loop = asyncio.get_running_loop()
        self._wake: Callable[[Any], object] | None = None
        self._context: contextvars.Context | None = None
        self.future = future
        self.since = 0  # in looks of Quiet

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(self, wake: Callable[[Any], object], *, context: contextvars.Context | None = None) -> None:
        self._wake, self._context = wake, context
        self.future.add_done_callback(wake, context=context)

    def cancel(self, msg: Any = None) -> bool:
        return self.future.cancel(msg)

    def result(self) -> None:
        """What the task reads of it where it was called away: nothing."""

    def give_way(self) -> None:
        """Wake the task, and leave what it waits for alone."""
        future, wake = self.future, self._wake
        if wake is None or future.done():
            return
        future.remove_done_callback(wake)
        self._wake = None
        self._loop.call_soon(wake, self, context=self._context)


class Patient(Generic[T]):
    """One awaitable, waited for in as many goes as it takes. Whoever holds it waits to its end or calls `give_up`."""

    __slots__ = ("_error", "_quiet", "_result", "_steps", "_wait", "is_done")

    def __init__(self, work: Awaitable[T], quiet: Quiet) -> None:
        self.is_done = False
        self._error: BaseException | None = None
        self._quiet = quiet
        self._result: T | None = None
        self._steps: Generator[Any, Any, T] = work.__await__()
        self._wait: _Wait | None = None  # for as long as the coroutine hangs on a future

    @property
    def has_failed(self) -> bool:
        """Whether it ended in an exception."""
        return self._error is not None

    def result(self) -> T:
        """What it gave, or the exception that it raised."""
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    def has_come(self, *, patiently: bool = False) -> Awaitable[bool]:
        """Whether it is done; False after a span of silence, unless `patiently`. Its exception stays for `result`."""
        return _Goes(self, patiently)

    async def give_up(self) -> None:
        """Cancel it and wait until it has ended."""
        wait, self._wait = self._wait, None
        if self.is_done:
            return
        if wait is not None:
            wait.future.cancel()
        try:
            self._result = await _Thrown(self._steps)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
        except Exception:  # noqa: S110 (it was to end, and it has)
            pass
        finally:
            self.is_done = True

    def step(self, patiently: bool) -> Generator[Any, Any, bool]:
        """Drive the coroutine until it is done or silent. For `_Goes`."""
        if self.is_done:
            return True
        quiet, steps, wait = self._quiet, self._steps, self._wait
        since = quiet.now
        error: BaseException | None = None
        try:
            while True:
                if wait is None:
                    future = steps.send(None) if error is None else steps.throw(error)
                    error = None
                    if future is None:  # a bare yield: asyncio.sleep(0)
                        try:
                            yield None
                        except BaseException as thrown:
                            error = thrown
                        continue
                    if patiently:  # as if nobody stood in between
                        try:
                            yield future
                        except BaseException as thrown:
                            error = thrown
                        continue
                    wait = _Wait(future)
                    future._asyncio_future_blocking = False
                future = wait.future
                if not future.done():
                    wait.since = since
                    wait._asyncio_future_blocking = True
                    quiet.watch(wait)
                    try:
                        yield wait
                    except BaseException as thrown:
                        error = thrown
                    finally:
                        quiet.forget(wait)
                    if error is None and not future.done():
                        self._wait = wait
                        return False
                wait = self._wait = None
        except StopIteration as stop:
            self._result = stop.value
        except BaseException as raised:
            self._error = raised
        self.is_done = True
        return True


class _Goes:
    __slots__ = ("_patient", "_patiently")

    def __init__(self, patient: Patient[Any], patiently: bool) -> None:
        self._patient = patient
        self._patiently = patiently

    def __await__(self) -> Generator[Any, Any, bool]:
        return self._patient.step(self._patiently)


class _Thrown:
    """What is left of a coroutine, with a cancellation thrown in."""

    __slots__ = ("_steps",)

    def __init__(self, steps: Generator[Any, Any, Any]) -> None:
        self._steps = steps

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._steps
        waits = steps.throw(asyncio.CancelledError())
        while True:
            try:
                value = yield waits
            except BaseException as error:
                waits = steps.throw(error)
            else:
                waits = steps.send(value)
