"""A custom backend is held to its timeouts, and what it breaks is told and logged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gw.backend import Backend, Timeouts
from gw.custom_backend import BackendConfig, CustomBackend
from gw.document import Completion
from gw.errors import UpstreamError, UpstreamProtocolError, UpstreamTimeout
from gw.message import Candidate, Response
from gw.stream import Stream
from tests.fakes import chat_request, chunks, completion, fake_backend
from tests.fallback_world import World, translated

LONG = Timeouts()


class Hanging:
    """Never answers; its stream stops after one piece."""

    async def chat_completion(self, request: Any, config: Any) -> Any:
        await asyncio.Event().wait()

    async def chat_completion_stream(self, request: Any, config: Any) -> AsyncIterator[str]:
        yield "Hello"
        await asyncio.Event().wait()


def ask(backend: Any, *, stream: bool = False, timeouts: Timeouts = LONG) -> Response:
    provider = CustomBackend(backend, BackendConfig(id="own", type="own", timeouts=timeouts))
    candidates = (Candidate(fake_backend("own"), "m", "m"),)

    async def run() -> Response:
        response = await provider.answer(chat_request({"stream": stream}, candidates=candidates))
        if isinstance(response.content, Stream):
            while await response.content.read():
                pass
        return response

    return asyncio.run(run())


def test_a_whole_answer_that_does_not_come_is_a_timeout() -> None:
    with pytest.raises(UpstreamTimeout, match="total") as caught:
        ask(Hanging(), timeouts=Timeouts(total=0.05))
    assert caught.value.status == 504


def test_a_stream_that_falls_silent_is_a_timeout() -> None:
    with pytest.raises(UpstreamTimeout, match="idle"):
        ask(Hanging(), stream=True, timeouts=Timeouts(idle=0.05))


def test_what_it_raises_is_a_502_and_the_traceback_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        async def chat_completion(self, request: Any, config: Any) -> Any:
            raise AttributeError("nothing here")

    with caplog.at_level(logging.WARNING, "gw.backend"), pytest.raises(UpstreamError, match="AttributeError"):
        ask(Broken())
    assert "nothing here" in caplog.text


def test_its_own_timeout_error_is_its_failure_and_not_ours() -> None:
    class Impatient:
        async def chat_completion(self, request: Any, config: Any) -> Any:
            raise TimeoutError

    with pytest.raises(UpstreamError) as caught:
        ask(Impatient())
    assert not isinstance(caught.value, UpstreamTimeout)


def test_an_answer_that_is_no_json_is_its_failure() -> None:
    class Odd:
        async def chat_completion(self, request: Any, config: Any) -> Any:
            return {"choices": [{"message": {"content": "\ud83d"}}]}

    with pytest.raises(UpstreamProtocolError, match="no JSON"):
        ask(Odd())


def test_without_a_stream_method_it_does_not_stream() -> None:
    class Whole:
        async def chat_completion(self, request: Any, config: Any) -> Any:
            return "Hello"

    assert "stream" not in CustomBackend(Whole(), BackendConfig(id="own", type="own")).capabilities


class Said:
    """Says what it was given: a whole answer, or the pieces of a stream."""

    def __init__(self, *said: Any) -> None:
        self.said = said

    async def chat_completion(self, request: Any, config: Any) -> Any:
        return self.said[0]

    async def chat_completion_stream(self, request: Any, config: Any) -> AsyncIterator[Any]:
        for piece in self.said:
            yield piece


def with_delta(delta: Any, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta} | more]}


NO_PIECES = [
    5,
    b"bytes",
    "\ud83d",
    {},
    {"choices": None},
    with_delta("abc"),
    with_delta({"content": b"bytes"}),
    with_delta({"content": 5}),
    with_delta({"content": "Hello"}, index=[]),
    with_delta({"content": "Hello"}, finish_reason=5),
    with_delta({"tool_calls": "abc"}),
    with_delta({"content": "Hello"}, seed=2**70),
]


@pytest.mark.parametrize("piece", NO_PIECES, ids=repr)
def test_a_piece_that_is_none_is_its_failure_wherever_it_stands(piece: Any) -> None:
    for before in ((), ("Hello",)):
        with pytest.raises(UpstreamProtocolError):
            ask(Said(*before, piece), stream=True)


NO_ANSWERS = [
    {"choices": []},
    {"choices": [{"message": {"content": 5}}]},
    {"choices": [{"message": {"content": b"bytes"}}]},
    {"choices": [{"message": {"content": "Hello"}, "finish_reason": 5}]},
    {"choices": [{"message": {"tool_calls": ["abc"]}}]},
]


@pytest.mark.parametrize("answer", NO_ANSWERS, ids=repr)
def test_a_whole_answer_that_is_none_is_its_failure(answer: Any) -> None:
    with pytest.raises(UpstreamProtocolError):
        ask(Said(answer))


def test_an_error_that_it_says_breaks_its_answer() -> None:
    told = {"error": {"message": "the machine died", "code": 503}}
    for before in ((), ("Hello",)):
        with pytest.raises(UpstreamError, match="the machine died") as caught:
            ask(Said(*before, told), stream=True)
        assert caught.value.fault == "overload"
    with pytest.raises(UpstreamError, match="the machine died"):
        ask(Said(told))


def test_what_comes_behind_its_finish_reason_breaks_its_stream() -> None:
    end = with_delta({}, finish_reason="stop")
    ask(Said("Hello", end, with_delta({"role": "assistant", "content": ""})), stream=True)
    with pytest.raises(UpstreamProtocolError, match="behind its finish_reason"):
        ask(Said("Hello", end, "more"), stream=True)


@pytest.mark.parametrize(
    "usage", ["n/a", {}, {"total_tokens": 7}, {"prompt_tokens": "n/a", "completion_tokens": 1}, {"prompt_tokens": -1}]
)
@pytest.mark.parametrize("stream", [False, True])
def test_usage_that_cannot_be_used_is_as_good_as_none(stream: bool, usage: Any) -> None:
    said = with_delta({"content": "Hello"}) if stream else {"choices": [{"message": {"content": "Hello"}}]}
    response = ask(Said(said | {"usage": usage}), stream=stream)
    assert response.summary.usage is None
    if isinstance(response.content, Completion):
        assert "usage" not in response.content.peek()


def test_a_finish_reason_that_it_leaves_open_is_filled_in() -> None:
    response = ask(Said({"choices": [{"message": {"content": "Hello"}, "finish_reason": None}]}))
    assert isinstance(response.content, Completion)
    assert response.content.peek()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("said", [b"bytes", {"choices": []}, {"error": {"message": "overloaded"}}], ids=repr)
def test_whatever_it_says_wrongly_at_first_the_next_backend_answers(said: Any, stream: bool) -> None:
    own = Backend(name="own", kind="own", provider=CustomBackend(Said(said), BackendConfig("own", "own")))
    other = fake_backend("b", chunks("Hello") if stream else completion("Hello"))
    world = World(own, other, retries=0)
    response = world.run(handler=translated, chat={"stream": stream})
    assert response.headers["X-Gateway-Backend"] == "b"
    first, second = world.request.exchange.attempts
    assert isinstance(first.error, UpstreamError)
    assert second.error is None
