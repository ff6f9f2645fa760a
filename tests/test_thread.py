"""The main job, end to end: the real `openai` SDK, the gateway, a provider on loopback, real HTTP in between."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import openai
import orjson
import pytest

from tests.fakes import Asked, Script, answers, by_turns, chunk, chunks, completion, sse, streams
from tests.running import Running, running, settings

HI: list[Any] = [{"role": "user", "content": "Hi"}]
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
CALL: dict[str, Any] = {
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"a":1}'}}],
    "content": None,
}


@pytest.fixture
def gw() -> Iterator[Running]:
    with running() as gateway:
        yield gateway


def start(gw: Running, folder: Path, *scripts: Script, **tables: Any) -> openai.OpenAI:
    """A gateway over one OpenAI-compatible provider per script: a, b, ..."""
    backends = {
        name: {"adapter": "openai", "base_url": gw.add_provider(script).url + "/v1", "api_key": f"sk-{name}-secret"}
        for name, script in zip("abcdef", scripts, strict=False)
    }
    gw.start(settings(folder, backends=backends, **tables))
    return gw.sdk(timeout=30)


def body(value: Any) -> bytes:
    return orjson.dumps(value)


def test_a_whole_answer(gw: Running, tmp_path: Path) -> None:
    client = start(gw, tmp_path, answers(body(completion("Hello!"))))
    answer = client.chat.completions.create(model="gpt-4", messages=HI)
    assert answer.choices[0].message.content == "Hello!"
    assert answer.model == "gpt-4"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 12
    extras = answer.model_extra or {}
    assert extras["degraded"] is False
    assert extras["gateway"] == {
        "backend": "a",
        "model": "gpt-4",
        "cost_usd": extras["gateway"]["cost_usd"],
        "attempts": 1,
    }
    asked = gw.providers[0].asked[0]
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == "Bearer sk-a-secret"
    assert asked.json == {"model": "gpt-4", "messages": HI}


def test_a_stream(gw: Running, tmp_path: Path) -> None:
    client = start(gw, tmp_path, streams(sse(*chunks("Hel", "lo"))))
    with client.chat.completions.create(model="gpt-4", messages=HI, stream=True) as stream:
        received = list(stream)
    assert "".join(piece.choices[0].delta.content or "" for piece in received if piece.choices) == "Hello"
    assert {piece.id for piece in received} == {"chatcmpl-1"}
    assert received[0].choices[0].delta.role == "assistant"
    assert received[-1].choices[0].finish_reason == "stop"
    assert all(piece.usage is None for piece in received)  # nobody asked for it
    assert (received[-1].model_extra or {})["gateway"]["backend"] == "a"
    assert gw.providers[0].asked[0].json["stream_options"] == {"include_usage": True}


def test_usage_comes_with_the_stream_where_it_is_asked_for(gw: Running, tmp_path: Path) -> None:
    client = start(gw, tmp_path, streams(sse(*chunks("Hello"))))
    stream = client.chat.completions.create(
        model="gpt-4", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    last = list(stream)[-1]
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == 12


def test_tools_go_there_and_back_whole(gw: Running, tmp_path: Path) -> None:
    client = start(gw, tmp_path, answers(body(completion(**CALL)).replace(b'"stop"', b'"tool_calls"')))
    answer = client.chat.completions.create(model="gpt-4", messages=HI, tools=[TOOL], tool_choice="auto")
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    assert calls[0].function.name == "get_weather"
    assert answer.choices[0].finish_reason == "tool_calls"
    assert gw.providers[0].asked[0].json["tools"] == [TOOL]


def test_parallel_tool_calls_stream_by_index(gw: Running, tmp_path: Path) -> None:
    def call(index: int, **function: str) -> dict[str, Any]:
        head = {"id": f"c{index}", "type": "function"} if "name" in function else {}
        return chunk({"tool_calls": [{"index": index, **head, "function": function}]})

    events = [
        chunk({"role": "assistant", "content": None}),
        call(0, name="f", arguments=""),
        call(0, arguments='{"a":'),
        call(1, name="g", arguments=""),
        call(1, arguments="{}"),
        call(0, arguments="1}"),
        chunk({}, "tool_calls"),
    ]
    client = start(gw, tmp_path, streams(sse(*events)))
    with client.chat.completions.stream(model="gpt-4", messages=HI, tools=[TOOL]) as stream:
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls is not None
    assert [(each.id, each.function.name, each.function.arguments) for each in calls] == [
        ("c0", "f", '{"a":1}'),
        ("c1", "g", "{}"),
    ]


def test_images_are_passed_on(gw: Running, tmp_path: Path) -> None:
    client = start(gw, tmp_path, answers(body(completion("A cat."))))
    parts: Any = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"}},
    ]
    client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": parts}])
    assert gw.providers[0].asked[0].json["messages"][0]["content"] == parts


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "error", "raised"),
    [
        (
            400,
            {"message": "bad", "type": "invalid_request_error", "param": "top_p", "code": None},
            openai.BadRequestError,
        ),
        (401, {"message": "Incorrect API key", "code": "invalid_api_key"}, openai.InternalServerError),
        (429, {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}, openai.RateLimitError),
        (500, {"message": "boom", "type": "server_error"}, openai.InternalServerError),
    ],
)
def test_a_providers_error_reaches_the_sdk_with_its_message(
    gw: Running, tmp_path: Path, stream: bool, status: int, error: dict[str, Any], raised: type[openai.APIStatusError]
) -> None:
    client = start(
        gw, tmp_path, answers(body({"error": error}), status=status), middleware={"fallback": {"retries": 0}}
    )
    with pytest.raises(raised, match=error["message"]) as caught:
        client.chat.completions.create(model="gpt-4", messages=HI, stream=stream)
    assert caught.value.response.headers["x-request-id"]


def test_a_wrong_field_is_a_400_that_names_it_and_nothing_is_forwarded(gw: Running, tmp_path: Path) -> None:
    client = start(gw, tmp_path, answers(body(completion())))
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="gpt-4", messages=HI, temperature="hot")  # type: ignore[call-overload]
    assert (caught.value.param, caught.value.code) == ("temperature", "invalid_value")
    assert gw.providers[0].asked == []


def test_an_unknown_backend_is_a_404(gw: Running, tmp_path: Path) -> None:
    client = start(gw, tmp_path, answers(body(completion())))
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4", messages=HI, extra_body={"backend": "nobody"})
    assert caught.value.code == "backend_not_found"


def test_the_head_tells_who_answered_and_how_long_it_took(gw: Running, tmp_path: Path) -> None:
    client = start(gw, tmp_path, answers(body(completion())))
    response = client.chat.completions.with_raw_response.create(model="gpt-4", messages=HI)
    headers = response.headers
    assert (headers["x-gateway-backend"], headers["x-gateway-degraded"]) == ("a", "false")
    assert headers["x-gateway-attempts"] == "1"
    timing = dict(entry.split(";dur=") for entry in headers["server-timing"].split(", "))
    assert 0 < float(timing["upstream"]) <= float(timing["total"])


def test_the_sdks_own_timeout_cancels_the_provider(gw: Running, tmp_path: Path) -> None:
    async def silent(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    client = start(gw, tmp_path, by_turns(answers(orjson.dumps(completion())), silent))
    client.chat.completions.create(model="gpt-4", messages=HI)  # what is made once is made: the next is asked at once
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=1.0).chat.completions.create(model="gpt-4", messages=HI)
    gw.run(asyncio.wait_for(gw.providers[0].hung_up.wait(), 20))
    assert gw.providers[0].hangups == 1


def test_leaving_a_stream_cancels_the_provider(gw: Running, tmp_path: Path) -> None:
    async def endless(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await streams(sse(*chunks("Hello")[:2], done=False))(asked, cast(asyncio.StreamWriter, _Open(writer)))
        await asyncio.Event().wait()

    client = start(gw, tmp_path, endless)
    with client.chat.completions.create(model="gpt-4", messages=HI, stream=True) as stream:
        next(iter(stream))
    gw.run(asyncio.wait_for(gw.providers[0].hung_up.wait(), 20))
    assert gw.providers[0].hangups == 1


class _Open:
    """A writer that swallows the end of a chunked body."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.drain = writer.drain

    def write(self, data: bytes) -> None:
        if data != b"0\r\n\r\n":
            self._writer.write(data)


