"""What gw sends to Gemini for an OpenAI chat request, field by field, and what it says it could not carry."""

from __future__ import annotations

import base64
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from gw.adapters.gemini import Gemini, GeminiCodec
from gw.backend import Backend
from gw.errors import ConfigError, InvalidRequest
from gw.message import ANONYMOUS, Candidate, Loss
from gw.secret import Secret
from gw.signatures import MemorySignatures
from tests.fakes import chat_request

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SKIP = base64.b64encode(b"skip_thought_signature_validator").decode()
USER: dict[str, Any] = {"role": "user", "content": "Hi"}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
}
WEB: dict[str, Any] = {"web_search_options": {}}


def open_codec(
    chat: dict[str, Any], model: str = "gemini-2.5-flash", adapter: Gemini | None = None, **options: Any
) -> GeminiCodec:
    adapter = adapter or Gemini(signatures=MemorySignatures(), **options)
    backend = Backend(name="google", kind="gemini", adapter=adapter)
    request = chat_request(chat, candidates=(Candidate(backend, model, "asked", key=Secret("AIza-canary")),))
    before = request.document.raw if request.document else b""
    codec = adapter.open(request)
    assert request.document is not None
    assert not request.document.is_opened
    assert orjson.dumps(request.document.peek()) == before  # nothing of the request was changed in place
    return codec


def sent(chat: dict[str, Any], model: str = "gemini-2.5-flash", **options: Any) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(open_codec(chat, model, **options).wire.content)
    validate(body)
    return body


def losses(chat: dict[str, Any], model: str = "gemini-2.5-flash", **options: Any) -> dict[str, str]:
    return {loss.pointer: loss.kind for loss in open_codec(chat, model, **options).losses}


def refused(chat: dict[str, Any], model: str = "gemini-2.5-flash") -> InvalidRequest:
    with pytest.raises(InvalidRequest) as raised:
        open_codec(chat, model)
    return raised.value


