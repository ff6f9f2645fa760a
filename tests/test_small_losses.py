"""Small things that once went by unsaid or went wrong, the same for every dialect that is translated."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gw.errors import UpstreamProtocolError
from tests.codecs import codec_of
from tests.conversations import PICTURE

FOREIGN = ["anthropic", "gemini", "ollama"]
HI = {"role": "user", "content": "Hi"}


def called(name: str, call_id: str = "a") -> dict[str, Any]:
    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def result(content: Any, call_id: str = "a") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def told(name: str, chat: dict[str, Any]) -> set[tuple[str, str]]:
    return {(loss.pointer, loss.kind) for loss in codec_of(name, chat).losses}


def body(name: str, chat: dict[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = orjson.loads(codec_of(name, chat).wire.content)
    return value


@pytest.mark.parametrize("name", FOREIGN)
def test_the_effort_default_is_the_providers_own(name: str) -> None:
    chat = {"messages": [HI]}
    for asked in ({"reasoning_effort": "default"}, {"reasoning": {"effort": "default"}}):
        assert body(name, chat | asked) == body(name, chat)
        assert told(name, chat | asked) == set()


@pytest.mark.parametrize("nothing", [{"functions": None}, {"functions": []}, {"function_call": None}])
@pytest.mark.parametrize("name", [*FOREIGN, "groq", "mistral", "openrouter"])
def test_deprecated_fields_that_say_nothing_change_nothing(name: str, nothing: dict[str, Any]) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    old_turn = {"role": "assistant", "content": "Hello", "function_call": None}
    plain: dict[str, Any] = {"messages": [HI, {"role": "assistant", "content": "Hello"}, HI], "tools": tools}
    given = {"messages": [HI, old_turn, HI], "tools": tools, **nothing}
    if name == "openrouter":  # it takes a message as it comes
        given["messages"] = plain["messages"]
    assert body(name, given) == body(name, plain)
    assert told(name, given) == told(name, plain)


@pytest.mark.parametrize("name", FOREIGN)
def test_padding_that_a_stream_cannot_have_is_told(name: str) -> None:
    chat = {"messages": [HI], "stream": True, "stream_options": {"include_obfuscation": True}}
    assert told(name, chat) == {("/stream_options/include_obfuscation", "dropped")}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_tool_without_a_type_is_a_function(name: str) -> None:
    tools = [{"function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    assert "f" in orjson.dumps(body(name, {"messages": [HI], "tools": tools})["tools"]).decode()


@pytest.mark.parametrize("name", ["anthropic", "gemini"])
def test_a_later_system_message_that_becomes_a_users_is_told(name: str) -> None:
    chat = {"messages": [HI, {"role": "system", "content": "Be kind."}, HI]}
    assert told(name, chat) == {("/messages/1", "changed")}


@pytest.mark.parametrize("name", ["gemini", "ollama"])
def test_media_that_leave_the_result_they_came_in_are_told(name: str) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    chat = {"messages": [HI, called("f"), result([PICTURE])], "tools": tools}
    assert told(name, chat) == {("/messages/2/content", "changed")}


def test_ollama_is_told_the_function_whose_result_it_is_even_where_ids_come_again() -> None:
    chat = {"messages": [HI, called("f"), result("1"), called("g"), result("2")]}
    messages = body("ollama", chat)["messages"]
    assert [message["tool_name"] for message in messages if message["role"] == "tool"] == ["f", "g"]


def test_ollama_gets_neither_empty_texts_nor_empty_stop_sequences() -> None:
    parts = [{"type": "text", "text": ""}, {"type": "text", "text": "x"}]
    sent = body("ollama", {"messages": [{"role": "user", "content": parts}], "stop": ["", "a"]})
    assert sent["messages"][0]["content"] == "x"
    assert sent["options"]["stop"] == ["a"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("gemini", {"candidates": [{}]}),
        ("gemini", {"candidates": [{"content": {"role": "model"}}]}),
        ("ollama", {"message": {"role": "assistant", "content": "Hel"}, "done": False}),
    ],
)
def test_an_answer_that_says_no_end_is_no_stop(name: str, content: dict[str, Any]) -> None:
    with pytest.raises(UpstreamProtocolError, match=name):
        codec_of(name).complete(orjson.dumps(content))
