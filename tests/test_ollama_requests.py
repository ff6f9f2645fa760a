"""What gw sends to Ollama for an OpenAI chat request, field by field, and what it says it could not carry."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gw.adapters.ollama import Ollama, OllamaCodec
from gw.backend import Backend
from gw.errors import InvalidRequest
from gw.message import Candidate
from gw.secret import Secret
from tests.codecs import opened_untouched
from tests.fakes import chat_request

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
USER: dict[str, Any] = {"role": "user", "content": "Hi"}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
}
OTHER = {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}}
IMAGE: dict[str, Any] = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}


def open_codec(chat: dict[str, Any], model: str = "qwen3:8b", key: str | None = None, **options: Any) -> OllamaCodec:
    adapter = Ollama(**options)
    backend = Backend(name="local", kind="ollama", adapter=adapter)
    secret = None if key is None else Secret(key)
    request = chat_request(chat, candidates=(Candidate(backend, model, "asked", key=secret),))
    return opened_untouched(adapter, request)


def sent(chat: dict[str, Any], model: str = "qwen3:8b", **options: Any) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(open_codec(chat, model, **options).wire.content)
    validate(body)
    return body


def validate(body: dict[str, Any]) -> None:
    """The body against Ollama's own types, where their package is installed."""
    try:
        from ollama import _types
    except ImportError:
        return
    read = _types.ChatRequest.model_validate(body)
    for message, given in zip(read.messages or (), body["messages"], strict=True):
        if "images" in given:  # the package wraps what it sends as bare base64
            given = given | {"images": [_types.Image(value=image) for image in given["images"]]}
        known = _types.Message.model_validate(given).model_dump(exclude_none=True)
        assert set(given) - set(known) <= {"tool_call_id"}, message
    for name in set(body.get("options") or ()) - {"min_p"}:
        assert name in _types.Options.model_fields, name


def losses(chat: dict[str, Any], model: str = "qwen3:8b") -> dict[str, str]:
    return {loss.pointer: loss.kind for loss in open_codec(chat, model).losses}


def call(call_id: str, name: str = "f", arguments: str = '{"a":1}', **fields: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}, **fields}


# --- the wire -------------------------------------------------------------------------------------------------------


def test_a_plain_request_says_whether_it_streams_and_carries_no_credential() -> None:
    wire = open_codec({}).wire
    assert wire.url == "http://localhost:11434/api/chat"
    assert wire.headers == [("content-type", "application/json")]
    assert orjson.loads(wire.content) == {
        "model": "qwen3:8b",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": False,
    }
    streamed = open_codec({"stream": True}).wire
    assert streamed.stream
    assert orjson.loads(streamed.content)["stream"] is True


def test_the_cloud_gets_its_key_as_a_bearer() -> None:
    wire = open_codec({}, key="canary", base_url="https://ollama.com/").wire
    assert wire.url == "https://ollama.com/api/chat"
    assert ("authorization", "Bearer canary") in wire.headers


def test_the_backends_options_stand_where_the_client_sets_none() -> None:
    body = sent(
        {"temperature": 0.5, "ollama": {"options": {"mirostat": 1}}},
        options={"num_ctx": 32768, "temperature": 1},
        keep_alive="10m",
        headers={"X-Team": "a"},
    )
    assert body["options"] == {"num_ctx": 32768, "temperature": 0.5, "mirostat": 1}
    assert body["keep_alive"] == "10m"
    assert sent({"ollama": {"keep_alive": 0}}, keep_alive="10m")["keep_alive"] == 0


