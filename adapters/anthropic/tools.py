"""Tools and the choice among them, in Claude's words; what Claude has no word for is emulated and told."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gw.adapters.anthropic.plan import Plan
from gw.chat_parts import refusal
from gw.json_schema import Fitted, for_anthropic_input, for_anthropic_output
from gw.losses import escape

_SERVER_TOOL = re.compile(r"[a-z_]+_20\d{6}")  # Anthropic's own tools carry the date of their version


def encode_tools(tools: Any, plan: Plan) -> list[dict[str, Any]]:
    """`tools` as Claude's, their names noted in the plan. Raises InvalidRequest for kinds that it does not have."""
    encoded = []
    for index, tool in enumerate(tools or ()):
        pointer = f"/tools/{index}"
        kind = tool.get("type", "function") if isinstance(tool, dict) else type(tool).__name__
        if kind == "function":
            encoded.append(_function(tool, pointer, plan))
        elif kind == "custom":
            encoded.append(_custom(tool, pointer, plan))
        elif isinstance(kind, str) and _SERVER_TOOL.fullmatch(kind):
            encoded.append(dict(tool))
        else:
            raise plan.cannot(pointer, f"use a tool of type {kind!r}")
        if isinstance(tool.get("cache_control"), dict) or isinstance(
            (tool.get("function") or {}).get("cache_control"), dict
        ):
            encoded[-1].pop("cache_control", None)
            plan.mark(encoded[-1], tool if "cache_control" in tool else tool["function"], pointer)
    return encoded


def _function(tool: Mapping[str, Any], pointer: str, plan: Plan) -> dict[str, Any]:
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str) or not name:
        raise refusal(pointer + "/function/name", "a tool needs a function with a name")
    encoded: dict[str, Any] = {"name": plan.wire_name(name)}
    if encoded["name"] != name:
        plan.lose(pointer + "/function/name", "changed", f"called {encoded['name']} upstream")
    if isinstance(function.get("description"), str):
        encoded["description"] = function["description"]
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise refusal(pointer + "/function/parameters", "parameters must be a JSON schema")
    place = pointer + "/function/parameters"
    if not parameters:
        schema: dict[str, Any] = {"type": "object", "properties": {}}
    else:
        try:
            schema, losses = for_anthropic_input(parameters, place)
        except ValueError as error:
            raise refusal(place, f"this schema cannot be used: {error}") from None
        plan.losses += losses
    if function.get("strict"):
        strict = closed(schema, place)
        if strict is not None and plan.model.has("structured"):
            encoded["strict"] = True
            schema = strict.schema
            plan.losses += strict.losses
        else:
            plan.lose(pointer + "/function/strict", "dropped", "Claude is not held to schemas like this one")
    encoded["input_schema"] = schema
    return encoded


def closed(schema: dict[str, Any], pointer: str) -> Fitted | None:
    """The schema as structured outputs take it; None where it needs what they have not."""
    try:
        return for_anthropic_output(schema, pointer)
    except ValueError as error:
        raise refusal(pointer, f"this schema cannot be used: {error}") from None


def _custom(tool: Mapping[str, Any], pointer: str, plan: Plan) -> dict[str, Any]:
    custom = tool.get("custom")
    name = custom.get("name") if isinstance(custom, dict) else None
    if not isinstance(custom, dict) or not isinstance(name, str) or not name:
        raise refusal(pointer + "/custom/name", "a custom tool needs a name")
    form = custom.get("format")
    if isinstance(form, dict) and form.get("type") not in (None, "text"):
        raise plan.cannot(pointer + "/custom/format", "hold a tool's input to a grammar")
    wire_name = plan.wire_name(name)
    plan.custom.add(wire_name)
    plan.lose(pointer, "emulated", "a custom tool travels as a function with one text")
    encoded: dict[str, Any] = {"name": wire_name}
    if isinstance(custom.get("description"), str):
        encoded["description"] = custom["description"]
    encoded["input_schema"] = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
    return encoded


