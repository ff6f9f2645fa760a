"""Fields of a chat request as Claude's parameters: limits, sampling, identity, headers, and what is told as lost."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gw.adapters.anthropic import Anthropic
from gw.errors import ConfigError, InvalidRequest
from tests.anthropic_fakes import (
    ADAPTIVE,
    BUDGET,
    OLD,
    body_of,
    called,
    codec_of,
    encoded,
    function,
    pointers,
    request_of,
    result,
    user,
)

HI = [user()]


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": HI} | fields


def refused(fields: dict[str, Any], model: str = BUDGET) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        codec_of(chat(**fields), model)
    return caught.value


def test_max_tokens_defaults_to_what_the_model_can_write() -> None:
    assert body_of(chat(), BUDGET)["max_tokens"] == 64_000
    assert body_of(chat(), "claude-opus-9")["max_tokens"] == 8192
    assert body_of(chat(), BUDGET, max_tokens=1000)["max_tokens"] == 1000
    assert body_of(chat(max_tokens=5), BUDGET, max_tokens=1000)["max_tokens"] == 5
    assert body_of(chat(max_tokens=5, max_completion_tokens=6))["max_tokens"] == 6


def test_max_tokens_is_cut_to_the_models_cap_and_told() -> None:
    body, losses = encoded(chat(max_completion_tokens=1_000_000), OLD)
    assert body["max_tokens"] == 8192
    assert pointers(losses) == [("/max_completion_tokens", "changed")]


@pytest.mark.parametrize("value", [0, -1, True, "9"])
def test_a_limit_below_one_is_refused(value: Any) -> None:
    assert refused({"max_tokens": value}).param == "max_tokens"


@pytest.mark.parametrize(
    ("fields", "model", "sent", "lost"),
    [
        ({"temperature": 0.5}, BUDGET, {"temperature": 0.5}, []),
        ({"temperature": 1.5}, BUDGET, {"temperature": 1.0}, [("/temperature", "changed")]),
        ({"temperature": 0.5, "top_p": 0.9}, BUDGET, {"temperature": 0.5}, [("/top_p", "dropped")]),
        ({"top_p": 0.9, "top_k": 5}, BUDGET, {"top_p": 0.9, "top_k": 5}, []),
        ({"temperature": 0.5}, ADAPTIVE, {}, [("/temperature", "dropped")]),
        ({"temperature": 1, "top_p": 1}, ADAPTIVE, {}, []),
        ({"temperature": 0.5, "reasoning_effort": "low"}, BUDGET, {}, [("/temperature", "dropped")]),
        ({"temperature": 1, "reasoning_effort": "low"}, BUDGET, {}, []),
    ],
)
def test_sampling_goes_as_far_as_the_model_takes_it(
    fields: dict[str, Any], model: str, sent: dict[str, Any], lost: list[tuple[str, str]]
) -> None:
    body, losses = encoded(chat(**fields), model)
    assert {name: body[name] for name in ("temperature", "top_p", "top_k") if name in body} == sent
    assert pointers(losses) == lost


def test_stop_becomes_stop_sequences_without_blank_ones() -> None:
    assert body_of(chat(stop="END"))["stop_sequences"] == ["END"]
    body, losses = encoded(chat(stop=["END", "\n"]))
    assert body["stop_sequences"] == ["END"]
    assert pointers(losses) == [("/stop", "dropped")]
    assert "stop_sequences" not in encoded(chat(stop=["\n"]))[0]
    assert refused({"stop": [7]}).param == "stop"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"modalities": ["text", "audio"], "audio": {"voice": "x", "format": "wav"}}, "audio"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"modalities": ["text", "image"]}, "modalities"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"temperature": "hot"}, "temperature"),
        ({"anthropic": {"model": "other"}}, "anthropic.model"),
        ({"anthropic": 7}, "anthropic"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
    ],
)
def test_what_claude_cannot_do_is_refused_before_anything_is_sent(fields: dict[str, Any], param: str) -> None:
    error = refused(fields)
    assert (error.status, error.param) == (400, param)


def test_what_claude_does_not_know_is_told_as_dropped() -> None:
    given = {
        "seed": 7,
        "logprobs": True,
        "top_logprobs": 3,
        "logit_bias": {"5": 1},
        "frequency_penalty": 0.5,
        "presence_penalty": -0.5,
        "metadata": {"a": "b"},
        "store": True,
        "prediction": {"type": "content", "content": ""},
        "prompt_cache_key": "k",
        "verbosity": "low",
        "extra/field": 1,
    }
    _, losses = encoded(chat(**given))
    assert sorted(pointer for pointer, _ in pointers(losses)) == sorted("/" + name.replace("/", "~1") for name in given)
    assert {kind for _, kind in pointers(losses)} == {"dropped"}


def test_values_that_say_nothing_are_no_loss() -> None:
    silent = {
        "logprobs": False,
        "store": False,
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "n": 1,
        "seed": None,
        "modalities": ["text"],
        "stream_options": {"include_usage": True, "include_obfuscation": False},
        "parallel_tool_calls": True,
        "response_format": {"type": "text"},
        "logit_bias": {},
    }
    assert set(body_of(chat(**silent))) == {"model", "max_tokens", "messages"}


@pytest.mark.parametrize(
    ("user_id", "is_sent"),
    [("u-83", True), ("ann@example.com", False), ("+49 (171) 555 0100", False), ("x" * 300, False)],
)
def test_a_user_is_named_unless_that_names_a_person(user_id: str, is_sent: bool) -> None:
    body, losses = encoded(chat(user=user_id))
    assert body.get("metadata") == ({"user_id": user_id} if is_sent else None)
    assert pointers(losses) == ([] if is_sent else [("/user", "dropped")])


def test_a_safety_identifier_stands_before_the_user() -> None:
    body, losses = encoded(chat(user="a", safety_identifier="b"))
    assert body["metadata"] == {"user_id": "b"}
    assert pointers(losses) == [("/user", "dropped")]
    assert body_of(chat(user="b", safety_identifier="b"))["metadata"] == {"user_id": "b"}
    assert body_of(chat(user="a"))["metadata"] == {"user_id": "a"}


@pytest.mark.parametrize(
    ("tier", "sent", "lost"),
    [("auto", "auto", False), ("default", "standard_only", False), ("flex", None, True), ("priority", None, True)],
)
def test_service_tiers(tier: str, sent: str | None, lost: bool) -> None:
    body, losses = encoded(chat(service_tier=tier))
    assert body.get("service_tier") == sent
    assert bool(losses) is lost


def test_anthropics_own_fields_pass_through_and_win() -> None:
    codec = codec_of(
        chat(
            reasoning_effort="low", anthropic={"thinking": {"type": "enabled", "budget_tokens": 9000}, "betas": ["b-2"]}
        ),
        betas=["b-1"],
    )
    body = orjson.loads(codec.wire.content)
    assert body["thinking"]["budget_tokens"] == 9000
    assert "betas" not in body
    assert ("anthropic-beta", "b-1,b-2") in codec.wire.headers


def test_the_wire_request_is_ready_to_be_sent() -> None:
    wire = codec_of(chat(stream=True), ADAPTIVE, base_url="https://proxy.example/v1/").wire
    assert (wire.method, wire.url, wire.stream) == ("POST", "https://proxy.example/v1/messages", True)
    headers = dict(wire.headers)
    assert headers["x-api-key"] == "sk-ant-test"
    assert headers["anthropic-version"] == "2023-06-01"
    assert headers["content-type"] == "application/json"
    body = orjson.loads(wire.content)
    assert (body["model"], body["stream"]) == (ADAPTIVE, True)
    assert "sk-ant-test" not in wire.url + wire.content.decode()


def test_configured_headers_win_whatever_their_case() -> None:
    headers = dict(codec_of(chat(), headers={"Anthropic-Version": "2099-01-01", "X-Team": "a"}).wire.headers)
    assert headers["anthropic-version"] == "2099-01-01"
    assert headers["x-team"] == "a"


def test_without_a_key_no_key_is_sent() -> None:
    codec = Anthropic().open(request_of(chat(), key=None))
    assert "x-api-key" not in dict(codec.wire.headers)


def test_flags_change_what_is_known_of_the_models() -> None:
    body = body_of(chat(temperature=0.5), ADAPTIVE, flags={"sampling": True, "max_output": 10})
    assert (body["temperature"], body["max_tokens"]) == (0.5, 10)


@pytest.mark.parametrize("options", [{"flags": {"smapling": True}}, {"flags": {"sampling": 1}}, {"max_tokens": 0}])
def test_wrong_options_are_refused_at_start(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Anthropic(**options)


def test_web_search_becomes_anthropics_own_tool() -> None:
    where = {"type": "approximate", "approximate": {"city": "Paris", "country": "FR"}}
    body = body_of(chat(web_search_options={"user_location": where}))
    location = {"type": "approximate", "city": "Paris", "country": "FR"}
    assert body["tools"] == [{"type": "web_search_20250305", "name": "web_search", "user_location": location}]
    assert "tool_choice" not in body


def test_what_the_search_cannot_be_told_is_dropped() -> None:
    assert body_of(chat(web_search_options={"search_context_size": "medium"}))["tools"]
    _, losses = encoded(chat(web_search_options={"search_context_size": "high", "user_location": "Paris"}))
    assert pointers(losses) == [
        ("/web_search_options/search_context_size", "dropped"),
        ("/web_search_options/user_location", "dropped"),
    ]


HISTORY = [user(), called(("c1", "look", "{}")), result("c1"), {"role": "assistant", "content": "So."}, user("Search")]
FORM = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize(
    ("fields", "losses"),
    [
        ({"messages": HISTORY}, [("/tools", "emulated")]),
        ({"tools": [function()], "tool_choice": "none"}, [("/tool_choice", "emulated")]),
        ({"response_format": FORM}, [("/response_format", "emulated")]),
        ({"response_format": FORM, "tools": [function()]}, [("/response_format", "emulated")]),
    ],
    ids=["history", "none", "form", "form and tools"],
)
def test_a_search_that_is_asked_for_can_run(fields: dict[str, Any], losses: list[tuple[str, str]]) -> None:
    body, told = encoded(chat(**{"web_search_options": {}} | fields), OLD)
    assert body["tools"][-1]["name"] == "web_search"
    assert body.get("tool_choice", {"type": "auto"})["type"] == "auto"
    if "response_format" not in fields:
        assert "no tool but web_search" in body["system"][-1]["text"]
    assert pointers(told) == losses
