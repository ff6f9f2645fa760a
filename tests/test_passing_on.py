"""What comes of a stream while its reader waits is passed on without waking him: in order, and he tells its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar

import pytest

from gw.document import Chunk
from gw.endpoints.event_stream import DONE, KEEP_ALIVE, EventStream
from gw.endpoints.patience import Quiet
from gw.errors import UpstreamConnectionError, UpstreamError, UpstreamProtocolError
from gw.middleware.translate import Translate
from gw.stream import Outlet, Stream
from gw.upstream.connection import READ
from gw.upstream.exchange import Exchange
from tests.fakes import FakeBody, chat_request, chunks
from tests.line_adapter import lines, setting
from tests.scripted_provider import CHUNKED
from tests.serving import GET, PATIENCE, Pieces, run, serving, streaming
from tests.upstream_in_memory import exchange_in_memory

HELLO, THERE = b"5\r\nhello\r\n", b"5\r\nthere\r\n"


class Ready:
    """An `Outlet` that always takes more."""

    writable = None


class Taker:
    """Takes bytes, as long as it is ready, and says so many times that it wants more."""

    def __init__(self, exchange: Exchange, *, wants: int = 100, error: Exception | None = None) -> None:
        self.taken: list[bytes] = []
        self.writable: object | None = None  # as of an `Outlet`: something while it takes nothing
        self.wants = wants
        self.error = error
        exchange.pass_on_to(self.take, self)

    def take(self, data: bytes) -> bool:
        if self.error is not None:
            raise self.error
        self.taken.append(data)
        return len(self.taken) < self.wants


def in_memory(check: Callable[[Callable[[bytes], None], Exchange, list[str]], Awaitable[None]]) -> None:
    """Run a check of a stream whose head has come: how bytes come in, the exchange, and what its socket did."""

    async def main() -> None:
        exchange, _, socket, _ = exchange_in_memory(stream=True)
        socket.arrive(CHUNKED)
        socket.did.clear()
        await check(socket.arrive, exchange, socket.did)

    asyncio.run(main())


async def begun(work: Awaitable[bytes]) -> asyncio.Task[bytes]:
    task = asyncio.ensure_future(work)
    for _ in range(3):
        await asyncio.sleep(0)
    assert isinstance(task, asyncio.Task)
    return task


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


# --- the answer's chunks ----------------------------------------------------------------------------------------------


class Body(FakeBody):
    """A FakeBody that waits behind its pieces, and passes on what `comes`."""

    take: Callable[[bytes], bool | None] | None = None

    def pass_on_to(self, take: Callable[[bytes], bool | None], outlet: Outlet) -> None:
        self.take = take

    def comes(self, data: bytes) -> bool | None:
        assert self.take is not None
        return self.take(data)


class Witness:
    """Counts what it is told of."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def chunks(self, chunks: Sequence[Chunk]) -> None:
        self.seen += [chunk.raw for chunk in chunks]

    def end(self, error: BaseException | None) -> None: ...


async def answering() -> tuple[Stream, Body, Witness]:
    """An answer that has begun, and of which the first text was read."""
    request, transport, _ = setting([lines(*chunks("Hello")[:2])])
    body = Body([lines(*chunks("Hello")[:2])])

    async def wire(request: object) -> object:
        answer = await transport(request)  # type: ignore[arg-type]
        answer.body = body
        return answer

    response = await Translate()(request, wire)  # type: ignore[arg-type]
    assert isinstance(response.content, Stream)
    witness = Witness()
    stream = response.content.observed(witness)
    await stream.read()
    return stream, body, witness


def test_chunks_are_observed_and_passed_on_and_an_empty_piece_is_no_sign_of_life() -> None:
    async def main() -> None:
        stream, body, witness = await answering()
        taken: list[bytes] = []
        stream.pass_on_to(lambda chunks: taken.extend(chunk.raw for chunk in chunks), Ready())
        before = len(witness.seen)
        assert body.comes(lines(chunks("x")[1])) is True
        assert witness.seen[before:] == taken
        assert body.comes(b"\n" * 0) is None
        assert len(taken) == 1
        assert body.comes(lines(chunks("x")[1], b"END")) is False
        assert len(taken) == 2

    asyncio.run(main())