def stub_tools(names: Sequence[str], plan: Plan) -> list[dict[str, Any]]:
    """Declarations for tools that only the history knows, so that Claude accepts it."""
    plan.lose("/tools", "emulated", "tools of the history declared, and not to be called")
    return [{"name": plan.wire_name(name), "input_schema": {"type": "object", "properties": {}}} for name in names]


def web_search(options: Any, plan: Plan) -> dict[str, Any]:
    """`web_search_options` as Anthropic's own search tool."""
    tool: dict[str, Any] = {"type": "web_search_20250305", "name": "web_search"}
    for name, value in options.items() if isinstance(options, dict) else ():
        if name == "user_location" and isinstance(value, dict) and isinstance(value.get("approximate"), dict):
            tool["user_location"] = {"type": "approximate", **value["approximate"]}
        elif value is not None and (name, value) != ("search_context_size", "medium"):  # the default
            plan.lose(f"/web_search_options/{escape(name)}", "dropped", "Claude's web search has no such setting")
    return tool


# --- the choice -----------------------------------------------------------------------------------------------------


def choose(
    chat: Mapping[str, Any], tools: list[dict[str, Any]], is_thinking: bool, plan: Plan
) -> tuple[list[dict[str, Any]], dict[str, Any] | None, str]:
    """The tools to send, Claude's `tool_choice` (None: not sent) and an instruction ("" for none)."""
    choice = chat.get("tool_choice")
    names = [tool["name"] for tool in tools]
    encoded: dict[str, Any] | None = None
    if choice is None or choice == "auto":
        encoded = None if choice is None else {"type": "auto"}
    elif choice == "none":
        encoded = {"type": "none"}
    elif choice == "required":
        encoded = {"type": "any"}
    elif isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        tools, encoded = _allowed(choice, tools, plan)
    elif isinstance(choice, dict):
        named = choice.get("function") or choice.get("custom")
        name = plan.wire_name(str((named or {}).get("name") or ""))
        if name not in names:
            raise refusal("/tool_choice", f"tool_choice names {name!r}, which is not among the tools")
        encoded = {"type": "tool", "name": name}
    else:
        raise refusal("/tool_choice", f"tool_choice cannot be {choice!r}: use auto, none, required or a function")
    if not tools:
        if encoded is not None and encoded["type"] in ("any", "tool"):
            raise refusal("/tool_choice", "tool_choice asks for a call, and there are no tools")
        return tools, None, ""
    instruction = ""
    if encoded is not None and encoded["type"] in ("any", "tool"):
        encoded, instruction = _forced(encoded, is_thinking, plan)
    # A client of `functions` can read one call only.
    if (chat.get("parallel_tool_calls") is False or plan.is_deprecated) and (
        encoded is None or encoded["type"] != "none"
    ):
        encoded = {**(encoded or {"type": "auto"}), "disable_parallel_tool_use": True}
    return tools, encoded, instruction


def _allowed(
    choice: Mapping[str, Any], tools: list[dict[str, Any]], plan: Plan
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    allowed = choice.get("allowed_tools")
    allowed = allowed if isinstance(allowed, dict) else choice
    wanted = {
        plan.wire_name(str((item.get("function") or item.get("custom") or item).get("name") or ""))
        for item in allowed.get("tools") or ()
        if isinstance(item, dict)
    }
    kept = [tool for tool in tools if tool["name"] in wanted]
    if not kept:
        raise refusal("/tool_choice/allowed_tools/tools", "none of the allowed tools is among the tools")
    plan.lose("/tool_choice", "emulated", "only the allowed tools are sent")
    return kept, {"type": "any" if allowed.get("mode") == "required" else "auto"}


def _forced(encoded: dict[str, Any], is_thinking: bool, plan: Plan) -> tuple[dict[str, Any], str]:
    """The choice as it is, or auto with an instruction where Claude cannot be forced."""
    if plan.model.has("forced_tool") and not is_thinking:
        return encoded, ""
    plan.lose("/tool_choice", "emulated", "Claude is told to call a tool, and not forced")
    if encoded["type"] == "tool":
        return {"type": "auto"}, f"Answer this turn by calling the tool {encoded['name']}, and nothing else."
    return {"type": "auto"}, "Answer this turn by calling one of the tools, and nothing else."
