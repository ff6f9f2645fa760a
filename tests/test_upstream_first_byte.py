"""`first_byte`: the first byte of an answer has to come in its time; once it has, the other deadlines count."""

from __future__ import annotations

import pytest

from gw.backend import Timeouts
from gw.errors import UpstreamTimeout
from gw.upstream import HTTPXTransport
from tests.deadlines import runs_out, timed
from tests.event_loops import Run, run
from tests.fakes import FakeClock
from tests.scripted_provider import OK, says_and_hangs, scene, wire

__all__ = ["run"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_silent_provider_is_given_up_after_first_byte(run: Run, stream: bool) -> None:
    async def main() -> None:
        async with scene(says_and_hangs()) as (provider, transport):
            request = wire(provider, stream=stream, timeouts=Timeouts(first_byte=0.1))
            said = await timed(lambda: transport(request), 0.1)
            assert said.startswith('backend "acme" sent no byte of an answer for 0.1 s (first_byte): raise timeouts.')

    run(main)


def test_httpx_keeps_it_too(run: Run) -> None:
    async def main() -> None:
        async with scene(says_and_hangs()) as (provider, _):
            transport = HTTPXTransport()
            for limits, name in (
                (Timeouts(first_byte=0.1), "first_byte"),
                (Timeouts(first_byte=9, total=0.1), "total"),
            ):
                with pytest.raises(UpstreamTimeout, match=rf"\({name}\)"):
                    await transport(wire(provider, timeouts=limits))
            await transport.aclose()

    run(main)


def test_a_first_byte_in_time_leaves_the_rest_its_own_time(run: Run) -> None:
    async def main() -> None:
        clock = FakeClock()
        async with scene(says_and_hangs(OK[:30]), clock=clock) as (provider, transport):
            request = wire(provider, timeouts=Timeouts(first_byte=100, total=250))
            assert "(total)" in await runs_out(transport(request), provider.asked, clock, clock.now + 250)

    run(main)


def test_a_longer_first_byte_changes_nothing(run: Run) -> None:
    async def main() -> None:
        async with scene(says_and_hangs()) as (provider, transport):
            request = wire(provider, stream=True, timeouts=Timeouts(first_byte=9, first_content=0.1))
            assert "(first_content)" in await timed(lambda: transport(request), 0.1)

    run(main)
