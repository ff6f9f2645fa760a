"""Streams that break: how often each break counts, and who goes on from what was said."""

from __future__ import annotations

import asyncio
from typing import Any

from gw.breaker import Breaker
from gw.continuation import Continued, with_prefix
from gw.errors import GatewayError, UpstreamProtocolError, UpstreamRefused
from tests.fakes import chunk, chunks, fake_backend
from tests.fallback_world import BROKE, CUT, Pieces, World, asked, read_all, translated

# --- the breaker ----------------------------------------------------------------------------------------------------


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
