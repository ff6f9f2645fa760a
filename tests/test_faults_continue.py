"""A stream that goes on elsewhere stays one answer: what is passed on, what is held back, when it cannot be done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from gw.continuation import MAX_SEAMS, Continued, Next, with_prefix
from gw.document import Chunk
from gw.errors import GatewayError, UpstreamConnectionError, UpstreamRefused
from gw.message import Usage
from gw.stream import ListStream, Stream
from tests.fakes import chunk, chunks

BROKE = UpstreamConnectionError("broke")
TOLD = "The quick brown fox jumps over"


def call(index: int, arguments: str, **head: Any) -> dict[str, Any]:
    return chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments}, **head}]})


def broken(*values: dict[str, Any], error: GatewayError = BROKE) -> ListStream:
    return ListStream([Chunk(value=value) for value in values], error)


def whole(*values: dict[str, Any]) -> ListStream:
    return ListStream([Chunk(value=value) for value in values])


class Others:
    """Those who may go on, one after the other; `told` is what each was told had been said."""

    def __init__(self, *streams: Stream, spent: Usage | None = None) -> None:
        self.told: list[str] = []
        self._streams = list(streams)
        self._spent = spent

    async def __call__(self, text: str, error: GatewayError) -> Next:
        self.told.append(text)
        if not self._streams:
            raise error
        return Next(self._streams.pop(0), "a", "b", self._spent)


def read(stream: Stream) -> tuple[list[dict[str, Any]], GatewayError | None]:
    async def main() -> tuple[list[dict[str, Any]], GatewayError | None]:
        found: list[dict[str, Any]] = []
        try:
            async for piece in stream:
                found.append(piece.peek())
        except GatewayError as error:
            return found, error
        return found, None

    return asyncio.run(main())


def text_of(values: Sequence[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for value in values for choice in value["choices"])


def second(*texts: str, **fields: Any) -> ListStream:
    return whole(*(value | {"id": "other", "created": 99, "model": "other"} | fields for value in chunks(*texts)))


def test_a_stream_that_does_not_break_passes_untouched() -> None:
    values = chunks("Hel", "lo")
    others = Others()
    found, error = read(Continued(whole(*values), others))
    assert (found, error, others.told) == (values, None, [])


def test_what_comes_behind_the_seam_is_part_of_the_same_answer() -> None:
    others = Others(second(" the lazy", " dog, as everybody knows."))
    found, error = read(Continued(broken(*chunks(TOLD)[:2]), others))
    assert error is None
    assert others.told == [TOLD]
    assert text_of(found) == TOLD + " the lazy dog, as everybody knows."
    assert {(value["id"], value["created"], value["model"]) for value in found} == {("chatcmpl-1", 1, "gpt-4")}
    assert sum("role" in choice["delta"] for value in found for choice in value["choices"]) == 1
    assert [value["gateway"] for value in found if "gateway" in value] == [
        {"continued": True, "failed": "a", "backend": "b"}
    ]


@pytest.mark.parametrize("first", [" the dog", "the dog"])
def test_white_space_at_the_seam_is_neither_lost_nor_doubled(first: str) -> None:
    found, _ = read(Continued(broken(*chunks(TOLD + " ")[:2]), Others(second(first))))
    assert text_of(found) == TOLD + " the dog"


def test_white_space_that_was_not_said_yet_is_kept() -> None:
    found, _ = read(Continued(broken(*chunks(TOLD)[:2]), Others(second("\n\nA new paragraph, and more of it."))))
    assert text_of(found) == TOLD + "\n\nA new paragraph, and more of it."


@pytest.mark.parametrize("pieces", [("The quick brown fox jumps over the dog",), ("The quick ", "brown fox ", "jumps")])
def test_a_second_beginning_is_refused_and_the_next_one_asked(pieces: tuple[str, ...]) -> None:
    others = Others(second(*pieces), second(" the dog"))
    found, error = read(Continued(broken(*chunks(TOLD)[:2]), others))
    assert error is None
    assert text_of(found) == TOLD + " the dog"
    assert others.told == [TOLD, TOLD]


def test_a_train_of_thought_is_not_begun_twice() -> None:
    thinking = chunk({"reasoning_content": "Hm."})
    others = Others(whole(thinking, *chunks(" the dog")))
    found, _ = read(Continued(broken(thinking, *chunks(TOLD)[:2]), others))
    thoughts = [choice["delta"].get("reasoning_content") for value in found for choice in value["choices"]]
    assert [thought for thought in thoughts if thought] == ["Hm."]


def test_usage_is_summed() -> None:
    spent = Usage(prompt=100, completion=50, cached=7, reasoning=5)
    found, _ = read(Continued(broken(*chunks(TOLD)[:2]), Others(second(" the dog"), spent=spent)))
    assert found[-1]["usage"] == {
        "prompt_tokens": 109,
        "completion_tokens": 53,
        "total_tokens": 162,
        "prompt_tokens_details": {"cached_tokens": 7},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }


def test_tool_calls_are_passed_on_when_they_are_whole() -> None:
    values = [*chunks("Let me see.")[:2], call(0, '{"a"', id="c1"), call(0, ":1}"), chunk({}, "tool_calls")]
    found, error = read(Continued(whole(*values), Others()))
    assert (found, error) == (values, None)


def test_half_a_tool_call_is_dropped_and_the_next_one_makes_its_own() -> None:
    first = broken(*chunks("Let me see.")[:2], call(0, '{"a"', id="dead"))
    others = Others(whole(call(0, '{"b":2}', id="alive"), chunk({}, "tool_calls")))
    found, error = read(Continued(first, others))
    assert error is None
    calls = [part for value in found for choice in value["choices"] for part in choice["delta"].get("tool_calls", ())]
    assert [part["id"] for part in calls] == ["alive"]
    assert found[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_where_nothing_was_said_the_next_one_begins_from_the_beginning() -> None:
    others = Others(second("Hello, this is the whole answer."))
    found, _ = read(Continued(broken(call(0, '{"a"', id="dead")), others))
    assert others.told == [""]
    assert text_of(found) == "Hello, this is the whole answer."


@pytest.mark.parametrize(
    "said",
    [
        chunk({"refusal": "I will not."}),
        chunk({"function_call": {"name": "f"}}),
        chunk({"content": "x"}) | {"choices": [{"index": 1, "delta": {"content": "x"}, "finish_reason": None}]},
        chunk({}, "stop"),
    ],
)
def test_what_no_prefix_can_carry_ends_in_the_error(said: dict[str, Any]) -> None:
    others = Others(second(" the dog"))
    _, error = read(Continued(broken(*chunks(TOLD)[:2], said), others))
    assert error is BROKE
    assert others.told == []


def test_a_failure_that_is_the_clients_is_not_gone_on_from() -> None:
    refused = UpstreamRefused("no", status=400)
    _, error = read(Continued(broken(*chunks(TOLD)[:2], error=refused), Others(second(" the dog"))))
    assert error is refused


def test_it_goes_on_as_often_as_it_may_and_no_more() -> None:
    steps = [broken(*chunks(f" and then number {n} came along, too")[:2]) for n in range(MAX_SEAMS + 1)]
    others = Others(*steps)
    found, error = read(Continued(broken(*chunks(TOLD)[:2]), others))
    assert error is BROKE
    assert len(others.told) == MAX_SEAMS
    assert others.told[-1] == text_of(found)[: len(others.told[-1])]


def test_a_prefix_is_an_assistant_message_without_white_space_at_its_end() -> None:
    chat: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Go"}],
        "max_tokens": 100,
        "max_completion_tokens": 3,
    }
    after = with_prefix(chat, "so far, so good \n")
    assert after["messages"][-1] == {"role": "assistant", "content": "so far, so good"}
    assert (after["max_tokens"], after["max_completion_tokens"]) == (97, 1)
    assert len(chat["messages"]) == 1
    assert with_prefix(chat, "  ") is chat
