"""The Claude CLI's pool, over a fake program: spares, warm processes, places, and those who wait for one."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.claude_fakes import WEB, FakeClaude, ask, gw, pool_of, start, until
from tests.fakes import answers, completion
from tests.running import Running

__all__ = ["gw"]


@contextlib.contextmanager
def asking(url: str, times: int = 1) -> Iterator[None]:
    """Requests that go on beside the test; how they end is not looked at."""

    def quietly() -> None:
        with contextlib.suppress(httpx.HTTPError):
            ask(url)

    threads = [threading.Thread(target=quietly) for _ in range(times)]
    for thread in threads:
        thread.start()
    until(lambda: sum(pool_of(url)[name] for name in ("active", "queued")) == times)
    yield


# --- spares and warm ones ----------------------------------------------------------------------------------------


def test_a_spare_serves_the_next_request_and_is_replaced(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    url = start(gw, tmp_path, fake, min_idle=1)
    provider: Any = gw.gateway.backends["cli"].provider
    until(lambda: bool(provider._pool._spares))
    spare = fake.starts[0]["pid"]
    assert ask(url).status_code == 200
    assert next(entry["pid"] for entry in fake.entries if entry.get("line", {}).get("type") == "user") == spare
    until(lambda: len(fake.starts) == 2)


def test_a_warm_process_goes_on_with_its_conversation_and_pays_by_difference(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "answer:Hi Alice", "answer:Alice", "answer:other")
    url = start(gw, tmp_path, fake, max_warm=2)
    first = [{"role": "user", "content": "I am Alice"}]
    assert ask(url, messages=first).json()["gateway"]["cost_usd"] == 0.25
    second = [*first, {"role": "assistant", "content": "Hi Alice"}, {"role": "user", "content": "Who am I?"}]
    again = ask(url, messages=second).json()
    assert (again["choices"][0]["message"]["content"], again["gateway"]["cost_usd"]) == ("Alice", 0.25)
    assert len(fake.starts) == 1
    assert len(fake.control("initialize")) == 1
    changed = [first[0], {"role": "assistant", "content": "Hi Bob"}, second[-1]]
    assert ask(url, messages=changed).status_code == 200
    assert len(fake.starts) == 2, "who was told something else is another process"


def test_no_more_warm_processes_are_kept_than_allowed(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    url = start(gw, tmp_path, fake, max_warm=1)
    for name in ("a", "b", "c"):
        assert ask(url, messages=[{"role": "user", "content": name}]).status_code == 200
    until(lambda: len(fake.living()) == 1)


# --- places ------------------------------------------------------------------------------------------------------


def test_a_full_queue_is_503_at_once_with_document_as_words(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "hang")
    url = start(gw, tmp_path, fake, max_concurrent=1, queue_size=1, timeout=60)
    with asking(url, times=2):
        pool = pool_of(url)
        answer = ask(url)
        health = WEB.get(f"{url}/health").json()["routing"]
    figures = ("active", "queued", "maxConcurrent", "maxQueue", "utilization")
    assert [pool[name] for name in figures] == [1, 1, 1, 1, 1.0]
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "queue_full"
    assert answer.json()["error"]["message"].startswith("Process pool queue full")
    assert int(answer.headers["retry-after"]) >= 1
    assert health["processPool"] == {"active": 1, "queued": 1, "maxConcurrent": 1, "utilization": 1.0}
    assert health["backends"] == {"total": 2, "tool": 1, "api": 1}


def test_a_full_pool_falls_back_to_an_api_and_says_that_it_is_degraded(gw: Running, tmp_path: Path) -> None:
    provider = gw.add_provider(answers(orjson.dumps(completion("from the API"))))
    api = {"adapter": "openai", "base_url": f"{provider.url}/v1", "model": "gpt-4", "api_key": "sk-test-key"}
    more = {
        "backends": {"api": api},
        "middleware": {
            "route": {"default_backend": "cli", "prefer_cheapest": False},
            "fallback": {"chain": ["cli", "api"], "retries": 0},
        },
    }
    fake = FakeClaude(tmp_path / "claude", "hang")
    url = start(gw, tmp_path, fake, more, max_concurrent=1, queue_size=0, timeout=60)
    with asking(url):
        answer = ask(url, backend=None)
    assert answer.json()["choices"][0]["message"]["content"] == "from the API"
    assert answer.json()["degraded"] is True


@pytest.mark.parametrize("drops", [True, False])
def test_tools_of_a_full_pool_are_dropped_only_where_the_file_says_so(gw: Running, tmp_path: Path, drops: bool) -> None:
    provider = gw.add_provider(answers(orjson.dumps(completion("from the API"))))
    api = {"adapter": "openai", "base_url": f"{provider.url}/v1", "model": "gpt-4", "api_key": "sk-test-key"}
    more = {"backends": {"api": api}, "middleware": {"fallback": {"retries": 0, "drop_tools": drops}}}
    fake = FakeClaude(tmp_path / "claude", "hang")
    url = start(gw, tmp_path, fake, more, max_concurrent=1, queue_size=0, timeout=60)
    with asking(url):
        answer = ask(url, backend=None, tools=["Read"], working_directory=str(tmp_path))
    if drops:
        assert answer.json()["choices"][0]["message"]["content"] == "from the API"
        assert answer.json()["degraded"] is True
        assert not {"tools", "working_directory"} & set(provider.asked[-1].json)
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "queue_full")
        assert provider.asked == []


def test_who_waits_gets_the_place_and_the_log_has_the_wait(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "slow:0", has_word=True)
    url = start(gw, tmp_path, fake, max_concurrent=1)
    threads = [threading.Thread(target=ask, args=(url,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: pool_of(url)["queued"] == 2)
    fake.word.touch()
    for thread in threads:
        thread.join(60)
    pool = pool_of(url)
    assert (pool["totalProcessed"], pool["totalQueued"], pool["totalFailed"]) == (3, 2, 0)
    assert (pool["active"], pool["queued"]) == (0, 0)
    gw.run(gw.gateway.close(0))
    with contextlib.closing(sqlite3.connect(tmp_path / "requests.db")) as database:
        waits = sorted(wait for (wait,) in database.execute("SELECT queue_wait_ms FROM requests"))
    assert waits[0] == 0.0 < waits[1] < waits[2]


def test_a_wait_that_is_too_long_ends_in_503(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "hang")
    url = start(gw, tmp_path, fake, max_concurrent=1, queue_timeout=0.1, timeout=60)
    with asking(url):
        answer = ask(url)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "queue_full")
    assert pool_of(url)["queued"] == 0


def test_the_log_has_what_a_turn_cost_and_how_long_it_waited(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    assert ask(start(gw, tmp_path, fake)).status_code == 200
    gw.run(gw.gateway.close(0))
    names = "backend, backend_type, cost_usd, cost_source, tokens_input, tokens_output, tokens_cached, queue_wait_ms"
    with contextlib.closing(sqlite3.connect(tmp_path / "requests.db")) as database:
        row = database.execute(f"SELECT {names} FROM requests WHERE operation = 'chat'").fetchone()
    assert row == ("cli", "claude-cli", 0.25, "reported", 10, 3, 2, 0.0)


def test_several_instances_have_a_config_folder_and_a_pool_each(gw: Running, tmp_path: Path) -> None:
    fake, other = FakeClaude(tmp_path / "claude"), FakeClaude(tmp_path / "other")
    kimi = other.table(config_dir="~/inst10", max_concurrent=5, queue_size=25)
    url = start(gw, tmp_path, fake, {"backends": {"kimi": kimi}}, config_dir=str(tmp_path / "one"))
    for name in ("cli", "kimi"):
        assert ask(url, backend=name).json()["gateway"]["backend"] == name
    folders = [program.starts[0]["env"]["CLAUDE_CONFIG_DIR"] for program in (fake, other)]
    assert folders[0] == str(tmp_path / "one")
    assert folders[1].endswith("/inst10")
    assert "~" not in folders[1]
    pool = pool_of(url)
    assert (pool["maxConcurrent"], pool["maxQueue"], pool["totalProcessed"]) == (15, 75, 2)
