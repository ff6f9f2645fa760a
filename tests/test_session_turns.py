"""One turn of a session at a time: the next one waits, or is told 409, and then finds all that was said before it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from gw.errors import InvalidRequest, NotFound
from gw.request_log.conversations import Past
from gw.sessions import BACKEND, Sessions
from gw.settings import SessionOptions
from tests.claude_fakes import WEB, until
from tests.exchanges import NOW
from tests.fakes import Asked, OneOf, answers, chat_request, completion
from tests.running import Running, running
from tests.session_world import ALICE, HI_ALICE, ID, WHO, FakeHistory, ask, sessions_of, start, turn_of


@pytest.fixture
def gw() -> Iterator[Running]:
    with running() as gateway:
        yield gateway


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


def test_what_is_forgotten_during_a_turn_is_forgotten_with_that_turn() -> None:
    async def scene() -> None:
        sessions, history = sessions_of()
        turn, late = turn_of(), turn_of()
        await sessions.enter(turn)
        forgetting = asyncio.ensure_future(sessions.forget(ID, "anonymous"))
        waiting = asyncio.ensure_future(sessions.enter(late))
        await asyncio.wait({forgetting, waiting}, timeout=0.05)
        assert not forgetting.done()
        history.unwritten = Past([ALICE, HI_ALICE, WHO, HI_ALICE], "a", None, None, int(NOW * 1000))
        sessions.ended(turn.exchange)
        assert (await asyncio.wait_for(forgetting, 30))["deleted"]
        assert history.past_ is None
        with pytest.raises(NotFound, match="does not exist"):
            await asyncio.wait_for(waiting, 30)
        sessions.ended(late.exchange)
        await sessions.__aexit__()
        assert sessions._turnstiles == {}

    asyncio.run(scene())


def test_a_session_that_is_answering_is_not_forgotten_where_the_file_says_reject() -> None:
    async def scene() -> None:
        sessions, history = sessions_of(same_session="reject")
        turn = turn_of()
        await sessions.enter(turn)
        with pytest.raises(InvalidRequest, match="still answering") as caught:
            await sessions.forget(ID, "anonymous")
        assert (caught.value.status, caught.value.code) == (409, "session_busy")
        assert history.past_ is not None
        sessions.ended(turn.exchange)
        assert (await sessions.forget(ID, "anonymous"))["deleted"]
        with pytest.raises(NotFound):
            await sessions.forget(ID, "anonymous")
        await sessions.__aexit__()
        assert sessions._turnstiles == {}

    asyncio.run(scene())


def test_what_the_log_has_not_written_yet_is_forgotten_too() -> None:
    async def scene() -> None:
        sessions, history = sessions_of()
        history.past_, history.unwritten = None, history.past_
        assert (await sessions.forget(ID, "anonymous"))["deleted"]
        assert (history.past_, history.unwritten) == (None, None)
        await sessions.__aexit__()

    asyncio.run(scene())


def test_a_session_forgotten_over_http_during_a_turn_does_not_come_back(gw: Running, tmp_path: Path) -> None:
    gates: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if b"hold" in asked.body:
            gates.append((asyncio.get_running_loop(), asyncio.Event()))
            await gates[0][1].wait()
        await answers(orjson.dumps(completion("Hi Alice")))(asked, writer)

    url = start(gw, tmp_path, script)
    session = ask(url, ALICE).json()["session_id"]
    hold = {"role": "user", "content": "hold"}
    held = threading.Thread(target=ask, args=(url, hold), kwargs={"session_id": session})
    held.start()
    until(lambda: bool(gates))
    told: list[int] = []
    page = f"{url}/v1/sessions/{session}"
    deleting = threading.Thread(target=lambda: told.append(WEB.delete(page, timeout=60).status_code))
    deleting.start()
    deleting.join(0.2)
    assert told == []
    gates[0][0].call_soon_threadsafe(gates[0][1].set)
    for thread in (held, deleting):
        thread.join(60)
    assert told == [200]
    assert WEB.get(page).status_code == 404


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
