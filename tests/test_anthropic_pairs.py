"""What the adapter sends means what a real client sent and Anthropic accepted; and it has the types of the real SDK."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.anthropic_fakes import ADAPTIVE, BUDGET, OLD, called, codec_of, encoded, function, meaning, result, user
from tests.recordings import Case, cases

_WIRE = Path(__file__).resolve().parents[2] / "shared" / "fixtures" / "wire"


def pairs() -> list[tuple[Case, Case]]:
    """(what a client sent to OpenAI, what it sent to Anthropic) for the same conversation."""
    path = _WIRE / "PAIRS.json"
    if not path.exists():
        return []
    by_id = {case.id: case for dialect in ("openai-chat", "anthropic-messages") for case in cases(dialect)}
    found = []
    for group in json.loads(path.read_bytes()):
        members = {member["provider"]: by_id.get(member["id"]) for member in group["members"]}
        ours, theirs = members.get("openai"), members.get("anthropic")
        if ours is not None and theirs is not None and ours.request_body and theirs.request_body:
            found.append((ours, theirs))
    return found


@pytest.mark.parametrize("pair", pairs(), ids=lambda pair: pair[1].id)
def test_the_same_conversation_means_the_same(pair: tuple[Case, Case]) -> None:
    ours, theirs = pair
    assert ours.request_body is not None
    assert theirs.request_body is not None
    sent, accepted = meaning(encoded(ours.request_body, theirs.model)[0]), meaning(theirs.request_body)
    if "tools-plus-output" in theirs.id:  # this client left a tool out where it may choose among all of them
        sent["tools"] = {name: sent["tools"].get(name) for name in accepted["tools"]}
    assert sent == accepted


# --- the real SDK as a referee ------------------------------------------------------------------------------------

anthropic_types = pytest.importorskip("anthropic.types", reason="the anthropic package is not installed")
pydantic = pytest.importorskip("pydantic")

_PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=="
_SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"]}
_LOOP = [
    user(),
    called(("1", "look", '{"x":1}'), content="So."),
    result("1", [{"type": "text", "text": "r"}]),
    user("?"),
]
_DETAILS = [
    {"type": "reasoning.text", "text": "T", "signature": "S", "format": "anthropic-claude-v1", "index": 0},
    {"type": "reasoning.encrypted", "data": "D", "format": "anthropic-claude-v1", "index": 1},
]
_REQUESTS: list[tuple[str, dict[str, Any]]] = [
    (BUDGET, {"messages": [user()], "temperature": 0.3, "stop": "E", "user": "u", "service_tier": "default"}),
    (BUDGET, {"messages": _LOOP, "tools": [function("look", _SCHEMA, strict=True, description="d")], "stream": True}),
    (BUDGET, {"messages": _LOOP}),
    (
        BUDGET,
        {"messages": [user()], "tools": [function("a b")], "tool_choice": "required", "parallel_tool_calls": False},
    ),
    (BUDGET, {"messages": [user()], "reasoning_effort": "high", "response_format": {"type": "json_object"}}),
    (ADAPTIVE, {"messages": [user()], "reasoning_effort": "xhigh", "tools": [function()], "tool_choice": "none"}),
    (ADAPTIVE, {"messages": [user(), {"role": "developer", "content": "S"}, user()], "reasoning_effort": "none"}),
    (
        ADAPTIVE,
        {
            "messages": [user()],
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": _SCHEMA}},
        },
    ),
    (
        OLD,
        {
            "messages": [user()],
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": _SCHEMA}},
        },
    ),
    (OLD, {"messages": [user()], "tools": [{"type": "custom", "custom": {"name": "sh"}}], "web_search_options": {}}),
    (OLD, {"messages": [user()], "functions": [{"name": "f"}], "function_call": {"name": "f"}}),
    (BUDGET, {"messages": [_LOOP[0], _LOOP[1] | {"reasoning_details": _DETAILS}, *_LOOP[2:]], "tools": [function()]}),
    (
        BUDGET,
        {
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "S", "cache_control": {"type": "ephemeral"}}]},
                user(
                    [
                        {"type": "image_url", "image_url": {"url": _PIXEL}},
                        {"type": "image_url", "image_url": {"url": "https://e.example/i.png"}},
                        {
                            "type": "file",
                            "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
                        },
                        {"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain;base64,QQ=="}},
                        {"type": "text", "text": "Hi", "prompt_cache_breakpoint": {"mode": "explicit"}},
                    ]
                ),
            ]
        },
    ),
]


@pytest.fixture(scope="module")
def request_type() -> Any:
    return pydantic.TypeAdapter(anthropic_types.message_create_params.MessageCreateParams)


def check_against(request_type: Any, content: bytes) -> None:
    body = orjson.loads(content)
    read = request_type.validate_python(body)
    known = anthropic_types.message_create_params.MessageCreateParamsBase.__annotations__
    # SDK 2 has forgotten the sampling fields, which older models still take.
    assert set(body) <= {*known, "stream", "temperature", "top_p", "top_k"}
    for turn in read["messages"]:  # the types hold content as a lazy iterable: read it, or nothing is checked
        if not isinstance(turn["content"], str):
            list(turn["content"])
    for name in ("tools", "system"):
        if not isinstance(read.get(name), str):
            list(read.get(name) or ())


@pytest.mark.parametrize(("model", "chat"), _REQUESTS)
def test_what_goes_out_has_the_types_of_the_sdk(model: str, chat: dict[str, Any], request_type: Any) -> None:
    check_against(request_type, codec_of(chat, model).wire.content)


@pytest.mark.parametrize("pair", pairs(), ids=lambda pair: pair[1].id)
def test_recorded_conversations_have_the_types_of_the_sdk(pair: tuple[Case, Case], request_type: Any) -> None:
    ours, theirs = pair
    check_against(request_type, codec_of(ours.request_body, theirs.model).wire.content)
