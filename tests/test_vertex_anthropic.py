"""Claude on Vertex AI: other addresses, another envelope, an access token for a key; the rest is Anthropic's."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from gw.adapter import Adapter
from gw.adapters.vertex_anthropic import VertexAnthropic
from gw.errors import ConfigError, InvalidRequest, UpstreamError
from gw.secret import Secret
from gw.vertex_hosts import host_of
from tests.anthropic_fakes import meaning, request_of, user
from tests.recordings import Case, cases, check, check_laws, read_chunks

CASES = [case for case in cases("anthropic-messages") if case.provider == "vertex-anthropic"]
HI = {"messages": [user()]}


def vertex(**options: Any) -> VertexAnthropic:
    return VertexAnthropic(**{"project": "PROJECT"} | options)


def test_it_is_an_adapter() -> None:
    assert isinstance(vertex(), Adapter)


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("global", "aiplatform.googleapis.com"),
        ("us", "aiplatform.us.rep.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
        ("us-east5", "us-east5-aiplatform.googleapis.com"),
    ],
)
def test_the_host_follows_the_location(location: str, host: str) -> None:
    assert host_of(location) == f"https://{host}"
    url = vertex(location=location).open(request_of(HI, "claude-opus-5")).wire.url
    path = f"/v1/projects/PROJECT/locations/{location}/publishers/anthropic/models/claude-opus-5:rawPredict"
    assert url == f"https://{host}{path}"


@pytest.mark.parametrize("case", [case for case in CASES if case.stream and not case.is_error], ids=repr)
def test_a_recorded_exchange_has_our_address_and_envelope(case: Case) -> None:
    codec = vertex().open(request_of(HI | {"stream": True}, case.model))
    assert codec.wire.url == case.url
    body = orjson.loads(codec.wire.content)
    assert case.request_body is not None
    assert body["anthropic_version"] == case.request_body["anthropic_version"]
    assert body["stream"] is True
    assert "model" not in body
    assert meaning(body)["choice"] == meaning(case.request_body)["choice"]
    chunks = [chunk.peek() for chunk in (*codec.feed(case.body), *codec.finish())]
    check_laws(chunks)
    check(read_chunks(chunks), case.expect)


@pytest.mark.parametrize("case", [case for case in CASES if case.is_error], ids=repr)
def test_googles_own_errors_are_understood(case: Case) -> None:
    error = vertex().open(request_of(HI)).fail(case.status, case.headers, case.body)
    assert (error.status, error.code, error.fault) == (429, "rate_limit_exceeded", "rate_limit")
    assert case.expect["message_contains"] in error.message


def test_a_models_name_is_escaped_in_the_address() -> None:
    url = vertex().open(request_of(HI, "claude-3-5-sonnet-v2@20241022;x/../y?z")).wire.url
    assert url.endswith("/models/claude-3-5-sonnet-v2@20241022%3Bx%2F..%2Fy%3Fz:rawPredict")


def test_the_key_is_a_bearer_token_and_versions_have_no_header() -> None:
    wire = vertex(betas=["b-1"]).open(request_of(HI, key="ya29.token")).wire
    headers = dict(wire.headers)
    assert headers["authorization"] == "Bearer ya29.token"
    assert "x-api-key" not in headers
    assert "anthropic-version" not in headers
    assert headers["anthropic-beta"] == "b-1"


def test_a_base_url_takes_the_place_of_the_host() -> None:
    for base_url in ("https://proxy.example", "https://proxy.example/v1/"):
        url = vertex(base_url=base_url).open(request_of(HI)).wire.url
        assert url.startswith("https://proxy.example/v1/projects/PROJECT/locations/global/")


def test_addresses_of_images_are_not_left_to_vertex() -> None:
    content = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    with pytest.raises(InvalidRequest, match="vertex-anthropic cannot fetch") as caught:
        vertex().open(request_of({"messages": [user(content)]}))
    assert caught.value.param == "messages[0].content[0].image_url.url"


def test_a_schema_is_native_only_where_vertex_takes_it() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "o", "schema": {"type": "object", "properties": {}}}}
    chat = HI | {"response_format": form}
    assert "output_config" in orjson.loads(vertex().open(request_of(chat, "claude-opus-5-5")).wire.content)
    assert "output_config" not in orjson.loads(vertex().open(request_of(chat, "claude-opus-5")).wire.content)
    allowed = vertex(flags={"structured": True}).open(request_of(chat, "claude-opus-5"))
    assert "output_config" in orjson.loads(allowed.wire.content)


def test_a_token_is_fetched_before_the_request_is_opened_and_once_more_when_it_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GW_TEST_TOKEN", "ya29.one")
    adapter = vertex(token_env="GW_TEST_TOKEN")

    async def scenario() -> None:
        ready = await adapter.prepare(request_of(HI, key=None))
        assert dict(adapter.open(ready).wire.headers)["authorization"] == "Bearer ya29.one"
        adapter.refused_key(ready.candidate.key)
        monkeypatch.setenv("GW_TEST_TOKEN", "ya29.two")
        again = await adapter.prepare(request_of(HI, key=None))
        assert again.candidate.key == Secret("ya29.two")

    asyncio.run(scenario())


def test_a_token_command_feeds_the_requests() -> None:
    adapter = vertex(token_command=[sys.executable, "-c", "print('ya29.cmd')"])
    ready = asyncio.run(adapter.prepare(request_of(HI, key=None)))
    assert ready.candidate.key == Secret("ya29.cmd")


def test_without_any_token_the_message_tells_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    adapter = vertex()
    with pytest.raises(UpstreamError, match="set credentials, token_env or token_command") as caught:
        asyncio.run(adapter.prepare(request_of(HI, key=None)))
    assert caught.value.fault == "dead_key"
    own = request_of(HI, key="ya29.own")
    assert asyncio.run(adapter.prepare(own)) is own


def test_a_missing_token_is_known_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GW_TEST_TOKEN", raising=False)
    assert vertex(token_env="GW_TEST_TOKEN").problem == "no token, set GW_TEST_TOKEN"
    monkeypatch.setenv("GW_TEST_TOKEN", "t")
    assert vertex(token_env="GW_TEST_TOKEN").problem is None


def test_a_credentials_file_that_is_not_there_is_known_before_a_token_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "service-account.json"
    adapter = vertex(credentials=file)
    assert adapter.problem == f"no credentials, there is no file {file}"
    file.write_text("{}")
    assert adapter.problem is None


@pytest.mark.parametrize("options", [{"project": ""}, {"token_env": "A", "token_command": ["b"]}])
def test_wrong_options_are_refused_at_start(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        vertex(**options)
