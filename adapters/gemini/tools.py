"""Functions and the choice among them as Gemini's `tools` and `toolConfig`.

https://ai.google.dev/api/caching#Tool
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from gw.adapters.gemini.draft import Draft
from gw.adapters.gemini.openapi_schema import for_openapi
from gw.chat_parts import refusal
from gw.json_schema import Fitted, for_gemini
from gw.message import Loss
from gw.schema_parts import Schema

_CUSTOM_INPUT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


def encode_tools(chat: Mapping[str, Any], body: dict[str, Any], draft: Draft) -> None:
    """Put `tools` and `toolConfig` into the body. Raises InvalidRequest for tools that Gemini cannot have."""
    tools = chat.get("tools")
    declarations = [_declaration(tool, f"/tools/{at}", draft) for at, tool in enumerate(tools)] if tools else []
    entries: list[dict[str, Any]] = []
    if declarations:
        entries.append({"functionDeclarations": declarations})
    search = chat.get("web_search_options")
    if search is not None:
        entries.append({"googleSearch": {}})
        _check_search(search, bool(declarations), draft)
    if entries:
        body["tools"] = entries
    config = _choice(chat.get("tool_choice"), draft, {one["name"] for one in declarations})
    if config is not None:
        body["toolConfig"] = {"functionCallingConfig": config}
    if declarations and search is not None and not draft.is_vertex:
        # AI Studio asks for it by name where it is missing (https://ai.google.dev/gemini-api/docs/tool-combination);
        # Vertex has no such field.
        body.setdefault("toolConfig", {})["includeServerSideToolInvocations"] = True
    if chat.get("parallel_tool_calls") is False and declarations:
        draft.drop("/parallel_tool_calls", f"{draft.provider} may call several functions at once")


def _check_search(search: Any, has_functions: bool, draft: Draft) -> None:
    if has_functions and not draft.traits.schema_with_tools:
        raise refusal(
            "/web_search_options",
            f"{draft.provider} searches the web beside functions only from Gemini 3 on: leave out one of the two",
            code="unsupported_parameter",
        )
    for name in search if isinstance(search, dict) else ():
        draft.drop(f"/web_search_options/{name}", "Google Search takes no settings")


def _declaration(tool: Any, pointer: str, draft: Draft) -> dict[str, Any]:
    kind = tool.get("type", "function") if isinstance(tool, dict) else None
    if kind == "custom":
        return _custom_declaration(tool.get("custom") or {}, pointer, draft)
    function = tool.get("function") if isinstance(tool, dict) else None
    if kind != "function" or not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise refusal(
            f"{pointer}/type",
            f"{draft.provider} takes tools of type function and custom with a name, not {kind!r}",
            code="unsupported_value",
        )
    declaration: dict[str, Any] = {"name": _wire_name(function["name"], f"{pointer}/function/name", draft)}
    if function.get("description"):
        declaration["description"] = function["description"]
    parameters = function.get("parameters")
    if parameters:
        field, schema = fit_schema(parameters, f"{pointer}/function/parameters", "parameters", draft)
        declaration[field] = schema
    if function.get("strict"):
        draft.drop(f"{pointer}/function/strict", f"{draft.provider} has no strict functions")
    if tool.get("cache_control"):
        draft.drop(f"{pointer}/cache_control", f"{draft.provider} caches by itself")
    return declaration


def _wire_name(name: str, pointer: str, draft: Draft) -> str:
    wire = draft.names.to_wire(name)
    if wire != name:
        draft.change(pointer, f"{draft.provider} sees it as {wire}")
    return wire


def _custom_declaration(custom: Mapping[str, Any], pointer: str, draft: Draft) -> dict[str, Any]:
    """A custom tool as a function of one text. A grammar cannot be kept."""
    name = custom.get("name")
    if not isinstance(name, str) or not name:
        raise refusal(f"{pointer}/custom/name", "a custom tool needs a name")
    form = custom.get("format")
    if isinstance(form, dict) and form.get("type") == "grammar":
        raise refusal(
            f"{pointer}/custom/format", f"{draft.provider} has no grammars for tools", code="unsupported_parameter"
        )
    draft.names.custom.add(name)
    draft.emulate(pointer, "a function with one text, input")
    declaration: dict[str, Any] = {"name": _wire_name(name, f"{pointer}/custom/name", draft)}
    if custom.get("description"):
        declaration["description"] = custom["description"]
    declaration["parametersJsonSchema" if draft.traits.json_schema else "parameters"] = _CUSTOM_INPUT
    return declaration


def fit_schema(schema: Any, pointer: str, kind: str, draft: Draft) -> tuple[str, Schema]:
    """The field and the schema for `parameters` or `response`: JSON Schema, or the OpenAPI subset before Gemini 2.0.

    Raises InvalidRequest where it is no object or too deep.
    """
    if not isinstance(schema, dict):
        raise refusal(pointer, "a JSON schema must be an object")
    json_field, plain_field = (
        ("parametersJsonSchema", "parameters") if kind == "parameters" else ("responseJsonSchema", "responseSchema")
    )
    field = json_field if draft.traits.json_schema else plain_field
    raw = orjson.dumps(schema)
    fit = _remembered if len(raw) <= _REMEMBERED else _fitted
    try:
        fitted = fit(raw, draft.traits.json_schema, kind)
    except ValueError as error:
        raise refusal(pointer, str(error)) from None
    draft.losses += [Loss(pointer + loss.pointer, loss.kind, loss.detail) for loss in fitted.losses]
    return field, fitted.schema


def _fitted(raw: bytes, is_json: bool, kind: str) -> Fitted:
    """The schema as it is sent, for reading only; its losses have pointers into itself."""
    schema = orjson.loads(raw)
    return for_gemini(schema, "") if is_json else _plain(schema, kind)


# Agents send the same tools with every request.
_REMEMBERED = 8 * 1024  # bytes of one schema
_remembered = lru_cache(maxsize=256)(_fitted)


def _plain(schema: Schema, kind: str) -> Fitted:
    fitted = for_openapi(schema, "")
    if kind == "parameters" and not fitted.schema.get("properties"):
        # An object without properties is refused there; one that is never filled is not.
        unused = {"type": "object", "properties": {"_": {"type": "string", "nullable": True}}}
        return Fitted(unused, fitted.losses)
    return fitted


def _choice(choice: Any, draft: Draft, declared: set[str]) -> dict[str, Any] | None:
    if choice is None:
        return None
    if not declared:
        if choice not in ("none", "auto"):
            raise refusal("/tool_choice", "tool_choice asks for a tool, and there are no tools")
        return None
    if isinstance(choice, str):
        if choice not in _MODES:
            raise refusal("/tool_choice", f"tool_choice is auto, none, required or a tool, not {choice!r}")
        return {"mode": _MODES[choice]}
    if not isinstance(choice, dict):
        raise refusal("/tool_choice", "tool_choice must be a string or an object")
    if choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools") or choice
        names = [
            _chosen(one, f"/tool_choice/allowed_tools/tools/{at}", draft, declared)
            for at, one in enumerate(allowed.get("tools") or ())
        ]
        # AUTO takes no list of names; VALIDATED is the mode that leaves the model free and does.
        return {"mode": "ANY" if allowed.get("mode") == "required" else "VALIDATED", "allowedFunctionNames": names}
    return {"mode": "ANY", "allowedFunctionNames": [_chosen(choice, "/tool_choice", draft, declared)]}


def _chosen(choice: Any, pointer: str, draft: Draft, declared: set[str]) -> str:
    kind = "custom" if isinstance(choice, dict) and choice.get("type") == "custom" else "function"
    inner = choice.get(kind) if isinstance(choice, dict) else None
    name = inner.get("name") if isinstance(inner, dict) else choice.get("name") if isinstance(choice, dict) else None
    wire = draft.names.to_wire(name) if isinstance(name, str) else ""
    if wire not in declared:
        raise refusal(f"{pointer}/{kind}/name", f"tool_choice names {name!r}, which is not among the tools")
    return wire
