"""What goes to Groq and Mistral means what a real client sent there and they accepted, for the same conversation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.openai_requests import body, send
from tests.recordings import Case, cases

_WIRE = Path(__file__).resolve().parents[2] / "shared" / "fixtures" / "wire"


def pairs() -> list[tuple[Case, Case]]:
    """(what a client sent to OpenAI, what it sent to the other host) for the same conversation."""
    path = _WIRE / "PAIRS.json"
    if not path.exists():
        return []
    by_id = {case.id: case for case in cases("openai-chat")}
    found = []
    for group in json.loads(path.read_bytes()):
        members = {member["provider"]: by_id.get(member["id"]) for member in group["members"]}
        ours = members.get("openai")
        for host in ("groq", "mistral"):
            theirs = members.get(host)
            if ours is not None and theirs is not None and ours.request_body and theirs.request_body:
                found.append((ours, theirs))
    return found


def meaning(chat: dict[str, Any]) -> dict[str, Any]:
    """A chat request without what clients add of their own: roles, texts, calls, tools, their choice, stop."""
    ids: dict[str, int] = {}
    turns: list[Any] = []
    for message in chat["messages"]:
        calls = [
            (ids.setdefault(call["id"], len(ids)), call["function"]["name"], json.loads(call["function"]["arguments"]))
            for call in message.get("tool_calls") or ()
        ]
        answered = message.get("tool_call_id")
        of = None if answered is None else ids.setdefault(answered, len(ids))
        turns.append((message["role"], _text(message.get("content")), calls, of))
    choice = chat.get("tool_choice") or "auto"
    stop = chat.get("stop") or []
    return {
        "turns": turns,
        "tools": {tool["function"]["name"]: _fields(tool["function"]) for tool in chat.get("tools") or ()},
        "choice": "required" if choice == "any" else choice,
        "stop": [stop] if isinstance(stop, str) else stop,
        "stream": bool(chat.get("stream")),
    }


def _text(content: Any) -> str:
    return content or "" if isinstance(content, str | None) else "".join(part.get("text") or "" for part in content)


def _fields(function: dict[str, Any]) -> dict[str, Any]:
    schema = function.get("parameters") or {}
    return {name: value.get("type") for name, value in (schema.get("properties") or {}).items()}


@pytest.mark.parametrize("pair", pairs(), ids=lambda pair: pair[1].id)
def test_the_same_conversation_means_the_same(pair: tuple[Case, Case]) -> None:
    ours, theirs = pair
    assert ours.request_body is not None
    assert theirs.request_body is not None
    codec = send(orjson.dumps(ours.request_body), dialect=theirs.provider, model=theirs.model)
    sent, accepted = meaning(orjson.loads(codec.wire.content)), meaning(theirs.request_body)
    if "tools-plus-output" in theirs.id:  # this client left a tool out where it may choose among all of them
        sent["tools"] = {name: sent["tools"].get(name) for name in accepted["tools"]}
    if isinstance(sent["choice"], dict) and accepted["choice"] == "required" and len(accepted["tools"]) == 1:
        sent["choice"], sent["tools"] = "required", accepted["tools"]  # naming one of one is asking for any
    assert sent == accepted


def test_the_recorded_hosts_get_a_forced_tool_as_they_take_it() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in "ab"]
    choice = {"type": "function", "function": {"name": "b"}}
    assert body({"tools": tools, "tool_choice": choice}, dialect="groq")["tool_choice"] == choice
    sent = body({"tools": tools, "tool_choice": choice}, dialect="mistral")
    assert (sent["tool_choice"], sent["tools"]) == ("any", tools[1:])
