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
    one = asyncio.ensure_future(first)
    tasks = [one]
    try:
        done, pending = await asyncio.wait(tasks, timeout=delay)
        if not done and (other := second()) is not None:
            tasks.append(asyncio.ensure_future(other))
            pending = set(tasks)
        while pending and all(_has_failed(task) for task in tasks if task.done()):
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    except BaseException:
        await _give_up(tasks)
        raise
    winner = next((task for task in tasks if task.done() and not _has_failed(task)), one)
    response = winner.result()
    try:
        _tell_losers(await _give_up([task for task in tasks if task is not winner]), exchange)
    except BaseException:
        await response.aclose()
        raise
    _put_last(response, exchange)
    return response, winner is not one


def _has_failed(task: asyncio.Future[Response]) -> bool:
    return task.cancelled() or task.exception() is not None


async def _give_up(tasks: Sequence[asyncio.Future[Response]]) -> bool:
    """Cancel them and wait for their ends; whether there was anything to cancel."""
    losers = [task for task in tasks if not task.done()]
    for task in losers:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if not _has_failed(task):  # it came in the same moment
            await task.result().aclose()
    return bool(losers)


def _tell_losers(were_cancelled: bool, exchange: Exchange) -> None:
    for attempt in exchange.attempts if were_cancelled else ():
        if isinstance(attempt.error, asyncio.CancelledError):
            attempt.error = Overtaken("another backend was faster")


def _put_last(response: Response, exchange: Exchange) -> None:
    """The last attempt of an exchange is the one that answered."""
    attempts = exchange.attempts
    for attempt in attempts:
        if attempt.summary is response.summary:
            attempts.remove(attempt)
            attempts.append(attempt)
            return
