"""Signed blocks outlive their process and are found by every worker: memory over one SQLite file."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from gw.known_secrets import KnownSecrets
from gw.secret import Secret
from gw.shared import ForkShared, LocalShared, Shared
from gw.shared_signatures import SharedSignatures
from gw.signature_file import CannotKeep, SignatureFile
from gw.signatures import Row
from tests.fakes import Asked, FakeClock, answers
from tests.processes import gateway
from tests.running import running, settings

BLOCKS = [{"type": "thinking", "thinking": "Hm.", "signature": "S"}]


def store(folder: Path, shared: Shared | None = None, **fields: Any) -> SharedSignatures:
    made = SharedSignatures(shared or LocalShared(), fields.pop("secrets", None), **fields)
    made.attach(folder / "requests.db")
    return made


def loop_of(*call_ids: str) -> list[dict[str, Any]]:
    """A conversation whose assistant called these."""
    return [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [{"id": one} for one in call_ids]}]


async def found(signatures: SharedSignatures, scope: str, call_id: str) -> Any:
    await signatures.recall(scope, loop_of(call_id))
    return signatures.find(scope, call_id)


def test_the_next_start_finds_what_was_kept(tmp_path: Path) -> None:
    async def run() -> None:
        async with store(tmp_path) as first:
            first.keep("anthropic:ci", ["1", "2"], BLOCKS)
        async with store(tmp_path) as second:
            assert second.find("anthropic:ci", "1") is None  # until it is recalled
            assert await found(second, "anthropic:ci", "1") == BLOCKS
            assert await found(second, "anthropic:ci", "2") == BLOCKS
            assert await found(second, "anthropic:other", "1") is None

    asyncio.run(run())


def test_another_worker_finds_at_once_what_is_still_being_written(tmp_path: Path) -> None:
    async def run() -> None:
        shared = ForkShared(2)
        async with store(tmp_path, shared) as first:
            shared.enter(1)
            async with store(tmp_path, shared) as second:
                for at in range(50):
                    first.keep("s", [str(at)], at)
                    assert await found(second, "s", str(at)) == at

    asyncio.run(run())


def test_what_is_over_is_not_found_and_leaves_the_file(tmp_path: Path) -> None:
    clock, wall = FakeClock(), FakeClock(1_800_000_000)

    async def run() -> None:
        async with store(tmp_path, ttl=10, clock=clock, wall_clock=wall) as first:
            first.keep("s", ["1"], BLOCKS)
        wall.now += 9
        async with store(tmp_path, ttl=10, clock=clock, wall_clock=wall) as second:
            assert await found(second, "s", "1") == BLOCKS
            clock.now += 1.1  # its own ten seconds end where they would have ended before the start
            assert second.find("s", "1") is None
        wall.now += 2
        async with store(tmp_path, ttl=10, clock=clock, wall_clock=wall) as third:
            assert await found(third, "s", "1") is None
            third.keep("s", ["2"], BLOCKS)
        with sqlite3.connect(tmp_path / "requests.db.signatures") as database:
            assert database.execute("SELECT call_id FROM blocks").fetchall() == [("2",)]
        database.close()

    asyncio.run(run())


def test_what_nobody_has_is_asked_for_once(tmp_path: Path) -> None:
    async def run() -> None:
        async with store(tmp_path) as first:
            first.keep("s", ["1"], BLOCKS)
            assert await found(first, "s", "nobody's") is None
            assert first.unknown("s", loop_of("nobody's", "1", "new")) == ["new"]

    asyncio.run(run())


def test_without_a_log_or_anything_signed_there_is_no_file(tmp_path: Path) -> None:
    async def run() -> None:
        memory = SharedSignatures()
        async with memory:
            memory.keep("s", ["1"], BLOCKS)
            assert await found(memory, "s", "1") == BLOCKS
        async with store(tmp_path) as idle:
            assert await found(idle, "s", "1") is None

    asyncio.run(run())
    assert list(tmp_path.iterdir()) == []


def test_only_its_owner_reads_the_file(tmp_path: Path) -> None:
    async def run() -> None:
        async with store(tmp_path) as first:
            first.keep("s", ["1"], BLOCKS)
            await found(first, "s", "2")

    asyncio.run(run())
    assert stat.S_IMODE((tmp_path / "requests.db.signatures").stat().st_mode) == 0o600


def test_blocks_that_hold_a_key_of_ours_are_not_written_down(tmp_path: Path) -> None:
    key = "canary-5d41402abc4b2a76b9719d911017c592"

    async def run() -> None:
        secrets = KnownSecrets([Secret(key)])
        async with store(tmp_path, secrets=secrets) as first:
            first.keep("s", ["1"], [{"thinking": f"the key is {key}"}])
            first.keep("s", ["2"], BLOCKS)
            assert await found(first, "s", "1") == [{"thinking": f"the key is {key}"}]
        async with store(tmp_path, secrets=secrets) as second:
            assert await found(second, "s", "1") is None
            assert await found(second, "s", "2") == BLOCKS

    asyncio.run(run())
    assert all(key.encode() not in path.read_bytes() for path in tmp_path.iterdir())


@pytest.mark.parametrize("spoilt", ["a folder", "somebody else's database", "no database"])
def test_where_the_file_cannot_be_used_memory_serves_and_says_why(
    tmp_path: Path, spoilt: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "requests.db.signatures"
    if spoilt == "a folder":
        path.mkdir()
    elif spoilt == "no database":
        path.write_bytes(b"something else entirely" * 100)
    else:
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE blocks (mine)")
        database.close()

    async def run() -> None:
        async with store(tmp_path) as first:
            first.keep("s", ["1"], BLOCKS)
            assert await found(first, "s", "1") == BLOCKS
            assert await found(first, "s", "2") is None

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert "in memory only" in caplog.text
    assert str(path) in caplog.text
    assert len(caplog.records) == 1


def test_a_file_that_was_deleted_is_made_anew(tmp_path: Path) -> None:
    async def run() -> None:
        async with store(tmp_path) as first:
            first.keep("s", ["1"], BLOCKS)
            await found(first, "s", "none")
            os.unlink(tmp_path / "requests.db.signatures")
            first.keep("s", ["2"], BLOCKS)
            await found(first, "s", "nothing")
        async with store(tmp_path) as second:
            assert await found(second, "s", "2") == BLOCKS

    asyncio.run(run())


def test_a_file_that_is_full_gives_up_what_would_be_over_next(tmp_path: Path) -> None:
    file = SignatureFile(tmp_path / "a", capacity=200_000)
    file.add([Row("s", str(at), 1000.0 + at, b"x" * 1000) for at in range(400)])
    for _ in range(40):
        file.clean(500.0)
    kept = [row.call_id for row in file.find("s", map(str, range(400)), 500.0)]
    assert "399" in kept
    assert "0" not in kept
    assert 100 < len(kept) < 250
    file.close()
    with pytest.raises(CannotKeep, match="cannot be used"):
        file.find("s", ["1"], 500.0)


def test_another_log_has_a_file_of_its_own_from_then_on(tmp_path: Path) -> None:
    async def run() -> None:
        async with store(tmp_path) as signatures:
            signatures.keep("s", ["1"], BLOCKS)
            await found(signatures, "s", "nobody's")
            signatures.attach(tmp_path / "other.db")
            signatures.keep("s", ["2"], BLOCKS)
            await found(signatures, "s", "nothing")
            signatures.attach(None)
            signatures.keep("s", ["3"], BLOCKS)
            await found(signatures, "s", "none")
            assert signatures.find("s", "1") == signatures.find("s", "3") == BLOCKS

    asyncio.run(run())
    kept = {}
    for name in ("requests.db", "other.db"):
        with contextlib.closing(sqlite3.connect(tmp_path / f"{name}.signatures")) as database:
            kept[name] = database.execute("SELECT call_id FROM blocks").fetchall()
    assert kept == {"requests.db": [("1",)], "other.db": [("2",)]}


# --- through a running gateway ------------------------------------------------------------------------------------

THOUGHT = {"type": "thinking", "thinking": "I need the weather.", "signature": "c2lnbmF0dXJl"}
CLAUDE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [THOUGHT, {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}],
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 3, "output_tokens": 2},
}
GEMINI = {
    "candidates": [
        {
            "content": {
                "role": "model",
                "parts": [{"functionCall": {"name": "weather", "args": {}, "id": "g1"}, "thoughtSignature": "U0lH"}],
            },
            "finishReason": "STOP",
        }
    ]
}
TOOLS = [{"type": "function", "function": {"name": "weather"}}]


def talk(url: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
    body = {"model": "m", "messages": messages, "tools": TOOLS, "reasoning_effort": "low", "max_tokens": 4000}
    answer = httpx.post(url + "/v1/chat/completions", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    message: dict[str, Any] = answer.json()["choices"][0]["message"]
    return {"role": "assistant", "content": None, "tool_calls": message["tool_calls"]}  # as forgetful clients send it


def backend(adapter: str, url: str) -> dict[str, Any]:
    model = "claude-sonnet-4-5" if adapter == "anthropic" else "gemini-3-pro-preview"
    return {"a": {"adapter": adapter, "base_url": url, "api_key": "k", "model": model}}


@pytest.mark.parametrize(("adapter", "answer"), [("anthropic", CLAUDE), ("gemini", GEMINI)])
def test_a_tool_loop_goes_on_signed_after_a_restart(adapter: str, answer: Any, tmp_path: Path) -> None:
    asked: list[Asked] = []
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Weather?"}]
    for _ in range(2):
        with running() as gw:
            provider = gw.add_provider(answers(orjson.dumps(answer)))
            said = talk(gw.start(settings(tmp_path, backends=backend(adapter, provider.url))), messages)
            asked += provider.asked
        call_id = said["tool_calls"][0]["id"]
        messages += [said, {"role": "tool", "tool_call_id": call_id, "content": "18 degrees"}]
    body = asked[1].body
    assert (b"c2lnbmF0dXJl" if adapter == "anthropic" else b"U0lH") in body
    assert b"I need the weather." in body or adapter == "gemini"


def test_two_workers_find_what_either_has_kept(tmp_path: Path) -> None:
    numbers = itertools.count()

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        at = next(numbers)
        call = {"type": "tool_use", "id": f"toolu_{at}", "name": "weather", "input": {}}
        content = [THOUGHT | {"signature": f"signature-{at}."}, call]
        await answers(orjson.dumps(CLAUDE | {"content": content}))(asked, writer)

    with running() as gw:
        provider = gw.add_provider(script)
        (tmp_path / "gateway.toml").write_text(
            "[server]\nport = 0\nworkers = 2\n[backends.a]\n"
            f'adapter = "anthropic"\nbase_url = "{provider.url}"\napi_key = "k"\nmodel = "claude-sonnet-4-5"\n'
        )
        with gateway(tmp_path) as process:
            for _ in range(12):
                messages: list[dict[str, Any]] = [{"role": "user", "content": "Weather?"}]
                said = talk(process.url, messages)  # each request by a connection of its own, so by either worker
                call_id = said["tool_calls"][0]["id"]
                talk(process.url, [*messages, said, {"role": "tool", "tool_call_id": call_id, "content": "18"}])
                assert f"signature-{call_id.removeprefix('toolu_')}.".encode() in provider.asked[-1].body


@pytest.mark.parametrize("content", ["redacted", "none"])
def test_a_log_that_keeps_no_words_keeps_no_thoughts_either(content: str, tmp_path: Path) -> None:
    with running() as gw:
        provider = gw.add_provider(answers(orjson.dumps(CLAUDE)))
        tables = settings(tmp_path, backends=backend("anthropic", provider.url))
        tables["middleware"]["log"]["content"] = content
        talk(gw.start(tables), [{"role": "user", "content": "Weather?"}])
    assert not (tmp_path / "requests.db.signatures").exists()
    assert all(b"I need the weather" not in path.read_bytes() for path in tmp_path.iterdir())
