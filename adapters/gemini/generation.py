"""Sampling, thinking, response formats and modalities as Gemini's `generationConfig`.

https://ai.google.dev/api/generate-content#generationconfig
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gw.adapters.gemini.draft import Draft
from gw.adapters.gemini.tools import fit_schema
from gw.chat_parts import refusal

_SAMPLING = (("temperature", "temperature"), ("top_p", "topP"), ("top_k", "topK"))
_PENALTIES = (("frequency_penalty", "frequencyPenalty"), ("presence_penalty", "presencePenalty"))
_MODALITIES = {"text": "TEXT", "audio": "AUDIO", "image": "IMAGE"}

# Tokens of thinking for an effort: LiteLLM 1.109.1's figures; the caps are Google's
# (https://ai.google.dev/gemini-api/docs/thinking#set-budget).
_BUDGETS = {"low": 1024, "medium": 2048, "high": 4096}
_LEAST = {"flash": 1, "lite": 512, "pro": 128}
_CAPS = {"flash": 24_576, "lite": 24_576, "pro": 32_768}
_STOPS = 5
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def encode_generation(chat: Mapping[str, Any], body: dict[str, Any], draft: Draft) -> None:
    """Put `generationConfig` into the body where anything asks for it."""
    config: dict[str, Any] = {}
    limit = chat.get("max_completion_tokens")
    if limit is None:
        limit = chat.get("max_tokens")
    if limit is not None:
        config["maxOutputTokens"] = limit
    _sampling(chat, config, draft)
    stop = chat.get("stop")
    if stop:
        config["stopSequences"] = [stop] if isinstance(stop, str) else [one for one in stop if one]
        if len(config["stopSequences"]) > _STOPS:
            raise refusal("/stop", f"{draft.provider} takes at most {_STOPS} stop sequences")
    if chat.get("n") not in (None, 1):
        config["candidateCount"] = chat["n"]
    if chat.get("seed") is not None:
        config["seed"] = chat["seed"]
    if chat.get("logprobs"):
        config["responseLogprobs"] = True
        if chat.get("top_logprobs"):
            config["logprobs"] = chat["top_logprobs"]
    if chat.get("response_format") is not None:
        _response_format(chat["response_format"], config, body, draft)
    if chat.get("modalities"):
        _modalities(chat, config, draft)
    thinking = _thinking(chat, draft)
    if thinking is not None:
        config["thinkingConfig"] = thinking
    if config:
        body["generationConfig"] = config


def _sampling(chat: Mapping[str, Any], config: dict[str, Any], draft: Draft) -> None:
    for name, wire in _SAMPLING:
        if chat.get(name) is not None:
            if draft.traits.sampling:
                config[wire] = chat[name]
            else:
                draft.drop(f"/{name}", "this model ignores or refuses it")
    for name, wire in _PENALTIES:
        if chat.get(name):
            if draft.traits.penalties:
                config[wire] = chat[name]
            else:
                draft.drop(f"/{name}", "this model refuses it")


# --- the form of the answer -------------------------------------------------------------------------------------------


def _response_format(wanted: Any, config: dict[str, Any], body: dict[str, Any], draft: Draft) -> None:
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "text":
        return
    if kind not in ("json_object", "json_schema"):
        raise refusal("/response_format/type", f"{draft.provider} takes text, json_object and json_schema")
    schema, is_strict = None, False
    if kind == "json_schema":
        inner = wanted.get("json_schema")
        if isinstance(inner, dict):
            schema, is_strict = inner.get("schema"), bool(inner.get("strict"))
        if schema is not None and not isinstance(schema, dict):
            raise refusal("/response_format/json_schema/schema", "a JSON schema must be an object")
    if "tools" in body and not draft.traits.schema_with_tools:
        _instruct(schema, body)
        held = "is checked" if is_strict and schema else "is not checked without strict"
        draft.emulate("/response_format", f"asked for in words, as this model takes no form beside tools; it {held}")
        draft.strict_schema = schema if is_strict else None
        return
    config["responseMimeType"] = "application/json"
    if schema is not None:
        before = len(draft.losses)
        field, fitted = fit_schema(schema, "/response_format/json_schema/schema", "response", draft)
        config[field] = fitted
        if is_strict and len(draft.losses) > before:  # Gemini is not held to all of it
            draft.strict_schema = schema


def _instruct(schema: Any, body: dict[str, Any]) -> None:
    words = "Unless you call a function, answer with one JSON object and nothing else."
    if schema is not None:
        words += f" It must be valid against this JSON schema: {orjson.dumps(schema).decode()}"
    instruction = body.setdefault("systemInstruction", {"parts": []})
    instruction["parts"].append({"text": words})


def _modalities(chat: Mapping[str, Any], config: dict[str, Any], draft: Draft) -> None:
    wanted = chat["modalities"]
    if wanted == ["text"]:
        return
    for at, name in enumerate(wanted):
        if name not in _MODALITIES:
            raise refusal(f"/modalities/{at}", f"{draft.provider} answers with text, audio and image, not {name!r}")
    config["responseModalities"] = [_MODALITIES[name] for name in wanted]
    audio = chat.get("audio")
    if "audio" not in wanted or not isinstance(audio, dict):
        return
    voice = audio.get("voice")
    if voice:
        name = voice.get("id") if isinstance(voice, dict) else voice
        config["speechConfig"] = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": name}}}
    if audio.get("format") not in (None, "pcm16"):
        draft.change("/audio/format", f"{draft.provider} sends pcm16 only")


# --- thinking ---------------------------------------------------------------------------------------------------------


def _thinking(chat: Mapping[str, Any], draft: Draft) -> dict[str, Any] | None:
    """`thinkingConfig`: a budget of tokens for 2.5, a level from 3 on, and the thoughts in words unless refused."""
    reasoning = chat.get("reasoning")
    wanted: Mapping[str, Any] = reasoning if isinstance(reasoning, dict) else {}
    place = "/reasoning_effort" if chat.get("reasoning_effort") is not None else "/reasoning"
    effort, budget = chat.get("reasoning_effort") or wanted.get("effort"), wanted.get("max_tokens")
    if effort == "default":  # whatever the model does by itself
        effort = None
    if effort is None and budget is None:
        if wanted.get("enabled") is False:
            effort = "none"
        elif not wanted or wanted.get("effort") == "default":
            return None
    if effort is not None and effort not in _EFFORTS:
        raise refusal(place, f"{draft.provider}'s efforts are {', '.join(_EFFORTS)}, not {effort!r}")
    config: dict[str, Any] = {}
    if draft.traits.thinking_level:
        _level(effort, budget, place, config, draft)
    elif draft.traits.thinking_budget:
        _budget(effort, budget, place, config, draft)
    else:
        if effort != "none":
            draft.drop(place, "this model does not think")
        return None
    if effort != "none":
        config["includeThoughts"] = not wanted.get("exclude")
    return config


def _level(effort: str | None, budget: Any, place: str, config: dict[str, Any], draft: Draft) -> None:
    if effort is None and budget is not None:
        effort = next((name for name, tokens in _BUDGETS.items() if budget <= tokens), "high")
        draft.change(f"{place}/max_tokens", f"became the level {effort}: this model takes no budget")
    if effort is None:
        return
    level = {"none": "minimal", "xhigh": "high", "max": "high"}.get(effort, effort)
    if level == "minimal" and draft.traits.kind == "pro":
        level = "low"
    if level != effort:
        draft.change(place, f"became {level}: this model does not know {effort}")
    config["thinkingLevel"] = level.upper()


def _budget(effort: str | None, budget: Any, place: str, config: dict[str, Any], draft: Draft) -> None:
    kind = draft.traits.kind
    if effort is None:
        if budget is not None:
            config["thinkingBudget"] = budget
        return
    if effort == "none":
        config["thinkingBudget"] = 0 if kind != "pro" else _LEAST["pro"]
        if kind == "pro":
            draft.change(place, f"became {_LEAST['pro']} tokens: this model cannot stop thinking")
    elif effort == "minimal":
        config["thinkingBudget"] = _LEAST[kind]
    else:
        config["thinkingBudget"] = _BUDGETS.get(effort, _CAPS[kind])
