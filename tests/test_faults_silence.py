"""A client that waits in silence is sent comments, on event boundaries; what fails behind one is rescued or told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from gw.endpoints.event_stream import KEEP_ALIVE
from tests.fakes import Asked, Script, answers, by_turns, chunks, completion, sse, streams
from tests.running import Running, running, settings

QUIET = 0.02  # seconds: it is to pass
LONG = 30.0  # seconds: nothing is silent for so long


@pytest.fixture
def gw() -> Iterator[Running]:
    with running() as gateway:
        yield gateway


def start(gw: Running, folder: Path, *scripts: Script, keep_alive: float = QUIET, **fallback: Any) -> str:
    backends = {
        name: {"adapter": "openai", "base_url": gw.add_provider(script).url + "/v1", "timeouts": {"first_content": 60}}
        for name, script in zip("ab", scripts, strict=False)
    }
    middleware = {"fallback": {"retries": 0, **fallback}}
    return gw.start(settings(folder, backends=backends, middleware=middleware), keep_alive=keep_alive)


CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}


def ask(url: str, **chat: Any) -> httpx.Response:
    return httpx.post(url + "/v1/chat/completions", json=CHAT | chat, trust_env=False, timeout=60)


class Held:
    """A script that begins when it is let go."""

    def __init__(self, script: Script) -> None:
        self.go = asyncio.Event()
        self._script = script

    async def __call__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        await self.go.wait()
        await self._script(asked, writer)


def read_on_from_the_first_comment(gw: Running, url: str, go: asyncio.Event) -> tuple[int, str]:
    """The status and the text of an answer whose provider is let go once a comment has been read."""

    async def let_go() -> None:
        go.set()

    with httpx.stream("POST", url + "/v1/chat/completions", json=CHAT, trust_env=False, timeout=60) as response:
        pieces = response.iter_text()
        text = next(pieces)
        assert text.startswith(COMMENT)
        gw.run(let_go())
        return response.status_code, text + "".join(pieces)


FINE = streams(sse(*chunks("Hello")))
BROKEN = answers(b'{"error": {"message": "boom"}}', status=500)
COMMENT = KEEP_ALIVE.decode()


def test_a_slow_first_token_gets_its_head_and_comments_first(gw: Running, tmp_path: Path) -> None:
    held = Held(FINE)
    status, text = read_on_from_the_first_comment(gw, start(gw, tmp_path, held), held.go)
    assert status == 200
    assert text.startswith(COMMENT)
    assert text.endswith("data: [DONE]\n\n")
    assert '"content":"Hello"' in text
    assert text.count("[DONE]") == 1


def test_fallback_still_works_behind_a_comment(gw: Running, tmp_path: Path) -> None:
    held = Held(BROKEN)
    _, text = read_on_from_the_first_comment(gw, start(gw, tmp_path, held, FINE), held.go)
    assert text.startswith(COMMENT)
    assert text.endswith("data: [DONE]\n\n")
    assert '"degraded":true' in text


def test_total_failure_behind_a_comment_is_an_error_event(gw: Running, tmp_path: Path) -> None:
    held = Held(BROKEN)
    status, text = read_on_from_the_first_comment(gw, start(gw, tmp_path, held), held.go)
    assert status == 200
    events = [event for event in text.split("\n\n") if event and not event.startswith(":")]
    assert len(events) == 1
    assert events[0].startswith('data: {"error":{"message":')
    assert "boom" in events[0]


def test_before_the_first_comment_a_failure_has_its_real_status(gw: Running, tmp_path: Path) -> None:
    response = ask(start(gw, tmp_path, BROKEN, keep_alive=LONG))
    assert response.status_code == 502


def test_an_answer_that_is_held_back_until_it_is_whole_gets_comments_meanwhile(gw: Running, tmp_path: Path) -> None:
    go = asyncio.Event()

    async def slow(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (sse(*chunks("Hel", "lo")[:2], done=False), sse(*chunks("Hel", "lo")[2:])):
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await go.wait()
        writer.write(b"0\r\n\r\n")

    _, text = read_on_from_the_first_comment(gw, start(gw, tmp_path, slow, commit="complete"), go)
    comments, _, events = text.rpartition(COMMENT)
    assert comments.replace(COMMENT, "") == ""
    assert events.endswith("data: [DONE]\n\n")
    assert "Hel" in events


def test_whole_answers_get_no_comments(gw: Running, tmp_path: Path) -> None:
    async def late(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(QUIET * 3)
        await answers(orjson.dumps(completion()))(asked, writer)

    response = ask(start(gw, tmp_path, late), stream=False)
    assert response.json()["choices"][0]["message"]["content"] == "Hello!"


def test_a_client_that_leaves_before_the_first_content_cancels_the_provider(gw: Running, tmp_path: Path) -> None:
    async def silent(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    url = start(gw, tmp_path, by_turns(silent))
    with httpx.stream("POST", url + "/v1/chat/completions", json=CHAT, trust_env=False, timeout=60) as response:
        assert next(response.iter_text()).startswith(COMMENT)
    gw.run(asyncio.wait_for(gw.providers[0].hung_up.wait(), 20))
    assert gw.providers[0].hangups == 1