# --- fields ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"temperature": 0, "top_p": 0.5}, {"temperature": 0, "top_p": 0.5}),
        ({"top_k": 4, "min_p": 0.1}, {"top_k": 4, "min_p": 0.1}),
        ({"frequency_penalty": 1, "presence_penalty": 0.5}, {"frequency_penalty": 1, "presence_penalty": 0.5}),
        ({"repetition_penalty": 1.1, "seed": 7}, {"repeat_penalty": 1.1, "seed": 7}),
        ({"stop": "END"}, {"stop": ["END"]}),
        ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"max_tokens": 5}, {"num_predict": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"num_predict": 6}),
    ],
    ids=str,
)  # fmt: skip
def test_a_parameter_becomes_an_option(fields: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert sent(fields)["options"] == wanted
    assert losses(fields) == {}


@pytest.mark.parametrize(
    ("wanted", "form"),
    [
        ({"type": "json_object"}, "json"),
        ({"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"name": "s"}}, "json"),
    ],
    ids=str,
)
def test_a_response_format_is_a_format(wanted: dict[str, Any], form: Any) -> None:
    assert sent({"response_format": wanted})["format"] == form
    assert "format" not in sent({"response_format": {"type": "text"}})


@pytest.mark.parametrize(
    ("fields", "model", "think", "told"),
    [
        ({"reasoning_effort": "none"}, "qwen3:8b", False, {}),
        ({"reasoning_effort": "minimal"}, "qwen3:8b", "low", {"/reasoning_effort": "changed"}),
        ({"reasoning_effort": "medium"}, "gpt-oss:20b", "medium", {}),
        ({"reasoning_effort": "max"}, "qwen3.8", "max", {}),
        ({"reasoning_effort": "xhigh"}, "qwen3.8", "max", {"/reasoning_effort": "changed"}),
        ({"reasoning_effort": "max"}, "gpt-oss:120b-cloud", "high", {"/reasoning_effort": "changed"}),
        ({"reasoning": {"effort": "high"}}, "qwen3:8b", "high", {}),
        ({"reasoning": {"enabled": False}}, "qwen3:8b", False, {}),
        ({"reasoning": {"max_tokens": 100}}, "qwen3:8b", True, {"/reasoning/max_tokens": "changed"}),
    ],
)
def test_an_effort_is_a_word_of_think(fields: Any, model: str, think: Any, told: dict[str, str]) -> None:
    body = orjson.loads(open_codec(fields, model).wire.content)
    assert body["think"] == think
    assert losses(fields, model) == told


def test_log_probabilities_are_asked_for() -> None:
    body = sent({"logprobs": True, "top_logprobs": 3})
    assert (body["logprobs"], body["top_logprobs"]) == (True, 3)


@pytest.mark.parametrize(
    ("choice", "names", "told"),
    [
        ("auto", ["f", "g"], {}),
        ("none", None, {"/tool_choice": "emulated"}),
        ("required", ["f", "g"], {"/tool_choice": "dropped"}),
        ({"type": "function", "function": {"name": "f"}}, ["f", "g"], {"/tool_choice": "dropped"}),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [OTHER]}},
            ["g"],
            {"/tool_choice": "emulated"},
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [OTHER]}},
            ["g"],
            {"/tool_choice": "emulated", "/tool_choice/allowed_tools/mode": "dropped"},
        ),
    ],
    ids=str,
)
def test_a_tool_choice_is_brought_about_or_told(choice: Any, names: list[str] | None, told: dict[str, str]) -> None:
    chat = {"tools": [TOOL, OTHER], "tool_choice": choice}
    body = sent(chat)
    assert (names is None and "tools" not in body) or [tool["function"]["name"] for tool in body["tools"]] == names
    assert losses(chat) == told


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"user": "u", "metadata": {"a": "b"}, "store": True, "logit_bias": {"1": 1}},
         ["/user", "/metadata", "/store", "/logit_bias"]),
        ({"brand/new": 1, "enable_thinking": False, "zero": 0}, ["/brand~1new", "/enable_thinking", "/zero"]),
        ({"service_tier": "flex"}, ["/service_tier"]),
        ({"parallel_tool_calls": False, "tools": [TOOL]}, ["/parallel_tool_calls"]),
        ({"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]}, ["/tools/0/function/strict"]),
        ({"messages": [USER | {"name": "Ann"}]}, ["/messages/0/name"]),
        ({"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "high"}}]}]},
         ["/messages/0/content/0/image_url/detail"]),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_carried_is_told(fields: dict[str, Any], told: list[str]) -> None:
    assert losses(fields) == dict.fromkeys(told, "dropped")


def test_defaults_are_no_loss() -> None:
    assert losses({"n": 1, "store": False, "service_tier": "auto", "stream_options": {"include_usage": True}}) == {}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"modalities": ["text", "audio"]}, "modalities[1]"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"ollama": []}, "ollama"),
        ({"ollama": {"model": "other"}}, "ollama.model"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA"}}]}]},
         "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": "JVBERi0="}}]}]},
         "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]}]},
         "messages[0].content[0].image_url.url"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [call("c", arguments="{oops")]}]},
         "messages[1].tool_calls[0].function.arguments"),
    ],
    ids=str,
)  # fmt: skip
def test_what_ollama_cannot_do_is_a_400_that_names_field_and_provider(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        open_codec(fields)
    assert raised.value.param == param
    assert raised.value.status == 400
    assert "ollama" in raised.value.message.lower()


# --- messages -------------------------------------------------------------------------------------------------------


def messages(*given: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sent({"messages": list(given)})["messages"]
    return found


def test_a_developer_speaks_as_the_system() -> None:
    assert messages({"role": "developer", "content": "Be kind."}, USER)[0] == {"role": "system", "content": "Be kind."}


def test_images_are_bare_base64_beside_the_text() -> None:
    parts = [{"type": "text", "text": "See"}, IMAGE, {"type": "text", "text": "this"}]
    assert messages({"role": "user", "content": parts}) == [{"role": "user", "content": "See\nthis", "images": [PNG]}]


def test_calls_and_results_keep_their_ids_and_names() -> None:
    found = messages(
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call("1"), call("2", "g", "")]},
        {"role": "tool", "tool_call_id": "1", "content": "one"},
        {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "two"}]},
    )
    assert found[1:] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "1", "function": {"name": "f", "arguments": {"a": 1}}},
                {"id": "2", "function": {"name": "g", "arguments": {}}},
            ],
        },
        {"role": "tool", "content": "one", "tool_name": "f", "tool_call_id": "1"},
        {"role": "tool", "content": "two", "tool_name": "g", "tool_call_id": "2"},
    ]


