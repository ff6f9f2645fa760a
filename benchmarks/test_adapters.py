"""What translation costs, dialect by dialect: a request of ten messages, a whole answer, one event of a stream.

Targets: 60 us for a request, 12 us for a translated event, 1.5 us for one that needs no translation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from gw.adapter import Adapter, Codec
from gw.adapters.anthropic import Anthropic
from gw.adapters.gemini import Gemini
from gw.adapters.ollama import Ollama
from gw.adapters.openai import OpenAI
from gw.backend import Backend
from gw.message import Candidate, Request
from gw.secret import Secret
from tests.fakes import chat_request, chunk, completion

EVENTS = 100  # in one stream; the benchmarks tell the time of all, divide by it
WORDS = ["The ", "quick ", "brown ", "fox ", "jumps ", "over "]
MODELS = {
    "openai": "gpt-4o",
    "mistral": "mistral-large",
    "anthropic": "claude-sonnet-4-5",
    "gemini": "gemini-2.5-flash",
    "ollama": "llama3",
}
ADAPTERS: dict[str, Callable[[], Adapter]] = {
    "openai": OpenAI,
    "mistral": lambda: OpenAI(base_url="https://api.mistral.ai/v1"),
    "anthropic": Anthropic,
    "gemini": Gemini,
    "ollama": Ollama,
}

PLAIN = [{"role": "user" if at % 2 == 0 else "assistant", "content": "word " * 40} for at in range(9)]
LOOP: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Weather?"}]
for at in range(4):
    call = {
        "id": f"call_{at:09}",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'},
    }
    LOOP += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": f"call_{at:09}", "content": "18 degrees, sunny " * 5},
    ]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
REQUESTS: dict[str, dict[str, Any]] = {
    "text": {"messages": [{"role": "system", "content": "Be brief."}, *PLAIN], "temperature": 0.5},
    "tools": {"messages": LOOP, "tools": [TOOL]},
}


def request_for(dialect: str, chat: dict[str, Any]) -> Request:
    backend = Backend(name=dialect, kind=dialect)
    request = chat_request({"model": "asked-for"} | chat)
    assert request.document is not None
    request.document.peek()  # the front door has read it
    return request.replace(candidates=(Candidate(backend, MODELS[dialect], "asked-for", key=Secret("sk-key-1234")),))


def usage_anthropic() -> dict[str, int]:
    return {"input_tokens": 9, "output_tokens": 3}


def whole(dialect: str) -> bytes:
    text = "".join(WORDS * 20)
    if dialect in ("openai", "mistral"):
        return orjson.dumps(completion(text, model=MODELS[dialect]))
    if dialect == "anthropic":
        content = [{"type": "text", "text": text}]
        return orjson.dumps(
            {
                "id": "m",
                "type": "message",
                "role": "assistant",
                "model": "c",
                "content": content,
                "stop_reason": "end_turn",
                "usage": usage_anthropic(),
            }
        )
    if dialect == "gemini":
        candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP", "index": 0}
        usage = {"promptTokenCount": 9, "candidatesTokenCount": 3, "totalTokenCount": 12}
        return orjson.dumps({"candidates": [candidate], "usageMetadata": usage, "modelVersion": "g", "responseId": "r"})
    return orjson.dumps(
        {
            "model": "llama3",
            "created_at": "2026-01-01T00:00:00Z",
            "message": {"role": "assistant", "content": text},
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": 9,
            "eval_count": 3,
        }
    )


def stream(dialect: str) -> list[bytes]:
    """EVENTS pieces, each one event, after an opening."""
    words = [WORDS[at % len(WORDS)] for at in range(EVENTS)]
    if dialect == "openai":
        first = chunk({"role": "assistant", "content": ""}, model="gpt-4o-2024")
        return [_sse(first), *(_sse(chunk({"content": word}, model="gpt-4o-2024")) for word in words)]
    if dialect == "mistral":
        parts = [[{"type": "thinking", "thinking": [{"type": "text", "text": word}]}] for word in words]
        return [_sse(chunk({"role": "assistant", "content": ""})), *(_sse(chunk({"content": part})) for part in parts)]
    if dialect == "anthropic":
        opening: list[dict[str, Any]] = [
            {"type": "message_start", "message": {"id": "m", "model": "c", "usage": usage_anthropic()}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        ]
        deltas: list[dict[str, Any]] = [
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in words
        ]
        return [b"".join(_named(value) for value in opening), *map(_named, deltas)]
    if dialect == "gemini":
        values = [
            {
                "candidates": [{"content": {"role": "model", "parts": [{"text": word}]}, "index": 0}],
                "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 3, "totalTokenCount": 12},
                "modelVersion": "g",
                "responseId": "r",
            }
            for word in words
        ]
        return [_sse(value).replace(b"\n", b"\r\n") for value in values]
    return [
        orjson.dumps(
            {
                "model": "llama3",
                "created_at": "2026-01-01T00:00:00Z",
                "message": {"role": "assistant", "content": word},
                "done": False,
            }
        )
        + b"\n"
        for word in words
    ]


def _sse(value: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def _named(value: dict[str, Any]) -> bytes:
    return f"event: {value['type']}\n".encode() + _sse(value)


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("dialect", ADAPTERS)
def test_encoding_a_request_of_ten_messages(benchmark: BenchmarkFixture, dialect: str, kind: str) -> None:
    adapter, request = ADAPTERS[dialect](), request_for(dialect, REQUESTS[kind])
    assert len(REQUESTS[kind]["messages"]) == 10
    benchmark(adapter.open, request)


@pytest.mark.parametrize("dialect", ADAPTERS)
def test_decoding_a_whole_answer(benchmark: BenchmarkFixture, dialect: str) -> None:
    adapter, request, body = ADAPTERS[dialect](), request_for(dialect, {}), whole(dialect)

    def fresh() -> tuple[tuple[Codec], dict[str, Any]]:
        return (adapter.open(request),), {}

    answer = benchmark.pedantic(  # type: ignore[no-untyped-call]
        lambda codec: codec.complete(body).raw, setup=fresh, rounds=3000
    )
    assert orjson.loads(answer)["choices"][0]["message"]["content"]


@pytest.mark.parametrize("arrives", ["one by one", "ten at a time"])
@pytest.mark.parametrize("dialect", ADAPTERS)
def test_a_hundred_events_of_a_stream(benchmark: BenchmarkFixture, dialect: str, arrives: str) -> None:
    """From the provider's bytes to the bytes that go to the client, framing aside."""
    adapter, request, pieces = ADAPTERS[dialect](), request_for(dialect, {"stream": True}), stream(dialect)
    if arrives != "one by one":
        pieces = [b"".join(pieces[at : at + 10]) for at in range(0, len(pieces), 10)]

    def fresh() -> tuple[tuple[Codec], dict[str, Any]]:
        return (adapter.open(request),), {}

    def read(codec: Codec) -> int:
        count = 0
        for piece in pieces:
            for each in codec.feed(piece):
                if each.raw:
                    count += 1
        return count

    count = benchmark.pedantic(read, setup=fresh, rounds=200)  # type: ignore[no-untyped-call]
    assert count >= EVENTS
