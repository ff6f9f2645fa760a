"""Load: so many clients that ask again and again, or so many requests a second whatever becomes of them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from benchmarks.soak.client import Answer, Client
from benchmarks.soak.figure import percentile

Ask = Callable[[int], Awaitable[Answer]]


@dataclass
class Tally:
    """What came of a load."""

    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def good(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.is_good]

    @property
    def bad(self) -> int:
        return sum(not answer.is_good for answer in self.answers)

    @property
    def hung(self) -> int:
        """Neither a whole answer nor an error in due form, and the client did not leave."""
        return sum(not (answer.is_good or answer.is_openai_error or answer.is_left) for answer in self.answers)

    @property
    def longest(self) -> float:
        """Seconds, of all."""
        return max((answer.seconds for answer in self.answers), default=0.0)

    def p(self, share: float) -> float:
        """Seconds, of the good ones."""
        return percentile((answer.seconds for answer in self.answers if answer.is_good), share)


async def closed(ask: Ask, clients: int, *, seconds: float | None = None, requests: int | None = None) -> Tally:
    """`clients` ask one after the other, until the time is over or all requests were made."""
    tally = Tally()
    began = time.monotonic()
    numbers = iter(range(requests if requests is not None else 10**9))

    async def one() -> None:
        for number in numbers:
            if seconds is not None and time.monotonic() - began >= seconds:
                return
            tally.answers.append(await ask(number))

    await asyncio.gather(*(one() for _ in range(clients)))
    tally.seconds = time.monotonic() - began
    return tally


async def offered(ask: Ask, rate: float, seconds: float) -> Tally:
    """`rate` requests a second, evenly, answered or not; waits for what was asked."""
    tally = Tally()
    began = time.monotonic()
    tasks: list[asyncio.Task[Answer]] = []
    while (now := time.monotonic() - began) < seconds:
        tasks += [asyncio.ensure_future(ask(len(tasks))) for _ in range(int(now * rate) - len(tasks))]
        await asyncio.sleep(0.002)
    tally.answers = list(await asyncio.gather(*tasks))
    tally.seconds = seconds
    return tally


def mixed(client: Client, model: str, *, streams: float = 0.2, seed: int = 1) -> Ask:
    """Whole answers, and a share of streams."""
    whole, stream = client.request(model), client.request(model, stream=True)
    dice = random.Random(seed)

    async def ask(_: int) -> Answer:
        return await client.send(stream if dice.random() < streams else whole)

    return ask


async def beside(ask: Callable[[], Awaitable[Answer]], until: asyncio.Event, pause: float = 0.05) -> Tally:
    """One who asks now and then, while something else goes on."""
    tally = Tally()
    while not until.is_set():
        tally.answers.append(await ask())
        await asyncio.sleep(pause)
    return tally