def test_one_streamed_chat_fails_over_before_its_first_content_through_the_whole_pipeline(
    gw: Running, tmp_path: Path
) -> None:
    role = sse(chunks("x")[0], done=False)
    failing = by_turns(streams(role + b'data: {"error":{"message":"overloaded","code":"overloaded"}}\n\n'))
    client = start(
        gw,
        tmp_path,
        failing,
        streams(sse(*chunks("Hello", model="other"))),
        middleware={"fallback": {"retries": 0, "chain": ["a", "b"]}},
    )
    with client.chat.completions.with_streaming_response.create(model="gpt-4", messages=HI, stream=True) as response:
        assert response.headers["x-gateway-backend"] == "b"
        assert response.headers["x-gateway-degraded"] == "true"
        assert response.headers["x-gateway-attempts"] == "2"
        assert response.headers["x-ratelimit-limit"] == "60"
        text = response.read().decode()
    assert text.endswith("data: [DONE]\n\n")
    last = orjson.loads(text.split("data: ")[-2])
    assert last["degraded"] is True
    assert last["gateway"]["attempts"] == 2
    gw.run(gw.gateway.close())
    with sqlite3.connect(tmp_path / "requests.db") as database:
        row = database.execute("SELECT backend, degraded, error, status, attempts FROM requests").fetchall()
        tries = database.execute("SELECT backend, error_type FROM attempts ORDER BY number").fetchall()
    database.close()
    assert row == [("b", 1, None, 200, 2)]
    assert [backend for backend, _ in tries] == ["a", "b"]
    assert tries[0][1] is not None
    assert tries[1][1] is None


