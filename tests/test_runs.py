"""A run of plain pieces of text is what its chunks are: for the client, for whoever looks into it, and for the log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gw.document import Chunk, Chunks, Run, parts_of
from gw.endpoints.event_stream import EventStream
from gw.message import Request, Response
from gw.middleware.log import Log
from gw.request_log.answers import messages_of
from gw.request_log.content import TRUNCATED
from gw.stream import Stream
from tests.fakes import chat_request, chunk, chunks, sse
from tests.openai_fakes import codec

FRAME = (b'{"choices":[{"index":0,"delta":{"content":"', b'"}}]}')
TWICE = (b'{"choices":[{"index":0,"delta":{"content":"', b'","reasoning":"', b'"}}]}')


class Pieces(Stream):
    """A stream that is read in these pieces."""

    def __init__(self, pieces: Sequence[Sequence[Chunk]]) -> None:
        self._pieces = [*pieces]

    async def read(self) -> Sequence[Chunk]:
        return self._pieces.pop(0) if self._pieces else ()

    async def aclose(self) -> None:
        self._pieces.clear()


def as_read(data: bytes, cuts: Sequence[int]) -> list[Sequence[Chunk]]:
    """What the adapter makes of a provider's bytes that come in pieces."""
    opened = codec()
    ends = sorted({*(cut % len(data) for cut in cuts), 0, len(data)})
    found = [opened.feed(data[start:end]) for start, end in pairwise(ends)]
    return [piece for piece in (*found, opened.finish()) if piece]


def sent(pieces: Sequence[Sequence[Chunk]], *, include_usage: bool = False) -> bytes:
    """What the client gets."""

    async def main() -> bytes:
        exchange = Request(method="POST", path="/").exchange
        events = EventStream(
            Pieces(pieces),
            exchange,
            include_usage=include_usage,
            extras=lambda _: b'{"degraded":false}',
            ended=lambda _: None,
        )
        found = []
        while data := await events.read():
            found.append(data)
        return b"".join(found)

    return asyncio.run(main())


def logged(tmp_path: Path, pieces: Sequence[Sequence[Chunk]]) -> Request:
    """The request whose answer the log has watched."""

    async def main() -> Request:
        request = chat_request({"stream": True})

        async def call_next(_: Request) -> Response:
            return Response(Pieces(pieces))

        response = await Log(path=tmp_path / "requests.db")(request, call_next)
        assert isinstance(response.content, Stream)
        while await response.content.read():
            pass
        return request

    return asyncio.run(main())


@given(
    texts=st.lists(st.text(min_size=1, max_size=12), min_size=3, max_size=40),
    cuts=st.lists(st.integers(0, 100_000), max_size=12),
    is_padded=st.booleans(),
    include_usage=st.booleans(),
)
@example(["a"] * 40, [], False, False)
@example(["a"] * 40, [], True, True)
@example(['"', "\\", "\n", "ü", "\U0001f600"] * 4, [500, 1000], False, True)
def test_the_client_gets_the_bytes_that_it_would_get_chunk_by_chunk(
    texts: list[str], cuts: list[int], is_padded: bool, include_usage: bool
) -> None:
    values = chunks(*texts)
    if is_padded:
        values = [value | {"obfuscation": "x" * (1 + number % 5)} for number, value in enumerate(values)]
    data = sse(*values)
    runs, looked_at = as_read(data, cuts), [[*piece] for piece in as_read(data, cuts)]
    assert all(isinstance(one, Chunk) for piece in looked_at for one in piece)
    found = sent(runs, include_usage=include_usage)
    assert found == sent(looked_at, include_usage=include_usage)
    said = [orjson.loads(event.removeprefix(b"data: ")) for event in found.split(b"\n\n")[:-2]]
    assert [choice["delta"].get("content") for value in said for choice in value["choices"]] == ["", *texts, None]


def test_a_burst_is_one_run_between_its_beginning_and_its_end() -> None:
    (burst,) = as_read(sse(*chunks(*["word "] * 100)), [])
    assert [type(part) for part in parts_of(burst)] == [Chunk, Chunk, Run, Chunk, Chunk]
    assert len(burst) == 103


def test_what_somebody_changes_in_a_run_goes_out_changed() -> None:
    run = Run(FRAME, [b"Hi", b"there"])
    run[1].data["choices"][0]["delta"]["content"] = "you"
    whole = Chunks([Run(FRAME, [b"Hi", b"there"])])
    for one in whole:
        one.data["choices"][0]["delta"]["content"] = "you"
    assert [one.peek()["choices"][0]["delta"]["content"] for one in run] == ["Hi", "you"]
    data = b"data: %b\n\n"
    hi, you = (data % text.join(FRAME) for text in (b"Hi", b"you"))
    assert sent([run]) == hi + you + b"data: [DONE]\n\n"
    assert sent([whole]) == you + you + b"data: [DONE]\n\n"


def test_a_text_that_goes_out_twice_in_a_chunk_does_so_in_a_run() -> None:
    run = Run(TWICE, [b"Hi", b"there"])
    events = b"".join(b"data: %b\n\n" % text.join(TWICE) for text in (b"Hi", b"there"))
    assert sent([run]) == events + b"data: [DONE]\n\n"


def test_a_run_behind_a_finish_reason_is_held_back_by_one() -> None:
    """Where one of several choices has ended and another goes on: the extras ride on whatever is last."""
    finish = Chunk(orjson.dumps(chunk({}, "stop")))
    first, second, last = sent([[finish], Run(FRAME, [b"Hi", b"there"])]).split(b"\n\n")[:3]
    assert (first, second) == (b"data: " + finish.raw, b"data: " + b"Hi".join(FRAME))
    assert last == b"data: " + b"there".join(FRAME)[:-1] + b',"degraded":false}'


@pytest.mark.parametrize("is_padded", [False, True])
def test_the_log_keeps_the_texts_of_a_stream_and_not_its_chunks(tmp_path: Path, is_padded: bool) -> None:
    words = [f'word {number} \\ " \n ü; ' for number in range(1000)]
    values = [value | ({"obfuscation": "xyz"} if is_padded else {}) for value in chunks(*words)]
    opened = codec()
    pieces = [piece for value in values if (piece := opened.feed(sse(value, done=False)))]
    response = logged(tmp_path, pieces).exchange.response
    assert sum(map(len, response)) < 3 * len("".join(words))
    (message,) = messages_of(response)
    assert message["content"] == "".join(words)


def test_the_log_tells_what_stood_in_one_frame_from_what_stood_in_another(tmp_path: Path) -> None:
    thought = (b'{"choices":[{"index":0,"delta":{"reasoning":"', b'"}}]}')
    pieces = [Run(thought, [b"Who ", b"asks? "]), Run(FRAME, [b"Hi "]), Run(thought, [b"Why?"]), Run(FRAME, [b"there"])]
    (message,) = messages_of(logged(tmp_path, pieces).exchange.response)
    assert (message["reasoning"], message["content"]) == ("Who asks? Why?", "Hi there")


def test_the_log_keeps_as_much_of_an_endless_run_as_there_is_room_for(tmp_path: Path) -> None:
    request = logged(tmp_path, [Run(FRAME, [b"x" * 1_000_000] * 3) for _ in range(4)])
    (message,) = messages_of(request.exchange.response)
    assert (len(message["content"]), request.exchange.attributes[TRUNCATED]) == (8_000_000, True)
