"""Reasoning: asked for in each model's way, its signed blocks carried over turns, also for forgetful clients."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gw.adapters.anthropic import Anthropic
from gw.signatures import MemorySignatures
from tests.anthropic_fakes import (
    ADAPTIVE,
    ALWAYS,
    BUDGET,
    MIXED,
    OLD,
    block_events,
    body_of,
    called,
    codec_of,
    encoded,
    ending,
    function,
    message_of,
    message_start,
    pointers,
    request_of,
    result,
    sse,
    streamed,
    tool_events,
    user,
)

FORMAT = "anthropic-claude-v1"
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "S1"}
HIDDEN = {"type": "redacted_thinking", "data": "D1"}
SUMMARIZED = {"type": "adaptive", "display": "summarized"}


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": [user()]} | fields


def enabled(budget: int) -> dict[str, Any]:
    return {"type": "enabled", "budget_tokens": budget}


@pytest.mark.parametrize(
    ("fields", "model", "thinking", "effort", "lost"),
    [
        ({}, ADAPTIVE, None, None, []),
        ({"reasoning_effort": "none"}, ADAPTIVE, {"type": "disabled"}, None, []),
        ({"reasoning_effort": "none"}, BUDGET, None, None, []),
        ({"reasoning_effort": "none"}, ALWAYS, None, "low", ["/reasoning_effort"]),
        ({"reasoning_effort": "minimal"}, ADAPTIVE, SUMMARIZED, "low", ["/reasoning_effort"]),
        ({"reasoning_effort": "low"}, ADAPTIVE, SUMMARIZED, "low", []),
        ({"reasoning_effort": "high"}, ALWAYS, SUMMARIZED, "high", []),
        ({"reasoning_effort": "xhigh"}, ADAPTIVE, SUMMARIZED, "xhigh", []),
        ({"reasoning_effort": "xhigh"}, MIXED, SUMMARIZED, "high", ["/reasoning_effort"]),
        ({"reasoning_effort": "max"}, MIXED, SUMMARIZED, "max", []),
        ({"reasoning_effort": "minimal"}, BUDGET, enabled(1024), None, []),
        ({"reasoning_effort": "low"}, BUDGET, enabled(1024), None, []),
        ({"reasoning_effort": "medium"}, BUDGET, enabled(2048), None, []),
        ({"reasoning_effort": "high"}, BUDGET, enabled(4096), None, []),
        ({"reasoning_effort": "xhigh"}, BUDGET, enabled(8192), None, []),
        ({"reasoning_effort": "max"}, BUDGET, enabled(16384), None, []),
        ({"reasoning_effort": "high"}, OLD, None, None, ["/reasoning_effort"]),
        ({"reasoning": {"effort": "high"}}, ADAPTIVE, SUMMARIZED, "high", []),
        ({"reasoning": {"enabled": True}}, ADAPTIVE, SUMMARIZED, "medium", []),
        ({"reasoning": {"enabled": False}}, ADAPTIVE, {"type": "disabled"}, None, []),
        ({"reasoning": {"max_tokens": 3000}}, BUDGET, enabled(3000), None, []),
        ({"reasoning": {"max_tokens": 3000}}, MIXED, enabled(3000), None, []),
        ({"reasoning": {"max_tokens": 3000}}, ADAPTIVE, SUMMARIZED, "high", ["/reasoning"]),
        ({"reasoning": {"max_tokens": 10}}, BUDGET, enabled(1024), None, ["/reasoning"]),
        ({"reasoning": {"effort": "high", "exclude": True}}, ADAPTIVE,
         {"type": "adaptive", "display": "omitted"}, "high", []),
        ({"reasoning_effort": "max", "max_tokens": 4000}, BUDGET, enabled(2000), None, ["/reasoning_effort"]),
        ({"reasoning_effort": "max", "max_tokens": 1500}, BUDGET, enabled(1024), None, ["/reasoning_effort"]),
        ({"reasoning_effort": "max", "max_tokens": 900}, BUDGET, None, None, ["/reasoning_effort"]),
    ],
)  # fmt: skip
def test_an_effort_in_each_models_own_words(
    fields: dict[str, Any], model: str, thinking: Any, effort: str | None, lost: list[str]
) -> None:
    body, losses = encoded(chat(**fields), model)
    assert body.get("thinking") == thinking
    assert (body.get("output_config") or {}).get("effort") == effort
    assert [loss.pointer for loss in losses] == lost
    if thinking and "budget_tokens" in thinking:
        assert thinking["budget_tokens"] < body["max_tokens"]


def test_the_answer_has_room_beside_a_budget() -> None:
    body, _ = encoded(chat(reasoning_effort="max"), BUDGET, max_tokens=1000)
    assert body["max_tokens"] == 16384 + 4096


# --- signatures -----------------------------------------------------------------------------------------------------


def detail(**fields: Any) -> dict[str, Any]:
    return {"format": FORMAT, "index": 0} | fields


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_details": [
            detail(type="reasoning.text", text="Hm.", signature="S1"),
            detail(type="reasoning.encrypted", data="D1", index=1),
        ]},
        {"reasoning_details": [  # as streams bring it: fragments of one block share an index
            detail(type="reasoning.text", text="H"),
            detail(type="reasoning.text", signature="S1"),
            detail(type="reasoning.text", text="m."),
            detail(type="reasoning.encrypted", data="D1", index=1),
        ]},
        {"reasoning_details": [  # the format once, and as a client that joins texts makes it of several
            detail(type="reasoning.text", text="H"),
            {"type": "reasoning.text", "text": "m.", "index": 0},
            {"type": "reasoning.text", "signature": "S1", "index": 0},
            detail(type="reasoning.encrypted", data="D1", index=1, format=FORMAT * 3),
        ]},
        {"thinking_blocks": [THOUGHT | {"index": 4}, HIDDEN]},
    ],
)  # fmt: skip
def test_signed_thinking_goes_back_as_it_came_before_text_and_calls(fields: dict[str, Any]) -> None:
    message = called(("1", "look", "{}"), content="Text.", reasoning_content="Hm.", **fields)
    given = {"messages": [user(), message, result("1")], "tools": [function()], "reasoning_effort": "high"}
    body = body_of(given)
    blocks = body["messages"][1]["content"]
    assert blocks[:2] == [THOUGHT, HIDDEN]
    assert [block["type"] for block in blocks[2:]] == ["text", "tool_use"]
    assert body["thinking"] == enabled(4096)


def test_what_others_signed_is_told_as_dropped() -> None:
    foreign = [{"type": "reasoning.text", "text": "x", "signature": "G", "format": "google-gemini-v1", "index": 0}]
    message = {"role": "assistant", "content": "A", "reasoning_details": foreign, "reasoning": "x"}
    body, losses = encoded({"messages": [user(), message, user()]})
    assert body["messages"][1]["content"] == [{"type": "text", "text": "A"}]
    assert pointers(losses) == [("/messages/1/reasoning", "dropped"), ("/messages/1/reasoning_details", "dropped")]


def test_reasoning_of_a_strange_shape_is_dropped_like_any_other() -> None:
    strange = [detail(type="reasoning.text", text=[7], index=[]), detail(type=3), "x", None]
    message = {"role": "assistant", "content": "A", "reasoning_details": strange, "thinking_blocks": 7}
    losses = encoded({"messages": [user(), message, user()]})[1]
    assert pointers(losses) == [
        ("/messages/1/reasoning_details", "dropped"),
        ("/messages/1/thinking_blocks", "dropped"),
    ]


def loop(**fields: Any) -> dict[str, Any]:
    return {
        "messages": [user(), called(("toolu_1", "look", "{}")), result("toolu_1")],
        "tools": [function()],
    } | fields


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_client_that_forgets_signatures_gets_them_back_under_the_tool_call(is_stream: bool) -> None:
    adapter = Anthropic(signatures=MemorySignatures())
    codec = adapter.open(request_of(chat(tools=[function()], reasoning_effort="high", stream=is_stream)))
    if is_stream:
        events = [
            message_start(),
            *block_events(0, {"type": "thinking", "thinking": "", "signature": ""},
                          {"type": "thinking_delta", "thinking": "Hm."},
                          {"type": "signature_delta", "signature": "S1"}),
            *block_events(1, HIDDEN),
            *tool_events(2, "toolu_1", "look", "{}"),
            *ending("tool_use"),
        ]  # fmt: skip
        codec.feed(sse(*events))
        codec.finish()
    else:
        call = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
        codec.complete(message_of([THOUGHT, HIDDEN, call], "tool_use"))
    again = adapter.open(request_of(loop(reasoning_effort="high")))
    body = orjson.loads(again.wire.content)
    assert body["messages"][1]["content"][:2] == [THOUGHT, HIDDEN]
    assert body["thinking"] == enabled(4096)
    assert list(again.losses) == []


def test_signatures_are_not_given_to_somebody_else() -> None:
    store = MemorySignatures()
    store.keep("anthropic:somebody", ["toolu_1"], [THOUGHT])
    body, _ = encoded(loop(), signatures=store)
    assert body["messages"][1]["content"][0]["type"] == "tool_use"


def test_with_nothing_to_restore_a_budget_is_left_out_of_this_turn() -> None:
    body, losses = encoded(loop(reasoning_effort="high"), BUDGET)
    assert "thinking" not in body
    assert pointers(losses) == [("/reasoning_effort", "changed")]


def test_with_nothing_to_restore_adaptive_thinking_goes_on() -> None:
    assert body_of(loop(reasoning_effort="high"), ADAPTIVE)["thinking"] == SUMMARIZED


def test_a_loop_that_is_over_needs_no_signatures() -> None:
    given = loop(reasoning_effort="high")
    given["messages"] += [{"role": "assistant", "content": "Done."}, user("Next")]
    assert body_of(given, BUDGET)["thinking"] == enabled(4096)


def test_a_prefill_is_continued_without_thinking() -> None:
    body, losses = encoded({"messages": [user(), {"role": "assistant", "content": "A"}], "reasoning_effort": "low"})
    assert "thinking" not in body
    assert pointers(losses) == [("/reasoning_effort", "changed")]


def test_reasoning_that_the_client_excludes_is_not_shown() -> None:
    codec = codec_of(chat(reasoning={"effort": "high", "exclude": True}), BUDGET)
    message = codec.complete(message_of([THOUGHT, {"type": "text", "text": "A"}])).peek()["choices"][0]["message"]
    assert set(message) == {"role", "content", "refusal"}
    codec = codec_of(chat(reasoning={"effort": "high", "exclude": True}, stream=True), BUDGET)
    thinking = block_events(
        0, {"type": "thinking", "thinking": "", "signature": ""}, {"type": "thinking_delta", "thinking": "Hm."}
    )
    chunks = streamed(codec, message_start(), *thinking, *ending())
    assert not any("reasoning" in key for chunk in chunks for choice in chunk["choices"] for key in choice["delta"])
