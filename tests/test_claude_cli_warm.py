"""Processes that wait for the next turn: stopped answers, eviction, recycling; and starts that hang, of any backend."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certifi
import httpx
import pytest

from gw.adapters.claude_cli import ClaudeCLI
from gw.adapters.claude_cli.pool import MAX_TURNS
from gw.adapters.claude_cli.starts import Starts, starts
from gw.environ import Environ
from gw.errors import ConfigError
from gw.message import Attempt, Candidate
from gw.stream import Stream
from tests.claude_fakes import WEB, FakeClaude, start, until
from tests.fakes import FakeClock, chat_request, fake_backend
from tests.running import Running, running

HI = {"role": "user", "content": "Hi"}
HALF = {"role": "assistant", "content": "half an"}


@pytest.fixture
def gw() -> Iterator[Running]:
    with running() as gateway:
        yield gateway


def ask(url: str, *messages: dict[str, str], **fields: Any) -> httpx.Response:
    body = {"messages": messages or [HI], "backend": "cli"} | fields
    return WEB.post(f"{url}/v1/chat/completions", json=body)


def stop_after_half(url: str, *messages: dict[str, str]) -> None:
    """Read a stream up to what it says, and hang up."""
    body = {"messages": messages or [HI], "backend": "cli", "stream": True}
    with WEB.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
        for line in answer.iter_lines():
            if '"an"' in line:
                return
    raise AssertionError("it ended by itself")


def warm_ones(gw: Running) -> list[Any]:
    provider: Any = gw.gateway.backends["cli"].provider
    return list(provider._pool._warm.values())


def pool_of(url: str) -> dict[str, Any]:
    pool: dict[str, Any] = WEB.get(f"{url}/queue/status").json()["processPool"]
    return pool


# --- stopped answers ---------------------------------------------------------------------------------------------


def test_who_stops_an_answer_goes_on_from_it_in_the_same_process(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "stoppable", "answer:and the rest")
    url = start(gw, tmp_path, fake, max_warm=1)
    stop_after_half(url)
    until(lambda: len(warm_ones(gw)) == 1)
    assert pool_of(url)["active"] == 0
    again = ask(url, HI, HALF, {"role": "user", "content": "go on"}).json()
    assert again["choices"][0]["message"]["content"] == "and the rest"
    assert again["gateway"]["cost_usd"] == 0.25, "what the stopped turn cost is not paid twice"
    assert len(fake.starts) == 1
    assert fake.control("interrupt") == [{"subtype": "interrupt"}]


def test_a_process_that_does_not_stop_is_ended(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "hang_after")
    url = start(gw, tmp_path, fake, max_warm=1)
    stop_after_half(url)
    until(lambda: pool_of(url)["active"] == 0)
    until(lambda: not fake.living())
    assert warm_ones(gw) == []


def test_a_stopped_process_that_leaves_something_running_is_ended_with_it(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "stoppable:child")
    url = start(gw, tmp_path, fake, max_warm=1)
    stop_after_half(url)
    until(lambda: bool(fake.control("interrupt")) and not fake.living())
    assert warm_ones(gw) == []


def test_a_process_of_a_single_turn_is_not_asked_to_stop(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "stoppable")
    url = start(gw, tmp_path, fake, max_warm=0)
    stop_after_half(url)
    until(lambda: not fake.living())
    assert fake.control("interrupt") == []


def test_closing_the_gateway_ends_a_process_that_is_being_stopped(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "hang_after")
    url = start(gw, tmp_path, fake, max_warm=1)
    stop_after_half(url)
    gw.run(gw.gateway.close(0))
    assert fake.living() == []


# --- eviction and recycling --------------------------------------------------------------------------------------


async def talk(cli: ClaudeCLI, messages: list[dict[str, str]], **fields: Any) -> str:
    """One whole turn; what was said."""
    request = chat_request({"messages": messages} | fields, candidates=(Candidate(fake_backend("cli"), "cli", "cli"),))
    request.exchange.attempts.append(Attempt("cli", "cli", 0.0))
    response = await cli.answer(request)
    assert not isinstance(response.content, Stream)
    return str(response.content.peek()["choices"][0]["message"]["content"])  # type: ignore[union-attr]


def cli_of(folder: Path, fake: FakeClaude, **options: Any) -> ClaudeCLI:
    table = fake.table(**options)
    del table["adapter"]
    return ClaudeCLI(**table, environ=Environ({"PATH": os.defpath, "HOME": str(folder)}))


def test_the_process_that_was_used_longest_ago_makes_room(tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "answer:fine")

    async def scene() -> None:
        async with cli_of(tmp_path, fake, max_warm=2) as cli:
            for name in ("a", "b", "c"):
                await talk(cli, [{"role": "user", "content": name}])
            first, second, third = (entry["pid"] for entry in fake.starts)
            kept = [worker.process.pid for worker in cli._pool._warm.values()]
            assert kept == [second, third]
            await asyncio.to_thread(until, lambda: first not in fake.living())

    asyncio.run(scene())


def test_a_process_is_recycled_after_its_turns_and_its_transcript_goes_on_in_another(tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "answer:fine")
    project = tmp_path / "project"
    project.mkdir()

    async def scene() -> None:
        async with cli_of(tmp_path, fake, max_warm=2, resume=True, roots=[project]) as cli:
            messages: list[dict[str, str]] = []
            for _ in range(MAX_TURNS + 1):
                messages.append(HI)
                said = await talk(cli, messages, working_directory=str(project))
                messages.append({"role": "assistant", "content": said})

    asyncio.run(scene())
    first, second = (entry["argv"] for entry in fake.starts)
    assert second[second.index("--resume") + 1] == first[first.index("--session-id") + 1]


def test_idle_processes_and_old_spares_are_let_go(tmp_path: Path) -> None:
    fake, clock = FakeClaude(tmp_path / "claude", "answer:fine"), FakeClock()

    async def scene() -> None:
        table = fake.table(max_warm=1, min_idle=1)
        del table["adapter"]
        environ = Environ({"PATH": os.defpath, "HOME": str(tmp_path)})
        async with ClaudeCLI(**table, environ=environ, clock=clock) as cli:
            await talk(cli, [HI])
            pool = cli._pool
            while not pool._spares:  # noqa: ASYNC110 (nobody is told of it)
                await asyncio.sleep(0.01)
            old = {worker.process.pid for worker in (*pool._spares, *pool._warm.values())}
            assert len(old) == 2
            clock.now += 601
            pool._wanted.set()
            while old & {worker.process.pid for worker in (*pool._spares, *pool._warm.values())}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    asyncio.run(scene())
    assert fake.living() == []


# --- starts ------------------------------------------------------------------------------------------------------


def test_no_more_processes_start_at_once_than_there_are_cores_over_all_backends() -> None:
    async def scene() -> None:
        one, other = starts(1), starts(1)
        assert one is other, "all backends of a loop share them"
        some = Starts(2, patience=60)
        ended = [await some.begin() for _ in range(2)]
        third = asyncio.ensure_future(some.begin())
        done, _ = await asyncio.wait({third}, timeout=0)
        assert not done
        ended[0]()
        ended[0]()  # told twice, given back once
        (await third)()
        fourth, fifth = asyncio.ensure_future(some.begin()), asyncio.ensure_future(some.begin())
        (await fourth)()
        (await fifth)()
        ended[1]()

    asyncio.run(scene())


def test_a_start_that_hangs_holds_nobody_up_for_long() -> None:
    async def scene() -> None:
        some = Starts(1, patience=0.0)
        ended = await some.begin()
        (await asyncio.wait_for(some.begin(), 5))()
        ended()

    asyncio.run(scene())


def test_a_mute_program_of_one_backend_does_not_stop_another(gw: Running, tmp_path: Path) -> None:
    mute, fake = FakeClaude(tmp_path / "mute", is_mute=True), FakeClaude(tmp_path / "claude", "answer:fine")
    more = {"backends": {"mute": mute.table(timeout=0.6)}}
    url = start(gw, tmp_path, fake, more)
    answer = ask(url, backend="mute")
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
    assert ask(url).json()["choices"][0]["message"]["content"] == "fine"
    until(lambda: not mute.living())


# --- what every backend may be told --------------------------------------------------------------------------------


def table_of(fake: FakeClaude, **options: Any) -> ClaudeCLI:
    table = fake.table(**options)
    del table["adapter"]
    return ClaudeCLI(**table)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"api_key_envs": ["A", "B"]}, "api_key_env, and make a backend for each"),
        ({"timeouts": {"connect": 5}}, "timeouts.connect: the program makes its own connections"),
        ({"transport": "httpx"}, "transport: the program makes its own"),
        ({"allowed_tools": ["Read(//etc)"]}, "is not the name of a tool"),
        ({"min_idle": -1}, "min_idle is 0 or more"),
        ({"arguments": ["--resume", "x"]}, "--resume is set by gw"),
    ],
)
def test_what_the_program_cannot_be_told_is_refused_at_load_with_the_cure(
    gw: Running, tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=r"backends\.cli") as caught:
        start(gw, tmp_path, FakeClaude(tmp_path / "claude"), **options)
    assert told in str(caught.value)


def test_headers_a_proxy_and_authorities_reach_the_program(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    headers = {"X-Team": "search", "X-Other": "a b"}
    ca_file = certifi.where()
    url = start(gw, tmp_path, fake, headers=headers, proxy="http://127.0.0.1:9", ca_file=ca_file)
    assert ask(url).status_code == 200
    environment = fake.starts[0]["env"]
    assert environment["ANTHROPIC_CUSTOM_HEADERS"] == "X-Team: search\nX-Other: a b"
    assert environment["HTTPS_PROXY"] == environment["HTTP_PROXY"] == "http://127.0.0.1:9"
    assert environment["NODE_EXTRA_CA_CERTS"] == ca_file


@pytest.mark.parametrize(
    ("timeouts", "mode", "stream", "told"),
    [
        ({"total": 0.4}, "hang", False, "no whole answer within 0.4 s"),
        ({"first_content": 0.4}, "hang", True, "no first content within 0.4 s"),
        ({"idle": 0.4}, "hang_after", True, "silent for 0.4 s"),
    ],
)
def test_each_clock_of_a_turn_ends_it_and_says_which(
    gw: Running, tmp_path: Path, timeouts: dict[str, float], mode: str, stream: bool, told: str
) -> None:
    fake = FakeClaude(tmp_path / "claude", mode)
    answer = ask(start(gw, tmp_path, fake, timeouts=timeouts), stream=stream)
    assert told in answer.text
    assert "upstream_timeout" in answer.text
    until(lambda: not fake.living())


def test_without_clocks_for_them_tools_may_work_long_before_the_first_content(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    start(gw, tmp_path, fake)
    provider: Any = gw.gateway.backends["cli"].provider
    assert provider._clocks == (120.0, None, None)


def test_the_variable_for_all_backends_rules_the_turn(tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    table = fake.table(timeout=5)
    del table["adapter"]
    assert ClaudeCLI(**table, environ=Environ({"GATEWAY_TIMEOUT": "30000"}))._clocks.turn == 30.0


@pytest.mark.parametrize(("on_loss", "status"), [("allow", 200), ("reject", 400), ("reroute", 400)])
def test_what_it_cannot_be_told_is_allowed_or_refused_as_the_file_says(
    gw: Running, tmp_path: Path, on_loss: str, status: int
) -> None:
    fake = FakeClaude(tmp_path / "claude")
    answer = ask(start(gw, tmp_path, fake, on_loss=on_loss), temperature=0.5)
    assert answer.status_code == status
    if status != 200:
        assert "/temperature" in answer.json()["error"]["message"]
        assert answer.json()["error"]["code"] == "unsupported_parameter"
        assert fake.starts == [], "nobody is asked"
