"""Tools, the choice among them and the form of the answer: native where Claude has it, emulated and told where not."""

from __future__ import annotations

from typing import Any

import pytest

from gw.errors import InvalidRequest
from tests.anthropic_fakes import (
    ADAPTIVE,
    ALWAYS,
    BUDGET,
    OLD,
    body_of,
    called,
    codec_of,
    encoded,
    ending,
    function,
    message_start,
    pointers,
    result,
    streamed,
    tool_events,
    user,
    whole,
)
from tests.recordings import check_laws, read_chunks

TOOLS = [function("a"), function("b")]
NAMED = {"type": "function", "function": {"name": "a"}}
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 1}},
    "required": ["n"],
    "additionalProperties": False,
}


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": [user()]} | fields


def form(schema: dict[str, Any] = SCHEMA) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "out", "schema": schema, "strict": True}}


def test_a_function_becomes_a_tool() -> None:
    parameters = {"type": "object", "properties": {"x": {"type": "string"}}}
    body = body_of(
        chat(tools=[function("a", parameters, description="Does."), {"type": "function", "function": {"name": "b"}}])
    )
    assert body["tools"] == [
        {"name": "a", "description": "Does.", "input_schema": parameters},
        {"name": "b", "input_schema": {"type": "object", "properties": {}}},
    ]
    assert "tool_choice" not in body


@pytest.mark.parametrize(
    ("fields", "model", "sent", "lost"),
    [
        ({}, BUDGET, None, []),
        ({"tool_choice": "auto"}, BUDGET, {"type": "auto"}, []),
        ({"tool_choice": "none"}, BUDGET, {"type": "none"}, []),
        ({"tool_choice": "required"}, BUDGET, {"type": "any"}, []),
        ({"tool_choice": NAMED}, BUDGET, {"type": "tool", "name": "a"}, []),
        ({"tool_choice": "required"}, ALWAYS, {"type": "auto"}, [("/tool_choice", "emulated")]),
        ({"tool_choice": NAMED}, ALWAYS, {"type": "auto"}, [("/tool_choice", "emulated")]),
        ({"tool_choice": NAMED, "reasoning_effort": "low"}, BUDGET, {"type": "auto"}, [("/tool_choice", "emulated")]),
        ({"parallel_tool_calls": False}, BUDGET, {"type": "auto", "disable_parallel_tool_use": True}, []),
        ({"parallel_tool_calls": False, "tool_choice": "required"}, BUDGET,
         {"type": "any", "disable_parallel_tool_use": True}, []),
        ({"parallel_tool_calls": False, "tool_choice": "none"}, BUDGET, {"type": "none"}, []),
        ({"parallel_tool_calls": True}, BUDGET, None, []),
    ],
)  # fmt: skip
def test_the_choice_among_tools(
    fields: dict[str, Any], model: str, sent: dict[str, Any] | None, lost: list[tuple[str, str]]
) -> None:
    body, losses = encoded(chat(tools=TOOLS, **fields), model)
    assert body.get("tool_choice") == sent
    assert pointers(losses) == lost


def test_a_choice_that_cannot_be_forced_is_put_into_words() -> None:
    body, _ = encoded(chat(tools=TOOLS, tool_choice=NAMED), ALWAYS)
    assert "calling the tool a" in body["system"][0]["text"]


