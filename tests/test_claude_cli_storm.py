"""Turns that hang, crash, are cancelled and answered, many at once: nothing is left over, and no place is lost."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
from pathlib import Path
from typing import Any

from gw.adapters.claude_cli import ClaudeCLI
from gw.environ import Environ
from gw.errors import GatewayError
from gw.message import Attempt, Candidate
from gw.stream import Stream
from tests.claude_fakes import FakeClaude
from tests.fakes import chat_request, fake_backend

ENDLESS = ("hang_after", "hang")
MODES = ("answer", "die_after", "die:broken", "error:529 Overloaded", "garbage", "slow:0.01", *ENDLESS)


async def turn(providers: tuple[ClaudeCLI, ClaudeCLI], dice: random.Random) -> str:
    """One request: streamed or whole; some leave while it is under way. What came of it.

    The first provider has much time for a turn: what ends is asked there. The second has little.
    """
    mode, is_stream, leaves = dice.choice(MODES), dice.random() < 0.5, dice.random() < 0.4
    provider = providers[mode in ENDLESS and not leaves]
    messages = [{"role": "user", "content": f"do {mode}"}]
    backend = fake_backend("cli")
    request = chat_request({"messages": messages, "stream": is_stream}, candidates=(Candidate(backend, "cli", "cli"),))
    request.exchange.attempts.append(Attempt("cli", "cli", 0.0))
    asking = asyncio.ensure_future(_ask(provider, request, leaves))
    if leaves:
        # One that would never end leaves in any case; the others sometimes have their answer by then.
        done, _ = await asyncio.wait({asking}, timeout=dice.random() * 0.2)
        if not done:
            asking.cancel()
    try:
        return await asking
    except asyncio.CancelledError:
        return "cancelled"
    except GatewayError as error:
        return error.fault


async def _ask(provider: ClaudeCLI, request: Any, leaves: bool) -> str:
    response = await provider.answer(request)
    if isinstance(response.content, Stream):
        try:
            while chunks := await response.content.read():
                if leaves and any(chunk.has_content() for chunk in chunks):
                    return "left"
        finally:
            await response.content.aclose()
    return "answered"


async def storm(folder: Path, turns: int, seed: int = 1) -> tuple[list[dict[str, int]], list[str], FakeClaude]:
    """`turns` turns, eight at a time: the figures at the end, how they ended, and what was left over."""
    fake = FakeClaude(folder)
    environ = Environ({"PATH": os.defpath, "HOME": str(folder)})

    def provider(seconds: float) -> ClaudeCLI:
        table = fake.table(min_idle=1, max_warm=2, max_concurrent=4, queue_size=100, queue_timeout=600, timeout=seconds)
        del table["adapter"]
        return ClaudeCLI(**table, environ=environ)

    before = len(os.listdir("/dev/fd"))
    async with provider(600) as patient, provider(0.5) as brief:
        gate = asyncio.Semaphore(8)

        async def one(number: int) -> str:
            async with gate:
                return await turn((patient, brief), random.Random(seed * 1000 + number))

        outcomes = await asyncio.gather(*(one(number) for number in range(turns)))
        figures = [dict(each.pool_status()) for each in (patient, brief)]
    left = {"descriptors": len(os.listdir("/dev/fd")) - before, "zombies": zombies()}
    return [each | left for each in figures], outcomes, fake


def zombies() -> int:
    """Children of this process that nobody has waited for."""
    listed = subprocess.run(["ps", "-axo", "ppid=,stat="], capture_output=True, text=True, check=True).stdout
    children = [line.split() for line in listed.splitlines()]
    return sum(parent == str(os.getpid()) and state.startswith("Z") for parent, state, *_ in children)


def test_a_storm_leaves_nothing_behind(tmp_path: Path) -> None:
    found, outcomes, fake = asyncio.run(storm(tmp_path / "claude", 40))
    assert len(outcomes) == 40
    assert {"answered", "cancelled", "timeout"} <= set(outcomes)
    for figures in found:
        assert (figures["active"], figures["queued"]) == (0, 0)
        assert figures["zombies"] == 0
        assert figures["descriptors"] <= 0
    assert fake.living() == []
