"""Conversations that grow turn by turn, with what dialects write differently: a picture, tools, thinking, JSON."""

from __future__ import annotations

from typing import Any

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
TOOLS = [
    {"type": "function", "function": {"name": "look up.it", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "g", "description": "G"}},
]
PICTURE: dict[str, Any] = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}


def call(at: int) -> dict[str, Any]:
    return {"id": f"call:{at}", "type": "function", "function": {"name": "look up.it", "arguments": '{"a": "x"}'}}


LOOK: list[dict[str, Any]] = [{"type": "text", "text": "Look"}, PICTURE]


def turn(*messages: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in messages]


TALK = [
    turn(("system", "Be brief."), ("user", "Hi")),
    turn(("assistant", "Hello!"), ("user", LOOK)),
    [{"role": "assistant", "content": "Hm.", "reasoning_content": "Hm."}, *turn(("user", "And now?"))],
    turn(("assistant", "Now?"), ("developer", "Be polite."), ("user", "Well?")),
]
LOOP: list[dict[str, Any]] = [
    {"role": "assistant", "content": None, "tool_calls": [call(1), call(2)]},
    {"role": "tool", "tool_call_id": "call:1", "content": "42"},
    {"role": "tool", "tool_call_id": "call:2", "content": ""},
]
SCENES: dict[str, tuple[list[list[dict[str, Any]]], dict[str, Any]]] = {
    "talk": (TALK, {}),
    "tools": ([*TALK[:2], LOOP, *TALK[2:]], {"tools": TOOLS}),
    "json": (TALK, {"response_format": {"type": "json_object"}}),
}
