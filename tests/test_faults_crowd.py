"""Many requests at once, over real HTTP: a full backend says so at once, a storm does not reach the provider."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from gw.latency import ENOUGH
from tests.fakes import Asked, answers, chunks, completion, sse, streams
from tests.running import Running, running, settings

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def gw() -> Iterator[Running]:
    with running() as gateway:
        yield gateway


class Gate:
    """A provider that answers when it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.came = asyncio.Event()
        self.now = self.most = 0

    async def __call__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        self.came.set()
        await self.go.wait()
        self.now -= 1
        await answers(orjson.dumps(completion()))(asked, writer)


def start(gw: Running, folder: Path, gate: Gate, others: int = 0, **options: Any) -> str:
    backends: dict[str, Any] = {
        "a": {"adapter": "openai", "base_url": gw.add_provider(gate).url + "/v1", **options},
    }
    for number in range(others):
        provider = gw.add_provider(answers(orjson.dumps(completion("from another"))))
        backends[f"b{number}"] = {"adapter": "openai", "base_url": provider.url + "/v1", "group": "b"}
    return gw.start(settings(folder, backends=backends, middleware={"rate_limit": {"enabled": False}}))


async def post(client: httpx.AsyncClient, url: str) -> httpx.Response:
    return await client.post(url + "/v1/chat/completions", json=CHAT)


@pytest.mark.parametrize("others", [0, 1])
def test_over_its_places_a_backend_is_a_503_at_once_or_somebody_else_answers(
    gw: Running, tmp_path: Path, others: int
) -> None:
    gate = Gate()
    url = start(gw, tmp_path, gate, others, max_concurrent=1, queue_size=0, queue_timeout=600)

    async def main() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            first = asyncio.create_task(post(client, url))
            await gate.came.wait()
            response = await post(client, url)  # it comes while the first still has the place
            if others:
                assert response.json()["choices"][0]["message"]["content"] == "from another"
                assert response.json()["degraded"] is True
            else:
                assert response.status_code == 503
                assert response.json()["error"]["code"] == "queue_full"
                assert int(response.headers["retry-after"]) >= 1
            assert not first.done()
            gate.go.set()
            assert (await first).status_code == 200

    gw.run(main())


def test_a_backend_is_never_sent_more_at_once_than_it_has_places(gw: Running, tmp_path: Path) -> None:
    gate = Gate()
    url = start(gw, tmp_path, gate, max_concurrent=3, queue_size=50)

    async def main() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            tasks = [asyncio.create_task(post(client, url)) for _ in range(20)]
            await gate.came.wait()
            gate.go.set()
            assert {response.status_code for response in await asyncio.gather(*tasks)} == {200}
        assert gate.most <= 3
        assert gw.gateway.backends["a"].health.in_flight == 0

    gw.run(main())


def test_a_client_that_leaves_the_queue_frees_its_place_in_it(gw: Running, tmp_path: Path) -> None:
    gate = Gate()
    url = start(gw, tmp_path, gate, max_concurrent=1, queue_size=1)

    async def main() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            first = asyncio.create_task(post(client, url))
            await gate.came.wait()
            impatient = asyncio.create_task(client.post(url + "/v1/chat/completions", json=CHAT))
            places = gw.gateway.backends["a"].places
            assert places is not None
            while not places.waiting:  # noqa: ASYNC110 (it is in the gateway's hands)
                await asyncio.sleep(0.001)
            impatient.cancel()
            while places.waiting:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            gate.go.set()
            assert (await first).status_code == 200
            assert (await post(client, url)).status_code == 200
        assert gw.gateway.backends["a"].health.in_flight == 0

    gw.run(main())


def test_a_storm_of_limits_reaches_the_provider_only_once_per_retry_after(gw: Running, tmp_path: Path) -> None:
    limited = answers(b'{"error": {"message": "slow down"}}', status=429, retry_after="60")
    provider = gw.add_provider(limited)
    backends = {"a": {"adapter": "openai", "base_url": provider.url + "/v1"}}
    url = gw.start(settings(tmp_path, backends=backends, middleware={"rate_limit": {"enabled": False}}))

    async def main() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            found = [await post(client, url) for _ in range(50)]
        assert {response.status_code for response in found[:1]} == {429}
        assert {response.status_code for response in found} <= {429, 503}
        assert all(int(response.headers["retry-after"]) >= 1 for response in found)

    gw.run(main())
    assert len(provider.asked) == 1


def test_a_stream_that_is_slow_to_begin_is_overtaken_and_its_provider_hung_up_on(gw: Running, tmp_path: Path) -> None:
    quick = ENOUGH

    async def first(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if len(slow.asked) > quick:
            await asyncio.Event().wait()
        await streams(sse(*chunks("from the first")))(asked, writer)

    slow = gw.add_provider(first)
    fast = gw.add_provider(streams(sse(*chunks("from the second"))))
    url = gw.start(
        settings(
            tmp_path,
            backends={
                "a": {"adapter": "openai", "base_url": slow.url + "/v1"},
                "b": {"adapter": "openai", "base_url": fast.url + "/v1", "group": "b"},
            },
            middleware={"fallback": {"hedge": {"share": 0.5}}},
        )
    )

    async def main() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            for number in range(quick + 1):
                response = await client.post(url + "/v1/chat/completions", json=CHAT | {"stream": True})
                assert ("from the second" in response.text) == (number == quick)
        await asyncio.wait_for(slow.hung_up.wait(), 30)

    gw.run(main())
    assert slow.hangups == 1
    assert gw.gateway.backends["a"].health.in_flight == 0
