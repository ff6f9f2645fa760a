"""What gw sends to Gemini for an OpenAI chat request, field by field, and what it says it could not carry."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gw.adapters.gemini import Gemini
from gw.errors import ConfigError, InvalidRequest
from tests.gemini_fakes import PNG, TOOL, USER, WEB, losses, open_codec, sent, validate


def refused(chat: dict[str, Any], model: str = "gemini-2.5-flash") -> InvalidRequest:
    with pytest.raises(InvalidRequest) as raised:
        open_codec(chat, model)
    return raised.value


def test_the_reference_package_refuses_unknown_fields() -> None:
    pytest.importorskip("google.genai", exc_type=ImportError)
    with pytest.raises(ValueError, match="contentz"):
        validate({"toolConfig": {"contentz": 1}})


# --- the wire -----------------------------------------------------------------------------------------------------


def test_the_key_is_in_a_header_and_never_in_the_url() -> None:
    wire = open_codec({}).wire
    assert wire.url == "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent"
    assert ("x-goog-api-key", "AIza-canary") in wire.headers
    assert not wire.stream
    assert wire.backend == "google"
    assert wire.request_id == "req-1"
    wire = open_codec({"stream": True}).wire
    assert wire.url.endswith("/models/gemini-2.5-flash:streamGenerateContent?alt=sse")
    assert wire.stream


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("models/gemini-2.5-pro", "/models/gemini-2.5-pro:"),
        ("tunedModels/mine", "/tunedModels/mine:"),
        ("a/../../b?x#y:z", "/models/a%2F..%2F..%2Fb%3Fx%23y%3Az:"),
        ("models/../x", "/models/..%2Fx:"),
    ],
)
def test_a_model_name_cannot_leave_its_segment(model: str, path: str) -> None:
    assert path in open_codec({}, model).wire.url


def test_options_are_sent_as_they_were_set() -> None:
    options: dict[str, Any] = {
        "base_url": "http://127.0.0.1:1/v1/",
        "headers": {"x-goog-user-project": "p"},
        "safety": {"harassment": "BLOCK_NONE"},
    }
    wire = open_codec({}, **options).wire
    assert wire.url == "http://127.0.0.1:1/v1/models/gemini-2.5-flash:generateContent"
    assert ("x-goog-user-project", "p") in wire.headers
    assert sent({}, **options)["safetySettings"] == [
        {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}
    ]


def test_an_unknown_safety_threshold_is_a_config_error_that_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="BLOCK_ONLY_HIGH"):
        Gemini(safety={"harassment": "sometimes"})


# --- fields -------------------------------------------------------------------------------------------------------

GENERATION: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"max_tokens": 5}, "gemini-2.5-flash", {"maxOutputTokens": 5}),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "gemini-2.5-flash", {"maxOutputTokens": 6}),
    (
        {"temperature": 0, "top_p": 0.5, "top_k": 4},
        "gemini-2.5-flash",
        {"temperature": 0, "topP": 0.5, "topK": 4},
    ),
    (
        {"frequency_penalty": 1, "presence_penalty": -1},
        "gemini-2.5-flash",
        {"frequencyPenalty": 1, "presencePenalty": -1},
    ),
    ({"stop": "END"}, "gemini-2.5-flash", {"stopSequences": ["END"]}),
    ({"stop": ["a", "b"]}, "gemini-2.5-flash", {"stopSequences": ["a", "b"]}),
    ({"n": 3}, "gemini-2.5-flash", {"candidateCount": 3}),
    ({"n": 1, "seed": 7}, "gemini-2.5-flash", {"seed": 7}),
    ({"logprobs": True, "top_logprobs": 2}, "gemini-2.5-flash", {"responseLogprobs": True, "logprobs": 2}),
    ({"response_format": {"type": "json_object"}}, "gemini-2.5-flash", {"responseMimeType": "application/json"}),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}},
        "gemini-2.5-flash",
        {"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}},
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": ["string", "null"]}}}},
        "gemini-1.5-pro",
        {"responseMimeType": "application/json", "responseSchema": {"nullable": True, "type": "string"}},
    ),
    (
        {"response_format": {"type": "json_object"}, "tools": [TOOL]},
        "gemini-3-flash-preview",
        {"responseMimeType": "application/json"},
    ),
    ({"modalities": ["text", "image"]}, "gemini-2.5-flash", {"responseModalities": ["TEXT", "IMAGE"]}),
    (
        {"modalities": ["audio"], "audio": {"voice": "Kore", "format": "pcm16"}},
        "gemini-2.5-flash",
        {
            "responseModalities": ["AUDIO"],
            "speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}},
        },
    ),
    ({"reasoning_effort": "none"}, "gemini-2.5-flash", {"thinkingConfig": {"thinkingBudget": 0}}),
    ({"reasoning_effort": "none"}, "gemini-2.5-pro", {"thinkingConfig": {"thinkingBudget": 128}}),
    *[
        (
            {"reasoning_effort": effort},
            f"gemini-2.5-{kind}",
            {"thinkingConfig": {"thinkingBudget": budget, "includeThoughts": True}},
        )
        for effort, kind, budget in [
            ("minimal", "flash", 1),
            ("minimal", "flash-lite", 512),
            ("minimal", "pro", 128),
            ("low", "flash", 1024),
            ("medium", "pro", 2048),
            ("high", "flash", 4096),
            ("xhigh", "flash", 24576),
            ("max", "pro", 32768),
        ]
    ],
    *[
        (
            {"reasoning_effort": effort},
            model,
            {"thinkingConfig": {"thinkingLevel": level} | ({} if effort == "none" else {"includeThoughts": True})},
        )
        for effort, model, level in [
            ("none", "gemini-3-flash-preview", "MINIMAL"),
            ("none", "gemini-3.1-pro-preview", "LOW"),
            ("minimal", "gemini-3.5-flash", "MINIMAL"),
            ("minimal", "gemini-3.1-pro-preview", "LOW"),
            ("low", "gemini-3.5-flash", "LOW"),
            ("medium", "gemini-3.5-flash", "MEDIUM"),
            ("high", "gemini-flash-latest", "HIGH"),
            ("max", "gemini-99-flash", "HIGH"),
        ]
    ],
    (
        {"reasoning": {"max_tokens": 2000, "exclude": True}},
        "gemini-2.5-flash",
        {"thinkingConfig": {"thinkingBudget": 2000, "includeThoughts": False}},
    ),
    (
        {"reasoning": {"max_tokens": 2000}},
        "gemini-3.5-flash",
        {"thinkingConfig": {"thinkingLevel": "MEDIUM", "includeThoughts": True}},
    ),
    ({"reasoning": {"enabled": True}}, "gemini-2.5-flash", {"thinkingConfig": {"includeThoughts": True}}),
    ({"reasoning": {"enabled": False}}, "gemini-2.5-flash", {"thinkingConfig": {"thinkingBudget": 0}}),
    (
        {"gemini": {"generationConfig": {"mediaResolution": "MEDIA_RESOLUTION_LOW"}}, "seed": 1},
        "gemini-2.5-flash",
        {"seed": 1, "mediaResolution": "MEDIA_RESOLUTION_LOW"},
    ),
]


@pytest.mark.parametrize(("fields", "model", "config"), GENERATION, ids=lambda value: orjson.dumps(value).decode()[:60])
def test_a_parameter_becomes_its_gemini_counterpart(fields: Any, model: str, config: dict[str, Any]) -> None:
    assert sent(fields, model)["generationConfig"] == config


def test_a_plain_request_sends_contents_and_nothing_else() -> None:
    body = sent({"n": 1, "stream_options": {"include_usage": True}, "service_tier": "auto", "store": False, "user": ""})
    assert body == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
    assert losses({"n": 1, "store": False, "logit_bias": {}, "session_id": "s", "backend": "google"}) == {}


def test_an_unknown_field_that_is_zero_or_false_may_ask_for_something() -> None:
    told = {"/enable_thinking": "dropped", "/future_field": "dropped"}
    assert losses({"enable_thinking": False, "future_field": 0, "min_p": 0}) == told


def test_a_service_tier_has_googles_name() -> None:
    assert sent({"service_tier": "flex"})["serviceTier"] == "flex"
    assert sent({"service_tier": "default"})["serviceTier"] == "standard"


def test_the_clients_own_gemini_fields_pass() -> None:
    body = sent({"gemini": {"cachedContent": "cachedContents/1", "tools": [{"urlContext": {}}]}, "tools": [TOOL]})
    assert body["cachedContent"] == "cachedContents/1"
    assert [list(entry) for entry in body["tools"]] == [["functionDeclarations"], ["urlContext"]]


@pytest.mark.parametrize(
    ("fields", "model", "told"),
    [
        ({"user": "u", "metadata": {"a": "b"}, "store": True}, "gemini-2.5-flash", ["/user", "/metadata", "/store"]),
        ({"logit_bias": {"1": 2}, "prediction": {"a": 1}}, "gemini-2.5-flash", ["/logit_bias", "/prediction"]),
        ({"verbosity": "low", "prompt_cache_key": "k"}, "gemini-2.5-flash", ["/verbosity", "/prompt_cache_key"]),
        ({"brand/new~field": 1}, "gemini-2.5-flash", ["/brand~1new~0field"]),
        ({"service_tier": "scale"}, "gemini-2.5-flash", ["/service_tier"]),
        ({"stream_options": {"include_obfuscation": 1}}, "gemini-2.5-flash", ["/stream_options/include_obfuscation"]),
        ({"parallel_tool_calls": False, "tools": [TOOL]}, "gemini-2.5-flash", ["/parallel_tool_calls"]),
        ({"frequency_penalty": 1, "presence_penalty": 1}, "gemini-3-flash-preview",
         ["/frequency_penalty", "/presence_penalty"]),
        ({"temperature": 0.1, "top_p": 0.5}, "gemini-3.6-flash", ["/temperature", "/top_p"]),
        ({"reasoning_effort": "high"}, "gemini-2.0-flash", ["/reasoning_effort"]),
        ({"web_search_options": {"search_context_size": "low"}}, "gemini-2.5-flash",
         ["/web_search_options/search_context_size"]),
        ({"tools": [TOOL | {"function": TOOL["function"] | {"strict": True}}]}, "gemini-2.5-flash",
         ["/tools/0/function/strict"]),
        ({"messages": [USER | {"name": "Ann"}]}, "gemini-2.5-flash", ["/messages/0/name"]),
        ({"messages": [{"role": "user", "content": [
            {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}},
        ]}]}, "gemini-2.5-flash", ["/messages/0/content/0/cache_control", "/messages/0/content/1/image_url/detail"]),
        ({"messages": [USER, {"role": "assistant", "content": ""}, USER]}, "gemini-2.5-flash", ["/messages/1"]),
        ({"messages": [USER, {"role": "assistant", "content": "a", "reasoning_content": "hm"}, USER]},
         "gemini-2.5-flash", ["/messages/1/reasoning_content"]),
        ({"messages": [USER, {"role": "assistant", "content": "a", "reasoning_details": [
            {"type": "reasoning.text", "text": "hm", "signature": "s", "format": "anthropic-claude-v1", "index": 0}]},
            USER]}, "gemini-2.5-flash", ["/messages/1/reasoning_details"]),
    ],
    ids=lambda value: orjson.dumps(value).decode()[:60],
)  # fmt: skip
def test_what_cannot_be_carried_is_told_as_dropped(fields: Any, model: str, told: list[str]) -> None:
    assert losses(fields, model) == dict.fromkeys(told, "dropped")


@pytest.mark.parametrize(
    ("fields", "model", "told"),
    [
        ({"reasoning_effort": "none"}, "gemini-2.5-pro", {"/reasoning_effort": "changed"}),
        ({"reasoning_effort": "max"}, "gemini-3.5-flash", {"/reasoning_effort": "changed"}),
        ({"reasoning": {"max_tokens": 9}}, "gemini-3.5-flash", {"/reasoning/max_tokens": "changed"}),
        ({"modalities": ["audio"], "audio": {"format": "mp3"}}, "gemini-2.5-flash", {"/audio/format": "changed"}),
        (
            {"tools": [{"type": "function", "function": {"name": "1st"}}]},
            "gemini-2.5-flash",
            {"/tools/0/function/name": "changed"},
        ),
        ({"tools": [{"type": "custom", "custom": {"name": "sql"}}]}, "gemini-2.5-flash", {"/tools/0": "emulated"}),
        (
            {"tools": [TOOL], "response_format": {"type": "json_object"}},
            "gemini-2.5-flash",
            {"/response_format": "emulated"},
        ),
    ],
    ids=lambda value: orjson.dumps(value).decode()[:60],
)
def test_what_is_carried_otherwise_is_told(fields: Any, model: str, told: dict[str, str]) -> None:
    assert losses(fields, model) == told


@pytest.mark.parametrize(
    ("fields", "model", "param"),
    [
        ({"modalities": ["video"]}, "gemini-2.5-flash", "modalities[0]"),
        ({"response_format": {"type": "yaml"}}, "gemini-2.5-flash", "response_format.type"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": 1}}}, "gemini-2.5-flash",
         "response_format.json_schema.schema"),
        ({"reasoning_effort": "enormous"}, "gemini-2.5-flash", "reasoning_effort"),
        (WEB | {"tools": [TOOL]}, "gemini-2.5-flash", "web_search_options"),
        ({"tools": [{"type": "retrieval"}]}, "gemini-2.5-flash", "tools[0].type"),
        ({"tools": ["Bash"]}, "gemini-2.5-flash", "tools[0].type"),
        ({"tools": [{"type": "custom", "custom": {"name": "g", "format": {"type": "grammar"}}}]}, "gemini-2.5-flash",
         "tools[0].custom.format"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "nope"}}}, "gemini-2.5-flash",
         "tool_choice.function.name"),
        ({"tools": [TOOL], "tool_choice": "some"}, "gemini-2.5-flash", "tool_choice"),
        ({"tool_choice": "required"}, "gemini-2.5-flash", "tool_choice"),
        ({"gemini": []}, "gemini-2.5-flash", "gemini"),
        ({"messages": [{"role": "system", "content": "s"}]}, "gemini-2.5-flash", "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "gemini-2.5-flash", "messages[0].content"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "gemini-2.5-flash", "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}, "gemini-2.5-flash",
         "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]},
         "gemini-2.5-flash", "messages[0].content[0].file.file_id"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
         "gemini-2.5-flash", "messages[0].content[0].input_audio.data"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [
            {"id": "c", "function": {"name": "f", "arguments": "{oops"}}]}, {"role": "tool", "tool_call_id": "c"}]},
         "gemini-2.5-flash", "messages[1].tool_calls[0].function.arguments"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [
            {"id": "c", "function": {"name": "f", "arguments": ""}}]}, USER]},
         "gemini-2.5-flash", "messages[1].tool_calls[0]"),
        ({"messages": [USER, {"role": "tool", "tool_call_id": "c", "content": "x"}]}, "gemini-2.5-flash",
         "messages[1].tool_call_id"),
    ],
    ids=lambda value: orjson.dumps(value).decode()[:60],
)  # fmt: skip
def test_what_gemini_cannot_do_is_a_400_that_names_the_field(fields: Any, model: str, param: str) -> None:
    error = refused(fields, model)
    assert error.status == 400
    assert error.param == param


def test_an_image_url_that_google_would_not_fetch_is_a_400_that_tells_the_cure() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
    error = refused({"messages": [{"role": "user", "content": [part]}]})
    assert error.param == "messages[0].content[0].image_url.url"
    assert "Gemini" in error.message
    assert "data URI" in error.message