@pytest.mark.parametrize(("piece", "failure"), [(b"ERROR\n", UpstreamError), (b"garbage\n", UpstreamProtocolError)])
def test_a_failure_in_what_is_passed_on_is_the_answers(piece: bytes, failure: type[Exception]) -> None:
    async def main() -> None:
        stream, body, _ = await answering()
        stream.pass_on_to(lambda chunks: None, Ready())
        with pytest.raises(failure):
            body.comes(piece)

    asyncio.run(main())


# --- the client's events ----------------------------------------------------------------------------------------------


class Chunky(Stream):
    """A stream that waits until it is told to end, and passes on what `take` is given."""

    take: Callable[[Sequence[Chunk]], object]

    def __init__(self) -> None:
        self.ending = asyncio.Event()

    def pass_on_to(self, take: Callable[[Sequence[Chunk]], object], outlet: Outlet) -> None:
        self.take = take

    async def read(self) -> Sequence[Chunk]:
        await self.ending.wait()
        return ()

    async def aclose(self) -> None: ...


def test_a_finish_that_is_passed_on_waits_for_the_end_with_its_extras() -> None:
    async def main() -> None:
        stream, written = Chunky(), list[bytes]()
        events = EventStream(
            stream,
            chat_request({"stream": True}).exchange,
            include_usage=False,
            extras=lambda exchange: b'{"more":1}',
            ended=lambda error: None,
            quiet=Quiet(0.05),
        )
        events.pass_on_to(written.append, Ready())
        reading = await begun(events.read())
        text, finish = Chunk(value={"text": 1}), Chunk(b'{"choices":[{"finish_reason":"stop"}]}')
        stream.take([text])
        stream.take([finish])
        assert written == [b'data: {"text":1}\n\n']
        assert await reading == KEEP_ALIVE  # nothing was said for long
        stream.ending.set()
        assert await events.read() == b'data: {"choices":[{"finish_reason":"stop"}],"more":1}\n\n' + DONE

    asyncio.run(main())


class Passing(Pieces):
    """Pieces of which those behind the first are passed on, and then their end."""

    write: Callable[[bytes], object]
    outlet: Outlet

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__([b"first"], error)
        self.ending = asyncio.Event()

    def pass_on_to(self, write: Callable[[bytes], object], outlet: Outlet) -> None:
        self.write, self.outlet = write, outlet

    async def read(self) -> bytes:
        if not self.pieces:
            await self.ending.wait()
        return await super().read()


@pytest.mark.parametrize("error", [None, UpstreamConnectionError("cut")])
def test_what_is_passed_on_goes_out_in_chunks_of_its_own_and_in_order(error: Exception | None) -> None:
    async def main() -> None:
        stream = Passing(error)
        async with serving(streaming(stream)) as running:
            client = await running.client(GET)
            await running.until(lambda: stream.reads == 1 and hasattr(stream, "write"))
            stream.write(b"second")
            assert stream.outlet.writable is None
            data = await asyncio.wait_for(client.reader.readuntil(b"second\r\n"), PATIENCE)
            assert data.endswith(b"\r\n\r\n5\r\nfirst\r\n6\r\nsecond\r\n")
            stream.write(b"third")
            stream.ending.set()
            rest = await asyncio.wait_for(client.reader.readuntil(b"third\r\n"), PATIENCE)
            if error is None:
                rest += await asyncio.wait_for(client.reader.readexactly(5), PATIENCE)
            else:
                rest += await asyncio.wait_for(client.reader.read(), PATIENCE)
            assert rest == b"5\r\nthird\r\n" + (b"0\r\n\r\n" if error is None else b"")

    run(main())


def test_a_client_that_does_not_read_is_not_ready() -> None:
    async def main() -> None:
        stream = Passing()
        async with serving(streaming(stream)) as running:
            client = await running.client(GET)
            await running.until(lambda: stream.reads == 1 and hasattr(stream, "write"))
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            written = 0
            while stream.outlet.writable is None:
                stream.write(b"x" * 65536)
                written += 65536
                assert written < 64_000_000
                await asyncio.sleep(0)
            stream.ending.set()

    run(main())
