"""Document A on the pool of the Claude CLI (A.. are its promises): what its original was seen to break, holds here."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
import pytest

from tests.claude_document import CLI, GLM, HI, KIMI, ROUTING, Document, document
from tests.claude_fakes import WEB, until

__all__ = ["document"]

# --- the pool's figures ---------------------------------------------------------------------------------------------


def test_a53_to_a57_the_status_pages_are_true_while_turns_run_and_after(document: Document) -> None:
    document.start("hang", backends=(CLI | {"maxConcurrent": 2, "queueSize": 3}, KIMI | {"maxConcurrent": 2}, GLM))
    with document.busy(3):
        pool, health = document.pool(), WEB.get(f"{document.url}/health").json()
    assert pool == {
        "active": 2,
        "queued": 1,
        "maxConcurrent": 4,
        "maxQueue": 28,
        "utilization": 0.5,
        "totalProcessed": 0,
        "totalQueued": 1,
        "totalFailed": 0,
    }
    assert (health["status"], health["backend"]) == ("ok", "intelligent-gateway")
    figures = {"active": 2, "queued": 1, "maxConcurrent": 4, "utilization": 0.5}
    assert health["routing"]["processPool"] == figures
    assert health["routing"]["backends"]["tool"] == 2


def test_a70_a_stuck_process_shows_on_the_queues_page(document: Document) -> None:
    document.start("hang")
    with document.busy(1):
        until(
            lambda: WEB.get(f"{document.url}/queue/status").json()["pools"]["claude-cli-default"]["longest_seconds"] > 0
        )
        pools = WEB.get(f"{document.url}/queue/status").json()["pools"]
    assert pools["claude-cli-default"]["active"] == 1


def test_a56_processed_counts_ends_and_failed_counts_every_failure(document: Document) -> None:
    document.start("answer", "die:broken", "answer")
    for status in (200, 502, 200):
        answer = document.ask(backend="claude-cli-default")
        assert answer.status_code in (status, 200)
    pool = document.pool()
    assert (pool["totalProcessed"], pool["totalFailed"], pool["active"]) == (3, 1, 0)


def test_a65_a_second_instance_has_its_own_folder_and_is_asked_by_name(document: Document) -> None:
    document.start(backends=(CLI, KIMI))
    for name in ("claude-cli-default", "claude-cli-kimi"):
        assert document.ask(f"/v1/{name}/chat/completions", tools=["Read"]).json()["gateway"]["backend"] == name
    folders = [entry["env"]["CLAUDE_CONFIG_DIR"].rpartition("/")[2] for entry in document.with_tools()]
    assert folders == [".claude-inst2", ".claude-inst10"]


def test_a10_and_a70_a_full_instance_leaves_its_turns_to_the_next_of_the_chain(document: Document) -> None:
    routing = ROUTING | {"fallbackChain": ["claude-cli-default", "claude-cli-kimi"]}
    backends = (CLI | {"maxConcurrent": 1, "queueSize": 0}, KIMI)
    document.start("hang", "answer", backends=backends, routing=routing)
    with document.busy(1):
        answer = document.ask(tools=["Read"]).json()
    assert (answer["gateway"]["backend"], answer["degraded"]) == ("claude-cli-kimi", True)


def test_a66_and_a67_tuning_is_read_in_the_documents_units(document: Document) -> None:
    document.start(backends=(CLI | {"maxConcurrent": 20, "queueSize": 100, "timeout": 180000},))
    provider: Any = document.gw.gateway.backends["claude-cli-default"].provider
    assert provider._clocks.turn == 180.0
    assert (document.pool()["maxConcurrent"], document.pool()["maxQueue"]) == (20, 100)


# --- what the original was seen to do with its processes ------------------------------------------------------------


def said(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def test_ran_a_prompt_is_never_a_flag_and_may_be_long(document: Document) -> None:
    document.start()
    prompt = "--dangerously-skip-permissions " + "x" * 200_000
    assert document.ask(messages=[{"role": "user", "content": prompt}]).status_code == 200
    assert "skip-permissions" not in str(document.fake.starts[0]["argv"])
    assert document.fake.prompts[0]["message"]["content"][0]["text"] == prompt


def test_ran_system_messages_are_not_dropped(document: Document) -> None:
    document.start()
    document.ask(messages=[{"role": "system", "content": "Be brief."}, *HI])
    assert document.fake.control("initialize")[0]["systemPrompt"] == ["Be brief."]


def test_ran_output_that_is_not_the_protocol_is_no_answer(document: Document) -> None:
    document.start("garbage")
    answer = document.ask(backend="claude-cli-default")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_protocol_error")


def test_ran_a_grandchild_that_holds_the_output_holds_no_request(document: Document) -> None:
    document.start("grandchild:die", backends=(CLI | {"timeout": 60_000},))
    assert said(document.ask(backend="claude-cli-default")) == "started one"
    grandchild = next(entry["grandchild"] for entry in document.fake.entries if "grandchild" in entry)
    until(lambda: grandchild not in document.fake.living())


def test_ran_a_limit_is_a_429_with_the_time_it_is_lifted(document: Document) -> None:
    document.start("error:- You've hit your limit · resets 1pm (Europe/Berlin)")
    answer = document.ask(backend="claude-cli-default")
    assert (answer.status_code, answer.json()["error"]["type"]) == (429, "rate_limit_error")
    assert 0 < int(answer.headers["retry-after"]) <= 86_400


def test_ran_a_client_that_leaves_frees_its_place_and_its_process(document: Document) -> None:
    document.start("hang", backends=(CLI | {"maxConcurrent": 1, "queueSize": 0},))
    with pytest.raises(httpx.ReadTimeout):
        WEB.post(f"{document.url}/v1/chat/completions", json={"messages": HI}, timeout=0.4)
    until(lambda: document.pool()["active"] == 0)
    until(lambda: len(document.fake.living()) <= 1)  # the spare alone


def test_ran_a_wait_in_the_queue_is_in_the_log(document: Document) -> None:
    document.start("held:fine", backends=(CLI | {"maxConcurrent": 1},), has_word=True)
    threads = [threading.Thread(target=document.ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: document.pool()["queued"] == 1)
    queued_at = time.monotonic()
    until(lambda: time.monotonic() > queued_at + 0.05)
    document.fake.word.touch()
    for thread in threads:
        thread.join(60)
    waits = sorted(wait for (wait,) in document.rows("queue_wait_ms"))
    assert waits[0] == 0.0
    assert waits[1] > 50
