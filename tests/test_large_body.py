"""A body of some megabytes: what it takes to read is shared out over turns of the loop, between which others pass."""

from __future__ import annotations

import asyncio

import orjson

from gw.endpoints.chat import ChatCompletions
from gw.message import Headers, Request
from gw.schema import LARGE
from gw.server.body import WholeBody

TURNS = 3  # of the loop, until somebody else's request is read, answered and sent


def test_others_are_answered_between_the_steps_that_a_large_body_takes() -> None:
    async def turns() -> tuple[int, int]:
        chat = {"messages": [{"role": "user", "content": "a" * LARGE}]}
        headers = Headers([(b"content-type", b"application/json")])
        request = Request("POST", "/v1/chat/completions", headers=headers, body=WholeBody(orjson.dumps(chat)))
        decoding = asyncio.ensure_future(ChatCompletions().decode(request))
        before = after = 0
        while not decoding.done():
            await asyncio.sleep(0)
            if request.document is None:
                before += 1
            elif not decoding.done():
                after += 1
        await decoding
        return before, after

    before, after = asyncio.run(turns())
    assert before >= TURNS
    assert after >= TURNS