def validate(body: dict[str, Any]) -> None:
    """The body's tables against Google's own types, where their package is installed; unknown keys are errors there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from google.genai import types
        except ImportError:
            return
    kinds: dict[str, Any] = {
        "systemInstruction": types.Content,
        "toolConfig": types.ToolConfig,
        "generationConfig": types.GenerationConfig,
    }
    lists: dict[str, Any] = {"contents": types.Content, "tools": types.Tool, "safetySettings": types.SafetySetting}
    for name, value in body.items():
        if name in kinds:
            kinds[name].model_validate(value)
        elif name in lists:
            for item in value:
                lists[name].model_validate(item)
        else:
            assert name in ("serviceTier", "labels", "cachedContent"), name


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


# --- messages -----------------------------------------------------------------------------------------------------


def contents(messages: list[dict[str, Any]], model: str = "gemini-2.5-flash", **chat: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sent({"messages": messages, **chat}, model)["contents"]
    return found


def test_leading_system_messages_are_the_system_instruction_and_later_ones_keep_their_place() -> None:
    body = sent(
        {
            "messages": [
                {"role": "system", "content": "A"},
                {"role": "developer", "content": [{"type": "text", "text": "B"}]},
                USER,
                {"role": "system", "content": "C"},
                USER,
            ]
        }
    )
    assert body["systemInstruction"] == {"parts": [{"text": "A"}, {"text": "B"}]}
    assert body["contents"] == [
        {"role": "user", "parts": [{"text": "Hi"}, {"text": "<system>C</system>"}, {"text": "Hi"}]}
    ]


def test_turns_of_one_role_become_one() -> None:
    found = contents([USER, USER, {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}, USER])
    assert [(one["role"], len(one["parts"])) for one in found] == [("user", 2), ("model", 2), ("user", 1)]


@pytest.mark.parametrize(
    ("part", "wanted"),
    [
        (
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{PNG[:20]}\n{PNG[20:]}"}},
            {"inlineData": {"mimeType": "image/png", "data": PNG}},
        ),
        (
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
            {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0="}},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
            {"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
            {"inlineData": {"mimeType": "audio/mpeg", "data": "SUQz"}},
        ),
        (
            {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},
            {"inlineData": {"mimeType": "video/mp4", "data": "AAAA"}},
        ),
        (
            {"type": "video_url", "video_url": {"url": "https://youtu.be/abc"}},
            {"fileData": {"mimeType": "video/mp4", "fileUri": "https://youtu.be/abc"}},
        ),
        (
            {
                "type": "image_url",
                "image_url": {"url": "https://generativelanguage.googleapis.com/v1beta/files/abc"},
            },
            {
                "fileData": {
                    "mimeType": "image/jpeg",
                    "fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc",
                }
            },
        ),
    ],
    ids=["image", "pdf", "wav", "mp3", "video", "youtube", "files"],
)
def test_media_go_in_line(part: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert contents([{"role": "user", "content": [{"type": "text", "text": "See"}, part]}])[0]["parts"] == [
        {"text": "See"},
        wanted,
    ]


def call(call_id: str, name: str = "f", arguments: str = '{"a":1}', **fields: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}, **fields}


def result(call_id: str, content: Any = "ok", **fields: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content, **fields}


def test_results_are_one_content_with_one_response_a_call_in_the_order_of_the_calls() -> None:
    messages = [
        USER,
        {"role": "assistant", "content": "Wait", "tool_calls": [call("1"), call("2", "g", ""), call("3")]},
        result("3", "three"),
        result("1", [{"type": "text", "text": "one"}]),
        result("2", "two", is_error=True),
        USER,
    ]
    found = contents(messages)
    assert found[1] == {
        "role": "model",
        "parts": [
            {"text": "Wait"},
            {"functionCall": {"name": "f", "args": {"a": 1}}},
            {"functionCall": {"name": "g", "args": {}}},
            {"functionCall": {"name": "f", "args": {"a": 1}}},
        ],
    }
    assert found[2] == {
        "role": "user",
        "parts": [
            {"functionResponse": {"name": "f", "response": {"output": "one"}}},
            {"functionResponse": {"name": "g", "response": {"error": "two"}}},
            {"functionResponse": {"name": "f", "response": {"output": "three"}}},
            {"text": "Hi"},
        ],
    }


def test_ids_of_calls_go_to_models_that_know_them_only() -> None:
    messages = [USER, {"role": "assistant", "tool_calls": [call("c1")]}, result("c1")]
    _, model, user = contents(messages, "gemini-3-flash-preview")
    assert model["parts"][0]["functionCall"]["id"] == "c1"
    assert user["parts"][0]["functionResponse"]["id"] == "c1"
    assert "c1" not in json.dumps(contents(messages, "gemini-2.5-flash"))


def test_media_in_a_result_stand_inside_it_from_gemini_3_on_and_beside_it_before() -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    messages = [USER, {"role": "assistant", "tool_calls": [call("c1")]}, result("c1", [image])]
    inline = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    assert contents(messages, "gemini-3-flash-preview")[2]["parts"][0]["functionResponse"]["parts"] == [inline]
    assert contents(messages)[2]["parts"] == [{"functionResponse": {"name": "f", "response": {"output": ""}}}, inline]


def test_a_deprecated_function_call_and_its_result_become_a_pair() -> None:
    messages = [
        USER,
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "ok"},
    ]
    found = contents(messages, functions=[{"name": "f"}], function_call={"name": "f"})
    assert found[1]["parts"] == [{"functionCall": {"name": "f", "args": {}}}]
    assert found[2]["parts"] == [{"functionResponse": {"name": "f", "response": {"output": "ok"}}}]


def test_a_custom_call_of_history_is_a_function_with_one_text() -> None:
    custom = {"id": "c", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}
    messages = [USER, {"role": "assistant", "tool_calls": [custom]}, result("c")]
    assert contents(messages)[1]["parts"] == [{"functionCall": {"name": "sql", "args": {"input": "SELECT 1"}}}]


def test_refusals_and_images_of_the_model_go_back_to_it() -> None:
    messages = [
        USER,
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": "", "images": [{"image_url": {"url": f"data:image/png;base64,{PNG}"}}]},
        USER,
    ]
    assert contents(messages)[1]["parts"] == [{"text": "No."}, {"inlineData": {"mimeType": "image/png", "data": PNG}}]


# --- signatures -----------------------------------------------------------------------------------------------------


def detail(data: str, **fields: Any) -> dict[str, Any]:
    return {"type": "reasoning.encrypted", "data": data, "format": "google-gemini-v1", **fields}


def model_parts(assistant: dict[str, Any], model: str = "gemini-3-flash-preview") -> list[dict[str, Any]]:
    results = [result(one["id"]) for one in assistant.get("tool_calls", ())]
    parts: list[dict[str, Any]] = contents([USER, {"role": "assistant", **assistant}, *results, USER], model)[1][
        "parts"
    ]
    return parts


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_calls": [call("1", extra_content={"google": {"thought_signature": "c2ln"}}), call("2")]},
        {"tool_calls": [call("1"), call("2")], "reasoning_details": [detail("c2ln", id="1", index=0)]},
        {"tool_calls": [call("1", provider_specific_fields={"thought_signature": "c2ln"}), call("2")]},
    ],
    ids=["extra_content", "reasoning_details", "provider_specific_fields"],
)
def test_a_signature_goes_back_on_its_call_however_the_client_kept_it(fields: dict[str, Any]) -> None:
    for model in ("gemini-3-flash-preview", "gemini-2.5-flash"):
        parts = model_parts(fields, model)
        assert [part.get("thoughtSignature") for part in parts] == ["c2ln", None]


def test_a_signature_that_the_client_lost_comes_from_the_store_of_the_same_principal() -> None:
    store = MemorySignatures()
    store.keep("gemini:anonymous", ["1"], "c2ln")
    adapter = Gemini(signatures=store)
    chat = {"messages": [USER, {"role": "assistant", "tool_calls": [call("1")]}, result("1")]}
    codec = open_codec(chat, "gemini-3-flash-preview", adapter)
    assert orjson.loads(codec.wire.content)["contents"][1]["parts"][0]["thoughtSignature"] == "c2ln"
    assert codec.losses == []
    backend = Backend(name="google", kind="gemini", adapter=adapter)
    stranger = chat_request(
        chat,
        candidates=(Candidate(backend, "gemini-3-flash-preview", "asked"),),
        principal=replace(ANONYMOUS, name="other"),
    )
    assert b"c2ln" not in adapter.open(stranger).wire.content


def test_a_signature_that_nobody_has_is_skipped_on_the_first_call_of_gemini_3_only() -> None:
    fields = {"tool_calls": [call("1"), call("2")]}
    assert [part.get("thoughtSignature") for part in model_parts(fields)] == [SKIP, None]
    assert [part.get("thoughtSignature") for part in model_parts(fields, "gemini-2.5-flash")] == [None, None]
    chat = {"messages": [USER, {"role": "assistant", **fields}, result("1"), result("2")]}
    assert losses(chat, "gemini-3-flash-preview") == {"/messages/1/tool_calls/0": "emulated"}


def test_signed_text_and_signed_thoughts_go_back_signed() -> None:
    thought = {"type": "reasoning.text", "format": "google-gemini-v1", "index": 0}
    fields = {
        "content": "Four.",
        "reasoning_content": "Hm, yes",
        "reasoning_details": [
            thought | {"text": "Hm, "},
            thought | {"text": "yes", "signature": "dGg="},
            detail("dHg="),
        ],
    }
    assert model_parts(fields) == [
        {"text": "Hm, yes", "thought": True, "thoughtSignature": "dGg="},
        {"text": "Four.", "thoughtSignature": "dHg="},
    ]
    assert model_parts({"content": None, "reasoning_details": [detail("dHg=")]}) == [
        {"text": "", "thoughtSignature": "dHg="}
    ]


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


def test_a_service_tier_has_googles_name() -> None:
    assert sent({"service_tier": "flex"})["serviceTier"] == "flex"
    assert sent({"service_tier": "default"})["serviceTier"] == "standard"


def test_the_clients_own_gemini_fields_pass() -> None:
    body = sent({"gemini": {"cachedContent": "cachedContents/1", "tools": [{"urlContext": {}}]}, "tools": [TOOL]})
    assert body["cachedContent"] == "cachedContents/1"
    assert [list(entry) for entry in body["tools"]] == [["functionDeclarations"], ["urlContext"]]


# --- prompt caches --------------------------------------------------------------------------------------------------


def test_one_more_turn_only_adds_to_the_bytes() -> None:
    turns: list[dict[str, Any]] = [
        {"role": "system", "content": "Be kind."},
        USER,
        {"role": "assistant", "tool_calls": [call("1")], "reasoning_details": [detail("c2ln", id="1")]},
        result("1"),
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "More"},
        {"role": "assistant", "tool_calls": [call("2")]},
        result("2"),
    ]
    before = b""
    for count in (2, 4, 5, 6, 8):
        content = open_codec({"messages": turns[:count], "tools": [TOOL]}, "gemini-3-flash-preview").wire.content
        prefix = content.partition(b'],"tools"')[0].removesuffix(b"]}")
        assert content.startswith(before)
        before = prefix.removesuffix(b"]}")


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
