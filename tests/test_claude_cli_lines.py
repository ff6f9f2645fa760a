"""What the Claude program writes, read without a process: cut anywhere, in any order it may come, and what it means."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gw.adapters.claude_cli.failures import Failures, reset_after
from gw.adapters.claude_cli.lines import MAX_LINE, TurnReader
from gw.adapters.claude_cli.prompt import read_chat
from gw.errors import GatewayError, InvalidRequest, UpstreamProtocolError
from gw.message import Summary
from gw.secret import Secret

NOW = 1_763_740_800.0  # 2025-11-21 16:00 UTC


def reader(**fields: Any) -> TurnReader:
    failures = Failures("cli", [Secret("sk-canary-of-ours")], lambda: NOW)
    return TurnReader(id="chatcmpl-1", created=1, model="opus", summary=Summary(), failures=failures, **fields)


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "stream_event", "parent_tool_use_id": None, "event": {"type": kind, **fields}}


def text(*pieces: str) -> list[dict[str, Any]]:
    return [event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece}) for piece in pieces]


def begin(number: int = 1) -> dict[str, Any]:
    return event("message_start", message={"id": f"msg_{number}", "model": "claude-x", "usage": {"input_tokens": 7}})


def stop(reason: str) -> list[dict[str, Any]]:
    return [event("message_delta", delta={"stop_reason": reason}), event("message_stop")]


def result(**fields: Any) -> dict[str, Any]:
    usage = {"input_tokens": 7, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 1, "output_tokens": 3}
    whole = {"type": "result", "subtype": "success", "is_error": False, "stop_reason": "end_turn", "usage": usage}
    return {**whole, "total_cost_usd": 0.5, **fields}


def wire(*lines: dict[str, Any]) -> bytes:
    return b"".join(orjson.dumps(line) + b"\n" for line in lines)


PLAIN = wire({"type": "system", "subtype": "init"}, begin(), *text("He", "llo"), *stop("end_turn"), result())


def contents(turn: TurnReader) -> list[str]:
    deltas = [choice["delta"] for chunk in turn.taken() for choice in chunk.peek()["choices"]]
    return [delta["content"] for delta in deltas if delta.get("content")]


@pytest.mark.parametrize("size", [1, 2, 7, 100, len(PLAIN)])
def test_it_does_not_matter_where_the_bytes_are_cut(size: int) -> None:
    turn = reader()
    for start in range(0, len(PLAIN), size):
        assert not turn.is_complete
        turn.feed(PLAIN[start : start + size])
    assert turn.is_complete
    assert contents(turn) == ["He", "llo"]


def test_the_summary_has_tokens_cache_cost_and_reason() -> None:
    turn = reader(cost_before=0.2)
    turn.feed(PLAIN)
    summary = turn.summary
    assert summary.usage is not None
    assert (summary.usage.prompt, summary.usage.cached, summary.usage.cache_written, summary.usage.completion) == (
        *(10, 2, 1),
        3,
    )
    assert summary.cost_usd == pytest.approx(0.3)
    assert (summary.cost_source, summary.model, summary.finish_reason) == ("reported", "claude-x", "stop")


def test_a_continued_answer_is_one_answer_without_a_gap() -> None:
    turn = reader()
    turn.feed(wire(begin(), *text("one "), *stop("max_tokens"), begin(2), *text("two"), *stop("end_turn"), result()))
    assert "".join(turn.text) == "one two"
    assert turn.summary.finish_reason == "stop"


def test_what_subagents_say_is_not_the_answer() -> None:
    turn = reader()
    turn.feed(wire(begin(), text("secret")[0] | {"parent_tool_use_id": "t1"}, *text("said"), result()))
    assert turn.text == ["said"]


def test_text_after_a_broken_connection_is_an_error_and_before_it_is_not() -> None:
    turn = reader()
    turn.feed(wire(begin(), begin(2), *text("fine"), *stop("end_turn"), result()))
    assert turn.text == ["fine"]
    with pytest.raises(UpstreamProtocolError, match="lost its connection"):
        reader().feed(wire(begin(), *text("half"), begin(2)))


def test_an_error_text_of_the_programs_own_is_not_passed_on_as_an_answer() -> None:
    turn = reader()
    said = {"model": "<synthetic>", "id": "x", "content": [{"type": "text", "text": "API Error: 500"}]}
    with pytest.raises(GatewayError, match="API Error: 500"):
        turn.feed(wire({"type": "assistant", "message": said}, result(is_error=True, result="API Error: 500")))
    assert turn.text == []


def test_results_of_the_history_are_waited_for_and_end_nothing() -> None:
    turn = reader(steps=1)
    turn.feed(wire(result(num_turns=0, usage={}, total_cost_usd=0)))
    assert (turn.steps_done, turn.is_complete) == (1, False)
    turn.feed(PLAIN)
    assert turn.is_complete


def test_reasoning_is_passed_on_as_reasoning() -> None:
    turn = reader()
    turn.feed(wire(begin(), event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hm"})))
    deltas = [choice["delta"] for chunk in turn.taken() for choice in chunk.peek()["choices"]]
    assert deltas[-1] == {"reasoning_content": "hm"}


def test_a_line_without_end_is_given_up() -> None:
    turn = reader()
    turn.feed(b"x" * MAX_LINE)
    with pytest.raises(UpstreamProtocolError, match="a line of more than"):
        turn.feed(b"x")


def test_no_key_of_ours_is_told() -> None:
    with pytest.raises(GatewayError) as caught:
        reader().feed(wire(result(is_error=True, result="bad key sk-canary-of-ours", api_error_status=400)))
    assert "canary" not in caught.value.message


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("You've hit your limit · resets 6pm (UTC)", 7200),
        ("You've hit your limit · resets 3:30pm (UTC)", 84600),
        ("5-hour limit reached ∙ resets 6pm (Europe/Berlin)", 3600),
        ("weekly limit reached · resets Nov 23 at 4pm (UTC)", 2 * 86400),
        (f"Claude AI usage limit reached|{int(NOW) + 60}", 60),
        ("limit reached", None),
        ("limit reached · resets 99pm", None),
    ],
)
def test_a_usage_limit_says_when_it_is_lifted(said: str, seconds: float | None) -> None:
    assert reset_after(said, NOW) == seconds
    with pytest.raises(GatewayError) as caught:
        reader().feed(wire(result(is_error=True, result=said)))
    assert (caught.value.status, caught.value.retry_after) == (429, seconds)


@pytest.mark.parametrize(
    ("chat", "param"),
    [
        ({"n": 2}, "n"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "messages[1].role"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
            "messages[0].content[0].type",
        ),
    ],
)
def test_what_the_program_cannot_be_asked_is_a_400_at_its_place(chat: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_chat({"messages": [{"role": "user", "content": "Hi"}]} | chat)
    assert caught.value.param == param


def test_images_tool_calls_and_late_instructions_are_translated() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    prompt = read_chat(
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "look"}, image]},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "done"},
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "go on"},
            ]
        }
    )
    first, second, third = (turn["content"] for turn in prompt.turns)
    assert first[1] == {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
    }
    assert second == [{"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}]
    assert [block.get("text", block["type"]) for block in third] == [
        "tool_result",
        "<system>Be brief.</system>",
        "go on",
    ]
    assert [loss.kind for loss in prompt.losses] == ["changed"]


def test_a_number_in_a_call_keeps_all_its_digits() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"id":12345678901234567890123}'}}
    prompt = read_chat(
        {
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "done"},
            ]
        }
    )
    assert b'"input":{"id":12345678901234567890123}' in b"".join(prompt.batches())


def test_what_the_program_is_not_told_of_a_chat_is_told_to_the_client() -> None:
    detail = {"type": "reasoning.text", "text": "t", "signature": "c2ln", "format": "anthropic-claude-v1"}
    image = {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "high"}
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    prompt = read_chat(
        {
            "messages": [
                {"role": "user", "name": "bob", "content": [{"type": "image_url", "image_url": image}]},
                {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_details": [detail]},
                {"role": "tool", "tool_call_id": "c1", "content": "boom", "is_error": True},
                {"role": "user", "content": [{"type": "text", "text": "on", "cache_control": {"type": "ephemeral"}}]},
            ],
            "temperature": 0,
            "seed": 0,
            "web_search_options": {},
            "a/b": False,
        }
    )
    assert {loss.pointer: loss.kind for loss in prompt.losses} == dict.fromkeys(
        (
            *("/temperature", "/seed", "/web_search_options", "/a~1b", "/messages/0/name"),
            *("/messages/0/content/0/image_url/detail", "/messages/1/reasoning_details"),
            "/messages/3/content/0/cache_control",
        ),
        "dropped",
    )
    assert prompt.turns[2]["content"][0]["is_error"] is True


def test_what_asks_for_nothing_and_what_an_answer_brought_for_its_reader_are_no_loss() -> None:
    earlier: dict[str, Any] = {
        "role": "assistant",
        "content": "a",
        "refusal": None,
        "reasoning_content": "Hm.",
        "annotations": [{}],
    }
    asked = {"role": "user", "content": "Hi"}
    nothing = {"store": False, "logprobs": False, "presence_penalty": 0, "tools": [], "user": "", "seed": None}
    assert read_chat({"messages": [asked, earlier, asked], **nothing}).losses == []
