"""What is passed on is an answer's chunks and the client's events: observed, judged, and sent as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from gw.document import Chunk
from gw.endpoints.event_stream import DONE, KEEP_ALIVE, EventStream
from gw.endpoints.patience import Quiet
from gw.errors import UpstreamConnectionError, UpstreamError, UpstreamProtocolError
from gw.middleware.translate import Translate
from gw.stream import Outlet, Stream
from tests.fakes import FakeBody, chat_request, chunks
from tests.line_adapter import lines, setting
from tests.serving import GET, PATIENCE, Pieces, run, serving, streaming
from tests.takers import Ready, begun

# --- the answer's chunks --------------------------------------------------------------------------------------------


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


# --- the client's events --------------------------------------------------------------------------------------------


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
