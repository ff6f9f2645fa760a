"""What anybody's middleware makes of an answer: one form or the other, or a mistake that is told and costs no place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from gw.document import Chunk, Completion
from gw.errors import ClientGone, GatewayError
from gw.message import Exchange, Request, Response
from gw.pipeline import Handler
from gw.stream import ListStream, Stream
from gw.whole_as_chunks import chunks_of
from tests.fakes import Asked, answers, chunk, completion, fake_backend, sse
from tests.recordings import read_chunks, read_completion
from tests.running import Running, running, settings

HI: Any = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def gw() -> Iterator[Running]:
    with running() as gateway:
        yield gateway


def post(gw: Running, **fields: Any) -> httpx.Response:
    url = f"{gw.gateway.url}/v1/chat/completions"
    return httpx.post(url, json={"messages": HI, **fields}, trust_env=False, timeout=30)


class Witness:
    """Remembers every exchange that has ended."""

    def __init__(self) -> None:
        self.ended_exchanges: list[Exchange] = []

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        return await call_next(request)

    def ended(self, exchange: Exchange) -> None:
        self.ended_exchanges.append(exchange)


async def a_generator(request: Request, call_next: Handler) -> Response:
    response = await call_next(request)
    stream: Any = response.content

    async def changed() -> AsyncIterator[Chunk]:
        async for piece in stream:
            yield piece

    response.content = changed()  # type: ignore[assignment]
    return response


async def a_text(request: Request, call_next: Handler) -> Response:
    response = await call_next(request)
    response.content = "Hello"  # type: ignore[assignment]
    return response


async def a_failure(request: Request, call_next: Handler) -> Response:
    response = await call_next(request)
    raise ValueError(f"{response} is not what was wanted")


async def an_answer_of_its_own(request: Request, call_next: Handler) -> Response:
    await call_next(request)
    return Response(b'{"mine": true}')


async def a_stream_of_its_own(request: Request, call_next: Handler) -> Response:
    await call_next(request)
    return Response(ListStream([Chunk(value=chunk({"content": "mine"})), Chunk(value=chunk({}, "stop"))]))


async def a_map_that_fails(request: Request, call_next: Handler) -> Response:
    response = await call_next(request)
    assert isinstance(response.content, Stream)
    response.content = response.content.map(lambda piece: piece.peek()["nothing"])
    return response


async def a_map_to_texts(request: Request, call_next: Handler) -> Response:
    response = await call_next(request)
    assert isinstance(response.content, Stream)
    response.content = response.content.map(lambda piece: "Hello")  # type: ignore[arg-type, return-value]
    return response


class _Unclosable(ListStream):
    async def aclose(self) -> None:
        raise OSError("it cannot be closed")


async def a_stream_that_cannot_be_closed(request: Request, call_next: Handler) -> Response:
    await call_next(request)
    return Response(_Unclosable([Chunk(value=chunk({"content": b"no JSON"}))]))


async def endless(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    piece = sse(chunk({"role": "assistant", "content": "Hello"}), done=False)
    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    await asyncio.Event().wait()


MISTAKES = [a_generator, a_text, a_failure, an_answer_of_its_own, a_stream_of_its_own, a_map_that_fails, a_map_to_texts]


@pytest.mark.parametrize("mistaken", [*MISTAKES, a_stream_that_cannot_be_closed])
def test_an_answer_that_a_middleware_drops_is_freed_and_its_exchange_ends_once(
    gw: Running, tmp_path: Path, mistaken: Any
) -> None:
    witness = Witness()
    backend = {
        "adapter": "openai",
        "base_url": gw.add_provider(endless).url + "/v1",
        "model": "gpt-4",
        "max_concurrent": 1,
    }
    layers = [("witness", witness), ("mistaken", mistaken)]
    gw.start(settings(tmp_path, backends={"a": backend}), middleware=layers)
    response = post(gw, stream=True)
    gw.run(asyncio.wait_for(gw.providers[0].hung_up.wait(), 20))
    (exchange,) = witness.ended_exchanges
    (attempt,) = exchange.attempts
    assert attempt.ended is not None
    assert attempt.error is not None
    assert "hung up" not in str(attempt.error)
    assert response.status_code == exchange.status
    health = httpx.get(f"{gw.gateway.url}/health", trust_env=False).json()["backends"]["a"]
    assert health["in_flight"] == 0


@pytest.mark.parametrize(("mistaken", "kind"), [(a_generator, "async_generator"), (a_text, "str")])
def test_what_is_no_content_is_told_with_its_cure(gw: Running, tmp_path: Path, mistaken: Any, kind: str) -> None:
    backend = {"adapter": "openai", "base_url": gw.add_provider(endless).url + "/v1", "model": "gpt-4"}
    gw.start(settings(tmp_path, backends={"a": backend}), middleware=[("mistaken", mistaken)])
    response = post(gw, stream=True)
    assert response.status_code == 500
    message = response.json()["error"]["message"]
    assert message.startswith(f'middleware "mistaken" put {kind} into `response.content`')
    assert "`response.content.map(function)`" in message


def test_a_stream_where_none_was_asked_for_is_told(gw: Running, tmp_path: Path) -> None:
    backend = {
        "adapter": "openai",
        "base_url": gw.add_provider(answers(orjson.dumps(completion()))).url + "/v1",
        "model": "gpt-4",
    }
    gw.start(settings(tmp_path, backends={"a": backend}), middleware=[("mistaken", a_stream_of_its_own)])
    response = post(gw)
    assert response.status_code == 500
    assert "a stream where none was asked for" in response.json()["error"]["message"]


@pytest.mark.parametrize("is_own", [False, True], ids=["adapter", "backend of one's own"])
def test_an_observer_is_told_why_the_stream_around_it_failed(gw: Running, tmp_path: Path, is_own: bool) -> None:
    ends: list[BaseException | None] = []

    class Observer:
        def chunks(self, chunks: Sequence[Chunk]) -> None: ...

        def end(self, error: BaseException | None) -> None:
            ends.append(error)

    async def observing(request: Request, call_next: Handler) -> Response:
        response = await call_next(request)
        assert isinstance(response.content, Stream)
        response.content = response.content.observed(Observer())
        return response

    own = fake_backend("a", [chunk({"content": "Hello"}), chunk({}, "stop")], model="gpt-4")
    backend = {"adapter": "openai", "base_url": gw.add_provider(endless).url + "/v1", "model": "gpt-4"}
    layers = [("mistaken", a_map_that_fails), ("observing", observing)]
    given = settings(tmp_path) if is_own else settings(tmp_path, backends={"a": backend})
    gw.start(given, middleware=layers, backends=[own] if is_own else [])
    post(gw, stream=True)
    (end,) = ends
    assert isinstance(end, GatewayError)
    assert not isinstance(end, ClientGone)


# --- a whole answer to a request for a stream --------------------------------------------------------------------


def test_a_whole_answer_from_a_cache_is_a_stream_to_every_layer_before_it(gw: Running, tmp_path: Path) -> None:
    cached = completion("from the cache")
    kinds: list[type] = []

    async def watching(request: Request, call_next: Handler) -> Response:
        response = await call_next(request)
        kinds.append(type(response.content))
        if isinstance(response.content, Stream):
            response.content = response.content.map(lambda piece: piece)
        return response

    async def cache(request: Request, call_next: Handler) -> Response:
        return Response(Completion(value=cached))

    gw.start(settings(tmp_path), middleware=[("watching", watching), ("cache", cache)])
    sdk = gw.sdk()
    stream = sdk.chat.completions.create(
        model="auto",
        messages=HI,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [piece.model_dump(exclude_unset=True) for piece in stream]
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]) == "from the cache"
    assert [c["usage"]["total_tokens"] for c in chunks if c.get("usage")] == [12]
    assert issubclass(kinds[0], Stream)
    whole = sdk.chat.completions.create(model="auto", messages=HI)
    assert whole.choices[0].message.content == "from the cache"
    assert kinds[1] is Completion


def test_a_whole_answer_in_chunks_says_the_same() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    value = completion(None, tool_calls=[call], reasoning_content="Well.")  # type: ignore[arg-type]
    second = {"index": 1, "message": {"role": "assistant", "content": "Two"}, "finish_reason": "length"}
    value["choices"] = [value["choices"][0] | {"finish_reason": "tool_calls"}, second]
    read = [orjson.loads(piece.raw) for piece in chunks_of(Completion(value=value))]
    assert read_chunks(read) == read_completion(value)
    assert {piece["object"] for piece in read} == {"chat.completion.chunk"}
    assert [c["finish_reason"] for piece in read for c in piece["choices"]] == [None, None, "tool_calls", "length"]


@pytest.mark.parametrize("value", [{}, {"choices": None}, {"choices": [{}]}, {"choices": ["Hi"]}])
def test_a_completion_that_is_none_is_told(gw: Running, tmp_path: Path, value: dict[str, Any]) -> None:
    async def cache(request: Request, call_next: Handler) -> Response:
        return Response(Completion(value=value))

    gw.start(settings(tmp_path), middleware=[("cache", cache)])
    response = post(gw, stream=True)
    assert response.status_code == 500
    assert 'middleware "cache" answered with a Completion that has no `choices`' in response.json()["error"]["message"]