def test_images_in_results_follow_as_a_user_message() -> None:
    given = [
        USER,
        {"role": "assistant", "tool_calls": [call("1"), call("2")]},
        {"role": "tool", "tool_call_id": "1", "content": [IMAGE]},
        {"role": "tool", "tool_call_id": "2", "content": "two"},
    ]
    for more in ([], [USER]):
        found = messages(*given, *more)
        assert found[4] == {"role": "user", "content": "", "images": [PNG]}
        assert len(found) == 5 + len(more)
    assert losses({"messages": given}) == {"/messages/2/content": "changed"}


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"content": "a", "reasoning_content": "hm"}, {"content": "a", "thinking": "hm"}),
        ({"content": "a", "reasoning": "hm"}, {"content": "a", "thinking": "hm"}),
        (
            {"content": "a", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
            {"content": "a", "thinking": "hm"},
        ),
        ({"content": None, "refusal": "No."}, {"content": "No."}),
        ({"content": "I began", "refusal": "No."}, {"content": "I began\nNo."}),
        ({"content": "", "images": [{"image_url": {"url": f"data:image/png;base64,{PNG}"}}]},
         {"content": "", "images": [PNG]}),
    ],
    ids=str,
)  # fmt: skip
def test_an_earlier_answer_goes_back_whole(fields: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert messages(USER, {"role": "assistant", **fields}, USER)[1] == {"role": "assistant", **wanted}


def test_signatures_of_other_providers_are_told_as_dropped() -> None:
    detail = {"type": "reasoning.text", "text": "hm", "signature": "c2ln", "format": "anthropic-claude-v1"}
    chat = {"messages": [USER, {"role": "assistant", "content": "a", "reasoning_details": [detail]}, USER]}
    assert losses(chat) == {"/messages/1/reasoning_details": "dropped"}
    assert b"c2ln" not in open_codec(chat).wire.content


def test_deprecated_functions_become_tools() -> None:
    body = sent(
        {
            "functions": [{"name": "f", "parameters": {"type": "object", "properties": {}}}],
            "messages": [
                USER,
                {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
                {"role": "function", "name": "f", "content": "ok"},
            ],
        }
    )
    assert body["tools"] == [TOOL]
    assert body["messages"][2]["tool_name"] == "f"


def test_one_more_turn_only_adds_to_the_bytes() -> None:
    turns: list[dict[str, Any]] = [
        {"role": "system", "content": "Be kind."},
        USER,
        {"role": "assistant", "content": "", "tool_calls": [call("1")]},
        {"role": "tool", "tool_call_id": "1", "content": "ok"},
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "More"},
    ]
    before = b""
    for count in range(1, len(turns) + 1):
        content = open_codec({"messages": turns[:count]}).wire.content
        assert content.startswith(before)
        before = content.partition(b'],"stream"')[0]