def test_a_stream_that_breaks_after_content_ends_in_an_error_and_never_in_done(gw: Running, tmp_path: Path) -> None:
    client = start(gw, tmp_path, streams(sse(*chunks("Hello")[:2], done=False), cut=True))
    stream = client.chat.completions.create(model="gpt-4", messages=HI, stream=True)
    received: list[Any] = []
    with pytest.raises(openai.APIError):
        received.extend(stream)
    url = gw.gateway.url + "/v1/chat/completions"
    text = httpx.post(url, json={"model": "gpt-4", "messages": HI, "stream": True}, trust_env=False).text
    assert "[DONE]" not in text
    assert '"finish_reason":"stop"' not in text
    assert '"error"' in text


def test_echo_answers_where_nothing_is_configured(gw: Running, tmp_path: Path) -> None:
    gw.start(settings(tmp_path))
    client = gw.sdk()
    answer = client.chat.completions.create(model="auto", messages=HI)
    assert "Hi" in (answer.choices[0].message.content or "")
    text = "".join(
        piece.choices[0].delta.content or ""
        for piece in client.chat.completions.create(model="auto", messages=HI, stream=True)
        if piece.choices
    )
    assert "Hi" in text


def test_models_are_listed_from_the_live_configuration(gw: Running, tmp_path: Path) -> None:
    key = {"adapter": "openai", "api_key": "sk-a-secret"}
    backends = {"a": key | {"model": "m"}, "b": key | {"models": {"gpt-4": "x"}}, "c": key}
    gw.start(settings(tmp_path, backends=backends))
    client = gw.sdk(timeout=30)
    assert [model.id for model in client.models.list()] == ["a", "b", "gpt-4", "echo"], "what can be chosen"
    assert client.models.retrieve("a").id == "a"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")
