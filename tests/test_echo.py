"""Echo answers what it was told, whole and streamed, and never fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.adapter import Provider
from gw.adapters.echo import Echo
from gw.backend import Backend
from gw.document import Completion
from gw.message import Candidate, Response
from tests.fakes import chat_request, read_all
from tests.recordings import check_laws, read_chunks, read_completion


def ask(chat: dict[str, Any]) -> Response:
    echo = Echo()
    backend = Backend(name="echo", kind="echo", provider=echo)
    request = chat_request(chat, candidates=(Candidate(backend, "echo", "gpt-4"),))
    return asyncio.run(echo.answer(request))


def whole(chat: dict[str, Any]) -> dict[str, Any]:
    content = ask(chat).content
    assert isinstance(content, Completion)
    return content.peek()


def streamed(chat: dict[str, Any]) -> list[dict[str, Any]]:
    async def read() -> list[dict[str, Any]]:
        return [chunk.peek() async for chunk in read_all(ask_stream)]

    ask_stream = ask(chat | {"stream": True})
    return asyncio.run(read())


def test_it_says_what_the_user_said_last() -> None:
    messages = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "echo: first"},
        {"role": "user", "content": "Hello, world!"},
    ]
    reading = read_completion(whole({"messages": messages}))
    assert reading.text == "echo: Hello, world!"
    assert reading.finish_reason == "stop"


def test_it_answers_under_the_name_that_the_client_asked_for() -> None:
    assert whole({})["model"] == "gpt-4"


def test_a_stream_says_the_same_in_several_chunks() -> None:
    chunks = streamed({"messages": [{"role": "user", "content": "one  two\nthree "}]})
    check_laws(chunks)
    reading = read_chunks(chunks)
    assert reading.text == "echo: one  two\nthree"
    assert sum(bool(choice["delta"].get("content")) for chunk in chunks for choice in chunk["choices"]) == 4
    assert chunks[-1]["choices"] == []
    assert reading.usage == {"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9}


def test_its_usage_is_marked_as_estimated() -> None:
    usage = ask({}).summary.usage
    assert usage is not None
    assert usage.source == "estimated"
    assert usage.total > 0


def test_parts_that_are_no_text_are_counted_out_loud() -> None:
    content = [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    assert read_completion(whole({"messages": [{"role": "user", "content": content}]})).text == (
        "echo: Look (and 1 part that is no text)"
    )


@pytest.mark.parametrize("messages", [[], [{"role": "system", "content": "Be brief"}], [{"role": "user"}]])
def test_it_answers_even_where_nothing_was_said(messages: list[dict[str, Any]]) -> None:
    assert read_completion(whole({"messages": messages})).text == "echo: ..."


def test_tools_are_ignored() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    assert read_completion(whole({"tools": tools, "tool_choice": "required"})).tool_calls == []


def test_it_is_a_provider() -> None:
    assert isinstance(Echo(), Provider)


@given(st.text(max_size=60))
def test_the_words_of_a_stream_put_together_are_the_whole_answer(text: str) -> None:
    chat = {"messages": [{"role": "user", "content": text.encode("utf-8", "replace").decode()}]}
    assert read_chunks(streamed(chat)).text == read_completion(whole(chat)).text
