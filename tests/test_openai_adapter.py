"""What the openai adapter sends where no dialect demands a change: the client's own bytes, the usage, the head."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.adapter import Adapter
from gw.adapters.openai import DIALECTS, OpenAI
from gw.adapters.openrouter import OpenRouter
from gw.backend import Backend
from gw.document import Document
from gw.message import Candidate
from gw.secret import Secret
from tests.fakes import chat_request
from tests.openai_requests import HI, body, send

KEY = Secret("sk-test-canary-123456")


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
