"""Gemini on Vertex AI: its addresses, its credentials, and what differs from the other Gemini."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from gw.adapters.vertex_gemini import VertexGemini
from gw.backend import Backend
from gw.errors import ConfigError, UpstreamError
from gw.message import Candidate, Headers, Request
from gw.secret import Secret
from gw.signatures import MemorySignatures
from tests.fakes import chat_request
from tests.recordings import Case, cases, check, check_laws, read_chunks, read_completion

CASES = [case for case in cases("gemini") if case.provider == "vertex-gemini"]


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)


def request_for(adapter: VertexGemini, chat: dict[str, Any] | None = None, key: str | None = "ya29.canary") -> Request:
    backend = Backend(name="vertex", kind="vertex-gemini", adapter=adapter)
    secret = None if key is None else Secret(key)
    return chat_request(chat, candidates=(Candidate(backend, "gemini-2.5-flash", "asked", key=secret),))


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("global", "aiplatform.googleapis.com"),
        ("us", "aiplatform.us.rep.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
        ("europe-west4", "europe-west4-aiplatform.googleapis.com"),
    ],
)
def test_the_host_follows_from_the_location(location: str, host: str) -> None:
    adapter = VertexGemini(project="p-1", location=location)
    place = f"https://{host}/v1beta1/projects/p-1/locations/{location}/publishers/google/models"
    assert adapter.open(request_for(adapter)).wire.url == f"{place}/gemini-2.5-flash:generateContent"
    streamed = adapter.open(request_for(adapter, {"stream": True})).wire
    assert streamed.url == f"{place}/gemini-2.5-flash:streamGenerateContent?alt=sse"


@pytest.mark.parametrize(
    ("model", "end"),
    [
        ("google/gemini-2.5-pro", "/publishers/google/models/gemini-2.5-pro:generateContent"),
        ("endpoints/123", "/locations/global/endpoints/123:generateContent"),
        ("a;b/../c", "/publishers/google/models/a%3Bb%2F..%2Fc:generateContent"),
    ],
)
def test_a_model_name_stays_in_its_segment(model: str, end: str) -> None:
    assert VertexGemini(project="p").url(model, False).endswith(end)


def test_a_project_is_asked_with_a_bearer_token() -> None:
    adapter = VertexGemini(project="p")
    headers = adapter.open(request_for(adapter)).wire.headers
    assert ("authorization", "Bearer ya29.canary") in headers
    assert not any(name == "x-goog-api-key" for name, _ in headers)


def test_without_a_project_an_api_key_asks_the_global_host() -> None:
    adapter = VertexGemini(location="europe-west4")
    wire = adapter.open(request_for(adapter, key="AIza-canary")).wire
    assert wire.url == (
        "https://aiplatform.googleapis.com/v1beta1/publishers/google/models/gemini-2.5-flash:generateContent"
    )
    assert ("x-goog-api-key", "AIza-canary") in wire.headers
    assert "canary" not in wire.url


def test_a_token_comes_from_the_named_variable_at_the_time_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = VertexGemini(project="p", token_env="GW_TEST_TOKEN")
    assert adapter.problem is not None
    assert "GW_TEST_TOKEN" in adapter.problem
    monkeypatch.setenv("GW_TEST_TOKEN", "ya29.fresh")
    assert adapter.problem is None
    ready = asyncio.run(adapter.prepare(request_for(adapter, key=None)))
    assert ("authorization", "Bearer ya29.fresh") in adapter.open(ready).wire.headers


@pytest.mark.parametrize("project", ["p", None])
def test_without_any_credential_the_cure_is_told_and_another_backend_may_answer(project: str | None) -> None:
    adapter = VertexGemini(project=project)
    with pytest.raises(UpstreamError, match='backend "vertex" has no credential: set') as raised:
        asyncio.run(adapter.prepare(request_for(adapter, key=None)))
    assert raised.value.fault == "dead_key"


def test_a_backends_own_key_needs_no_other_source() -> None:
    adapter = VertexGemini(project="p")
    request = request_for(adapter)
    assert asyncio.run(adapter.prepare(request)) is request
    assert adapter.problem is None
    adapter.refused_key(request.candidate.key)


@pytest.mark.parametrize(
    "options",
    [
        {"project": ""},
        {"token_env": "X"},
        {"project": "p", "token_env": "X", "token_command": ["gcloud"]},
        {"project": "p", "flags": {"brave": True}},
    ],
)
def test_options_that_cannot_stand_are_config_errors(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        VertexGemini(**options)


def test_metadata_become_labels_where_they_can_and_the_rest_is_told() -> None:
    adapter = VertexGemini(project="p")
    codec = adapter.open(request_for(adapter, {"metadata": {"team": "blue-1", "Name": "x", "note": "Two words"}}))
    assert orjson.loads(codec.wire.content)["labels"] == {"team": "blue-1"}
    assert [loss.pointer for loss in codec.losses] == ["/metadata/Name", "/metadata/note"]


@pytest.mark.parametrize(
    ("url", "media_type"),
    [("https://example.com/a.PNG?x=1", "image/png"), ("gs://bucket/b", "image/jpeg")],
)
def test_urls_are_left_for_vertex_to_fetch(url: str, media_type: str) -> None:
    adapter = VertexGemini(project="p")
    part = {"type": "image_url", "image_url": {"url": url}}
    body = orjson.loads(
        adapter.open(request_for(adapter, {"messages": [{"role": "user", "content": [part]}]})).wire.content
    )
    assert body["contents"][0]["parts"] == [{"fileData": {"mimeType": media_type, "fileUri": url}}]


def test_google_search_beside_functions_needs_no_switch_here() -> None:
    adapter = VertexGemini(project="p")
    chat = {"web_search_options": {}, "tools": [{"type": "function", "function": {"name": "f"}}]}
    backend = Backend(name="vertex", kind="vertex-gemini", adapter=adapter)
    request = chat_request(chat, candidates=(Candidate(backend, "gemini-3-flash-preview", "asked"),))
    assert "toolConfig" not in orjson.loads(adapter.open(request).wire.content)


def test_signatures_of_the_other_gemini_are_understood() -> None:
    store = MemorySignatures()
    store.keep("gemini:anonymous", ["c"], "c2ln")
    adapter = VertexGemini(project="p", signatures=store)
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "x"},
    ]
    assert b'"thoughtSignature":"c2ln"' in adapter.open(request_for(adapter, {"messages": messages})).wire.content


def test_a_refused_quota_in_an_array_is_a_rate_limit() -> None:
    adapter = VertexGemini(project="p")
    body = b'[{"error": {"code": 429, "message": "Resource exhausted.", "status": "RESOURCE_EXHAUSTED"}}]'
    error = adapter.open(request_for(adapter)).fail(429, Headers(), body)
    assert (error.fault, error.status) == ("rate_limit", 429)


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_recorded_answers_read_as_expected(case: Case) -> None:
    adapter = VertexGemini(project="p", signatures=MemorySignatures())
    codec = adapter.open(request_for(adapter, {"stream": case.stream}))
    if case.is_error:
        assert case.expect["message_contains"] in codec.fail(case.status, case.headers, case.body).message
    elif case.expect["native_finish_reason"] == "UNEXPECTED_TOOL_CALL":
        with pytest.raises(UpstreamError, match="UNEXPECTED_TOOL_CALL"):
            codec.complete(case.body)
    elif case.stream:
        chunks = [orjson.loads(chunk.raw) for chunk in [*codec.feed(case.body), *codec.finish()]]
        check_laws(chunks)
        check(read_chunks(chunks), case.expect)
    else:
        check(read_completion(orjson.loads(codec.complete(case.body).raw)), case.expect)
