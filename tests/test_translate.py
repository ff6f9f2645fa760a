"""The seam: codec and wire, the commit point, the attempt's record, foreign faults mapped."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from gw.adapter import Codec, WholeBody, WireRequest, WireResponse
from gw.backend import Price, Timeouts
from gw.document import Chunk, Completion
from gw.errors import (
    ClientGone,
    InvalidRequest,
    Unavailable,
    UpstreamConnectionError,
    UpstreamError,
    UpstreamProtocolError,
)
from gw.message import Candidate, Headers, Loss, Request, Response, Summary, Usage
from gw.middleware.translate import Translate
from gw.secret import Secret
from gw.stream import Stream
from tests.fakes import FakeBody, FakeClock, FakeTransport, chat_request, chunk, chunks, completion, fake_backend
from tests.line_adapter import LineAdapter, lines, setting


class TokenAdapter(LineAdapter):
    """An adapter whose credential is fetched, as Google's is."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[Secret | None] = []

    async def prepare(self, request: Request) -> Request:
        token = Secret(f"token-{len(self.refused)}")
        return request.replace(candidates=(replace(request.candidate, key=token),))

    def refused_key(self, key: Secret | None) -> None:
        self.refused.append(key)


def run(request: Request, transport: FakeTransport) -> Response:
    return asyncio.run(Translate(clock=FakeClock())(request, transport))


async def drained(response: Response) -> list[dict[str, Any]]:
    assert isinstance(response.content, Stream)
    return [piece.peek() async for piece in response.content]


def test_a_whole_answer_goes_through_the_codec() -> None:
    request, transport, backend = setting([orjson.dumps({"answer": completion()})], stream=False)
    response = run(request, transport)
    assert isinstance(response.content, Completion)
    assert response.content.peek() == completion()
    assert transport.bodies[0].is_closed
    assert (transport.sent[0].backend, transport.sent[0].request_id) == ("b", "req-1")
    attempt = request.exchange.attempts[0]
    assert (attempt.backend, attempt.model, attempt.status, attempt.error) == ("b", "m", 200, None)
    assert attempt.ended is not None
    assert backend.health.in_flight == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_body_that_is_here_already_is_answered_like_one_that_is_read(stream: bool) -> None:
    answer = lines(*chunks("Hello"), b"END") if stream else orjson.dumps({"answer": completion()})
    request, _, _ = setting(stream=stream)

    async def far_end(wire: WireRequest) -> WireResponse:
        return WireResponse(200, Headers(()), WholeBody(answer, wire.backend))

    async def go() -> list[dict[str, Any]]:
        response = await Translate()(request, far_end)
        return await drained(response) if stream else [response.content.peek()]  # type: ignore[union-attr]

    assert asyncio.run(go()) == (chunks("Hello") if stream else [completion()])


def test_a_body_that_the_wire_side_puts_in_place_of_a_whole_one_is_what_is_read() -> None:
    request, _, _ = setting(stream=False)
    changed = FakeBody([orjson.dumps({"answer": completion("changed")})])

    async def wire_side(wire: WireRequest) -> WireResponse:
        reply = WireResponse(200, Headers(()), WholeBody(b"what the provider said", wire.backend))
        reply.body = changed
        return reply

    response = asyncio.run(Translate()(request, wire_side))
    assert isinstance(response.content, Completion)
    assert response.content.peek() == completion("changed")
    assert changed.is_closed


def test_a_stream_goes_through_the_codec_and_its_body_is_closed_at_the_end() -> None:
    role, text, *rest = chunks("Hello")
    request, transport, backend = setting([lines(role), lines(text), lines(*rest), b"END\n"])

    async def go() -> list[dict[str, Any]]:
        response = await Translate()(request, transport)
        assert transport.bodies[0].is_committed
        assert backend.health.in_flight == 1
        return await drained(response)

    assert asyncio.run(go()) == [role, text, *rest]
    assert transport.bodies[0].is_closed
    assert backend.health.in_flight == 0


