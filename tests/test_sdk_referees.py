"""The providers' own packages as referees: they read what gw reads, and take what gw sends."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import httpx
import orjson
import pytest

from gw.adapters.anthropic import Anthropic
from gw.signatures import MemorySignatures
from tests.anthropic_fakes import request_of, user
from tests.recordings import Case, Reading, cases, read_chunks, read_completion
from tests.test_dialects import SCENES, codec_of

CLAUDE = [case for case in cases("anthropic-messages") if not case.is_error]
OLLAMA = [case for case in cases("ollama-chat") if not case.is_error]
_ADAPTER = Anthropic(signatures=MemorySignatures())


def playing(case: Case, http: Any = httpx) -> Any:
    """A transport of httpx, or of the successor that a package uses, that answers everything with a recording."""
    kind = "application/x-ndjson" if case.dialect == "ollama-chat" else "text/event-stream"
    headers = {"content-type": kind if case.stream else "application/json"}
    return http.MockTransport(lambda request: http.Response(case.status, headers=headers, content=case.body))


def gw_reads(case: Case, codec: Any) -> Reading:
    if not case.stream:
        return read_completion(orjson.loads(codec.complete(case.body).raw))
    return read_chunks([orjson.loads(chunk.raw) for chunk in (*codec.feed(case.body), *codec.finish())])


@pytest.mark.parametrize("case", CLAUDE, ids=repr)
def test_anthropics_package_reads_the_same_answer(case: Case) -> None:
    anthropic = pytest.importorskip("anthropic")
    http = importlib.import_module("httpx2" if importlib.util.find_spec("httpx2") else "httpx")
    client = anthropic.Anthropic(
        api_key="k",
        base_url="http://127.0.0.1:1",
        max_retries=0,
        http_client=http.Client(transport=playing(case, http)),
    )
    asked: dict[str, Any] = {"model": "claude-x", "max_tokens": 64, "messages": [user()]}
    if case.stream:
        texts: dict[int, str] = {}
        thoughts: dict[int, str] = {}
        calls: dict[int, list[Any]] = {}
        stop = None
        for event in client.messages.create(stream=True, **asked):
            if event.type == "content_block_start" and event.content_block.type == "tool_use":
                calls[event.index] = [event.content_block.id, event.content_block.name, "", event.content_block.input]
            elif event.type == "content_block_delta" and event.delta.type == "text_delta":
                texts[event.index] = texts.get(event.index, "") + event.delta.text
            elif event.type == "content_block_delta" and event.delta.type == "thinking_delta":
                thoughts[event.index] = thoughts.get(event.index, "") + event.delta.thinking
            elif event.type == "content_block_delta" and event.delta.type == "input_json_delta":
                if event.index in calls:
                    calls[event.index][2] += event.delta.partial_json
            elif event.type == "message_delta":
                stop = event.delta.stop_reason or stop
        text, thought = "".join(texts.values()), "".join(thoughts.values())
        called = [(i, name, orjson.loads(json) if json else given or {}) for i, name, json, given in calls.values()]
    else:
        message = client.messages.create(**asked)
        text = "".join(block.text for block in message.content if block.type == "text")
        thought = "".join(block.thinking for block in message.content if block.type == "thinking")
        called = [(block.id, block.name, block.input) for block in message.content if block.type == "tool_use"]
        stop = message.stop_reason
    codec = _ADAPTER.open(request_of({"messages": [user()], "stream": case.stream}, case.model or "claude-opus-5"))
    ours = gw_reads(case, codec)
    assert (ours.text, ours.reasoning, ours.tool_calls) == (text, thought, called)
    assert codec.summary.native_finish_reason == stop


@pytest.mark.parametrize("case", OLLAMA, ids=repr)
def test_ollamas_package_reads_the_same_answer(case: Case) -> None:
    ollama = pytest.importorskip("ollama")
    client = ollama.Client(host="http://127.0.0.1:1", transport=playing(case))
    answer = client.chat(model="m", messages=[user()], stream=case.stream)
    parts = list(answer) if case.stream else [answer]
    ours = gw_reads(case, codec_of("ollama", {"stream": case.stream}))
    assert ours.text == "".join(part.message.content or "" for part in parts)
    assert ours.reasoning == "".join(part.message.thinking or "" for part in parts)
    calls = [call for part in parts for call in part.message.tool_calls or ()]
    assert [(name, arguments) for _, name, arguments in ours.tool_calls] == [
        (call.function.name, dict(call.function.arguments)) for call in calls
    ]
    assert ours.usage is None or ours.usage["completion_tokens"] == (parts[-1].eval_count or 0)


FORMS: dict[str, dict[str, Any]] = {
    **{
        name: more | {"messages": [message for turn in turns for message in turn]}
        for name, (turns, more) in SCENES.items()
    },
    "settings": {
        "messages": [user()],
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["x"],
        "seed": 1,
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
    },
}


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_ollamas_package_takes_what_is_sent(form: str, is_stream: bool) -> None:
    types = pytest.importorskip("ollama._types")
    body = orjson.loads(codec_of("ollama", FORMS[form] | {"stream": is_stream}).wire.content)
    theirs = types.ChatRequest.model_validate(body)
    kept = orjson.loads(theirs.model_dump_json(exclude_none=True, by_alias=True))
    assert kept.keys() >= {name for name, value in body.items() if value is not None}
    assert [message["role"] for message in kept["messages"]] == [message["role"] for message in body["messages"]]
    for sent, read in zip(body["messages"], kept["messages"], strict=True):
        assert sent.keys() - read.keys() <= {"tool_call_id"}  # newer than the package
    assert kept.get("options", {}) == body.get("options", {})


@pytest.mark.parametrize("form", ["talk", "tools", "json"])
def test_anthropics_package_takes_what_is_sent(form: str) -> None:
    types = pytest.importorskip("anthropic.types")
    pydantic = pytest.importorskip("pydantic")
    body = orjson.loads(codec_of("anthropic", FORMS[form]).wire.content)
    pydantic.TypeAdapter(types.MessageCreateParams).validate_python(body)


@pytest.mark.parametrize("form", ["talk", "tools", "json"])
def test_openais_package_takes_what_is_sent(form: str) -> None:
    types = pytest.importorskip("openai.types.chat.completion_create_params")
    pydantic = pytest.importorskip("pydantic")
    adapter = pydantic.TypeAdapter(types.CompletionCreateParamsNonStreaming)
    adapter.validate_python(orjson.loads(codec_of("openai", FORMS[form]).wire.content))
