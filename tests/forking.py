"""Child processes that share memory with a test, one that is killed at a line, and both kinds of such memory."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from gw.shared import ForkShared, LocalShared

KINDS = pytest.mark.parametrize("made", [LocalShared, lambda: ForkShared(2)], ids=["local", "fork"])


def fork(work: Callable[[], object]) -> int:
    """Run `work` in a child process; its exit status is 0 if it did not raise."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def join(*children: int) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def killed_at(line: int, file: str, work: Callable[[], object]) -> bool:
    """Run `work` in a child that kills itself before the given line event in `file`; whether it got so far."""

    def run() -> None:
        left = line

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal left
            if frame.f_code.co_filename != file:
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        work()

    return join(fork(run)) == [-signal.SIGKILL]
