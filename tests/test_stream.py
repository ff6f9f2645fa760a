"""Streams: the commit point, observers, and the one end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from gw.document import Chunk
from gw.errors import ClientGone, UpstreamError, UpstreamProtocolError
from gw.stream import IteratorStream, ListStream, Stream, begun
from tests.fakes import chunk, chunks


class Witness:
    """An observer that writes down what it is told."""

    def __init__(self) -> None:
        self.seen: list[Chunk] = []
        self.ends: list[BaseException | None] = []

    def chunks(self, chunks: Sequence[Chunk]) -> None:
        self.seen += chunks

    def end(self, error: BaseException | None) -> None:
        self.ends.append(error)


class Pieces(Stream):
    """One read per entry; an exception is raised; counts its closings."""

    def __init__(self, *reads: Sequence[dict[str, Any]] | Exception) -> None:
        self._reads = list(reads)
        self.closed = 0

    async def read(self) -> Sequence[Chunk]:
        if not self._reads:
            return ()
        entry = self._reads.pop(0)
        if isinstance(entry, Exception):
            raise entry
        return [Chunk(value=value) for value in entry]

    async def aclose(self) -> None:
        self.closed += 1


async def drain(stream: Stream) -> list[dict[str, Any]]:
    return [piece.peek() async for piece in stream]


def test_a_stream_has_begun_when_content_has_arrived_and_nothing_is_lost() -> None:
    role, text, *rest = chunks("Hello")
    source = Pieces([role], [chunk({})], [text], rest)
    stream = asyncio.run(begun(source))
    assert asyncio.run(drain(stream)) == [role, chunk({}), text, *rest]


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "x"},
        {"reasoning_content": "x"},
        {"reasoning": "x"},
        {"refusal": "x"},
        {"tool_calls": [{"index": 0}]},
        {"function_call": {"name": "f"}},
    ],
)
def test_text_reasoning_refusal_and_tool_calls_are_content(delta: dict[str, Any]) -> None:
    assert Chunk(value=chunk(delta)).has_content()


@pytest.mark.parametrize("delta", [{}, {"role": "assistant"}, {"content": ""}, {"content": None}, {"tool_calls": []}])
def test_role_frames_and_empty_deltas_are_not_content(delta: dict[str, Any]) -> None:
    assert not Chunk(value=chunk(delta)).has_content()
    assert not Chunk(value={"choices": [], "usage": {"total_tokens": 1}}).has_content()


def test_a_failure_before_the_first_content_is_raised_and_the_stream_closed() -> None:
    source = Pieces([chunk({"role": "assistant"})], UpstreamError("broke"))
    with pytest.raises(UpstreamError, match="broke"):
        asyncio.run(begun(source))
    assert source.closed == 1


def test_a_stream_that_ends_without_an_answer_is_a_failure() -> None:
    with pytest.raises(UpstreamProtocolError, match="without an answer"):
        asyncio.run(begun(Pieces([chunk({"role": "assistant"})])))


def test_an_empty_answer_with_a_finish_reason_is_an_answer() -> None:
    stream = asyncio.run(begun(Pieces([chunk({}, "content_filter")])))
    assert len(asyncio.run(drain(stream))) == 1


def test_an_observer_sees_every_chunk_and_one_complete_end() -> None:
    witness = Witness()
    stream = Pieces(chunks("a", "b")).observed(witness)

    async def run() -> None:
        await drain(stream)
        await stream.aclose()

    asyncio.run(run())
    assert [piece.peek() for piece in witness.seen] == chunks("a", "b")
    assert witness.ends == [None]


def test_an_observer_is_told_of_a_break_once() -> None:
    witness = Witness()
    error = UpstreamError("broke")
    stream = Pieces(chunks("a")[:2], error).observed(witness)

    async def run() -> None:
        with pytest.raises(UpstreamError):
            await drain(stream)
        await stream.aclose()

    asyncio.run(run())
    assert witness.ends == [error]


def test_an_observer_is_told_that_the_client_left() -> None:
    witness = Witness()
    source = Pieces(chunks("a"))
    asyncio.run(source.observed(witness).aclose())
    assert [type(end) for end in witness.ends] == [ClientGone]
    assert source.closed == 1


def test_an_observer_is_told_of_a_cancellation() -> None:
    witness = Witness()

    class Waiting(Pieces):
        async def read(self) -> Sequence[Chunk]:
            await asyncio.Event().wait()
            return ()

    async def run() -> None:
        reading = asyncio.ensure_future(Waiting().observed(witness).read())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(run())
    assert [type(end) for end in witness.ends] == [asyncio.CancelledError]


def test_a_map_changes_or_drops_chunks() -> None:
    def shout(piece: Chunk) -> Chunk | None:
        delta = piece.data["choices"][0]["delta"] if piece.peek()["choices"] else {}
        if delta.get("content"):
            delta["content"] = delta["content"].upper()
            return piece
        return None

    stream = Pieces(chunks("a", "b")).map(shout)
    assert [value["choices"][0]["delta"]["content"] for value in asyncio.run(drain(stream))] == ["A", "B"]


def test_a_map_to_something_else_is_told() -> None:
    stream = Pieces(chunks("a")).map(lambda piece: "A")  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="the function of `map` gave str: let it return a Chunk"):
        asyncio.run(drain(stream))


def test_a_generator_is_closed_even_if_it_never_started() -> None:
    closed: list[bool] = []

    class Source:
        def __aiter__(self) -> AsyncIterator[Chunk]:
            return self

        async def __anext__(self) -> Chunk:
            raise StopAsyncIteration

        async def aclose(self) -> None:
            closed.append(True)

    asyncio.run(IteratorStream(Source()).aclose())
    assert closed == [True]


def test_a_list_stream_ends_in_its_error() -> None:
    async def run() -> None:
        stream = ListStream([Chunk(value=chunk({"content": "a"}))], UpstreamError("broke"))
        assert len(await stream.read()) == 1
        with pytest.raises(UpstreamError):
            await stream.read()

    asyncio.run(run())
