"""What becomes of a stream that breaks after its first content is said for all backends, and for one of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gw.backend import Backend
from gw.config import read
from gw.errors import ClientGone, ConfigError, GatewayError, UpstreamConnectionError
from gw.hedge import Overtaken
from gw.outcome import message_of, outcome_of
from gw.stream import Stream
from gw.walk import cooling
from tests.fakes import FakeClock, chunks, fake_backend
from tests.fallback_world import World

BROKE = UpstreamConnectionError("broke")
TOLD = "The quick brown fox jumps over"
DOG = " the lazy dog, as everybody knows."


def text_and_error(**options: Any) -> tuple[str, GatewayError | None]:
    """What is read of a stream that `a` began and broke, with `b` standing by."""
    a = fake_backend("a", [*chunks(TOLD)[:2], BROKE])
    b = fake_backend("b", chunks(DOG))

    async def main() -> tuple[str, GatewayError | None]:
        response = await World(a, b, **options).ask(chat={"stream": True})
        assert isinstance(response.content, Stream)
        text = ""
        try:
            async for piece in response.content:
                text += "".join(choice["delta"].get("content") or "" for choice in piece.peek()["choices"])
        except GatewayError as error:
            return text, error
        return text, None

    return asyncio.run(main())


@pytest.mark.parametrize("options", [{}, {"after_content": "continue", "after_content_of": {"a": "error"}}])
def test_a_stream_ends_in_the_error_where_its_backend_is_not_to_be_gone_on_from(options: dict[str, Any]) -> None:
    assert text_and_error(**options) == (TOLD, BROKE)


@pytest.mark.parametrize(
    "options", [{"after_content": "continue"}, {"after_content_of": {"a": "continue", "b": "error"}}]
)
def test_a_stream_goes_on_where_its_backend_is_to_be_gone_on_from(options: dict[str, Any]) -> None:
    assert text_and_error(**options) == (TOLD + DOG, None)


def test_a_backend_that_there_is_not_is_told_with_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(
        '[middleware.fallback]\nafter_content_of = { frist = "continue" }\n[backends.first]\nadapter = "openai"\n'
    )
    with pytest.raises(ConfigError) as raised:
        read(file, environ={})
    (problem,) = raised.value.problems
    assert problem.startswith(
        'middleware.fallback.after_content_of: no backend is called "frist"; did you mean "first"?'
    )


def test_an_attempt_that_was_overtaken_is_told_in_its_own_words() -> None:
    overtaken = Overtaken("another backend was faster")
    assert message_of(overtaken) == "another backend was faster"
    assert outcome_of(overtaken) == "client_gone"  # it is billed as such: what was asked was paid for
    assert message_of(ClientGone("in mid-stream")) == message_of(asyncio.CancelledError()) == "the client hung up"


def test_why_a_backend_is_not_asked_is_told_as_far_as_it_is_known() -> None:
    backend = Backend(name="a", kind="fake", clock=FakeClock())
    assert cooling(backend).message.endswith('"a" is being tried again by another request')
    backend.cool(7)
    assert cooling(backend).message.endswith('"a" is cooling down')
    backend.cool(9, "boom")
    assert cooling(backend).message.endswith('"a" is cooling down (boom)')
