"""The bill is right: over seeded faults, retries, cuts and hang-ups the log adds up to what the providers counted."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson

from tests.fakes import Asked, answers, chunk, completion, sse
from tests.running import running, settings

REQUESTS = 120
WORD = "word"  # four characters: one token, as gw estimates
PRICE = {"input": 2.0, "output": 8.0}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "x" * 40}]}
FAULTS = ("limited", "error", "overload", "reset", "cut", "error_event", "broken_json")


@dataclass
class Ledger:
    """What a provider has counted: every request, and of those that it bills the tokens."""

    asked: int = 0
    whole: list[tuple[int, int]] = field(default_factory=list)  # prompt, completion; told to the client
    cut: list[int] = field(default_factory=list)  # words sent before it broke


# A request on a kept connection that is reset is sent again by the transport: that would be two here and one try there.
once = partial(answers, connection="close")


class Provider:
    """Answers one in two requests, and fails the others in some way."""

    def __init__(self, seed: int) -> None:
        self.ledger = Ledger()
        self._chance = random.Random(seed)
        self.hold = asyncio.Event()

    async def __call__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        self.ledger.asked += 1
        stream = asked.json.get("stream", False)
        fault = self._chance.choice((*["fine"] * len(FAULTS), *FAULTS))
        if asked.json["messages"][0]["content"].startswith("stay"):
            fault = "stay" if stream else "fine"
        if fault == "reset":
            writer.transport.abort()
        elif fault in ("limited", "error", "overload"):
            status = {"limited": 429, "error": 500, "overload": 503}[fault]
            await once(b'{"error": {"message": "no"}}', status=status)(asked, writer)
        elif stream:
            await self._stream(fault, writer)
        elif fault in ("cut", "error_event", "broken_json"):
            await once(b'{"id": "x", "choices": [')(asked, writer)
        else:
            await once(orjson.dumps(completion(WORD, "m") | {"usage": self._bill()}))(asked, writer)

    async def _stream(self, fault: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        words = self._chance.randrange(1, 30)
        if fault == "error_event":
            writer.write(sse({"error": {"message": "fell over", "code": "server_error"}}, done=False))
        elif fault == "broken_json":
            writer.write(b"data: {nonsense\n\n")
        else:
            writer.write(sse(*(chunk({"content": WORD}, model="m") for _ in range(words)), done=False))
            await writer.drain()
            if fault == "fine":
                end = chunk({}, "stop", model="m")
                writer.write(sse(end, chunk({}, model="m") | {"choices": [], "usage": self._bill()}))
            else:
                self.ledger.cut.append(words)
                if fault == "stay":
                    await self.hold.wait()
        await writer.drain()
        writer.close()

    def _bill(self) -> dict[str, int]:
        prompt, output = self._chance.randrange(1, 500), self._chance.randrange(1, 500)
        self.ledger.whole.append((prompt, output))
        return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


async def hang_up(client: httpx.AsyncClient, url: str) -> None:
    body = CHAT | {"stream": True, "messages": [{"role": "user", "content": "stay" * 10}]}
    async with client.stream("POST", url, json=body) as response:
        async for _ in response.aiter_raw():
            return


async def traffic(url: str, chance: random.Random) -> int:
    """Requests one after the other; how many there were."""
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        for _ in range(REQUESTS):
            if chance.random() < 0.1:
                await hang_up(client, url)
                continue
            with suppress(httpx.RemoteProtocolError):
                await client.post(url, json=CHAT | {"stream": chance.random() < 0.5})
    return REQUESTS


def rows(path: Path, query: str) -> Sequence[tuple[Any, ...]]:
    with sqlite3.connect(path) as connection:
        found = connection.execute(query).fetchall()
    connection.close()
    return found


def test_the_log_adds_up_to_what_the_providers_counted(tmp_path: Path) -> None:
    one, two = Provider(1), Provider(2)
    with running() as gw:
        backends = {
            name: {
                "adapter": "openai",
                "base_url": gw.add_provider(provider).url + "/v1",
                "price": PRICE,
                "group": name,
            }
            for name, provider in (("one", one), ("two", two))
        }
        fallback = {"backoff": 0.001, "retry_after_max": 0, "breaker": {"failures": 1000, "cooldown": 0.001}}
        fallback["retry_budget"] = {"share": 1.0, "at_least": 1000}
        middleware = {"rate_limit": {"enabled": False}, "fallback": fallback}
        url = gw.start(settings(tmp_path, backends=backends, middleware=middleware)) + "/v1/chat/completions"
        count = gw.run(traffic(url, random.Random(3)))
    path = tmp_path / "requests.db"
    whole, cut = one.ledger.whole + two.ledger.whole, one.ledger.cut + two.ledger.cut
    assert min(len(whole), len(cut)) > 10
    for name, provider in (("one", one), ("two", two)):  # a row for each request that a provider saw, and no other
        assert rows(path, f"SELECT COUNT(*) FROM attempts WHERE backend = '{name}'") == [(provider.ledger.asked,)]
    assert rows(path, "SELECT COUNT(*), SUM(attempts) FROM requests") == [(count, one.ledger.asked + two.ledger.asked)]
    reported = "FROM attempts WHERE cost_source = 'priced'"
    assert rows(path, f"SELECT COUNT(*), SUM(tokens_input), SUM(tokens_output) {reported}") == [
        (len(whole), sum(prompt for prompt, _ in whole), sum(output for _, output in whole))
    ]
    ((told, words, cost),) = rows(
        path, "SELECT COUNT(*), SUM(tokens_output), SUM(cost_usd) FROM attempts WHERE cost_source = 'estimated'"
    )
    assert (told, words) == (len(cut), sum(cut))  # what was cut and what a client left is estimated, and says so
    billed = sum(prompt * 2 + output * 8 for prompt, output in whole) / 1e6
    estimated = sum(10 * 2 + output * 8 for output in cut) / 1e6
    assert abs(cost - estimated) < 1e-9
    assert rows(path, "SELECT COUNT(*) FROM attempts WHERE cost_usd IS NOT NULL") == [(len(whole) + len(cut),)]
    for table in ("attempts", "requests"):  # failed tries are no completions, and no sum differs from another
        ((total,),) = rows(path, f"SELECT SUM(cost_usd) FROM {table}")
        assert abs(total - billed - estimated) < 1e-9
