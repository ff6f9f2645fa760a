"""What the openai adapter sends: the client's own bytes, and only what a dialect demands changed, each loss told."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.adapter import Adapter
from gw.adapters.openai import DIALECTS, OpenAI, OpenAICodec
from gw.adapters.openai.messages import short_id
from gw.adapters.openrouter import OpenRouter
from gw.backend import Backend
from gw.document import Document
from gw.errors import InvalidRequest
from gw.message import Candidate, Loss
from gw.secret import Secret
from tests.fakes import chat_request

HI: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
KEY = Secret("sk-test-canary-123456")


def send(
    raw: bytes | dict[str, Any],
    *,
    model: str = "upstream",
    stream: bool | None = None,
    adapter: OpenAI | None = None,
    dialect: str | None = "openai",
    key: Secret | None = None,
) -> OpenAICodec:
    """Open a codec for a body, as the bytes that came or as a value."""
    adapter = adapter if adapter is not None else OpenAI(base_url="http://127.0.0.1:8000/v1", dialect=dialect)
    document = Document(raw if isinstance(raw, bytes) else orjson.dumps({"model": "m", "messages": HI, **raw}))
    wanted = bool(document.peek().get("stream")) if stream is None else stream
    request = chat_request({"stream": wanted})
    backend = Backend(name="b", kind="openai", adapter=adapter)
    candidate = Candidate(backend, model, "asked-for", key=key)
    return adapter.open(request.replace(document=document, candidates=(candidate,)))


def body(raw: bytes | dict[str, Any], **options: Any) -> Any:
    return orjson.loads(send(raw, **options).wire.content)


def told(codec: OpenAICodec) -> set[tuple[str, str]]:
    return {(loss.pointer, loss.kind) for loss in codec.losses}


# --- same dialect, same bytes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("came", "sent"),
    [
        (b'{"model":"a","messages":[]}', b'{"model":"upstream","messages":[]}'),
        (b' {\n "model" : "a" ,\t"messages":[ ] }\r\n', b' {\n "model" : "upstream" ,\t"messages":[ ] }\r\n'),
        (b'{"messages":[{"role":"user","content":"x"}],"model":"a"}', None),
        (b'{"messages":[{"role":"user","content":"say \\"model\\":\\"a\\""}],"model":"a","n":1}', None),
        (b'{"metadata":{"model":"a"},"messages":[],"model":"a"}', None),
        (b'{"tools":[{"model":"a","x":["model","a"]}],"model":"a","messages":[],"x":"model"}', None),
        (b'{"model":null,"messages":[]}', b'{"model":"upstream","messages":[]}'),
        (b'{"messages":[]}', b'{"messages":[],"model":"upstream"}'),
        (b'{"model":"a","messages":[],"temperature":1.0,"seed":12345678901234567890}', None),
        ('{"model":"a","messages":[],"x":"é\\u00e9 \\ud83d\\ude00"}'.encode(), None),
    ],
)
def test_the_clients_bytes_are_sent_with_only_the_name_of_the_model_replaced(came: bytes, sent: bytes | None) -> None:
    if sent is None:
        head, _, tail = came.rpartition(b'"model":"a"')
        sent = head + b'"model":"upstream"' + tail
    codec = send(came)
    assert codec.wire.content == sent
    assert list(codec.losses) == []


def test_a_body_that_needs_no_change_is_sent_as_the_very_same_object() -> None:
    came = b'{"model":"upstream","messages":[]}'
    assert send(came).wire.content is came


def test_a_large_body_is_spliced_without_being_written_anew() -> None:
    image = b"data:image/png;base64," + b"A" * 3_000_000
    content = b'[{"type":"image_url","image_url":{"url":"' + image + b'"}}]'
    came = b'{"model":"a",  "messages":[{"role":"user","content":' + content + b"}]}"
    assert send(came).wire.content == came.replace(b'"model":"a"', b'"model":"upstream"', 1)


def test_of_two_models_at_the_top_none_survives() -> None:
    assert body(b'{"model":"cheap","messages":[],"model":"dear"}')["model"] == "upstream"
    assert send(b'{"model":"cheap","messages":[],"model":"dear"}').wire.content.count(b'"model"') == 1


def test_a_model_spelt_with_escapes_does_not_slip_through() -> None:
    sent = send(b'{"model":"cheap","messages":[],"mod\\u0065l":"dear"}').wire.content
    assert b"dear" not in sent
    assert orjson.loads(sent)["model"] == "upstream"


def test_a_nested_model_is_never_touched() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"model": {"const": "m"}}}}}]
    sent = body({"tools": tools, "response_format": {"model": "m"}, "metadata": {"model": "m"}})
    assert sent["tools"] == tools
    assert sent["response_format"] == {"model": "m"}
    assert sent["metadata"] == {"model": "m"}
    assert sent["model"] == "upstream"


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(max_size=8)
    | st.just("model")
    | st.floats(-9, 9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["model", "a", "stream_options", 'x"model']), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    fields=st.dictionaries(st.sampled_from(["a", "b", "metadata", "user", 'q"', "back\\"]), _json, max_size=4),
    model=st.none() | st.text(max_size=6),
    place=st.integers(0, 4),
    stream=st.booleans(),
    indent=st.booleans(),
    name=st.text(min_size=1, max_size=6),
)
def test_splicing_means_the_same_as_writing_the_whole_body(
    fields: dict[str, Any], model: str | None, place: int, stream: bool, indent: bool, name: str
) -> None:
    members = [*fields.items(), ("messages", HI), ("stream", stream)]
    members.insert(place, ("model", model))
    value = dict(members)
    raw = orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else None)
    wanted = value | {"model": name} | ({"stream_options": {"include_usage": True}} if stream else {})
    assert body(raw, model=name, dialect="openrouter") == wanted


def test_an_opened_request_is_sent_as_it_was_changed() -> None:
    adapter = OpenAI(dialect="openai")
    request = chat_request({"model": "a"})
    request.chat["user"] = "changed"
    backend = Backend(name="b", kind="openai", adapter=adapter)
    codec = adapter.open(request.replace(candidates=(Candidate(backend, "upstream", "a"),)))
    assert orjson.loads(codec.wire.content) == {"model": "upstream", "messages": HI, "user": "changed"}


def test_the_clients_value_is_never_changed() -> None:
    chat = {
        "model": "a",
        "messages": [{"role": "developer", "content": "x", "name": "n", "reasoning_content": "r"}],
        "stream": True,
        "seed": 1,
        "max_completion_tokens": 5,
        "backend": "b",
        "tool_choice": "required",
        "stream_options": {"include_obfuscation": False},
    }
    for dialect in DIALECTS:
        document = Document(orjson.dumps(chat))
        adapter = OpenAI(base_url="http://127.0.0.1/v1", dialect=dialect)
        backend = Backend(name="b", kind="openai", adapter=adapter)
        request = chat_request({"stream": True}, document=document, candidates=(Candidate(backend, "u", "a"),))
        adapter.open(request)
        assert document.peek() == chat
        assert not document.is_opened


def test_what_is_meant_for_the_gateway_is_not_sent_on() -> None:
    own = {"backend": "b", "session_id": "s", "working_directory": "/x", "cli_tools": ["Read"]}
    codec = send({**own, "user": "u"})
    assert orjson.loads(codec.wire.content) == {"model": "upstream", "messages": HI, "user": "u"}
    assert list(codec.losses) == []


def test_unknown_fields_pass_through() -> None:
    assert body({"next_week": {"deep": [1]}}, dialect="generic")["next_week"] == {"deep": [1]}


# --- usage --------------------------------------------------------------------------------------------------------


def test_a_stream_asks_for_its_usage() -> None:
    sent = send(b'{"model":"a","messages":[],"stream":true}').wire.content
    assert sent == b'{"model":"upstream","messages":[],"stream":true,"stream_options":{"include_usage":true}}'


def test_other_stream_options_are_kept() -> None:
    sent = body({"stream": True, "stream_options": {"include_obfuscation": False, "include_usage": False}})
    assert sent["stream_options"] == {"include_obfuscation": False, "include_usage": True}


def test_a_client_that_asks_for_usage_itself_keeps_its_bytes() -> None:
    came = b'{"model":"a","stream":true, "stream_options":{"include_usage":true},"messages":[]}'
    assert send(came).wire.content == came.replace(b'"a"', b'"upstream"')


@pytest.mark.parametrize("dialect", [name for name, row in DIALECTS.items() if not row.usage_option])
def test_usage_is_not_asked_of_those_who_refuse_the_question(dialect: str) -> None:
    assert "stream_options" not in body({"stream": True}, dialect=dialect)


def test_a_whole_answer_carries_no_stream_options() -> None:
    assert "stream_options" not in body({"stream": False, "stream_options": {"include_usage": True}})


# --- dialects -----------------------------------------------------------------------------------------------------


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


# --- the head of the request --------------------------------------------------------------------------------------


def test_the_key_travels_in_a_header_and_nowhere_else() -> None:
    wire = send({}, key=KEY).wire
    assert ("authorization", f"Bearer {KEY.reveal()}") in wire.headers
    assert KEY.reveal() not in wire.url
    assert KEY.reveal().encode() not in wire.content


def test_azure_takes_its_key_under_another_name_and_its_model_in_the_url() -> None:
    adapter = OpenAI(base_url="https://mine.openai.azure.com", api_version="2024-10-21")
    wire = send({}, adapter=adapter, model="gpt 4", key=KEY).wire
    assert wire.url == (
        "https://mine.openai.azure.com/openai/deployments/gpt%204/chat/completions?api-version=2024-10-21"
    )
    assert ("api-key", KEY.reveal()) in wire.headers
    assert not any(name == "authorization" for name, _ in wire.headers)


def test_azures_newer_address_has_the_model_in_the_body() -> None:
    adapter = OpenAI(base_url="https://mine.openai.azure.com/openai/v1/", deployment="prod")
    wire = send({}, adapter=adapter).wire
    assert wire.url == "https://mine.openai.azure.com/openai/v1/chat/completions"
    assert orjson.loads(wire.content)["model"] == "prod"


def test_headers_of_the_configuration_win() -> None:
    adapter = OpenAI(headers={"User-Agent": "mine", "Accept": "x/y"}, organization="org", project="proj")
    headers = send({}, adapter=adapter).wire.headers
    assert len({name for name, _ in headers}) == len(headers)
    assert dict(headers) | {"user-agent": "mine", "accept": "x/y"} == dict(headers)
    assert (dict(headers)["openai-organization"], dict(headers)["openai-project"]) == ("org", "proj")


def test_openrouter_is_told_who_asks() -> None:
    wire = send({}, adapter=OpenRouter(referer="https://example.com", title="mine")).wire
    assert wire.url == "https://openrouter.ai/api/v1/chat/completions"
    assert (dict(wire.headers)["http-referer"], dict(wire.headers)["x-title"]) == ("https://example.com", "mine")


@pytest.mark.parametrize(
    "base_url", ["http://h/v1", "http://h/v1/", "http://h/v1/chat/completions", "http://h/v1/chat/completions/"]
)
def test_a_base_url_may_be_written_in_every_usual_way(base_url: str) -> None:
    assert send({}, adapter=OpenAI(base_url=base_url)).wire.url == "http://h/v1/chat/completions"


def test_they_are_adapters() -> None:
    assert isinstance(OpenAI(), Adapter)
    assert isinstance(OpenRouter(), Adapter)