def test_only_allowed_tools_are_sent() -> None:
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}
    body, losses = encoded(chat(tools=TOOLS, tool_choice=allowed))
    assert [tool["name"] for tool in body["tools"]] == ["a"]
    assert body["tool_choice"] == {"type": "any"}
    assert pointers(losses) == [("/tool_choice", "emulated")]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "z"}}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "perhaps"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "mystery"}]}, "tools[0]"),
        ({"tools": ["Read"]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [function("a", [1])]}, "tools[0].function.parameters"),
        ({"tools": [{"type": "custom", "custom": {"name": "c", "format": {"type": "grammar"}}}]},
         "tools[0].custom.format"),
        ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
         "tool_choice.allowed_tools.tools"),
    ],
)  # fmt: skip
def test_impossible_tools_are_refused_by_their_place(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        codec_of(chat(**fields))
    assert caught.value.param == param


def test_a_name_that_claude_refuses_is_changed_both_ways() -> None:
    tools = [function("files.read/é")]
    messages = [user(), called(("1", "files.read/é", "{}")), result("1")]
    codec = codec_of(
        {
            "messages": messages,
            "tools": tools,
            "tool_choice": {"type": "function", "function": {"name": "files.read/é"}},
        }
    )
    body, losses = encoded({"messages": messages, "tools": tools})
    name = body["tools"][0]["name"]
    assert name.startswith("files_read_")
    assert body["messages"][1]["content"][0]["name"] == name
    assert pointers(losses) == [("/tools/0/function/name", "changed")]
    choice = whole(codec, [{"type": "tool_use", "id": "t", "name": name, "input": {}}], "tool_use")
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "files.read/é"


def test_tools_that_only_the_history_knows_are_declared_and_not_called() -> None:
    body, losses = encoded({"messages": [user(), called(("1", "look", "{}")), result("1")]})
    assert body["tools"] == [{"name": "look", "input_schema": {"type": "object", "properties": {}}}]
    assert body["tool_choice"] == {"type": "none"}
    assert pointers(losses) == [("/tools", "emulated")]


def test_anthropics_own_tools_pass() -> None:
    tool = {"type": "code_execution_20260120", "name": "code_execution"}
    assert body_of(chat(tools=[tool]))["tools"] == [tool]


def test_strict_tools_are_strict_where_schemas_are_taken() -> None:
    body, losses = encoded(chat(tools=[function("a", SCHEMA, strict=True)]), BUDGET)
    assert body["tools"][0]["strict"] is True
    assert "minimum" not in body["tools"][0]["input_schema"]["properties"]["n"]
    assert [loss.pointer for loss in losses] == ["/tools/0/function/parameters/properties/n/minimum"]
    body, losses = encoded(chat(tools=[function("a", SCHEMA, strict=True)]), OLD)
    assert "strict" not in body["tools"][0]
    assert body["tools"][0]["input_schema"] == SCHEMA
    assert pointers(losses) == [("/tools/0/function/strict", "dropped")]


def test_a_custom_tool_is_a_function_with_one_text() -> None:
    tool = {"type": "custom", "custom": {"name": "sh", "description": "Runs."}}
    history = [
        {"role": "assistant", "tool_calls": [{"id": "1", "type": "custom", "custom": {"name": "sh", "input": "ls"}}]}
    ]
    codec = codec_of({"messages": [user(), *history, result("1")], "tools": [tool], "stream": True})
    body, losses = encoded({"messages": [user(), *history, result("1")], "tools": [tool]})
    assert body["tools"][0]["input_schema"]["required"] == ["input"]
    assert body["messages"][1]["content"][0]["input"] == {"input": "ls"}
    assert pointers(losses) == [("/tools/0", "emulated")]
    wanted = {"id": "t", "type": "custom", "custom": {"name": "sh", "input": "ls -l"}}
    choice = whole(codec, [{"type": "tool_use", "id": "t", "name": "sh", "input": {"input": "ls -l"}}], "tool_use")
    assert choice["message"]["tool_calls"] == [wanted]
    chunks = streamed(codec, message_start(), *tool_events(0, "t", "sh", '{"inp', 'ut":"ls -l"}'), *ending("tool_use"))
    calls = [call for chunk in chunks for c in chunk["choices"] for call in c["delta"].get("tool_calls") or []]
    assert calls == [{"index": 0, **wanted}]


# --- the deprecated form ------------------------------------------------------------------------------------------


def test_deprecated_functions_travel_as_tools_and_come_back_as_they_were() -> None:
    given = {
        "messages": [
            user(),
            {"role": "assistant", "content": None, "function_call": {"name": "a", "arguments": "{}"}},
            {"role": "function", "name": "a", "content": "done"},
        ],
        "functions": [{"name": "a", "parameters": {}}],
        "function_call": {"name": "a"},
    }
    body, losses = encoded(given)
    assert pointers(losses) == [("/functions", "emulated")]
    assert body["tools"][0]["name"] == "a"
    assert body["tool_choice"] == {"type": "tool", "name": "a", "disable_parallel_tool_use": True}
    assert body["messages"][1]["content"][0]["id"] == body["messages"][2]["content"][0]["tool_use_id"]
    codec = codec_of(given)
    choice = whole(codec, [{"type": "tool_use", "id": "t", "name": "a", "input": {"x": 1}}], "tool_use")
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "a", "arguments": '{"x":1}'}
    assert "tool_calls" not in choice["message"]
    chunks = streamed(
        codec_of(given | {"stream": True}),
        message_start(),
        *tool_events(0, "t", "a", '{"x"', ":1}"),
        *ending("tool_use"),
    )
    deltas = [
        c["delta"]["function_call"] for chunk in chunks for c in chunk["choices"] if "function_call" in c["delta"]
    ]
    assert deltas[0] == {"name": "a", "arguments": ""}
    assert "".join(delta["arguments"] for delta in deltas) == '{"x":1}'
    assert chunks[-2]["choices"][0]["finish_reason"] == "function_call"


