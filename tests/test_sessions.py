"""Conversations that go on by `session_id`: on an API, on the CLI, over a fallback; whose they are, for how long."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from gw.message import Principal
from tests.claude_fakes import WEB, FakeClaude
from tests.exchanges import NOW
from tests.fakes import Asked, answers, chunk, chunks, completion, sse, streams
from tests.running import Running, running, settings
from tests.session_world import ALICE, HI_ALICE, WHO, api, ask, sessions_of, start, turn_of


@pytest.fixture
def gw() -> Iterator[Running]:
    with running() as gateway:
        yield gateway


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


@pytest.mark.parametrize("name", ["abc", "0F8FAD5B-D9CB-469F-A165-70867728950E", "a%20b", "x" * 100])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_page_of_a_session_that_cannot_be_one_says_so_as_of_any_other(
    gw: Running, tmp_path: Path, name: str, method: str
) -> None:
    url = start(gw, tmp_path, answers(orjson.dumps(completion())))
    answer = WEB.request(method, f"{url}/v1/sessions/{name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "session_not_found")


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


def test_sessions_are_listed_shown_and_forgotten(gw: Running, tmp_path: Path) -> None:
    url = start(gw, tmp_path, answers(orjson.dumps(completion("Hi Alice"))))
    session = ask(url, ALICE).json()["session_id"]
    ask(url, WHO, session_id=session, model=None)
    gw.run(_written(gw))
    (listed,) = WEB.get(f"{url}/v1/sessions").json()["data"]
    assert (listed["id"], listed["turns"], listed["backend"]) == (session, 2, "a")
    assert listed["model"] == "gpt-4"  # the second turn named none
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


# --- turns that said more than a text -----------------------------------------------------------------------------

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "r"}
OLD_RESULT = {"role": "function", "name": "f", "content": "r"}
SEALED = {"type": "reasoning.encrypted", "data": "QUJD" * 50, "index": 1, "format": "anthropic-claude-v1"}
THOUGHT = "I think so"
IMAGES = [
    {"type": "image_url", "image_url": {"url": url}} for url in ("data:image/png;base64,iVBORw0KGgo=", "https://a/b")
]


@pytest.mark.parametrize(
    ("answer", "then", "said"),
    [
        ({"content": "", "reasoning_content": THOUGHT, "tool_calls": [CALL]}, RESULT, None),
        ({"content": "Hi", "reasoning_content": THOUGHT}, WHO, {"content": "Hi"}),
        ({"content": None, "tool_calls": [CALL]}, RESULT, None),
        ({"content": None, "function_call": CALL["function"]}, OLD_RESULT, None),
        ({"content": None}, WHO, {"content": ""}),
        ({"content": None, "refusal": "No."}, WHO, {"content": "", "refusal": "No."}),
        ({"content": "Hi", "reasoning_details": [SEALED]}, WHO, None),
        ({"content": None, "audio": {"id": "a", "data": "QUJD", "transcript": "Hi"}}, WHO, {"content": "Hi"}),
        (
            {"content": "Look:", "images": IMAGES},
            WHO,
            {"content": "Look:\n\n[image/png, size=8, sent earlier and not kept]", "images": IMAGES[1:]},
        ),
    ],
)
def test_a_turn_goes_back_with_all_that_its_provider_wants_to_hear_again(
    gw: Running, tmp_path: Path, answer: dict[str, Any], then: dict[str, Any], said: dict[str, Any] | None
) -> None:
    choice = {"index": 0, "message": {"role": "assistant"} | answer, "finish_reason": "stop"}
    url = start(gw, tmp_path, answers(orjson.dumps(completion() | {"choices": [choice]})))
    session = ask(url, ALICE).json()["session_id"]
    assert ask(url, then, session_id=session).status_code == 200
    shown = WEB.get(f"{url}/v1/sessions/{session}").json()["messages"]
    assert shown[:2] == [ALICE, {"role": "assistant"} | (answer if said is None else said)]


def test_a_streamed_turn_goes_back_with_its_reasoning_in_blocks(gw: Running, tmp_path: Path) -> None:
    def thought(**fields: Any) -> dict[str, Any]:
        detail = {"type": "reasoning.text", "index": 0, "format": "anthropic-claude-v1"} | fields
        return chunk({"reasoning_details": [detail]})

    begins = chunk({"role": "assistant", "content": ""})
    sealed = [chunk({"reasoning_details": [SEALED | {"data": data}]}) for data in ("QUJD", "REVG")]
    pieces = [
        begins,
        thought(text="I think"),
        thought(text=" so"),
        thought(signature="sig"),
        *sealed,
        chunk({}, "stop"),
    ]
    url = start(gw, tmp_path, streams(sse(*pieces)))
    session = orjson.loads(ask(url, ALICE, stream=True).text.split("data: ")[-2])["session_id"]
    ask(url, WHO, session_id=session, stream=True)
    (_, said, _) = gw.providers[0].asked[-1].json["messages"]
    whole = {"type": "reasoning.text", "index": 0, "format": "anthropic-claude-v1", "text": THOUGHT, "signature": "sig"}
    assert said["reasoning_details"] == [whole, SEALED | {"data": "QUJD"}, SEALED | {"data": "REVG"}]


def test_a_client_that_repeats_a_turn_without_its_reasoning_has_said_it_once(gw: Running, tmp_path: Path) -> None:
    message = {"role": "assistant", "content": None, "reasoning_content": THOUGHT, "tool_calls": [CALL]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    url = start(gw, tmp_path, answers(orjson.dumps(completion() | {"choices": [choice]})))
    session = ask(url, ALICE).json()["session_id"]
    again: list[dict[str, Any]] = [ALICE, {"role": "assistant", "content": "", "tool_calls": [CALL]}, RESULT]
    ask(url, *again, session_id=session)
    assert gw.providers[0].asked[-1].json["messages"] == again


# --- what the log has not kept ------------------------------------------------------------------------------------


def test_an_image_that_was_not_kept_is_told_in_words(gw: Running, tmp_path: Path) -> None:
    url = start(gw, tmp_path, answers(orjson.dumps(completion("A cat."))))
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    look = {"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}
    session = ask(url, look).json()["session_id"]
    assert ask(url, WHO, session_id=session).status_code == 200
    (first, *_) = gw.providers[0].asked[-1].json["messages"]
    assert first["content"][1] == {"type": "text", "text": "[image/png, size=8, sent earlier and not kept]"}
