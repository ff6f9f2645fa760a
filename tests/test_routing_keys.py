"""Several keys of one backend, over HTTP: they take turns, and one that is dead, empty or limited is left out."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.fakes import Asked, LoopbackProvider, answers, chunks, completion, sse, streams
from tests.running import running, settings

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
KEYS = {"KEY_1": "sk-first-1", "KEY_2": "sk-second-2", "KEY_3": "sk-third-3"}
DEAD = answers(b'{"error": {"message": "bad key", "code": "invalid_api_key"}}', status=401)
EMPTY = answers(b'{"error": {"message": "no money", "code": "insufficient_quota"}}', status=429)
LIMITED = answers(b'{"error": {"message": "slow down"}}', status=429, retry_after="60")
USED_UP = answers(
    b'{"error": {"message": "slow down"}}',
    status=429,
    x_ratelimit_limit_requests="9",
    x_ratelimit_remaining_requests="0",
    x_ratelimit_reset_requests="50s",
)
LAST_ONE = answers(
    orjson.dumps(completion()),
    x_ratelimit_limit_requests="9",
    x_ratelimit_remaining_requests="0",
    x_ratelimit_reset_requests="50s",
)
IN_STREAM = streams(sse({"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}, done=False))


def used(provider: LoopbackProvider) -> list[str]:
    return [asked.headers["authorization"].removeprefix("Bearer ") for asked in provider.asked]


def serve(tmp_path: Path, bad: Any, requests: int, **body: Any) -> tuple[list[httpx.Response], list[str]]:
    """Ask so often where the first key is treated so; the answers, and the keys that were used."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        good = streams(sse(*chunks("Hi"))) if asked.json.get("stream") else answers(orjson.dumps(completion()))
        await (bad if asked.headers["authorization"].endswith("first-1") else good)(asked, writer)

    with running() as gw:
        provider = gw.add_provider(script)
        backend = {"adapter": "openai", "base_url": provider.url + "/v1", "api_key_envs": list(KEYS)}
        middleware = {"rate_limit": {"enabled": False}}
        url = gw.start(settings(tmp_path, backends={"a": backend}, middleware=middleware), environ=KEYS)
        with httpx.Client(trust_env=False, base_url=url) as client:
            found = [client.post("/v1/chat/completions", json=CHAT | body) for _ in range(requests)]
    return found, used(provider)


def test_keys_take_turns(tmp_path: Path) -> None:
    _, keys = serve(tmp_path, answers(orjson.dumps(completion())), 9)
    assert Counter(keys) == dict.fromkeys(KEYS.values(), 3)


@pytest.mark.parametrize("bad", [DEAD, EMPTY, LIMITED], ids=["dead", "empty", "limited"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_key_that_is_refused_is_asked_once_and_no_client_notices(tmp_path: Path, bad: Any, stream: bool) -> None:
    found, keys = serve(tmp_path, bad, 9, stream=stream)
    assert {response.status_code for response in found} == {200}
    assert {response.headers["X-Gateway-Degraded"] for response in found} == {"false"}
    assert keys.count("sk-first-1") == 1
    assert abs(keys.count("sk-second-2") - keys.count("sk-third-3")) <= 1


@pytest.mark.parametrize("bad", [USED_UP, LAST_ONE], ids=["refused", "answered"])
def test_a_key_whose_limit_is_used_up_rests_alone(tmp_path: Path, bad: Any) -> None:
    found, keys = serve(tmp_path, bad, 9)
    assert {response.status_code for response in found} == {200}
    assert keys.count("sk-first-1") == 1


def test_a_key_that_is_limited_inside_a_stream_rests_too(tmp_path: Path) -> None:
    found, keys = serve(tmp_path, IN_STREAM, 9, stream=True)
    assert all(response.text.endswith("data: [DONE]\n\n") for response in found)
    assert keys.count("sk-first-1") == 1
