"""A provider's garbage through a running gateway: one clean 502 with a short quote, whole or streamed, never a hang."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from tests.fakes import Asked
from tests.running import running, settings

KEY = "canary-5d41402abc4b2a76b9719d911017c592"
MODELS = {
    "openai": "gpt-4o",
    "openrouter": "some/model",
    "anthropic": "claude-sonnet-4-5",
    "gemini": "gemini-2.5-flash",
    "vertex-anthropic": "claude-sonnet-4-5",
    "vertex-gemini": "gemini-2.5-flash",
    "ollama": "llama3",
}
PAGE = f"<html><head><title>Oops</title></head><body><h1>Something broke</h1><p>{KEY}</p></body></html>".encode()
WORDS = f"upstream connect error or disconnect/reset before headers, key {KEY}".encode()
HUGE = b'{"error": {"message": "' + KEY.encode() + b" x" * 2_600_000 + b'"}}'
HALF = b'{"choices": [{"message": {"content": "Hi'
# name -> status, content type (None: none at all), body
GARBAGE: dict[str, tuple[int, str | None, bytes]] = {
    "nothing": (200, "application/json", b""),
    "nothing as a stream": (200, "text/event-stream", b""),
    "nothing of any type": (200, None, b""),
    "a web page": (200, "text/html", PAGE),
    "a web page that calls itself JSON": (200, "application/json", PAGE),
    "a web page that calls itself a stream": (200, "text/event-stream", PAGE),
    "words": (200, "text/plain", WORDS),
    "half a JSON object": (200, "application/json", HALF),
    "another JSON": (200, "application/json", b'{"ok": true, "key": "' + KEY.encode() + b'"}'),
    "a list": (200, "application/json", b"[1, 2, 3]"),
    "binary": (200, "application/octet-stream", bytes(range(256)) * 40),
    "events of something else": (200, "text/event-stream", b"data: hello\n\ndata: world\n\n"),
    "five megabytes of a page": (200, "text/html", PAGE + b"x" * 5_000_000),
    "a page behind 404": (404, "text/html", PAGE),
    "a page behind 502": (502, "text/html", PAGE),
    "five megabytes behind 500": (500, "application/json", HUGE),
    "nothing behind 503": (503, None, b""),
}


class Scene:
    """A gateway over one provider, which answers everybody with `answer`."""

    def __init__(self) -> None:
        self.url = ""
        self.answer: tuple[int, str | None, bytes] = (200, None, b"")
        self.client = httpx.Client(timeout=60)

    async def play(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        status, kind, body = self.answer
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n"
        writer.write((head + ("" if kind is None else f"Content-Type: {kind}\r\n") + "\r\n").encode() + body)
        await writer.drain()

    def ask(self, backend: str, is_stream: bool) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": "Hi"}], "stream": is_stream}
        return self.client.post(f"{self.url}/v1/{backend}/chat/completions", json=body)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with running() as gw:
        scene = Scene()
        url = gw.add_provider(scene.play).url
        tables: dict[str, Any] = {
            name: {"adapter": name, "base_url": url + "/v1", "api_key": KEY, "model": model}
            for name, model in MODELS.items()
        }
        tables["vertex-anthropic"]["project"] = "p"
        fallback = {"retries": 0, "breaker": {"failures": 1_000_000}}
        folder = tmp_path_factory.mktemp("garbage")
        scene.url = gw.start(
            settings(folder, backends=tables, middleware={"fallback": fallback, "rate_limit": {"enabled": False}})
        )
        with scene.client:
            yield scene


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("backend", MODELS)
def test_garbage_is_one_502_with_a_short_quote_and_without_keys(
    scene: Scene, backend: str, garbage: str, is_stream: bool
) -> None:
    scene.answer = GARBAGE[garbage]
    begun = time.monotonic()
    answer = scene.ask(backend, is_stream)
    assert answer.status_code == 502, answer.text[:500]
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "api_error"
    assert backend in error["message"]
    assert 20 < len(error["message"]) < 500
    assert KEY not in answer.text
    assert "<h" not in answer.text
    assert time.monotonic() - begun < 30  # a hang would be the 60 s and more that a provider has


WHOLE: dict[str, Any] = {
    "openai": {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]},
    "anthropic": {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
    },
    "gemini": {"candidates": [{"content": {"role": "model", "parts": [{"text": "Hi"}]}, "finishReason": "STOP"}]},
    "ollama": {"message": {"role": "assistant", "content": "Hi"}, "done": True, "done_reason": "stop"},
}
WHOLE |= {"openrouter": WHOLE["openai"], "vertex-anthropic": WHOLE["anthropic"], "vertex-gemini": WHOLE["gemini"]}


@pytest.mark.parametrize("kind", ["application/json", "text/html", "application/octet-stream", "nonsense", None])
@pytest.mark.parametrize("backend", MODELS)
def test_a_right_answer_of_a_wrong_content_type_is_the_answer(scene: Scene, backend: str, kind: str | None) -> None:
    scene.answer = (200, kind, orjson.dumps(WHOLE[backend]))
    answer = scene.ask(backend, is_stream=False)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "Hi"


@pytest.mark.parametrize("backend", MODELS)
def test_a_whole_answer_to_a_stream_request_is_streamed(scene: Scene, backend: str) -> None:
    scene.answer = (200, "application/json", orjson.dumps(WHOLE[backend]))
    answer = scene.ask(backend, is_stream=True)
    assert answer.status_code == 200, answer.text
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    choices = [choice for event in events[:-1] for choice in orjson.loads(event)["choices"]]
    assert "".join(choice["delta"].get("content") or "" for choice in choices) == "Hi"
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
