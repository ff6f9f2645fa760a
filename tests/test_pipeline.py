"""The onion: order, calling again, and what a stranger's mistake says."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

import pytest

from gw.message import Exchange, Request, Response
from gw.pipeline import Handler, MiddlewareError, compose, guarded
from tests.fakes import chat_request
from tests.lint import Lint


async def answer(request: Request) -> Response:
    return Response(b"core")


def test_the_list_runs_outermost_first_and_unwinds_in_reverse() -> None:
    seen: list[str] = []

    def layer(name: str) -> Any:
        async def middleware(request: Request, call_next: Handler) -> Response:
            seen.append(f"{name} in")
            response = await call_next(request)
            seen.append(f"{name} out")
            return response

        return middleware

    response = asyncio.run(_run(compose([layer("a"), layer("b")], answer)))
    assert response.content == b"core"
    assert seen == ["a in", "b in", "b out", "a out"]


async def _run(handler: Handler) -> Response:
    return await handler(chat_request())


def test_a_middleware_may_answer_alone() -> None:
    async def alone(request: Request, call_next: Handler) -> Response:
        return Response(b"mine", status=418)

    inner = Lint("inner")
    response = asyncio.run(_run(compose([Lint("outer"), alone, inner], answer)))
    assert (response.status, response.content, inner.calls) == (418, b"mine", 0)


def test_call_next_may_be_called_again() -> None:
    async def twice(request: Request, call_next: Handler) -> Response:
        await call_next(request)
        return await call_next(request)

    inner = Lint("inner")
    asyncio.run(_run(compose([twice, inner], answer)))
    assert inner.calls == 2


def test_an_empty_list_is_the_handler_itself() -> None:
    assert compose([], answer) is answer


def test_forgetting_to_return_the_response_says_so() -> None:
    async def forgetful(request: Request, call_next: Handler) -> Response:
        await call_next(request)
        return None  # type: ignore[return-value]

    with pytest.raises(MiddlewareError, match=r'"audit" returned NoneType .*return await call_next'):
        asyncio.run(_run(compose([guarded("audit", forgetful)], answer)))


def test_a_plain_def_says_that_it_must_be_async() -> None:
    def plain(request: Request, call_next: Handler) -> Response:
        return Response(b"")

    with pytest.raises(MiddlewareError, match='"audit" is not asynchronous: write `async def`'):
        asyncio.run(_run(compose([guarded("audit", plain)], answer)))


def test_asking_for_the_body_before_it_is_read_says_where_to_move() -> None:
    request = Request(method="POST", path="/v1/chat/completions", id="r")
    with pytest.raises(LookupError, match="move it behind rate_limit"):
        _ = request.chat


def test_a_changed_copy_leaves_the_request_alone_and_shares_the_record() -> None:
    request = chat_request()
    copy = request.replace(operation="other")
    assert request.operation == "chat"
    assert copy.operation == "other"
    assert copy.exchange is request.exchange


def test_a_requests_record_begins_like_any_other() -> None:
    record = Request("POST", "/v1/chat/completions", client="192.0.2.1", id="r-1").exchange
    made = Exchange("r-1", "POST", "/v1/chat/completions", "192.0.2.1", record.started, record.timestamp)
    assert asdict(record) == asdict(made)
