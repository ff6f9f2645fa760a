"""The gauge of the event loop's delay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gw.loop_lag import KEPT, LoopLag


class FakeLoop:
    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def call_at(self, when: float, call: Callable[[], None]) -> Any:
        self.timers.append((when, call))
        return _Handle(self, call)

    def pass_by(self, seconds: float, late: float = 0.0) -> None:
        """Let time go by, each timer called `late` seconds after it is due."""
        end = self.now + seconds
        while self.timers and self.timers[0][0] + late <= end:
            when, call = self.timers.pop(0)
            self.now = when + late
            call()
        self.now = end


class _Handle:
    def __init__(self, loop: FakeLoop, call: Callable[[], None]) -> None:
        self._loop, self._call = loop, call

    def cancel(self) -> None:
        self._loop.timers = [timer for timer in self._loop.timers if timer[1] != self._call]


def test_the_longest_delay_is_kept_for_a_while_and_then_forgotten() -> None:
    loop = FakeLoop()
    lag = LoopLag(lambda: loop.now, loop.call_at)
    loop.pass_by(1)
    assert lag.longest == pytest.approx(0, abs=1e-9)
    loop.pass_by(0.5, late=0.2)
    assert lag.longest == pytest.approx(0.2)
    loop.pass_by(KEPT)
    assert lag.longest == pytest.approx(0.2), "a scrape a minute later still sees it"
    loop.pass_by(2 * KEPT)
    assert lag.longest == pytest.approx(0, abs=1e-9)
    lag.close()
    assert loop.timers == []
