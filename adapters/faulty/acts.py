"""Everything that a provider has been seen to do wrong, and a few things that it may do right."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable

import orjson

from gw.adapters.faulty.dialects import ANSWER, TOKENS
from gw.adapters.faulty.exchange import Exchange

SLOW = 0.15  # seconds: slow, and within every limit of a drill
HEART = 0.05  # seconds between keep-alive comments
RETRY_AFTER = 1  # seconds: the least that the header can say

Act = Callable[[Exchange], Awaitable[None]]


async def fine(x: Exchange) -> None:
    if x.is_stream:
        await x.begin(60)
        await x.send(*x.dialect.finish())
        await x.close()
    else:
        await x.answer(x.dialect.whole())


async def going_on(x: Exchange) -> None:
    """Goes on from a prefix, token by token; without one it begins."""
    rest = ANSWER[len(x.prefix.rstrip()) :]
    if not x.is_stream:
        await x.answer(x.dialect.whole(rest))
        return
    await x.stream(*x.dialect.begin(), x.dialect.text(rest[:7]), x.dialect.text(rest[7:]), *x.dialect.finish())


async def refuses_prefill(x: Exchange) -> None:
    if x.prefix:
        message = "This model does not support assistant message prefill."
        await x.refuse(400, x.dialect.error("invalid_request_error", message))
    else:
        await fine(x)


async def begins_again(x: Exchange) -> None:
    await fine(x)


async def limited(x: Exchange) -> None:
    await x.refuse(429, x.dialect.error("rate_limit", "slow down"), retry_after=str(RETRY_AFTER))


async def limited_without_a_word(x: Exchange) -> None:
    await x.refuse(429, x.dialect.error("rate_limit", "slow down"))


async def no_quota(x: Exchange) -> None:
    await x.refuse(429, x.dialect.error("insufficient_quota", "You exceeded your current quota."))


async def error_500(x: Exchange) -> None:
    await x.refuse(500, x.dialect.error("server_error", "boom"))


async def overload_503(x: Exchange) -> None:
    await x.refuse(503, x.dialect.error("overloaded", "busy"))


async def overload_529(x: Exchange) -> None:
    await x.refuse(529, x.dialect.error("overloaded", "Overloaded"))


async def dead_key(x: Exchange) -> None:
    await x.refuse(401, x.dialect.error("authentication_error", "invalid x-api-key"))


async def bad_request(x: Exchange) -> None:
    await x.refuse(422, x.dialect.error("invalid_request_error", "temperature must be less than 2"))


async def too_long(x: Exchange) -> None:
    await x.refuse(400, x.dialect.too_long())


async def content_filter(x: Exchange) -> None:
    await x.refuse(400, x.dialect.refusal())


async def filtered_answer(x: Exchange) -> None:
    await x.answer(x.dialect.filtered())


async def reset(x: Exchange) -> None:
    x.cut()


async def silence(x: Exchange) -> None:
    await x.silence()


async def slow_first(x: Exchange) -> None:
    await asyncio.sleep(SLOW)
    await fine(x)


async def steady(x: Exchange) -> None:
    """Slow, but never silent for long; longer in all than any silence may be."""
    if not x.is_stream:
        await fine(x)
        return
    await x.begin(10)
    for at in range(10, 60, 10):
        await asyncio.sleep(SLOW)
        await x.send(*(x.dialect.text(token) for token in TOKENS[at : at + 10]))
    await x.send(*x.dialect.finish())
    await x.close()


async def cut_40(x: Exchange) -> None:
    await (x.begin(40) if x.is_stream else x.half())
    x.cut()


async def stall_40(x: Exchange) -> None:
    await (x.begin(40) if x.is_stream else x.half())
    await x.silence()


async def closed_40(x: Exchange) -> None:
    """The body ends in due form, but the answer in it does not."""
    if x.is_stream:
        await x.begin(40)
        await x.close()
    else:
        await x.answer(x.dialect.whole()[:200])


async def malformed_event(x: Exchange) -> None:
    if x.is_stream:
        await x.open()
        await x.send(*x.dialect.begin(), b'data: {"choices": [{"delta"\n\n')
        await x.close()
    else:
        await x.answer(b'{"choices": [{"message"')


async def malformed_40(x: Exchange) -> None:
    if x.is_stream:
        await x.begin(40)
        await x.send(b'data: {"choices": [{"delta"\n\n')
        await x.close()
    else:
        await malformed_event(x)


async def missing_done(x: Exchange) -> None:
    if x.is_stream:
        await x.begin(60)
        await x.send(*x.dialect.finish()[:-1])
        await x.close()
    else:
        await fine(x)


async def error_before(x: Exchange) -> None:
    if x.is_stream:
        await x.stream(*x.dialect.begin(), x.dialect.error_event())
    else:
        await x.answer(orjson.dumps(x.dialect.error("server_error", "the engine fell over")))


async def error_after(x: Exchange) -> None:
    if x.is_stream:
        await x.begin(40)
        await x.send(x.dialect.error_event())
        await x.close()
    else:
        await error_before(x)


async def cut_in_tool(x: Exchange) -> None:
    if x.is_stream:
        await x.begin(3)
        await x.send(*x.dialect.call())
        x.cut()
    else:
        await cut_40(x)


async def cut_in_character(x: Exchange) -> None:
    if x.is_stream:
        await x.begin(3)
        await x.send(x.dialect.text("né").partition("é".encode())[0] + b"\xc3")
        x.cut()
    else:
        body = x.dialect.whole("né" * 50)
        await x.answer(body[: body.rindex(b"\xc3") + 1], length=len(body))
        x.cut()


async def keep_alives_only(x: Exchange) -> None:
    await x.open()
    while True:
        await x.send(x.dialect.keep_alive)
        await asyncio.sleep(HEART)


async def keep_alives_after_40(x: Exchange) -> None:
    if not x.is_stream:
        await keep_alives_only(x)
    await x.begin(40)
    while True:
        await x.send(x.dialect.keep_alive)
        await asyncio.sleep(HEART)


async def empty_200(x: Exchange) -> None:
    await x.answer(b"", content_type="text/event-stream" if x.is_stream else "application/json")


async def html_200(x: Exchange) -> None:
    await x.answer(b"<html><body>Please log in</body></html>", content_type="text/html")


async def false_length(x: Exchange) -> None:
    """Promises more than it sends."""
    if x.is_stream:
        events = b"".join([*x.dialect.begin(), *(x.dialect.text(token) for token in TOKENS[:40])])
        await x.answer(events, length=len(events) + 1000, content_type="text/event-stream")
    else:
        body = x.dialect.whole()
        await x.answer(body[:-20], length=len(body) + 100)
    x.cut()


async def gzip_body(x: Exchange) -> None:
    """Compressed, though nobody asked for it."""
    if x.is_stream:
        events = [*x.dialect.begin(), *(x.dialect.text(token) for token in TOKENS), *x.dialect.finish()]
        body, kind = b"".join(events), "text/event-stream"
    else:
        body, kind = x.dialect.whole(), "application/json"
    await x.answer(gzip.compress(body), content_type=kind, content_encoding="gzip")


async def duplicate_finish(x: Exchange) -> None:
    if x.is_stream:
        await x.begin(60)
        events = x.dialect.finish()
        at = x.dialect.finish_at
        await x.send(*events[: at + 1], *events[at:])
        await x.close()
    else:
        await fine(x)


async def usage_without_choices(x: Exchange) -> None:
    if x.is_stream:
        await x.begin(60)
        first, _, *rest = x.dialect.finish()
        await x.send(first, x.dialect.usage(without_choices=True), *rest)
        await x.close()
    else:
        await fine(x)


async def drip(x: Exchange) -> None:
    """One byte at a time, all of it."""
    if x.is_stream:
        data = b"".join([*x.dialect.begin(), *(x.dialect.text(t) for t in ("a", "b")), *x.dialect.finish()])
        await x.open()
        await x.send(*(data[at : at + 1] for at in range(len(data))))
        await x.close()
    else:
        body = x.dialect.whole("ab")
        await x.answer(body[:1], length=len(body))
        for at in range(1, len(body)):
            await x.write(body[at : at + 1])
            await asyncio.sleep(0)


async def drip_for_ever(x: Exchange) -> None:
    """One byte now and then: no read is ever silent for long, and nothing ever comes."""
    await x.open()
    while True:
        await x.send(b":")
        await asyncio.sleep(HEART)


async def closes_behind(x: Exchange) -> None:
    """A keep-alive connection that is closed right behind the answer: the next request must not stumble over it."""
    await fine(x)
    x.cut()


async def second_response(x: Exchange) -> None:
    """Another answer behind the first: nobody may ever read it."""
    await fine(x)
    body = b'{"choices":[{"message":{"role":"assistant","content":"POISON"},"finish_reason":"stop"}]}'
    await x.answer(body)


ACTS: dict[str, Act] = {
    name: value
    for name, value in list(globals().items())
    if asyncio.iscoroutinefunction(value) and value.__module__ == __name__
}