# --- the form of the answer ---------------------------------------------------------------------------------------


def test_a_schema_is_asked_for_natively_where_the_model_takes_it() -> None:
    body, losses = encoded(chat(response_format=form(), tools=TOOLS), ADAPTIVE)
    sent = body["output_config"]["format"]
    assert sent["type"] == "json_schema"
    assert sent["schema"]["additionalProperties"] is False
    assert [tool["name"] for tool in body["tools"]] == ["a", "b"]
    assert [loss.pointer for loss in losses] == ["/response_format/json_schema/schema/properties/n/minimum"]


def test_a_schema_is_emulated_by_a_forced_tool_whose_input_is_the_answer() -> None:
    codec = codec_of(chat(response_format=form(), stream=True), OLD)
    body, losses = encoded(chat(response_format=form()), OLD)
    assert body["tools"][0]["input_schema"] == SCHEMA
    assert body["tool_choice"] == {"type": "tool", "name": body["tools"][0]["name"]}
    assert pointers(losses) == [("/response_format", "emulated")]
    name = body["tools"][0]["name"]
    choice = whole(codec, [{"type": "tool_use", "id": "t", "name": name, "input": {"n": 3}}], "tool_use")
    assert choice["message"]["content"] == '{"n":3}'
    assert choice["finish_reason"] == "stop"
    assert "tool_calls" not in choice["message"]
    chunks = streamed(codec, message_start(), *tool_events(0, "t", name, '{"n"', ":3}"), *ending("tool_use"))
    check_laws(chunks)
    reading = read_chunks(chunks)
    assert (reading.text, reading.tool_calls, reading.finish_reason) == ('{"n":3}', [], "stop")


def test_a_schema_that_is_no_object_is_emulated_too() -> None:
    fields = {"response_format": form({"type": "array", "items": {"type": "integer"}}), "stream": True}
    codec = codec_of(chat(**fields), OLD)
    name = encoded(chat(**fields), OLD)[0]["tools"][0]["name"]
    block = {"type": "tool_use", "id": "t", "name": name, "input": {"answer": [1, 2]}}
    assert whole(codec, [block], "tool_use")["message"]["content"] == "[1,2]"
    chunks = streamed(codec, message_start(), *tool_events(0, "t", name, '{"answer": [1', ",2]}"), *ending("tool_use"))
    assert read_chunks(chunks).text == "[1,2]"


def test_an_emulated_schema_leaves_the_clients_tools_their_turn() -> None:
    body, _ = encoded(chat(response_format=form(), tools=TOOLS), OLD)
    assert [tool["name"] for tool in body["tools"]][:2] == ["a", "b"]
    assert body["tool_choice"] == {"type": "any"}
    codec = codec_of(chat(response_format=form(), tools=TOOLS), OLD)
    choice = whole(codec, [{"type": "tool_use", "id": "t", "name": "a", "input": {}}], "tool_use")
    assert choice["finish_reason"] == "tool_calls"


def test_one_call_at_a_time_is_kept_beside_an_emulated_schema() -> None:
    body, _ = encoded(chat(response_format=form(), tools=TOOLS, parallel_tool_calls=False), OLD)
    assert body["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    functions = [tool["function"] for tool in TOOLS]
    body, _ = encoded(chat(response_format=form(), functions=functions), OLD)
    assert body["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}


def test_a_tool_that_the_client_forces_stands_before_the_form() -> None:
    body, _ = encoded(chat(response_format=form(), tools=TOOLS, tool_choice=NAMED), OLD)
    assert body["tool_choice"] == {"type": "tool", "name": "a"}
    assert "JSON schema" in body["system"][0]["text"]


def test_a_schema_of_open_objects_is_not_closed_behind_the_clients_back() -> None:
    schema = {"type": "object", "additionalProperties": {"type": "string"}}
    body, losses = encoded(chat(response_format=form(schema)), BUDGET)
    assert "output_config" not in body
    assert body["tools"][0]["input_schema"] == schema
    assert pointers(losses) == [("/response_format", "emulated")]


def test_a_schema_beside_thinking_is_put_into_words_where_it_is_not_native() -> None:
    body, losses = encoded(chat(response_format=form(), reasoning_effort="low"), "claude-opus-4-1")
    assert "tools" not in body
    assert '"minimum":1' in body["system"][0]["text"]
    assert pointers(losses) == [("/response_format", "emulated")]


def test_json_object_is_put_into_words() -> None:
    body, losses = encoded(chat(response_format={"type": "json_object"}))
    assert "one JSON object" in body["system"][0]["text"]
    assert pointers(losses) == [("/response_format", "emulated")]
