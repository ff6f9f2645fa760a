"""A second backend is asked where the first is slower than it usually is; whoever has content first answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gw.errors import ClientGone
from gw.message import Exchange, Response
from gw.retry import Share


@dataclass(slots=True, frozen=True)
class Hedge:
    """`hedge`: on where `share` is more than 0; at most this share of all requests gets a second attempt."""

    share: float = 0.0
    at_least: int = 0

    def budget(self) -> Share:
        """The same as a share of the traffic. Raises ValueError."""
        return Share(self.share, self.at_least)


class Overtaken(ClientGone):
    """An attempt that was given up because another one was faster. The log books it like a client that left."""


async def first_content(
    first: Awaitable[Response], second: Callable[[], Awaitable[Response] | None], delay: float, exchange: Exchange
) -> tuple[Response, bool]:
    """The answer that begins first, and whether it is the second one's.

    `second` is called after `delay` seconds; it gives None where no other shall be asked. A failure of one leaves the
    field to the other; the error of the first is raised where both fail. The loser is cancelled, and its attempt says
    so; the winner's becomes the last of the exchange.
    """
    tasks = [asyncio.ensure_future(first)]
    try:
        done, _ = await asyncio.wait(tasks, timeout=delay)
        if not done and (other := second()) is not None:
            tasks.append(asyncio.ensure_future(other))
        waiting = set(tasks)
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task in done and task.exception() is None:
                    tasks.remove(task)
                    response = task.result()
                    had_rival = bool(tasks)
                    await _give_up(tasks)
                    if had_rival:
                        _put_last(response, exchange)
                    return response, task is not None and _is_second(task, first_task=None if had_rival else task)
        await tasks[0]
        raise AssertionError("unreachable")
    except BaseException:
        await _give_up(tasks)
        raise
