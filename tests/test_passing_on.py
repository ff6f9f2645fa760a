"""What comes of a stream while its reader waits is passed on without waking him: in order, and he tells its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import pytest

from gw.errors import UpstreamError, UpstreamProtocolError
from gw.upstream.connection import READ
from gw.upstream.exchange import Exchange
from tests.scripted_provider import CHUNKED
from tests.takers import Ready, Taker, begun
from tests.upstream_in_memory import exchange_in_memory

HELLO, THERE = b"5\r\nhello\r\n", b"5\r\nthere\r\n"


def in_memory(check: Callable[[Callable[[bytes], None], Exchange, list[str]], Awaitable[None]]) -> None:
    """Run a check of a stream whose head has come: how bytes come in, the exchange, and what its socket did."""

    async def main() -> None:
        exchange, _, socket, _ = exchange_in_memory(stream=True)
        socket.arrive(CHUNKED)
        socket.did.clear()
        await check(socket.arrive, exchange, socket.did)

    asyncio.run(main())


def test_only_what_comes_while_the_reader_waits_is_passed_on() -> None:
    async def check(receive: Callable[[bytes], None], exchange: Exchange, _: list[str]) -> None:
        taker = Taker(exchange)
        receive(HELLO)
        assert await exchange.read() == b"hello"
        reading = await begun(exchange.read())
        receive(HELLO)
        receive(THERE + HELLO)
        assert taker.taken == [b"hello", b"therehello"]
        receive(b"0\r\n\r\n")
        assert await reading == b""

    in_memory(check)


def test_whoever_is_not_ready_is_passed_nothing_and_the_provider_is_held_back() -> None:
    async def check(receive: Callable[[bytes], None], exchange: Exchange, did: list[str]) -> None:
        taker = Taker(exchange)
        reading = await begun(exchange.read())
        receive(HELLO)
        taker.writable = object()
        receive(THERE)
        taker.writable = None
        receive(HELLO)  # behind what waits already
        assert (taker.taken, await reading) == ([b"hello"], b"therehello")
        reading = await begun(exchange.read())
        taker.writable = object()
        receive(b"11170\r\n" + b"x" * 0x11170 + b"\r\n")
        size = len(await reading)
        assert (size, did) == (READ - len(b"11170\r\n"), ["pause", "resume", "pause"])
        while size < 0x11170:
            size += len(await exchange.read())
        assert size == 0x11170

    in_memory(check)


def test_of_a_stream_that_nobody_takes_one_read_is_held_and_the_rest_is_left_to_the_system() -> None:
    async def main() -> None:
        exchange, _, socket, _ = exchange_in_memory(stream=True)
        socket.arrive(CHUNKED)
        taker = Taker(exchange)
        reading = await begun(exchange.read())
        taker.writable = object()
        socket.arrive(b"40000\r\n" + b"x" * 0x40000 + b"\r\n")
        assert len(socket.unread) == len(b"40000\r\n\r\n") + 0x40000 - READ
        assert len(await reading) == READ - len(b"40000\r\n")

    asyncio.run(main())


def test_whoever_wants_no_more_ends_the_reading_whatever_comes_then() -> None:
    async def check(receive: Callable[[bytes], None], exchange: Exchange, _: list[str]) -> None:
        taker = Taker(exchange, wants=1)
        reading = await begun(exchange.read())
        receive(HELLO)
        receive(THERE)
        exchange.lost()
        assert (await reading, taker.taken) == (b"", [b"hello"])

    in_memory(check)


@pytest.mark.parametrize("behind", [b"", THERE, b"0\r\n\r\n"])
def test_what_the_taker_raises_is_raised_to_the_reader_before_anything_that_came_behind(behind: bytes) -> None:
    async def check(receive: Callable[[bytes], None], exchange: Exchange, did: list[str]) -> None:
        Taker(exchange, error=UpstreamError("told"))
        reading = await begun(exchange.read())
        receive(HELLO)
        if behind:
            receive(behind)
        with pytest.raises(UpstreamError, match="told"):
            await reading
        await exchange.aclose()
        assert did == ([] if behind.startswith(b"0") else ["abort"])

    in_memory(check)


def test_only_content_that_is_passed_on_is_a_sign_of_life() -> None:
    async def check(receive: Callable[[bytes], None], exchange: Exchange, _: list[str]) -> None:
        answers = [None, True]
        exchange.pass_on_to(lambda data: answers.pop(0), Ready())
        reading = await begun(exchange.read())
        before = exchange.deadline
        receive(HELLO)
        assert exchange.deadline == before
        receive(HELLO)
        assert exchange.deadline > before
        reading.cancel()

    in_memory(check)


def test_a_break_behind_what_was_passed_on_is_told() -> None:
    async def check(receive: Callable[[bytes], None], exchange: Exchange, _: list[str]) -> None:
        taker = Taker(exchange)
        reading = await begun(exchange.read())
        receive(HELLO)
        receive(b"zz\r\n")
        with pytest.raises(UpstreamProtocolError):
            await reading
        assert taker.taken == [b"hello"]

    in_memory(check)


def test_a_reader_who_is_cancelled_is_passed_nothing_more_and_frees_the_provider() -> None:
    async def check(receive: Callable[[bytes], None], exchange: Exchange, did: list[str]) -> None:
        taker = Taker(exchange)
        reading = await begun(exchange.read())
        reading.cancel()
        receive(HELLO)
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert (taker.taken, did) == ([], ["abort"])

    in_memory(check)


def test_the_taker_runs_in_the_context_of_the_reader() -> None:
    here: ContextVar[str] = ContextVar("here", default="nowhere")
    seen: list[str] = []

    def take(data: bytes) -> bool:
        seen.append(here.get())
        return True

    async def check(receive: Callable[[bytes], None], exchange: Exchange, _: list[str]) -> None:
        async def read() -> bytes:
            here.set("the reader's")
            exchange.pass_on_to(take, Ready())
            return await exchange.read()

        reading = await begun(read())
        receive(HELLO)
        reading.cancel()
        assert seen == ["the reader's"]

    in_memory(check)