@pytest.mark.parametrize("before", [[], [lines(chunk({"role": "assistant"}))]])
@pytest.mark.parametrize("fault", [UpstreamConnectionError("reset"), b"ERROR\n", b""])
def test_whatever_fails_before_the_first_content_is_an_ordinary_failure(before: list[bytes], fault: Any) -> None:
    request, transport, backend = setting([*before, fault])
    with pytest.raises(UpstreamError):
        run(request, transport)
    assert transport.bodies[0].is_closed
    assert request.exchange.attempts[0].error is not None
    assert backend.health.in_flight == 0


def test_a_provider_that_has_said_its_last_word_is_not_waited_for() -> None:
    never = UpstreamConnectionError("it was waited for")
    request, transport, _ = setting([lines(*chunks("Hello"), b"END"), never])

    async def go() -> list[dict[str, Any]]:
        return await drained(await Translate()(request, transport))

    assert asyncio.run(go()) == chunks("Hello")
    assert transport.bodies[0].is_closed


def test_a_stream_cut_after_content_raises_from_the_stream() -> None:
    request, transport, _backend = setting([lines(*chunks("Hello")[:2])])

    async def go() -> None:
        response = await Translate()(request, transport)
        assert isinstance(response.content, Stream)
        await response.content.read()
        with pytest.raises(UpstreamProtocolError, match="cut short"):
            await response.content.read()

    asyncio.run(go())
    assert isinstance(request.exchange.attempts[0].error, UpstreamProtocolError)
    assert transport.bodies[0].is_closed


def test_a_client_that_leaves_frees_the_provider_and_is_recorded() -> None:
    request, transport, backend = setting([lines(*chunks("Hello")[:2]), lines(*chunks("x"))])

    async def go() -> None:
        response = await Translate()(request, transport)
        await response.aclose()

    asyncio.run(go())
    assert transport.bodies[0].is_closed
    assert isinstance(request.exchange.attempts[0].error, ClientGone)
    assert backend.health.in_flight == 0


def test_an_observer_that_fails_at_the_end_keeps_no_connection() -> None:
    class Broken:
        def chunks(self, chunks: Sequence[Chunk]) -> None: ...

        def end(self, error: BaseException | None) -> None:
            raise ValueError("an observer's own fault")

    request, transport, backend = setting([lines(*chunks("Hello")[:2]), lines(*chunks("x"))])

    async def go() -> None:
        response = await Translate()(request, transport)
        assert isinstance(response.content, Stream)
        await response.content.observed(Broken()).aclose()

    asyncio.run(go())
    assert transport.bodies[0].is_closed
    assert backend.health.in_flight == 0


def test_an_error_status_is_the_codecs_to_read() -> None:
    request, transport, _ = setting((503, {}, [b"over", b"loaded"]))
    with pytest.raises(UpstreamError, match="overloaded") as caught:
        run(request, transport)
    assert caught.value.upstream_status == 503
    assert request.exchange.attempts[0].status == 503


@pytest.mark.parametrize("content", [b'{"unexpected": 1}', b"[]", b"<html>", b'{"answer": "\xff"}', b""])
def test_garbage_is_a_502_and_never_a_500(content: bytes) -> None:
    request, transport, _ = setting([content], stream=False)
    with pytest.raises(UpstreamProtocolError, match='"b" sent an answer'):
        run(request, transport)


def test_garbage_in_a_stream_is_a_502_and_never_a_500() -> None:
    request, transport, _ = setting([b"<html>\n"])
    with pytest.raises(UpstreamProtocolError):
        run(request, transport)


def test_a_provider_that_says_its_limit_is_used_up_is_left_alone_until_then() -> None:
    told = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "5s"}
    request, transport, backend = setting((200, told, [orjson.dumps({"answer": completion()})]), stream=False)
    run(request, transport)
    assert 4 < backend.cooling_for <= 5
    assert "used up" in backend.cooling_reason


def test_a_huge_error_page_is_not_read_to_its_end() -> None:
    request, transport, _ = setting((500, {}, [b"x" * 200_000] * 50))
    with pytest.raises(UpstreamError):
        run(request, transport)
    assert transport.bodies[0].is_closed


