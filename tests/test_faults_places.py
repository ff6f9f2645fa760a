"""A backend's places and its queue, and its keys: what is full, dead or limited is passed over."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from gw.adapter import Codec
from gw.adapters.openai import OpenAI
from gw.backend import Backend
from gw.breaker import Breaker
from gw.errors import (
    Unavailable,
    UpstreamError,
)
from gw.message import Request, Response
from gw.middleware.translate import Translate
from gw.places import Places
from gw.secret import Secret
from tests.fakes import FakeClock, FakeTransport, completion, fake_backend
from tests.fallback_world import LIMITED, World


def placed(limit: int, queue: int, timeout: float = 60.0) -> Backend:
    backend = fake_backend("a")
    backend.places = Places(backend, limit=limit, queue=queue, timeout=timeout)
    return backend


async def take(backend: Backend) -> float | None:
    assert backend.places is not None
    waited = await backend.places.enter()
    backend.health.in_flight += 1
    return waited


def leave(backend: Backend) -> None:
    assert backend.places is not None
    backend.health.in_flight -= 1
    backend.places.leave()


def test_over_its_places_and_its_queue_a_backend_is_full_at_once() -> None:
    async def main() -> None:
        backend = placed(limit=1, queue=1)
        await take(backend)
        waiting = asyncio.create_task(take(backend))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="queue full") as caught:
            take(backend).send(None)  # in its first step: it waits for nothing
        assert (caught.value.status, caught.value.code) == (503, "queue_full")
        assert caught.value.retry_after is not None
        leave(backend)
        assert await waiting is not None
        leave(backend)
        assert backend.health.in_flight == 0

    asyncio.run(main())


def test_the_queue_is_first_come_first_served() -> None:
    async def main() -> None:
        backend = placed(limit=1, queue=5)
        order: list[int] = []
        await take(backend)

        async def work(number: int) -> None:
            await take(backend)
            order.append(number)
            leave(backend)

        tasks = [asyncio.create_task(work(number)) for number in range(5)]
        await asyncio.sleep(0)
        leave(backend)
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2, 3, 4]

    asyncio.run(main())


def test_nobody_overtakes_whoever_was_called() -> None:
    async def main() -> None:
        backend = placed(limit=1, queue=1)
        await take(backend)
        waiting = asyncio.create_task(take(backend))
        await asyncio.sleep(0)
        leave(backend)
        late = asyncio.create_task(take(backend))
        await waiting
        assert backend.health.in_flight == 1
        late.cancel()

    asyncio.run(main())


def test_a_newcomer_stands_behind_whoever_waits_even_where_another_worker_has_freed_a_place() -> None:
    async def main() -> None:
        backend = placed(limit=1, queue=2)
        await take(backend)
        order: list[str] = []

        async def work(name: str) -> None:
            await take(backend)
            order.append(name)
            leave(backend)

        first = asyncio.create_task(work("first"))
        await asyncio.sleep(0)
        backend.health.in_flight -= 1  # freed elsewhere: nobody here was told
        await asyncio.gather(first, asyncio.create_task(work("second")))
        assert order == ["first", "second"]

    asyncio.run(main())


def test_a_place_in_the_queue_has_its_time() -> None:
    async def main() -> None:
        backend = placed(limit=1, queue=1, timeout=0.01)
        await take(backend)
        with pytest.raises(Unavailable, match="no place was free"):
            await take(backend)
        assert backend.places is not None
        assert backend.places.waiting == 0

    asyncio.run(main())


def test_whoever_leaves_the_queue_leaves_no_hole() -> None:
    async def main() -> None:
        backend = placed(limit=1, queue=2)
        await take(backend)
        gone, stays = (asyncio.create_task(take(backend)) for _ in range(2))
        await asyncio.sleep(0)
        leave(backend)  # `gone` is called ...
        gone.cancel()  # ... and does not come
        await stays
        assert backend.health.in_flight == 1

    asyncio.run(main())


def test_a_full_backend_is_an_attempt_that_falls_back_and_does_not_hurt_it() -> None:
    a, b = placed(limit=1, queue=0), fake_backend("b")
    a.health.in_flight = 1
    translate = Translate()

    async def handler(request: Request) -> Response:
        async def nowhere(wire: Any) -> Any:
            raise AssertionError

        return await translate(request, nowhere)

    async def main() -> None:
        world = World(a, b, breaker=Breaker(failures=1))
        response = await world.ask(handler)
        assert response.headers["X-Gateway-Backend"] == "b"
        full, _ = world.request.exchange.attempts
        assert isinstance(full.error, Unavailable)
        assert full.ended is not None
        assert (a.health.in_flight, a.health.failures) == (1, 0)

    asyncio.run(main())


KEYS = [Secret("one"), Secret("two"), Secret("three")]


def test_keys_take_turns_and_a_dead_one_is_passed_over() -> None:
    backend = fake_backend("a", keys=KEYS, clock=FakeClock())
    assert [backend.next_key() for _ in range(4)] == [*KEYS, KEYS[0]]
    backend.judge_key(KEYS[1], UpstreamError("bad key", fault="dead_key"))
    assert {backend.next_key() for _ in range(6)} == {KEYS[0], KEYS[2]}


def test_a_limited_key_comes_back_after_its_retry_after() -> None:
    clock = FakeClock()
    backend = fake_backend("a", keys=KEYS[:2], clock=clock)
    backend.judge_key(KEYS[0], LIMITED)
    assert {backend.next_key() for _ in range(4)} == {KEYS[1]}
    clock.now += 7
    assert {backend.next_key() for _ in range(4)} == set(KEYS[:2])


def test_where_every_key_is_out_the_first_to_come_back_is_tried() -> None:
    backend = fake_backend("a", keys=KEYS[:2], clock=FakeClock())
    backend.judge_key(KEYS[0], UpstreamError("bad key", fault="dead_key"))
    backend.judge_key(KEYS[1], LIMITED)
    assert not backend.has_spare_key
    assert backend.next_key() == KEYS[1]


class KeyedAdapter:
    """OpenAI's, but it remembers which keys were used."""

    def __init__(self) -> None:
        self._inner = OpenAI(base_url="http://127.0.0.1:1/v1")
        self.used: list[str] = []

    def open(self, request: Request) -> Codec:
        assert request.candidate.key is not None
        self.used.append(request.candidate.key.reveal())
        return self._inner.open(request)


