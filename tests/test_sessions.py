"""Conversations that go on by `session_id`: on an API, on the CLI, over a fallback; whose they are; one at a time."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from gw.errors import NotFound
from gw.message import Principal
from gw.request_log.conversations import Conversations, Past
from gw.sessions import BACKEND, Sessions, new_id
from gw.settings import SessionOptions
from gw.shared import LocalShared
from tests.claude_fakes import WEB, FakeClaude, until
from tests.fakes import Asked, answers, chat_request, chunks, completion, sse, streams
from tests.running import Running, running, settings
from tests.test_claude_cli_places import OneOf

ALICE = {"role": "user", "content": "My name is Alice"}
WHO = {"role": "user", "content": "What is my name?"}
HI_ALICE = {"role": "assistant", "content": "Hi Alice"}


@pytest.fixture
def gw() -> Iterator[Running]:
    with running() as gateway:
        yield gateway


def api(url: str, **options: Any) -> dict[str, Any]:
    return {"adapter": "openai", "base_url": f"{url}/v1", "model": "gpt-4", "api_key": "sk-test-key"} | options


def start(gw: Running, folder: Path, script: Any, **tables: Any) -> str:
    """A gateway over one provider, `a`."""
    provider = gw.add_provider(script)
    tables = {"server": {"shutdown_grace": 0}, "backends": {"a": api(provider.url)}} | tables
    return gw.start(settings(folder, **tables), environ=tables.pop("environ", {}))


def ask(url: str, *messages: dict[str, Any], key: str = "", **fields: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body = {"model": "gpt-4", "messages": list(messages)} | fields
    return WEB.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60)


def test_a_forked_process_gives_out_other_ids_than_its_parent() -> None:
    new_id(0.0)  # there are random bytes in stock
    theirs, ours = os.pipe()
    child = os.fork()
    if not child:
        os.write(ours, " ".join(new_id(0.0) for _ in range(400)).encode())
        os._exit(0)
    os.close(ours)
    with open(theirs) as pipe:
        told = pipe.read().split()
    assert os.waitpid(child, 0)[1] == 0
    assert len(told) == 400
    assert {new_id(0.0) for _ in range(400)}.isdisjoint(told)


def test_the_id_of_a_session_is_its_time_and_74_random_bits() -> None:
    ids = [new_id(1_800_000_000.5) for _ in range(1000)]
    read = [uuid.UUID(one) for one in ids]
    assert [str(one) for one in read] == ids
    assert {(one.version, one.variant) for one in read} == {(7, uuid.RFC_4122)}
    assert {one.int >> 80 for one in read} == {1_800_000_000_500}
    random = (0xFFF << 64) | (2**62 - 1)
    seen = [one.int & random for one in read]
    assert len(set(seen)) == len(seen)
    always, ever = seen[0], 0
    for bits in seen:
        always, ever = always & bits, ever | bits
    assert (always, ever) == (0, random)  # each of the 74 is set in some and not in others


def test_the_next_turn_needs_only_the_new_message(gw: Running, tmp_path: Path) -> None:
    url = start(gw, tmp_path, answers(orjson.dumps(completion("Hi Alice"))))
    session = ask(url, ALICE).json()["session_id"]
    again = ask(url, WHO, session_id=session)
    assert again.json()["session_id"] == session
    assert gw.providers[0].asked[-1].json["messages"] == [ALICE, HI_ALICE, WHO]
    ask(url, WHO, session_id=session)
    assert gw.providers[0].asked[-1].json["messages"] == [ALICE, HI_ALICE, WHO, HI_ALICE, WHO]
    assert "session_id" not in gw.providers[0].asked[-1].json


def test_a_streamed_turn_is_part_of_its_session(gw: Running, tmp_path: Path) -> None:
    url = start(gw, tmp_path, streams(sse(*chunks("Hi ", "Alice"))))
    text = ask(url, ALICE, stream=True).text
    session = orjson.loads(text.split("data: ")[-2])["session_id"]
    ask(url, WHO, session_id=session, stream=True)
    assert gw.providers[0].asked[-1].json["messages"] == [ALICE, HI_ALICE, WHO]


def test_a_client_that_sends_everything_again_has_said_it_once(gw: Running, tmp_path: Path) -> None:
    url = start(gw, tmp_path, answers(orjson.dumps(completion("Hi Alice"))))
    session = ask(url, ALICE).json()["session_id"]
    ask(url, ALICE, HI_ALICE, WHO, session_id=session)
    assert gw.providers[0].asked[-1].json["messages"] == [ALICE, HI_ALICE, WHO]
    ask(url, WHO, session_id=session)
    assert len(gw.providers[0].asked[-1].json["messages"]) == 5


def test_a_turn_that_failed_was_never_said(gw: Running, tmp_path: Path) -> None:
    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        fails = b"break" in asked.body
        await answers(orjson.dumps(completion("Hi Alice")), status=400 if fails else 200)(asked, writer)

    url = start(gw, tmp_path, script)
    session = ask(url, ALICE).json()["session_id"]
    assert ask(url, {"role": "user", "content": "break"}, session_id=session).status_code == 400
    ask(url, WHO, session_id=session)
    assert gw.providers[0].asked[-1].json["messages"] == [ALICE, HI_ALICE, WHO]


def test_an_unknown_session_is_404_and_nobody_is_asked(gw: Running, tmp_path: Path) -> None:
    url = start(gw, tmp_path, answers(orjson.dumps(completion())))
    answer = ask(url, WHO, session_id="0f8fad5b-d9cb-469f-a165-70867728950e")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "session_not_found")
    assert gw.providers[0].asked == []


def test_a_session_is_its_keys_own(gw: Running, tmp_path: Path) -> None:
    keys = {name: {"token": f"{name}-a-long-enough-token"} for name in ("alice", "bob")}
    provider = gw.add_provider(answers(orjson.dumps(completion("Hi Alice"))))
    auth = {"mode": "always", "keys": keys}
    url = gw.start(settings(tmp_path, backends={"a": api(provider.url)}, middleware={"auth": auth}))
    mine, other = (keys[name]["token"] for name in ("alice", "bob"))
    session = ask(url, ALICE, key=mine).json()["session_id"]
    assert ask(url, WHO, key=other, session_id=session).status_code == 404
    for method in ("GET", "DELETE"):
        headers = {"Authorization": f"Bearer {other}"}
        assert WEB.request(method, f"{url}/v1/sessions/{session}", headers=headers).status_code == 404
    assert WEB.get(f"{url}/v1/sessions", headers={"Authorization": f"Bearer {other}"}).json()["data"] == []
    assert ask(url, WHO, key=mine, session_id=session).status_code == 200


def test_sessions_are_listed_shown_and_forgotten(gw: Running, tmp_path: Path) -> None:
    url = start(gw, tmp_path, answers(orjson.dumps(completion("Hi Alice"))))
    session = ask(url, ALICE).json()["session_id"]
    ask(url, WHO, session_id=session)
    gw.run(_written(gw))
    (listed,) = WEB.get(f"{url}/v1/sessions").json()["data"]
    assert (listed["id"], listed["turns"], listed["backend"]) == (session, 2, "a")
    shown = WEB.get(f"{url}/v1/sessions/{session}").json()
    assert shown["messages"] == [ALICE, HI_ALICE, WHO, HI_ALICE]
    deleted = WEB.delete(f"{url}/v1/sessions/{session}").json()
    assert deleted == {"id": session, "object": "session.deleted", "deleted": True}
    assert ask(url, WHO, session_id=session).status_code == 404
    assert WEB.delete(f"{url}/v1/sessions/{session}").status_code == 404
    with sqlite3.connect(tmp_path / "requests.db") as database:
        (left,) = database.execute("SELECT COUNT(*) FROM requests WHERE prompt LIKE '%Alice%'").fetchone()
    database.close()
    assert left == 0


async def _written(gw: Running) -> None:
    sessions: Any = gw.gateway.sessions
    await sessions._history.flush()


def test_without_the_log_there_are_no_sessions(gw: Running, tmp_path: Path) -> None:
    url = start(
        gw,
        tmp_path,
        answers(orjson.dumps(completion())),
        middleware={"log": {"content": "redacted", "path": str(tmp_path / "requests.db")}},
    )
    answer = ask(url, ALICE).json()
    assert "session_id" not in answer
    assert ask(url, WHO, session_id="0f8fad5b-d9cb-469f-a165-70867728950e").status_code == 404


def test_a_session_stays_with_its_backend_and_goes_elsewhere_where_that_fails(gw: Running, tmp_path: Path) -> None:
    async def first(asked: Asked, writer: asyncio.StreamWriter) -> None:
        fails = b"What is my name" in asked.body and b"again" in asked.body
        await answers(orjson.dumps(completion("Hi Alice")), status=500 if fails else 200)(asked, writer)

    b = gw.add_provider(answers(orjson.dumps(completion("Hi from b"))))
    a = gw.add_provider(first)
    tables = settings(
        tmp_path,
        backends={"b": api(b.url), "a": api(a.url, cost_per_request=9)},
        middleware={"fallback": {"retries": 0}, "route": {"default_backend": "b", "prefer_cheapest": False}},
    )
    url = gw.start(tables)
    session = ask(url, ALICE, backend="a").json()["session_id"]
    answer = ask(url, WHO, session_id=session).json()
    assert (answer["gateway"]["backend"], answer["degraded"], answer["model"]) == ("a", False, "gpt-4")
    answer = ask(url, {"role": "user", "content": "What is my name again?"}, session_id=session).json()
    assert (answer["gateway"]["backend"], answer["degraded"]) == ("b", True)
    assert len(b.asked[-1].json["messages"]) == 5


def test_a_session_of_the_cli_goes_on_in_its_folder_with_what_was_said(gw: Running, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    fake = FakeClaude(tmp_path / "claude", "answer:Hi Alice", "answer:Your name is Alice")
    table = fake.table(roots=[str(project)])
    url = gw.start(settings(tmp_path, backends={"cli": table}, server={"shutdown_grace": 0}))
    fields: dict[str, Any] = {"model": "auto", "tools": ["Read"], "working_directory": str(project)}
    session = ask(url, ALICE, **fields).json()["session_id"]
    again = ask(url, WHO, model="auto", session_id=session).json()
    assert again["choices"][0]["message"]["content"] == "Your name is Alice"
    assert [entry["cwd"] for entry in fake.starts] == [str(project)] * 2
    said = [line["message"]["role"] for line in fake.lines if "message" in line]
    assert said == ["user", "user", "assistant", "user"]


def test_a_session_of_the_cli_finds_its_warm_process_again(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "answer:Hi Alice", "answer:Your name is Alice")
    url = gw.start(settings(tmp_path, backends={"cli": fake.table(max_warm=1)}, server={"shutdown_grace": 0}))
    session = ask(url, ALICE, model="auto").json()["session_id"]
    assert ask(url, WHO, model="auto", session_id=session).status_code == 200
    assert len(fake.starts) == 1
    assert len(fake.prompts) == 2


def test_a_session_stays_with_a_backend_that_the_fallback_chain_does_not_name(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "answer:Hi Alice", "answer:Alice")
    b = gw.add_provider(answers(orjson.dumps(completion("Hi from b"))))
    backends = {"cli": fake.table(), "b": api(b.url, models={"gpt-4": "gpt-4", "gpt-5": "gpt-5"})}
    middleware = {"fallback": {"retries": 0, "chain": ["b"]}}
    url = gw.start(settings(tmp_path, backends=backends, middleware=middleware, server={"shutdown_grace": 0}))
    session = ask(url, ALICE, model="cli").json()["session_id"]
    answer = ask(url, WHO, model=None, session_id=session).json()
    assert (answer["gateway"]["backend"], answer["degraded"], answer["model"]) == ("cli", False, "cli")
    assert ask(url, WHO, model="gpt-4", backend="b", session_id=session).json()["gateway"]["backend"] == "b"


def test_the_sessions_model_is_asked_for_again(gw: Running, tmp_path: Path) -> None:
    models = {"gpt-4": "up-4", "gpt-5": "up-5"}
    provider = gw.add_provider(answers(orjson.dumps(completion("Hi Alice"))))
    backends = {"a": api(provider.url, models=models) | {"model": None}}
    del backends["a"]["model"]
    url = gw.start(settings(tmp_path, backends=backends))
    session = ask(url, ALICE, model="gpt-5").json()["session_id"]
    assert ask(url, WHO, model=None, session_id=session).json()["model"] == "gpt-5"
    assert provider.asked[-1].json["model"] == "up-5"


# --- one turn at a time ------------------------------------------------------------------------------------------


class FakeHistory:
    """A log that has one session, and counts how often it was waited for."""

    def __init__(self, past: Past | None) -> None:
        self.past_ = past
        self.flushed = 0
        self.unwritten: Past | None = None  # what the log has in hand, and has not written yet

    @property
    def conversations(self) -> Conversations:
        return self  # type: ignore[return-value]

    def past(self, session_id: str, key: str) -> Past | None:
        return self.past_ if key == "anonymous" else None

    async def flush(self) -> None:
        self.flushed += 1
        if self.unwritten is not None:
            self.past_, self.unwritten = self.unwritten, None


ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
NOW = 1_700_000_000.0


def sessions_of(updated: float = NOW, **options: Any) -> tuple[Sessions, FakeHistory]:
    sessions = Sessions(SessionOptions(**options), LocalShared(), wall_clock=lambda: NOW)
    history = FakeHistory(Past([ALICE, HI_ALICE], "a", None, None, int(updated * 1000)))
    sessions.attach(history)
    return sessions, history


def turn_of(session_id: str = ID, **fields: Any) -> Any:
    request = chat_request({"messages": [WHO], "session_id": session_id}, **fields)
    request.exchange.session_id = session_id
    return request


def test_the_second_turn_waits_for_the_first_and_for_the_log() -> None:
    async def scene() -> None:
        sessions, history = sessions_of()
        first, second = turn_of(), turn_of()
        entered = await sessions.enter(first)
        assert entered.document is not None
        assert entered.document.peek()["messages"] == [ALICE, HI_ALICE, WHO]
        waiting = asyncio.ensure_future(sessions.enter(second))
        await asyncio.sleep(0)
        assert not waiting.done()
        sessions.ended(first.exchange)
        await waiting
        assert history.flushed == 1
        sessions.ended(second.exchange)
        await sessions.__aexit__()
        assert sessions._turnstiles == {}

    asyncio.run(scene())


def test_who_goes_on_before_the_log_has_written_the_first_turn_is_not_told_that_there_was_none() -> None:
    async def scene() -> None:
        sessions, history = sessions_of()
        history.past_, history.unwritten = None, history.past_
        request = turn_of()
        entered = await sessions.enter(request)
        assert entered.document is not None
        assert entered.document.peek()["messages"] == [ALICE, HI_ALICE, WHO]
        sessions.ended(request.exchange)
        await sessions.__aexit__()

    asyncio.run(scene())


def test_an_explanation_sees_the_session_and_holds_nobody_up() -> None:
    async def scene() -> None:
        sessions, history = sessions_of()
        first = turn_of()
        await sessions.enter(first)
        seen = await sessions.seen(turn_of())
        assert seen.document is not None
        assert seen.document.peek()["messages"] == [ALICE, HI_ALICE, WHO]
        assert seen.exchange.attributes[BACKEND] == "a"
        plain = chat_request({"messages": [WHO]})
        assert await sessions.seen(plain) is plain
        assert plain.exchange.session_id is None, "none is begun"
        history.past_ = None
        with pytest.raises(NotFound, match="does not exist"):
            await sessions.seen(turn_of())
        sessions.ended(first.exchange)
        await sessions.__aexit__()

    asyncio.run(scene())


@pytest.mark.parametrize("same_session", ["queue", "reject"])
def test_a_middleware_that_calls_on_twice_is_still_in_the_same_turn(same_session: str) -> None:
    async def scene() -> None:
        sessions, _ = sessions_of(same_session=same_session)
        turn, fresh = turn_of(), chat_request({"messages": [WHO]})
        for _ in range(2):
            entered = await asyncio.wait_for(sessions.enter(turn), 30)
            assert entered.document is not None
            assert entered.document.peek()["messages"] == [ALICE, HI_ALICE, WHO]
            assert await sessions.enter(fresh) is fresh
        sessions.ended(turn.exchange)
        await asyncio.wait_for(sessions.enter(turn_of()), 30)
        await sessions.__aexit__()

    asyncio.run(scene())


def test_a_busy_session_is_409_where_the_file_says_reject() -> None:
    async def scene() -> None:
        sessions, _ = sessions_of(same_session="reject")
        first, second, third = turn_of(), turn_of(), turn_of()
        await sessions.enter(first)
        with pytest.raises(Exception, match="still answering") as caught:
            await sessions.enter(second)
        assert (caught.value.status, caught.value.code) == (409, "session_busy")  # type: ignore[attr-defined]
        sessions.ended(second.exchange)
        sessions.ended(first.exchange)
        await sessions.enter(third)  # right after the answer: waits for the log, is not refused
        sessions.ended(third.exchange)
        await sessions.__aexit__()

    asyncio.run(scene())


def test_who_gives_up_waiting_leaves_no_trace() -> None:
    async def scene() -> None:
        sessions, _ = sessions_of()
        first, second = turn_of(), turn_of()
        await sessions.enter(first)
        waiting = asyncio.ensure_future(sessions.enter(second))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        sessions.ended(second.exchange)
        sessions.ended(first.exchange)
        await sessions.__aexit__()
        assert sessions._turnstiles == {}

    asyncio.run(scene())


def test_a_turn_of_another_worker_is_waited_for_too() -> None:
    async def scene() -> None:
        memory: dict[str, list[memoryview[float]]] = {}
        lock = threading.Lock()
        one, two = (Sessions(SessionOptions(), OneOf(memory, n, lock), wall_clock=lambda: NOW) for n in (0, 1))
        history = FakeHistory(Past([ALICE, HI_ALICE], "a", None, None, int(NOW * 1000)))
        one.attach(history)
        two.attach(history)
        first, second = turn_of(), turn_of()
        await one.enter(first)
        waiting = asyncio.ensure_future(two.enter(second))
        done, _ = await asyncio.wait({waiting}, timeout=0.05)
        assert not done
        one.ended(first.exchange)
        await asyncio.wait_for(waiting, 30)
        two.ended(second.exchange)
        await two.__aexit__()
        assert all(not any(row) for row in memory["gauges sessions"])

    asyncio.run(scene())


def test_a_busy_session_is_409_over_http_and_free_again_after_its_answer(gw: Running, tmp_path: Path) -> None:
    gates: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if b"hold" in asked.body and not gates:
            gates.append((asyncio.get_running_loop(), asyncio.Event()))
            await gates[0][1].wait()
        await answers(orjson.dumps(completion("Hi Alice")))(asked, writer)

    url = start(gw, tmp_path, script, sessions={"same_session": "reject"})
    session = ask(url, ALICE).json()["session_id"]
    held = threading.Thread(target=ask, args=(url, {"role": "user", "content": "hold"}), kwargs={"session_id": session})
    held.start()
    until(lambda: bool(gates))
    busy = ask(url, WHO, session_id=session)
    assert (busy.status_code, busy.json()["error"]["code"]) == (409, "session_busy")
    assert ask(url, WHO).status_code == 200, "others are not concerned"
    gates[0][0].call_soon_threadsafe(gates[0][1].set)
    held.join(60)
    assert ask(url, WHO, session_id=session).status_code == 200


@pytest.mark.parametrize(("hours", "is_there"), [(23.9, True), (24.1, False)])
def test_a_session_ends_when_nobody_has_gone_on_for_its_time(hours: float, is_there: bool) -> None:
    async def scene() -> None:
        sessions, _ = sessions_of(updated=NOW - hours * 3600)
        request = turn_of()
        if is_there:
            await sessions.enter(request)
        else:
            with pytest.raises(Exception, match="does not exist"):
                await sessions.enter(request)
        sessions.ended(request.exchange)
        await sessions.__aexit__()

    asyncio.run(scene())


def test_another_key_finds_nothing() -> None:
    async def scene() -> None:
        sessions, _ = sessions_of()
        request = turn_of(principal=Principal("bob"))
        request.exchange.principal = request.principal
        with pytest.raises(Exception, match="does not exist"):
            await sessions.enter(request)
        sessions.ended(request.exchange)
        await sessions.__aexit__()

    asyncio.run(scene())


def test_two_turns_at_once_over_http_are_answered_one_after_the_other(gw: Running, tmp_path: Path) -> None:
    inside = [0, 0]

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        inside[0] += 1
        inside[1] = max(inside)
        await asyncio.sleep(0.05)
        inside[0] -= 1
        await answers(orjson.dumps(completion("Hi Alice")))(asked, writer)

    url = start(gw, tmp_path, script)
    session = ask(url, ALICE).json()["session_id"]
    threads = [threading.Thread(target=ask, args=(url, WHO), kwargs={"session_id": session}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert inside == [0, 1]
    assert len(gw.providers[0].asked[-1].json["messages"]) == 7


# --- what the log has not kept ------------------------------------------------------------------------------------


def test_an_image_that_was_not_kept_is_told_in_words(gw: Running, tmp_path: Path) -> None:
    url = start(gw, tmp_path, answers(orjson.dumps(completion("A cat."))))
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    look = {"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}
    session = ask(url, look).json()["session_id"]
    assert ask(url, WHO, session_id=session).status_code == 200
    (first, *_) = gw.providers[0].asked[-1].json["messages"]
    assert first["content"][1] == {"type": "text", "text": "[image/png, size=8, sent earlier and not kept]"}
