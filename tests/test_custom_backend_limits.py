"""A custom backend is held to its timeouts, and what it breaks is told and logged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gw.backend import Timeouts
from gw.custom_backend import BackendConfig, CustomBackend
from gw.errors import UpstreamError, UpstreamProtocolError, UpstreamTimeout
from gw.message import Candidate, Response
from gw.stream import Stream
from tests.fakes import chat_request, fake_backend

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
            return {"choices": [{"message": {"content": b"bytes"}}]}

    with pytest.raises(UpstreamProtocolError, match="no JSON"):
        ask(Odd())


def test_without_a_stream_method_it_does_not_stream() -> None:
    class Whole:
        async def chat_completion(self, request: Any, config: Any) -> Any:
            return "Hello"

    assert "stream" not in CustomBackend(Whole(), BackendConfig(id="own", type="own")).capabilities
