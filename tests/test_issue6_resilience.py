"""What a provider is spared and a client is told: laws of fallback at the edges where two of its parts meet."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gw.breaker import Breaker
from gw.continuation import Continued, with_prefix
from gw.deadline import HEADER, DeadlinePassed
from gw.document import Chunk
from gw.errors import GatewayError, UpstreamConnectionError, UpstreamError, UpstreamProtocolError, UpstreamRefused
from gw.hedge import Hedge
from gw.latency import ENOUGH
from gw.message import Headers, Request, Response
from gw.middleware.translate import Translate
from gw.provider_errors import from_answer
from gw.retry import Retries
from gw.stream import ListStream, Stream
from tests.fakes import FakeProvider, chunk, chunks, completion, fake_backend
from tests.fallback_world import DOWN, LIMITED, World, ask, asked

BROKE = UpstreamConnectionError("the connection broke")
CUT = [*chunks("Once upon")[:2], BROKE]  # a stream that breaks after its first content
NO_MONEY = UpstreamError("no credit", status=429, type="insufficient_quota", code="insufficient_quota", fault="quota")


async def translated(request: Request) -> Response:
    async def nowhere(wire: Any) -> Any:
        raise AssertionError

    return await Translate()(request, nowhere)


async def read_all(world: World, **fields: Any) -> GatewayError | None:
    """Ask for a stream, read it to its end and tell that, as the gateway does; the error that ended it."""
    exchange, error = None, None
    try:
        response = await world.ask(translated, chat={"stream": True} | fields)
        assert not isinstance(response.content, bytes)
        while await response.content.read():  # type: ignore[union-attr]
            pass
    except GatewayError as failure:
        error = failure
    exchange = world.request.exchange
    world.fallback.ended(exchange)
    return error


# --- the breaker ----------------------------------------------------------------------------------------------------


def test_a_probe_is_one_request_to_the_provider_whatever_retries_there_are() -> None:
    a, b = fake_backend("a", DOWN), fake_backend("b")
    world = World(a, b, retries=2, breaker=Breaker(failures=1, cooldown=30))
    world.run()
    assert asked(a) == 1  # it opened: nobody asks again
    world.clock.now += 30
    world.run()
    assert asked(a) == 2


def test_from_the_sixth_failure_on_a_provider_is_left_alone() -> None:
    a, b = fake_backend("a", DOWN), fake_backend("b")
    world = World(a, b)
    for _ in range(100):
        world.run()
        world.clock.now += 0.01
    assert asked(a) == 5


def test_the_last_one_is_retried_although_its_breaker_would_be_open() -> None:
    a = fake_backend("a", DOWN, completion())
    world = World(a, breaker=Breaker(failures=1))
    assert world.run().status == 200


def test_a_limit_that_was_told_beside_a_retry_after_does_not_forbid_the_try_that_this_allows() -> None:
    a = fake_backend("a", UpstreamError("slow down", status=429, fault="rate_limit", retry_after=1), completion())
    world = World(a)

    async def telling(request: Request) -> Response:
        a.rest(8.0, "its limit of requests is used up")  # as from the answer's other headers
        return await ask(request)

    assert world.run(handler=telling).status == 200
    assert world.clock.slept == [1.0]


def test_a_stream_that_breaks_while_it_is_held_back_counts_once() -> None:
    a = fake_backend("a", CUT)
    b = fake_backend("b", CUT)
    world = World(a, b, retries=0, commit="complete")
    assert asyncio.run(read_all(world)) is not None
    assert (a.health.failures, b.health.failures) == (1, 1)


def test_a_stream_that_breaks_and_goes_on_nowhere_counts_once() -> None:
    a, b = fake_backend("a", CUT), fake_backend("b", UpstreamRefused("no prefill"))
    world = World(a, b, after_content="continue")
    assert asyncio.run(read_all(world)) is not None
    assert a.health.failures == 2  # it was asked on once, after b
    lone = fake_backend("lone", CUT)
    assert asyncio.run(read_all(World(lone))) is not None
    assert lone.health.failures == 1


def test_a_stream_that_goes_on_and_breaks_again_counts_once_for_each_break() -> None:
    a = fake_backend("a", CUT, [*chunks(" a time there was a king who")[1:2], BROKE])
    world = World(a, after_content="continue")
    assert asyncio.run(read_all(world)) is BROKE
    assert (asked(a), a.health.failures) == (2, 2)


def test_a_second_beginning_is_no_hang_up_in_the_books() -> None:
    a, b = fake_backend("a", CUT), fake_backend("b", chunks("Once upon a time."))
    world = World(a, b, after_content="continue", continues=["b"])
    asyncio.run(read_all(world))
    told = [(attempt.backend, type(attempt.error)) for attempt in world.request.exchange.attempts]
    assert told[1] == ("b", UpstreamProtocolError)


def test_the_only_one_that_may_be_asked_is_never_shut_off_by_streams_that_break() -> None:
    a, b = fake_backend("a", CUT), fake_backend("b")
    world = World(a, b, breaker=Breaker(failures=2))
    only = World(a, breaker=Breaker(failures=2))  # as for a key that may use nobody else
    only.fallback._backends = world.fallback._backends
    for _ in range(5):
        assert asyncio.run(read_all(only)) is not None
    assert not a.is_cooling


# --- retries --------------------------------------------------------------------------------------------------------


def test_a_retry_after_of_nothing_is_no_leave_to_ask_at_once() -> None:
    retries = Retries(random=lambda: 1.0)
    at_once = UpstreamError("slow down", status=429, fault="rate_limit", retry_after=0)
    assert [retries.pause(at_once, retry, has_other=False) for retry in range(2)] == [0.25, 0.5]


@pytest.mark.parametrize("fault", ["server", "connection", "protocol"])
def test_a_retry_after_is_not_waited_for_while_somebody_else_may_be_asked(fault: Any) -> None:
    error = UpstreamError("later", fault=fault, retry_after=20)
    assert Retries().pause(error, 0, has_other=True) is None
    assert Retries().pause(error, 0, has_other=False) == 20


def test_no_pause_is_begun_where_the_try_behind_it_could_not_finish() -> None:
    a, b = fake_backend("a", DOWN), fake_backend("b")
    world = World(a, b, backoff=10)
    world.fallback._latencies["a", False].add(8.0)
    assert world.run(headers={HEADER: "12000"}).headers["X-Gateway-Backend"] == "b"
    assert world.clock.slept == []


def test_where_nobody_has_money_left_that_is_what_the_client_is_told() -> None:
    world = World(fake_backend("a", NO_MONEY), fake_backend("b", NO_MONEY))
    with pytest.raises(GatewayError) as told:
        world.run()
    assert (told.value.status, told.value.type, told.value.code) == (429, "insufficient_quota", "insufficient_quota")
    mixed = World(fake_backend("a", NO_MONEY), fake_backend("b", LIMITED), retries=0)
    with pytest.raises(GatewayError) as told:
        mixed.run()
    assert (told.value.code, told.value.retry_after) == ("rate_limit_exceeded", 7)


@pytest.mark.parametrize("count", [1, 2])
def test_a_client_is_told_when_to_come_back_also_where_no_provider_says_so(count: int) -> None:
    wordless = UpstreamError("slow down", status=429, type="rate_limit_error", fault="rate_limit", upstream_status=429)
    world = World(*(fake_backend(f"b{number}", wordless) for number in range(count)), retries=0)
    with pytest.raises(GatewayError, match="slow down") as told:
        world.run()
    error = told.value
    assert (error.status, error.type, error.code) == (429, "rate_limit_error", "rate_limit_exceeded")
    assert (error.retry_after, error.fault) == (1.0, "rate_limit")  # the fault: who has no tools may still be asked


def test_a_provider_that_wants_no_retry_has_failed_all_the_same() -> None:
    down = from_answer(500, Headers([(b"x-should-retry", b"false")]), b'{"error": {"message": "boom"}}')
    limit = Headers([(b"x-should-retry", b"false"), (b"retry-after", b"60")])
    limited = from_answer(429, limit, b'{"error": {"message": "slow down"}}')
    a, b, c = fake_backend("a", down), fake_backend("b", limited), fake_backend("c")
    world = World(a, b, c)
    for _ in range(9):
        assert world.run().headers["X-Gateway-Backend"] == "c"
    assert (asked(a), asked(b)) == (5, 1)
    too_long = from_answer(500, Headers(), b'{"error": {"message": "the prompt is too long"}}')
    d = fake_backend("d", too_long)
    for _ in range(9):
        World(d, c).run()
    assert d.health.failures == 0


FILTERED = UpstreamRefused("flagged", code="content_policy_violation", fault="content_filter")


def test_what_a_filter_refused_goes_elsewhere_only_where_so_configured() -> None:
    a, b = fake_backend("a", FILTERED), fake_backend("b")
    with pytest.raises(UpstreamRefused, match="flagged"):
        World(a, b).run()
    assert (asked(a), asked(b)) == (1, 0)
    response = World(a, b, content_filter="fallback").run()
    assert response.headers["X-Gateway-Backend"] == "b"
    assert (asked(a), a.health.failures) == (2, 0)  # never twice by one request, and it has judged: it lives


def test_a_filters_refusal_is_told_where_nobody_else_answers() -> None:
    world = World(fake_backend("a", FILTERED), fake_backend("b", DOWN), retries=0, content_filter="fallback")
    with pytest.raises(UpstreamRefused, match="flagged"):
        world.run()


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


# --- going on -------------------------------------------------------------------------------------------------------


def test_a_train_of_thought_is_not_begun_again_where_nothing_else_was_said() -> None:
    thinking = chunk({"reasoning_content": "Hm. "})
    a, b = fake_backend("a", [thinking, BROKE]), fake_backend("b", [thinking, *chunks("Once.")])
    world = World(a, b, after_content="continue")

    async def main() -> list[Any]:
        response = await world.ask(translated, chat={"stream": True})
        return [found.peek() async for found in response.content]  # type: ignore[union-attr]

    deltas = [choice["delta"] for value in asyncio.run(main()) for choice in value["choices"]]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == "Hm. "
    assert "".join(delta.get("content") or "" for delta in deltas) == "Once."


def test_a_tool_call_is_not_kept_waiting_where_nobody_could_go_on_anyway() -> None:
    call = chunk({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]})
    refusal = chunk({"refusal": "No"})

    async def main() -> None:
        async def nobody(text: str, error: GatewayError) -> Any:
            raise AssertionError

        stream = Continued(whole := Pieces([[refusal], [call], [chunk({}, "tool_calls")]]), nobody)
        assert [found.peek() for found in await stream.read()] == [refusal]
        assert [found.peek() for found in await stream.read()] == [call]
        assert len(whole.left) == 1

    asyncio.run(main())


class Pieces(Stream):
    """A stream that gives one list of chunks for each read."""

    def __init__(self, left: list[list[dict[str, Any]]]) -> None:
        self.left = left

    async def read(self) -> list[Chunk]:
        return [Chunk(value=value) for value in self.left.pop(0)] if self.left else []

    async def aclose(self) -> None:
        self.left.clear()


def test_a_second_beginning_is_refused_however_little_was_said() -> None:
    a, b = fake_backend("a", [chunk({"content": "I"}), BROKE]), fake_backend("b", chunks("I am", " here."))
    world = World(a, b, after_content="continue")
    assert asyncio.run(read_all(world)) is not None


def test_the_text_goes_on_with_what_the_client_gave_as_the_answers_beginning() -> None:
    hello = {"role": "user", "content": "Hi"}
    begun = {"role": "assistant", "content": "Once"}
    chat = with_prefix({"messages": [hello, begun]}, " upon ")
    assert chat["messages"] == [hello, {"role": "assistant", "content": "Once upon"}]
    called = begun | {"tool_calls": [{"id": "c"}]}
    assert with_prefix({"messages": [called]}, "So")["messages"] == [called, {"role": "assistant", "content": "So"}]


def test_an_answer_in_several_choices_is_not_gone_on_from() -> None:
    a, b = fake_backend("a", CUT), fake_backend("b", chunks(" a time."))
    world = World(a, b, after_content="continue")
    assert asyncio.run(read_all(world, n=2)) is BROKE
    assert asked(b) == 0