def test_the_answer_is_priced_from_its_usage() -> None:
    request, transport, _ = setting([orjson.dumps({"answer": completion()})], stream=False, price=Price(input=3))
    summary = run(request, transport).summary
    assert (summary.cost_usd, summary.cost_source) == (3.0, "priced")


def test_keys_take_turns() -> None:
    keys = [Secret("one"), Secret("two")]
    request, transport, _ = setting([orjson.dumps({"answer": {}})], stream=False, keys=keys)
    for _ in range(3):
        run(request, transport)
    assert [wire.headers[0][1] for wire in transport.sent] == ["one", "two", "one"]


def test_a_refused_token_is_renewed_once() -> None:
    adapter = TokenAdapter()
    request, transport, _ = setting(
        (401, {}, [b"expired"]), [orjson.dumps({"answer": completion()})], adapter=adapter, stream=False
    )
    run(request, transport)
    assert [wire.headers[0][1] for wire in transport.sent] == ["token-0", "token-1"]
    request, transport, _ = setting((401, {}, [b"no"]), adapter=TokenAdapter(), stream=False)
    with pytest.raises(UpstreamError):
        run(request, transport)
    assert len(transport.sent) == 2


LOSS = Loss("/messages/0/name", "dropped", "no names here")


def test_losses_are_told_in_a_header() -> None:
    losses = [LOSS, Loss("/temperature", "changed", "clamped"), Loss("/a,b\r\nX: y", "dropped")]
    request, transport, _ = setting([orjson.dumps({"answer": completion()})], adapter=LineAdapter(losses), stream=False)
    headers = run(request, transport).headers
    assert headers["X-Gateway-Dropped"] == "/messages/0/name, /a%2Cb??X:%20y"
    assert headers["X-Gateway-Changed"] == "/temperature"
    assert request.exchange.attempts[0].losses == losses


def test_many_losses_are_a_count() -> None:
    losses = [Loss(f"/messages/{number}/name", "dropped") for number in range(500)]
    request, transport, _ = setting([orjson.dumps({"answer": {}})], adapter=LineAdapter(losses), stream=False)
    assert run(request, transport).headers["X-Gateway-Dropped"] == "500 fields"


def test_a_loss_is_refused_or_sent_elsewhere_where_so_configured() -> None:
    request, transport, _ = setting([b""], adapter=LineAdapter([LOSS]), on_loss="reject")
    with pytest.raises(InvalidRequest, match="/messages/0/name"):
        run(request, transport)
    request, transport, _ = setting([b""], adapter=LineAdapter([LOSS]), on_loss="reroute")
    with pytest.raises(Unavailable) as caught:
        run(request, transport)
    assert caught.value.status == 400
    assert transport.sent == []


def test_attempts_that_could_not_be_sent_share_nothing() -> None:
    class Refusing(LineAdapter):
        def open(self, request: Request) -> Codec:
            raise InvalidRequest("cannot say that")

    summaries = []
    for _ in range(2):
        request, transport, _ = setting([b""], adapter=Refusing())
        with pytest.raises(InvalidRequest):
            run(request, transport)
        summaries.append(request.exchange.attempts[0].summary)
    assert summaries == [Summary(), Summary()]
    assert summaries[0] is not summaries[1]


def test_a_backends_timeouts_go_with_the_wire() -> None:
    timeouts = Timeouts(first_content=1)
    request, transport, _ = setting([orjson.dumps({"answer": {}})], stream=False, timeouts=timeouts)
    run(request, transport)
    assert transport.sent[0].timeouts is timeouts


def test_a_backend_that_answers_by_itself_is_simply_asked() -> None:
    backend = fake_backend("own", chunks("Hi"))
    request = chat_request({"stream": True}, candidates=(Candidate(backend, "m", "gpt-4"),))
    response = run(request, FakeTransport([]))
    assert asyncio.run(drained(response)) == chunks("Hi")
    attempt = request.exchange.attempts[0]
    assert attempt.first_content is not None
    assert attempt.summary.usage == Usage(9, 3)


def test_a_request_that_nobody_routed_says_what_is_missing() -> None:
    with pytest.raises(LookupError, match="put `route` before `translate`"):
        run(chat_request(), FakeTransport([]))
