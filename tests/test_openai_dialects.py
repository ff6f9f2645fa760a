"""Dialects of OpenAI's API: told by the host or named, only what one demands is changed, and each loss is told."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gw.adapters.openai import DIALECTS, OpenAI
from gw.adapters.openai.messages import short_id
from gw.adapters.openrouter import OpenRouter
from gw.errors import InvalidRequest
from gw.message import Loss
from tests.openai_requests import HI, body, send, told


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://mine.openai.azure.com/openai/v1", "azure"),
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "alibaba"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini"),
        ("http://localhost:11434/v1", "ollama"),
        ("http://127.0.0.1:8000/v1", "generic"),
        ("https://notopenai.com/v1", "generic"),
        ("https://api.openai.com.evil.example/v1", "generic"),
    ],
)
def test_the_host_tells_the_dialect(base_url: str, name: str) -> None:
    assert OpenAI(base_url=base_url).dialect.name == name


def test_a_dialect_by_name_wins_over_the_host() -> None:
    assert OpenAI(base_url="http://127.0.0.1:8000/v1", dialect="vllm").dialect.name == "vllm"


def test_a_key_is_offered_only_to_the_host_whose_key_it_is() -> None:
    assert OpenAI().key_envs == ("OPENAI_API_KEY",)
    assert OpenAI(base_url="https://api.groq.com/openai/v1").key_envs == ("GROQ_API_KEY",)
    assert OpenAI(base_url="http://127.0.0.1:8000/v1").key_envs == ()
    assert OpenRouter().key_envs == ("OPENROUTER_API_KEY",)


def test_a_key_is_needed_at_known_hosts_and_optional_elsewhere() -> None:
    assert OpenAI().needs_key
    assert OpenRouter().needs_key
    assert not OpenAI(base_url="http://127.0.0.1:8000/v1").needs_key
    assert not OpenAI(base_url="http://localhost:11434/v1").needs_key


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "api.openai.com"},
        {"base_url": "ftp://x/v1"},
        {"base_url": "https://user:pass@x/v1"},
        {"base_url": "https://x/v1?key=1"},
        {"dialect": "opnai"},
    ],
)
def test_an_option_that_cannot_be_meant_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"base_url|dialect"):
        OpenAI(**options)


def test_developer_becomes_system_where_only_openai_knows_the_word() -> None:
    messages = [{"role": "developer", "content": "Be brief"}, *HI]
    codec = send({"messages": messages}, dialect="generic")
    assert orjson.loads(codec.wire.content)["messages"] == [{"role": "system", "content": "Be brief"}, *HI]
    assert told(codec) == {("/messages/0/role", "changed")}
    assert body({"messages": messages}, dialect="openai")["messages"] == messages


@pytest.mark.parametrize(
    ("dialect", "model", "came", "sent"),
    [
        ("openai", "gpt-5-mini", {"max_tokens": 5}, {"max_completion_tokens": 5}),
        ("openai", "o3", {"max_tokens": 5}, {"max_completion_tokens": 5}),
        ("azure", "gpt-5.2", {"max_tokens": 5}, {"max_completion_tokens": 5}),
        ("openai", "gpt-5-chat-latest", {"max_tokens": 5}, {"max_tokens": 5}),
        ("openai", "gpt-4o", {"max_tokens": 5}, {"max_tokens": 5}),
        ("mistral", "m", {"max_completion_tokens": 5}, {"max_tokens": 5}),
        ("deepseek", "m", {"max_completion_tokens": 5, "max_tokens": 7}, {"max_tokens": 7}),
        ("generic", "m", {"max_completion_tokens": 5}, {"max_completion_tokens": 5}),
    ],
)
def test_the_limit_of_tokens_goes_out_under_the_name_that_is_known_there(
    dialect: str, model: str, came: dict[str, int], sent: dict[str, int]
) -> None:
    codec = send(came, dialect=dialect, model=model)
    out = orjson.loads(codec.wire.content)
    assert {name: out[name] for name in ("max_tokens", "max_completion_tokens") if name in out} == sent
    assert bool(codec.losses) == (came != sent)


@pytest.mark.parametrize(
    ("model", "extra", "kept"),
    [
        ("o3", {}, False),
        ("gpt-5", {}, False),
        ("gpt-5-mini-2025-08-07", {}, False),
        ("gpt-5.1", {}, True),
        ("gpt-5.1", {"reasoning_effort": "high"}, False),
        ("gpt-5.2", {"reasoning_effort": "none"}, True),
        ("gpt-4o", {}, True),
        ("gpt-5-chat-latest", {}, True),
    ],
)
def test_sampling_is_dropped_where_an_openai_model_reasons(model: str, extra: dict[str, Any], kept: bool) -> None:
    codec = send({"temperature": 0.2, "top_p": 1, "stop": ["x"], **extra}, model=model)
    out = orjson.loads(codec.wire.content)
    assert ("temperature" in out, "stop" in out, "top_p" in out) == (kept, kept, True)
    assert told(codec) == (set() if kept else {("/temperature", "dropped"), ("/stop", "dropped")})


def test_functions_and_reasoning_exclude_each_other_from_gpt_5_4_on() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    codec = send({"tools": tools, "reasoning_effort": "high"}, model="gpt-5.4")
    assert orjson.loads(codec.wire.content)["reasoning_effort"] == "none"
    assert told(codec) == {("/reasoning_effort", "changed")}
    assert body({"tools": tools, "reasoning_effort": "high"}, model="gpt-5.3")["reasoning_effort"] == "high"


def test_groq_is_not_sent_what_it_refuses() -> None:
    message = {"role": "assistant", "content": "x", "name": "n", "reasoning_content": "r", "refusal": None}
    codec = send({"messages": [message], "logit_bias": {"1": 1}, "presence_penalty": 1}, dialect="groq")
    out = orjson.loads(codec.wire.content)
    assert out["messages"] == [{"role": "assistant", "content": "x"}]
    assert {"logit_bias", "presence_penalty"}.isdisjoint(out)
    assert told(codec) == {
        ("/messages/0/name", "dropped"),
        ("/messages/0/reasoning_content", "dropped"),
        ("/logit_bias", "dropped"),
        ("/presence_penalty", "dropped"),
    }


def test_several_choices_are_refused_where_one_is_all_there_is() -> None:
    with pytest.raises(InvalidRequest) as refused:
        send({"n": 2}, dialect="groq")
    assert (refused.value.status, refused.value.param, refused.value.code) == (400, "n", "unsupported_parameter")
    assert "groq" in refused.value.message
    assert body({"n": 1}, dialect="groq")["n"] == 1


def test_mistral_gets_its_own_words() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]
    named = {"type": "function", "function": {"name": "g"}}
    codec = send({"tools": tools, "tool_choice": named, "seed": 7, "user": "u"}, dialect="mistral")
    out = orjson.loads(codec.wire.content)
    assert (out["tools"], out["tool_choice"], out["random_seed"]) == ([tools[1]], "any", 7)
    assert {"seed", "user"}.isdisjoint(out)
    assert told(codec) == {("/tool_choice", "emulated"), ("/seed", "changed"), ("/user", "dropped")}
    assert body({"tools": tools, "tool_choice": "required"}, dialect="mistral")["tool_choice"] == "any"


@pytest.mark.parametrize(("mode", "word"), [("auto", "auto"), ("required", "any")])
def test_mistral_is_given_the_allowed_tools_alone(mode: str, word: str) -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("f", "g", "h")]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [tools[0], tools[2]]}}
    codec = send({"tools": tools, "tool_choice": choice}, dialect="mistral")
    out = orjson.loads(codec.wire.content)
    assert (out["tools"], out["tool_choice"]) == ([tools[0], tools[2]], word)
    assert told(codec) == {("/tool_choice", "emulated")}


@pytest.mark.parametrize("dialect", ["openai", "openrouter", "groq", "mistral", "generic"])
def test_fields_of_other_kinds_of_backend_are_kept_back_and_told(dialect: str) -> None:
    fields = {"anthropic": {"betas": ["b"]}, "gemini": {"a": 1}, "ollama": {"a": 1}, "allowed_tools": ["Read"]}
    codec = send({**fields, "disallowed_tools": []}, dialect=dialect)
    assert {*fields, "disallowed_tools"}.isdisjoint(orjson.loads(codec.wire.content))
    assert told(codec) == {(f"/{name}", "dropped") for name in fields}


def test_a_tool_choice_that_names_no_tool_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not among the tools"):
        send({"tool_choice": {"type": "function", "function": {"name": "g"}}}, dialect="mistral")


def test_mistral_gets_ids_of_nine_letters_the_same_in_call_and_result() -> None:
    call = {"id": "call_Do41uhRCrKGPKQuMeRWhVg7A", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "1"},
    ]
    out = body({"messages": messages}, dialect="mistral")["messages"]
    assert out[0]["tool_calls"][0]["id"] == out[1]["tool_call_id"]
    assert len(out[1]["tool_call_id"]) == 9
    assert out[1]["tool_call_id"].isalnum()
    assert short_id("KikbB849t") == "KikbB849t"


@pytest.mark.parametrize(
    ("dialect", "field"),
    [("deepseek", "reasoning_content"), ("moonshot", "reasoning_content"), ("ollama", "reasoning")],
)
def test_reasoning_goes_back_under_the_name_that_is_known_there(dialect: str, field: str) -> None:
    for came in ("reasoning_content", "reasoning"):
        message = {"role": "assistant", "content": "x", came: "because"}
        assert body({"messages": [message]}, dialect=dialect)["messages"] == [
            {"role": "assistant", "content": "x", field: "because"}
        ]


def test_mistral_gets_reasoning_back_as_a_thinking_part() -> None:
    message = {"role": "assistant", "content": "x", "reasoning_content": "because"}
    assert body({"messages": [message]}, dialect="mistral")["messages"][0]["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "because"}]},
        {"type": "text", "text": "x"},
    ]


SIGNED = {"type": "reasoning.text", "text": "so", "signature": "sig", "format": "mistral-v1", "index": 0}
CLAUDES = SIGNED | {"format": "anthropic-claude-v1"}


@pytest.mark.parametrize(
    ("reasoning", "details", "sent"),
    [
        ("so", [SIGNED], [("so", "sig")]),
        ("so", [SIGNED | {"text": None}], [("so", "sig")]),  # streamed: signed behind the last piece
        (None, [SIGNED], [("so", "sig")]),
        ("soon", [SIGNED, SIGNED | {"text": "on", "signature": "n"}], [("so", "sig"), ("on", "n")]),
    ],
)
def test_mistral_gets_its_signed_thinking_back(reasoning: str | None, details: list[Any], sent: list[Any]) -> None:
    message = {"role": "assistant", "content": "x", "reasoning_content": reasoning, "reasoning_details": details}
    codec = send({"messages": [message]}, dialect="mistral")
    assert orjson.loads(codec.wire.content)["messages"][0]["content"] == [
        *({"type": "thinking", "thinking": [{"type": "text", "text": t}], "signature": sig} for t, sig in sent),
        {"type": "text", "text": "x"},
    ]
    assert told(codec) == set()


@pytest.mark.parametrize(
    ("dialect", "details"),
    [
        ("deepseek", [CLAUDES]),
        ("mistral", [CLAUDES]),
        ("ollama", [{"type": "reasoning.encrypted", "data": "x"}]),
        ("mistral", [SIGNED, SIGNED]),  # whose thoughts are whose cannot be told
    ],
)
def test_a_signature_that_cannot_go_back_beside_its_text_is_told(dialect: str, details: list[Any]) -> None:
    message = {"role": "assistant", "content": "x", "reasoning_content": "so", "reasoning_details": details}
    codec = send({"messages": [message]}, dialect=dialect)
    assert b'"so"' in codec.wire.content
    assert b"sig" not in codec.wire.content
    assert told(codec) == {("/messages/0/reasoning_details", "dropped")}
    message["reasoning_details"] = [{"type": "reasoning.text", "text": "so"}]
    assert told(send({"messages": [message]}, dialect=dialect)) == set()


STRICT = sorted(name for name, row in DIALECTS.items() if row.reasoning != "as it came")


@pytest.mark.parametrize("dialect", STRICT)
def test_what_only_another_providers_answers_carry_is_kept_from_strict_hosts_and_told(dialect: str) -> None:
    extra = {"google": {"thought_signature": "sig"}}
    call = {"id": "abcdefgh1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    calls = {
        "role": "assistant",
        "content": None,
        "tool_calls": [call, call | {"id": "abcdefgh2", "extra_content": extra}],
    }
    drawn = {"role": "assistant", "content": None, "images": [image], "extra_content": extra}
    codec = send({"messages": [calls, drawn]}, dialect=dialect)
    bare = calls | {"tool_calls": [call, call | {"id": "abcdefgh2"}]}
    assert orjson.loads(codec.wire.content)["messages"] == [bare, {"role": "assistant", "content": ""}]
    places = ("0/tool_calls/1/extra_content", "1/extra_content", "1/images")
    assert told(codec) == {(f"/messages/{place}", "dropped") for place in places}


def test_openrouter_gets_reasoning_back_unmodified() -> None:
    message = {"role": "assistant", "content": "x", "reasoning_details": [{"type": "reasoning.text", "signature": "s"}]}
    came = orjson.dumps({"model": "upstream", "messages": [message]})
    assert send(came, dialect="openrouter").wire.content is came


def test_a_schema_is_told_in_words_where_only_json_is_known() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    messages = [{"role": "system", "content": "Be brief"}, *HI]
    codec = send({"response_format": wanted, "messages": messages}, dialect="deepseek")
    out = orjson.loads(codec.wire.content)
    assert out["response_format"] == {"type": "json_object"}
    assert [message["role"] for message in out["messages"]] == ["system", "system", "user"]
    assert orjson.dumps(schema).decode() in out["messages"][1]["content"]
    assert told(codec) == {("/response_format", "emulated")}


def test_images_in_a_tools_result_move_to_a_message_of_the_user_at_openai() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = [
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "see"}, image]},
        {"role": "tool", "tool_call_id": "2", "content": "plain"},
        {"role": "user", "content": "and?"},
    ]
    codec = send({"messages": messages}, dialect="openai")
    assert orjson.loads(codec.wire.content)["messages"] == [
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "see"}]},
        messages[1],
        {"role": "user", "content": [image]},
        messages[2],
    ]
    assert told(codec) == {("/messages/0/content", "changed")}


def test_ollama_is_sent_no_urls_that_it_cannot_fetch() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    with pytest.raises(InvalidRequest) as refused:
        send({"messages": [*HI, {"role": "user", "content": [image]}]}, dialect="ollama")
    assert refused.value.param == "messages[1].content[0].image_url.url"


def test_a_tool_choice_that_is_ignored_there_is_told() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert told(send({"tools": tools, "tool_choice": "required"}, dialect="ollama")) == {("/tool_choice", "dropped")}
    assert "tools" not in body({"tools": tools, "tool_choice": "none"}, dialect="ollama")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_plain_conversation_loses_nothing_anywhere(dialect: str) -> None:
    call = {"id": "KikbB849t", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "KikbB849t", "content": "1"},
    ]
    came = orjson.dumps({"model": "m", "messages": messages, "temperature": 0.5, "tools": [], "tool_choice": "auto"})
    codec = send(came, dialect=dialect)
    assert codec.wire.content == came.replace(b'"model":"m"', b'"model":"upstream"')
    assert list(codec.losses) == []


def test_the_same_conversation_and_one_more_turn_share_their_bytes() -> None:
    first = [
        {"role": "developer", "content": "x", "name": "n"},
        {"role": "assistant", "content": "y", "reasoning": "r"},
    ]
    for dialect in DIALECTS:
        one = send(orjson.dumps({"model": "m", "messages": first}), dialect=dialect).wire.content
        two = send(orjson.dumps({"model": "m", "messages": [*first, *HI]}), dialect=dialect).wire.content
        assert two.startswith(one[: one.rindex(b"]")]), dialect


def test_losses_are_pointers_into_the_clients_own_request() -> None:
    assert send({"logprobs": True}, dialect="groq").losses == [Loss("/logprobs", "dropped", "groq does not take it")]
