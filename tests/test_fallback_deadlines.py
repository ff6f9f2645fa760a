"""Rivals and deadlines: whose failure counts, whose is told, and who is not even asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gw.deadline import HEADER, DeadlinePassed
from gw.document import Chunk
from gw.errors import GatewayError, UpstreamError
from gw.hedge import Hedge
from gw.latency import ENOUGH
from gw.message import Request, Response
from gw.middleware.translate import Translate
from gw.stream import ListStream
from tests.fakes import FakeProvider, chunks, completion, fake_backend
from tests.fallback_world import CUT, DOWN, LIMITED, Pieces, World, asked, translated

# --- hedging --------------------------------------------------------------------------------------------------------


def hedged(first: Any, second: Any) -> World:
    world = World(first, second, hedge=Hedge(share=1.0), retries=0)
    for _ in range(ENOUGH):
        world.fallback._latencies["a", False].add(0.001)
    return world


class Slowly:
    """A provider that fails once somebody else has been asked."""

    def __init__(self, error: GatewayError) -> None:
        self.other_asked = asyncio.Event()
        self.error = error
        self.asked = 0

    async def answer(self, request: Request) -> Response:
        self.asked += 1
        await self.other_asked.wait()
        raise self.error


class Rival(FakeProvider):
    """Answers, or fails, after the first has failed."""

    first: Slowly

    async def answer(self, request: Request) -> Response:
        self.first.other_asked.set()
        for _ in range(5):
            await asyncio.sleep(0)
        return await super().answer(request)


def test_a_first_that_fails_while_its_rival_answers_is_counted_as_failed() -> None:
    async def main() -> None:
        a, b = fake_backend("a"), fake_backend("b")
        a.provider = first = Slowly(DOWN)
        b.provider = Rival([completion()])
        b.provider.first = first
        world = hedged(a, b)
        assert (await world.ask(translated)).headers["X-Gateway-Backend"] == "b"
        assert a.health.failures == 1

    asyncio.run(main())


def test_a_rival_that_failed_is_not_asked_again_by_the_same_request() -> None:
    async def main() -> None:
        a, b, c = fake_backend("a"), fake_backend("b"), fake_backend("c")
        a.provider = first = Slowly(DOWN)
        b.provider = rival = Rival([DOWN])
        rival.first = first
        world = World(a, b, c, hedge=Hedge(share=1.0), retries=0)
        for _ in range(ENOUGH):
            world.fallback._latencies["a", False].add(0.001)
        assert (await world.ask(translated)).headers["X-Gateway-Backend"] == "c"
        assert (first.asked, len(rival.asked)) == (1, 1)
        assert (a.health.failures, b.health.failures) == (1, 1)

    asyncio.run(main())


def test_a_rivals_failure_is_among_those_that_are_told() -> None:
    async def main() -> None:
        a, b = fake_backend("a"), fake_backend("b")
        a.provider = first = Slowly(LIMITED)
        b.provider = Rival([DOWN])
        b.provider.first = first
        world = hedged(a, b)
        with pytest.raises(UpstreamError, match="down"):  # not "every backend is rate-limited"
            await world.ask(translated)

    asyncio.run(main())


# --- deadlines ------------------------------------------------------------------------------------------------------


def test_a_stream_that_the_deadline_breaks_is_no_hang_up_in_the_books() -> None:
    class Stuck(ListStream):
        async def read(self) -> Any:
            if more := await super().read():
                return more
            await asyncio.Event().wait()
            raise AssertionError

    class Provider:
        async def answer(self, request: Request) -> Response:
            return Response(Stuck([Chunk(value=value) for value in chunks("Once")[:2]]))

    async def main() -> None:
        a = fake_backend("a")
        a.provider = Provider()
        world = World(a)
        response = await world.ask(translated, chat={"stream": True}, headers={HEADER: "1000"})
        assert await response.content.read()  # type: ignore[union-attr]
        world.clock.now += 2
        with pytest.raises(DeadlinePassed):
            await response.content.read()  # type: ignore[union-attr]
        (attempt,) = world.request.exchange.attempts
        assert isinstance(attempt.error, DeadlinePassed)
        world.fallback.ended(world.request.exchange)
        assert a.health.failures == 0

    asyncio.run(main())


def test_an_answer_that_is_held_back_takes_as_long_as_all_of_it() -> None:
    class Leisurely:
        asked = 0

        async def answer(self, request: Request) -> Response:
            self.asked += 1

            class Slow(Pieces):
                async def read(self) -> list[Chunk]:
                    world.clock.now += 2
                    return await super().read()

            return Response(Slow([[value] for value in chunks("a", "b")]))

    async def main() -> None:
        translate = Translate(clock=world.clock)

        async def handler(request: Request) -> Response:
            async def nowhere(wire: Any) -> Any:
                raise AssertionError

            return await translate(request, nowhere)

        await world.ask(handler, chat={"stream": True})
        with pytest.raises(DeadlinePassed):  # its first content comes in time, its end does not
            await world.ask(handler, chat={"stream": True}, headers={HEADER: "8000"})
        assert provider.asked == 1

    a = fake_backend("a")
    a.provider = provider = Leisurely()
    world = World(a, commit="complete")
    asyncio.run(main())


def test_a_deadline_that_nobody_can_keep_is_told_once() -> None:
    world = World(fake_backend("a"), fake_backend("b"))
    for name in ("a", "b"):
        world.fallback._latencies[name, False].add(5.0)
    with pytest.raises(DeadlinePassed) as told:
        world.run(headers={HEADER: "1000"})
    assert (
        told.value.message == f"the deadline of 1000 ms ({HEADER}) leaves no time for another attempt: allow more time"
    )


def test_nobody_is_asked_on_who_could_not_finish_in_time() -> None:
    a, b = fake_backend("a", CUT), fake_backend("b", chunks(" a time."))
    world = World(a, b, after_content="continue")
    world.fallback._latencies["b", True].add(30.0)

    async def main() -> None:
        fields: dict[str, Any] = {"chat": {"stream": True}, "headers": {HEADER: "60000"}}
        response = await world.ask(translated, **fields)
        world.clock.now += 50
        assert await response.content.read()  # type: ignore[union-attr]
        with pytest.raises(UpstreamError):
            await response.content.read()  # type: ignore[union-attr]
        assert asked(b) == 0

    asyncio.run(main())
