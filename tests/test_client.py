"""`GatewayClient`: contract B28, sync and async, whole and streamed, against a running gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from gw import AsyncGatewayClient, GatewayClient
from gw.client import APIError
from tests.fakes import answers, chunks, completion, sse, streams
from tests.running import Running, running, settings

HI = [{"role": "user", "content": "Hello, world!"}]


@pytest.fixture
def gw() -> Iterator[Running]:
    with running() as gateway:
        yield gateway


def start(gw: Running, folder: Path, script: Any) -> str:
    backend = {"adapter": "openai", "base_url": gw.add_provider(script).url + "/v1"}
    return gw.start(settings(folder, backends={"a": backend}))


@pytest.mark.parametrize("suffix", ["", "/", "/v1"])
def test_a_whole_answer_reads_as_document_b_writes_it(gw: Running, tmp_path: Path, suffix: str) -> None:
    url = start(gw, tmp_path, answers(orjson.dumps(completion("Hello!"))))
    with GatewayClient(base_url=url + suffix) as client:
        response = client.chat.completions.create(model="gpt-4", messages=HI)
    assert response.choices[0].message.content == "Hello!"
    assert response["usage"]["total_tokens"] == response.usage.total_tokens == 12


def test_a_stream_is_an_iterator_of_chunks(gw: Running, tmp_path: Path) -> None:
    url = start(gw, tmp_path, streams(sse(*chunks("Hel", "lo"))))
    with GatewayClient(base_url=url) as client:
        stream = client.chat.completions.create(model="gpt-4", messages=HI, stream=True)
        text = "".join(chunk.choices[0].delta.get("content") or "" for chunk in stream)
    assert text == "Hello"


def test_the_same_asynchronously(gw: Running, tmp_path: Path) -> None:
    url = start(gw, tmp_path, streams(sse(*chunks("Hel", "lo"))))

    async def ask() -> str:
        async with AsyncGatewayClient(base_url=url) as client:
            stream = await client.chat.completions.create(model="gpt-4", messages=HI, stream=True)
            return "".join([chunk.choices[0].delta.get("content") or "" async for chunk in stream])

    assert asyncio.run(ask()) == "Hello"


def test_the_async_client_answers_whole_too(gw: Running, tmp_path: Path) -> None:
    url = start(gw, tmp_path, answers(orjson.dumps(completion("Hello!"))))

    async def ask() -> str:
        async with AsyncGatewayClient(base_url=url) as client:
            answer = await client.chat.completions.create(model="gpt-4", messages=HI)
            return str(answer.choices[0].message.content)

    assert asyncio.run(ask()) == "Hello!"


def test_leaving_a_stream_early_hangs_up_on_the_provider(gw: Running, tmp_path: Path) -> None:
    async def endless(asked: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = sse(*chunks("Hello")[:2], done=False)
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await asyncio.Event().wait()

    url = start(gw, tmp_path, endless)
    with GatewayClient(base_url=url) as client:
        with client.chat.completions.create(model="gpt-4", messages=HI, stream=True) as stream:
            assert next(iter(stream)).choices
        gw.run(asyncio.wait_for(gw.providers[0].hung_up.wait(), 20))


def test_an_error_of_the_gateway_is_raised_with_its_fields(gw: Running, tmp_path: Path) -> None:
    url = start(gw, tmp_path, answers(orjson.dumps(completion())))
    with GatewayClient(base_url=url) as client, pytest.raises(APIError, match="temperature") as caught:
        client.chat.completions.create(model="gpt-4", messages=HI, temperature="hot")
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, "temperature", "invalid_value")


def test_a_stream_that_breaks_raises_and_does_not_look_whole(gw: Running, tmp_path: Path) -> None:
    url = start(gw, tmp_path, streams(sse(*chunks("Hello")[:2], done=False), cut=True))
    with GatewayClient(base_url=url) as client, pytest.raises(APIError):
        list(client.chat.completions.create(model="gpt-4", messages=HI, stream=True))


def read(url: str) -> tuple[list[str], APIError | None]:
    """The texts that a stream gives, and the failure that ends it."""
    texts: list[str] = []
    with GatewayClient(base_url=url) as client:
        try:
            for chunk in client.chat.completions.create(messages=HI, stream=True):
                texts += [choice.delta.get("content") or "" for choice in chunk.choices]
        except APIError as error:
            return texts, error
    return texts, None


async def read_async(url: str) -> tuple[list[str], APIError | None]:
    texts: list[str] = []
    async with AsyncGatewayClient(base_url=url) as client:
        try:
            async for chunk in await client.chat.completions.create(messages=HI, stream=True):
                texts += [choice.delta.get("content") or "" for choice in chunk.choices]
        except APIError as error:
            return texts, error
    return texts, None


def test_what_came_in_one_piece_with_an_error_is_given_before_it(gw: Running) -> None:
    told = {"error": {"message": "boom", "type": "api_error", "param": None, "code": None}}
    url = gw.add_provider(streams(sse(*chunks("Hel", "lo")[:3], told, done=False))).url
    for texts, error in (read(url), asyncio.run(read_async(url))):
        assert texts == ["", "Hel", "lo"]
        assert str(error) == "boom"


def test_a_connection_that_breaks_in_mid_stream_is_the_clients_one_error(gw: Running) -> None:
    url = gw.add_provider(streams(sse(*chunks("Hello")[:2], done=False), cut=True)).url
    for texts, error in (read(url), asyncio.run(read_async(url))):
        assert texts == ["", "Hello"]
        assert error is not None
        assert (error.status, error.code) == (0, "stream_cut")


def test_a_connection_that_breaks_behind_the_end_is_no_failure(gw: Running) -> None:
    url = gw.add_provider(streams(sse(*chunks("Hello")), cut=True)).url
    for texts, error in (read(url), asyncio.run(read_async(url))):
        assert (texts, error) == (["", "Hello", ""], None)


def test_an_answer_that_is_no_json_is_the_clients_one_error(gw: Running) -> None:
    url = gw.add_provider(answers(b"<html>", content_type="text/html")).url
    with GatewayClient(base_url=url) as client, pytest.raises(APIError, match="no JSON"):
        client.chat.completions.create(messages=HI)


def test_no_gateway_at_all_says_so() -> None:
    with (
        GatewayClient(base_url="http://127.0.0.1:9") as client,
        pytest.raises(APIError, match="is `python -m gw` running"),
    ):
        client.chat.completions.create(messages=HI)
