"""The places of backends with `max_concurrent` on `/queue/status`, and a session's next turn on `POST /route`."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import httpx
import orjson

from tests.fakes import Asked, Script, answers, completion
from tests.running import running, settings

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def test_places_and_their_queue_are_on_the_page(tmp_path: Path) -> None:
    go, came = asyncio.Event(), asyncio.Event()

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        came.set()
        await go.wait()
        await answers(orjson.dumps(completion()))(asked, writer)

    async def main(url: str) -> None:
        async with httpx.AsyncClient(trust_env=False, base_url=url, timeout=30) as client:

            async def pool() -> dict[str, Any]:
                page: dict[str, Any] = (await client.get("/queue/status")).json()["processPool"]
                return page

            first = asyncio.create_task(client.post("/v1/chat/completions", json=CHAT))
            await came.wait()
            second = asyncio.create_task(client.post("/v1/chat/completions", json=CHAT))
            while not (await pool())["queued"]:
                pass
            assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 503
            figures = await pool()
            assert figures == {
                "active": 1,
                "queued": 1,
                "maxConcurrent": 1,
                "maxQueue": 1,
                "totalProcessed": 0,
                "totalQueued": 1,
                "totalFailed": 1,
                "utilization": 1.0,
            }
            go.set()
            assert {response.status_code for response in await asyncio.gather(first, second)} == {200}
            figures = await pool()
            assert (figures["active"], figures["queued"], figures["totalProcessed"]) == (0, 0, 2)

    with running() as gw:
        base_url = gw.add_provider(script).url + "/v1"
        backends = {"a": {"adapter": "openai", "base_url": base_url, "max_concurrent": 1, "queue_size": 1}}
        gw.run(main(gw.start(settings(tmp_path, backends=backends))))


def test_a_session_goes_on_with_the_model_that_a_rule_asks_its_backend_for(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    def script(name: str) -> Script:
        async def play(said: Asked, writer: asyncio.StreamWriter) -> None:
            asked.append((name, said.json["model"]))
            down = name == "a" and len(asked) == 1
            await answers(b"{}" if down else orjson.dumps(completion("Hi")), status=503 if down else 200)(said, writer)

        return play

    rule = {"when": "model: smart", "backends": [{"backend": "a", "model": "m-a"}, {"backend": "b", "model": "m-b"}]}
    with running() as gw:
        backends = {
            name: {"adapter": "openai", "base_url": gw.add_provider(script(name)).url + "/v1"} for name in ("a", "b")
        }
        middleware = {"route": {"rules": [rule]}, "fallback": {"retries": 0}}
        url = gw.start(settings(tmp_path, backends=backends, middleware=middleware))
        with httpx.Client(trust_env=False, base_url=url) as client:
            chat = CHAT | {"model": "smart"}
            first = client.post("/v1/chat/completions", json=chat).json()
            more = client.post("/v1/chat/completions", json=chat | {"session_id": first["session_id"]}).json()
    assert asked == [("a", "m-a"), ("b", "m-b"), ("b", "m-b")]
    assert (first["model"], more["model"], more["degraded"]) == ("m-b", "smart", False)


def test_the_next_turn_of_a_session_is_explained_with_all_that_was_said(tmp_path: Path) -> None:
    with running() as gw:
        script = answers(orjson.dumps(completion("Hello Alice")))
        backends = {
            name: {"adapter": "openai", "base_url": gw.add_provider(script).url + "/v1", "group": "g"} for name in "ab"
        }
        url = gw.start(settings(tmp_path, backends=backends))
        with httpx.Client(trust_env=False, base_url=url) as client:
            first = client.post("/v1/chat/completions", json=CHAT)
            more = CHAT | {"session_id": first.json()["session_id"]}
            for _ in range(3):
                page = client.post("/route", json=more).json()
                assert page["candidates"][0]["backend"] == first.headers["X-Gateway-Backend"]
                assert page["candidates"][0]["reason"] == "the session's own backend"
                assert [message["role"] for message in page["request"]["body"]["messages"]] == [
                    "user",
                    "assistant",
                    "user",
                ]
            assert client.post("/v1/chat/completions", json=more).headers["X-Gateway-Backend"] == "a"
            unknown = client.post("/route", json=CHAT | {"session_id": str(uuid.uuid4())})
            assert unknown.json()["error"]["code"] == "session_not_found"