def through_the_wire(keys: list[Secret], *answers: Any) -> tuple[Response, list[str], Backend]:
    adapter = KeyedAdapter()
    backend = Backend("a", "openai", adapter=adapter, keys=keys)
    transport = FakeTransport([(status, {}, [orjson.dumps(body)]) for status, body in answers])
    translate = Translate()

    async def handler(request: Request) -> Response:
        return await translate(request, transport)

    world = World(backend, fake_backend("b"))
    return asyncio.run(world.ask(handler)), adapter.used, backend


def test_another_key_is_asked_at_once_where_one_is_dead_and_the_backend_goes_on() -> None:
    dead = (401, {"error": {"message": "bad", "code": "invalid_api_key"}})
    response, used, backend = through_the_wire(KEYS, dead, (200, completion()))
    assert used == ["one", "two"]
    assert response.headers["X-Gateway-Backend"] == "a"
    assert response.headers["X-Gateway-Degraded"] == "false"
    assert (backend.health.failures, backend.is_cooling) == (0, False)


def test_when_every_key_is_dead_the_next_backend_answers() -> None:
    dead = (401, {"error": {"message": "bad", "code": "invalid_api_key"}})
    response, used, backend = through_the_wire(KEYS, dead)
    assert sorted(used) == ["one", "three", "two"]
    assert response.headers["X-Gateway-Backend"] == "b"
    assert backend.is_cooling
