"""Tools, the choice among them and their names as Gemini wants them; what a schema loses is told."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gw.message import Loss
from tests.gemini_fakes import TOOL, USER, WEB, call, open_codec, result, sent

# --- tools ----------------------------------------------------------------------------------------------------------


def test_functions_are_declared_in_one_entry_with_json_schema() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
    tools = [
        {"type": "function", "function": {"name": "f", "description": "F", "parameters": schema}},
        {"type": "function", "function": {"name": "g"}},
    ]
    assert sent({"tools": tools})["tools"] == [
        {
            "functionDeclarations": [
                {"name": "f", "description": "F", "parametersJsonSchema": schema},
                {"name": "g"},
            ]
        }
    ]


def test_models_before_2_get_the_openapi_subset() -> None:
    schema = {"type": "object", "properties": {"a": {"const": "x"}}, "$schema": "s", "additionalProperties": False}
    tools = [
        {"type": "function", "function": {"name": "f", "parameters": schema}},
        {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}},
    ]
    first, second = sent({"tools": tools}, "gemini-1.5-pro")["tools"][0]["functionDeclarations"]
    assert first["parameters"] == {"type": "object", "properties": {"a": {"enum": ["x"], "type": "string"}}}
    assert second["parameters"]["properties"]


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "f"}}, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TOOL]}},
            {"mode": "ANY", "allowedFunctionNames": ["f"]},
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOL]}},
            {"mode": "VALIDATED", "allowedFunctionNames": ["f"]},
        ),
    ],
    ids=str,
)
def test_a_tool_choice_is_a_mode(choice: Any, config: dict[str, Any]) -> None:
    assert sent({"tools": [TOOL], "tool_choice": choice})["toolConfig"] == {"functionCallingConfig": config}


def test_a_tool_choice_without_tools_is_nothing() -> None:
    assert "toolConfig" not in sent({"tool_choice": "none"})


def test_names_that_gemini_refuses_are_renamed_everywhere_and_stay_apart() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("1 a", "1:a", "1.a", "1/a")]
    chat = {
        "tools": tools,
        "tool_choice": {"type": "function", "function": {"name": "1/a"}},
        "messages": [USER, {"role": "assistant", "tool_calls": [call("c", "1/a")]}, result("c")],
    }
    body = sent(chat)
    names = [one["name"] for one in body["tools"][0]["functionDeclarations"]]
    assert len(set(names)) == 4
    assert body["toolConfig"]["functionCallingConfig"]["allowedFunctionNames"] == [names[3]]
    assert body["contents"][1]["parts"][0]["functionCall"]["name"] == names[3]
    assert body["contents"][2]["parts"][0]["functionResponse"]["name"] == names[3]


@pytest.mark.parametrize("names", [["1", "_1"], ["_1", "1"]])
def test_a_renamed_function_never_takes_the_name_of_another(names: list[str]) -> None:
    codec = open_codec({"tools": [{"type": "function", "function": {"name": name}} for name in names]})
    declared = orjson.loads(codec.wire.content)["tools"][0]["functionDeclarations"]
    parts = [{"functionCall": {"name": one["name"], "args": {}}} for one in declared]
    answer = orjson.dumps({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]})
    message = orjson.loads(codec.complete(answer).raw)["choices"][0]["message"]
    assert [one["function"]["name"] for one in message["tool_calls"]] == names


def test_web_search_is_googles_own_tool() -> None:
    assert sent(WEB)["tools"] == [{"googleSearch": {}}]
    body = sent(WEB | {"tools": [TOOL]}, "gemini-3-flash-preview")
    assert [list(entry) for entry in body["tools"]] == [["functionDeclarations"], ["googleSearch"]]
    assert body["toolConfig"] == {"includeServerSideToolInvocations": True}


def test_beside_tools_older_models_are_told_the_schema_in_words() -> None:
    wanted = {"type": "json_schema", "json_schema": {"schema": {"type": "object", "title": "Canary"}}}
    body = sent({"tools": [TOOL], "response_format": wanted})
    assert "generationConfig" not in body
    assert "Canary" in body["systemInstruction"]["parts"][-1]["text"]


def test_what_a_schema_loses_is_told_with_its_place_in_the_request() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^x"}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    assert open_codec({"tools": tools}).losses == [
        Loss("/tools/0/function/parameters/properties/a/pattern", "emulated", "moved into the description")
    ]
