"""An OpenAI chat request as the body of Ollama's /api/chat, with everything told that it cannot carry.

https://docs.ollama.com/api/chat
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gw.adapters.ollama.messages import encode_messages
from gw.chat_parts import refusal
from gw.losses import unknown_fields
from gw.message import Loss

EXTENSION = "ollama"  # the field whose content goes into the body as it is

_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
}
# What is translated, and what the gateway itself answers for.
_KNOWN = frozenset(
    {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "stop", "n", "logprobs"}
    | {"top_logprobs", "tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort"}
    | {"reasoning", "modalities", "audio", "web_search_options", "service_tier", "backend", "session_id", EXTENSION}
) | set(_OPTIONS)
_WORDS: Mapping[str, bool | str] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "max": "max",
}


def encode_request(
    chat: Mapping[str, Any], model: str, is_stream: bool, options: Mapping[str, Any], losses: list[Loss]
) -> dict[str, Any]:
    """The body. Raises InvalidRequest for what Ollama cannot do; what it only cannot carry goes into `losses`."""
    _check(chat)
    body: dict[str, Any] = {
        "model": model,
        "messages": encode_messages(chat["messages"], losses),
        "stream": is_stream,
    }
    tools = _tools(chat, losses)
    if tools:
        body["tools"] = tools
    settings = {**options, **_settings(chat)}
    if settings:
        body["options"] = settings
    form = _form(chat.get("response_format"))
    if form is not None:
        body["format"] = form
    think = _think(chat, model, losses)
    if think is not None:
        body["think"] = think
    if chat.get("logprobs"):
        body["logprobs"] = True
        if chat.get("top_logprobs"):
            body["top_logprobs"] = chat["top_logprobs"]
    _tell_unknown(chat, losses)
    if chat.get(EXTENSION) is not None:
        _extend(body, chat[EXTENSION])
    return body


def _check(chat: Mapping[str, Any]) -> None:
    if chat.get("n") not in (None, 1):
        raise refusal("/n", "Ollama gives one answer a request: leave out n", code="unsupported_parameter")
    for at, name in enumerate(chat.get("modalities") or ()):
        if name != "text":
            raise refusal(f"/modalities/{at}", f"Ollama answers with text, not {name}", code="unsupported_value")
    if chat.get("audio"):
        raise refusal("/audio", "Ollama answers with text, not audio", code="unsupported_parameter")
    if chat.get("web_search_options") is not None:
        raise refusal("/web_search_options", "Ollama does not search the web", code="unsupported_parameter")


def _settings(chat: Mapping[str, Any]) -> dict[str, Any]:
    settings = {wire: chat[name] for name, wire in _OPTIONS.items() if chat.get(name) is not None}
    stop = chat.get("stop")
    if stop:
        settings["stop"] = [stop] if isinstance(stop, str) else [one for one in stop if one]
    limit = chat.get("max_completion_tokens")
    if limit is None:
        limit = chat.get("max_tokens")
    if limit is not None:
        settings["num_predict"] = limit
    return settings


def _form(wanted: Any) -> Any:
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if wanted is None or kind == "text":
        return None
    if kind == "json_object":
        return "json"
    if kind != "json_schema":
        raise refusal("/response_format/type", "Ollama takes text, json_object and json_schema")
    inner = wanted.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if schema is not None and not isinstance(schema, dict):
        raise refusal("/response_format/json_schema/schema", "a JSON schema must be an object")
    return schema or "json"


def _think(chat: Mapping[str, Any], model: str, losses: list[Loss]) -> bool | str | None:
    """`think`: a word, or false. Models that only know on and off take any word as on."""
    reasoning = chat.get("reasoning")
    wanted: Mapping[str, Any] = reasoning if isinstance(reasoning, dict) else {}
    place = "/reasoning_effort" if chat.get("reasoning_effort") is not None else "/reasoning/effort"
    effort = chat.get("reasoning_effort") or wanted.get("effort")
    if effort in (None, "default"):  # the latter is whatever the model does by itself
        if wanted.get("max_tokens") is not None:
            losses.append(Loss("/reasoning/max_tokens", "changed", "Ollama takes no budget: thinking is on"))
            return True
        enabled = wanted.get("enabled")
        return enabled if isinstance(enabled, bool) else None
    if effort not in _WORDS:
        raise refusal(place, f"Ollama's efforts are {', '.join(_WORDS)}, not {effort!r}")
    word = _WORDS[effort]
    if word == "max" and model.startswith("gpt-oss"):  # its template knows three levels
        word = "high"
    if word and word != effort:
        losses.append(Loss(place, "changed", f"became {word}: Ollama does not know {effort}"))
    return word


# --- tools ------------------------------------------------------------------------------------------------------------


def _tools(chat: Mapping[str, Any], losses: list[Loss]) -> Sequence[Any]:
    tools = chat.get("tools") or ()
    for at, tool in enumerate(tools):
        if not isinstance(tool, dict) or tool.get("type", "function") != "function":
            kind = tool.get("type") if isinstance(tool, dict) else tool
            raise refusal(
                f"/tools/{at}/type", f"Ollama takes tools of type function, not {kind!r}", code="unsupported_value"
            )
        if (tool.get("function") or {}).get("strict"):
            losses.append(Loss(f"/tools/{at}/function/strict", "dropped", "Ollama has no strict functions"))
    if tools and chat.get("parallel_tool_calls") is False:
        losses.append(Loss("/parallel_tool_calls", "dropped", "Ollama may call several functions at once"))
    return _chosen(tools, chat.get("tool_choice"), losses)


def _chosen(tools: Sequence[Any], choice: Any, losses: list[Loss]) -> Sequence[Any]:
    """The tools that a choice leaves. Ollama takes no choice: none is brought about, the rest cannot be."""
    if choice in (None, "auto"):
        return tools
    if not tools:
        if choice != "none":
            raise refusal("/tool_choice", "tool_choice asks for a tool, and there are no tools to give to Ollama")
        return tools
    if choice == "none":
        losses.append(Loss("/tool_choice", "emulated", "the tools are left out"))
        return ()
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools") or choice
        names = {(one.get("function") or one).get("name") for one in allowed.get("tools") or ()}
        losses.append(Loss("/tool_choice", "emulated", "the other tools are left out"))
        if allowed.get("mode") == "required":
            losses.append(Loss("/tool_choice/allowed_tools/mode", "dropped", "Ollama cannot be made to call a tool"))
        return [tool for tool in tools if tool["function"].get("name") in names]
    losses.append(Loss("/tool_choice", "dropped", "Ollama cannot be made to call a tool"))
    return tools


# --- the rest ---------------------------------------------------------------------------------------------------------


def _tell_unknown(chat: Mapping[str, Any], losses: list[Loss]) -> None:
    if chat.get("service_tier") not in (None, "auto", "default"):
        losses.append(Loss("/service_tier", "dropped", "Ollama has no tiers"))
    options = chat.get("stream_options")
    if isinstance(options, dict) and options.get("include_obfuscation"):
        losses.append(Loss("/stream_options/include_obfuscation", "dropped", "Ollama does not pad its stream"))
    if not chat.keys() <= _KNOWN:
        losses += [Loss(at, "dropped", "Ollama has no such parameter") for at in unknown_fields(chat, _KNOWN)]


def _extend(body: dict[str, Any], extension: Any) -> None:
    """Put the client's own Ollama fields into the body; `options` are joined."""
    if not isinstance(extension, dict):
        raise refusal(f"/{EXTENSION}", f"{EXTENSION} must be an object of /api/chat fields")
    for name, value in extension.items():
        if name in ("model", "messages", "stream"):
            raise refusal(f"/{EXTENSION}/{name}", f"{name} is set outside {EXTENSION}")
        former = body.get(name)
        body[name] = {**former, **value} if isinstance(former, dict) and isinstance(value, dict) else value
