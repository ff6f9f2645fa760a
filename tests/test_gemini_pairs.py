"""What goes to Gemini means what a real client sent there and Google accepted, for the same conversation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.gemini_fakes import sent

# --- the same conversation at two providers --------------------------------------------------------------------------

WIRE = Path(__file__).resolve().parents[2] / "shared" / "fixtures" / "wire"


def pairs() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    if not (WIRE / "PAIRS.json").exists():
        return []
    found = []
    for group in json.loads((WIRE / "PAIRS.json").read_bytes()):
        members = {
            member["provider"]: json.loads((WIRE / member["provider"] / f"{member['id']}.json").read_bytes())
            for member in group["members"]
            if member["provider"] in ("openai", "gemini")
        }
        if len(members) == 2:
            found.append((group["group"], members["openai"]["request_body"], members["gemini"]))
    return found


def meaning(body: dict[str, Any]) -> dict[str, Any]:
    """What a Gemini request says, without ids, signatures, defaults and the names of keys that are free."""
    turns = []
    for content in body["contents"]:
        parts: list[Any] = []
        for part in content["parts"]:
            if "text" in part:
                parts.append(part["text"])
            elif "functionCall" in part:
                parts.append(("call", part["functionCall"]["name"], part["functionCall"].get("args") or {}))
            else:
                response = part["functionResponse"]
                parts.append(("result", response["name"], list(response["response"].values())))
        turns.append((content["role"], parts))
    tools = {}
    for entry in body.get("tools") or ():
        for one in entry["functionDeclarations"]:
            schema = dict(one.get("parametersJsonSchema") or one.get("parameters_json_schema") or {})
            schema.pop("additionalProperties", None)  # the recorded client sends it for some tools only
            tools[one["name"]] = (one.get("description"), schema)
    choice = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
    return {
        "turns": turns,
        "tools": tools,
        "mode": choice.get("mode"),
        "stop": (body.get("generationConfig") or {}).get("stopSequences"),
    }


@pytest.mark.parametrize(("group", "chat", "case"), pairs(), ids=lambda value: value if isinstance(value, str) else "")
def test_the_same_conversation_means_what_the_recorded_client_sent(
    group: str, chat: dict[str, Any], case: dict[str, Any]
) -> None:
    ours, theirs = meaning(sent(chat, case["model"])), meaning(case["request_body"])
    assert ours == theirs
