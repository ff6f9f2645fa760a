"""The providers' own packages as referees: they read what gw reads, and take what gw sends."""

from __future__ import annotations

import base64
import importlib
import importlib.util
import warnings
from typing import Any

import httpx
import orjson
import pytest

from gw.adapters.anthropic import Anthropic
from gw.signatures import MemorySignatures
from tests.anthropic_fakes import request_of, user
from tests.codecs import codec_of
from tests.conversations import SCENES
from tests.recordings import Case, Reading, cases, read_chunks, read_completion

CLAUDE = [case for case in cases("anthropic-messages") if not case.is_error]
OLLAMA = [case for case in cases("ollama-chat") if not case.is_error]
# Without a finish reason the model failed; the package neither reads JSON arrays nor puts arguments in pieces together.
GEMINI = [
    case
    for case in cases("gemini")
    if case.expect.get("finish_reason") and "r:jsonarray" not in case.features and b"partialArgs" not in case.body
]
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


def google_genai() -> tuple[Any, Any]:
    """The package and its types, which warn of Python's own changes when they are imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        genai = pytest.importorskip("google.genai", exc_type=ImportError)
        return genai, pytest.importorskip("google.genai.types", exc_type=ImportError)


@pytest.mark.parametrize("case", GEMINI, ids=repr)
def test_googles_package_reads_the_same_answer(case: Case) -> None:
    genai, types = google_genai()
    options = types.HttpOptions(
        base_url="http://127.0.0.1:1", httpx_client=httpx.Client(transport=playing(case)), retry_options=None
    )
    client = genai.Client(api_key="k", http_options=options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # finish reasons that are newer than the package
        if case.stream:
            answers = list(client.models.generate_content_stream(model="m", contents="Hi"))
        else:
            answers = [client.models.generate_content(model="m", contents="Hi")]
    first = [answer.candidates[0] for answer in answers if answer.candidates]
    parts = [part for one in first if one.content is not None for part in one.content.parts or ()]
    codec = codec_of("gemini", {"stream": case.stream})
    ours = gw_reads(case, codec)
    assert ours.text == "".join(part.text for part in parts if part.text and not part.thought)
    assert ours.reasoning == "".join(part.text for part in parts if part.text and part.thought)
    calls = [part.function_call for part in parts if part.function_call]
    assert [(name, arguments) for _, name, arguments in ours.tool_calls] == [
        (one.name, one.args or {}) for one in calls
    ]
    signed = [base64.b64encode(part.thought_signature).decode() for part in parts if part.thought_signature]
    assert sorted(ours.signatures) == sorted(signed)
    counts = [answer.usage_metadata for answer in answers if answer.usage_metadata]
    if counts:
        assert ours.usage is not None
        assert ours.usage["total_tokens"] == counts[-1].total_token_count
    else:
        assert ours.usage is None


@pytest.mark.parametrize("name", ["gemini", "vertex-gemini"])
@pytest.mark.parametrize("form", ["talk", "tools", "json", "settings"])
def test_googles_package_takes_what_is_sent(form: str, name: str) -> None:
    _, types = google_genai()
    body = orjson.loads(codec_of(name, FORMS[form]).wire.content)
    kinds = {
        "systemInstruction": types.Content,
        "contents": types.Content,
        "tools": types.Tool,
        "toolConfig": types.ToolConfig,
        "generationConfig": types.GenerationConfig,
    }
    assert body.keys() <= kinds.keys()
    for field, value in body.items():
        for one in value if isinstance(value, list) else [value]:
            theirs = kinds[field].model_validate(one)
            kept = theirs.model_dump(mode="json", by_alias=True, exclude_none=True)
            assert spread(kept).keys() == spread(one).keys()


def spread(value: Any, path: str = "") -> dict[str, Any]:
    """The leaves of a JSON value by their paths."""
    if isinstance(value, dict):
        return {place: leaf for name, one in value.items() for place, leaf in spread(one, f"{path}/{name}").items()}
    if isinstance(value, list):
        return {place: leaf for at, one in enumerate(value) for place, leaf in spread(one, f"{path}/{at}").items()}
    return {path: value}


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
