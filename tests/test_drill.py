"""`gw drill` tells the truth: a gateway that survives is told so, and one that does not is called broken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gw.adapters.faulty import FAULTS
from gw.adapters.faulty.acts import RETRY_AFTER
from gw.cli.drill import drill
from tests.config_files import empty_folder
from tests.drill_world import ONE, TWO, beside, config_of, drilled, of_mine, problems

__all__ = ["empty_folder"]
BENCH = [fault.name for fault in FAULTS[:16]]


# --- what is well ---------------------------------------------------------------------------------------------------


def test_two_backends_survive_every_fault_of_the_public_bench(capsys: pytest.CaptureFixture[str]) -> None:
    cases = drilled(capsys, TWO, *BENCH)
    assert {case["fault"] for case in cases} == set(BENCH)
    rescued = {case["fault"]: case for case in beside(cases) if case["answer"] == "whole"}
    assert rescued["429-once"]["rescued_by"] == "fallback to second"
    assert rescued["500-once"]["rescued_by"] == "retry"
    assert rescued["slow"]["rescued_by"] == "patience"
    assert rescued["content-filter"]["read"] == "one clean error"
    must_be_whole = set(rescued) - {"content-filter"}
    assert {rescued[name]["read"] for name in must_be_whole} == {"whole answer"}


def test_one_backend_gives_a_whole_answer_or_one_clean_error(capsys: pytest.CaptureFixture[str]) -> None:
    cases = drilled(capsys, ONE, "500-once", "503-for-ever", "reset", "html", "gzip", dialects=None)
    assert not beside(cases)
    read = {case["fault"]: case["read"] for case in cases}
    whole, clean = "whole answer", "one clean error"
    assert read == {"500-once": whole, "503-for-ever": clean, "reset": clean, "html": clean, "gzip": whole}
    assert {case["dialect"] for case in cases} == {"openai", "anthropic"}


def test_a_stream_that_goes_on_elsewhere_is_told_as_continued(capsys: pytest.CaptureFixture[str]) -> None:
    goes_on = '[middleware.fallback]\nafter_content = "continue"\ncontinues = ["second"]\n'
    cases = drilled(capsys, TWO + goes_on, "cut", "error-after", "cut-in-tool-call")
    streamed = [case for case in beside(cases) if case["answer"] == "streamed"]
    assert {case["rescued_by"] for case in streamed} == {"continued by second"}
    assert {case["read"] for case in streamed} == {"whole answer"}


def test_several_keys_are_drilled_as_several(capsys: pytest.CaptureFixture[str]) -> None:
    keys = ONE + 'api_key_envs = ["KEY_A", "KEY_B", "KEY_C"]\n'
    cases = drilled(capsys, keys, "dead-key", environ={"KEY_A": "sk-a", "KEY_B": "sk-b", "KEY_C": "sk-c"})
    assert {case["asked"] for case in cases} == {3}


def test_a_key_that_the_gateway_wants_is_no_hindrance(capsys: pytest.CaptureFixture[str]) -> None:
    text = TWO + '[middleware.auth]\nmode = "always"\ntoken_env = "MY_TOKEN"\n[middleware.rate_limit]\nmax = 1\n'
    cases = drilled(capsys, text, "flapping", "500-once", environ={"MY_TOKEN": "a-long-enough-token-for-everybody"})
    assert {case["read"] for case in beside(cases)} == {"whole answer"}


def test_a_smaller_context_elsewhere_is_no_rescue(capsys: pytest.CaptureFixture[str]) -> None:
    text = TWO.replace("[backends.second]", "context_length = 200000\n[backends.second]") + "context_length = 100000\n"
    cases = drilled(capsys, text, "context-too-long")
    assert {(case["read"], case["asked"]) for case in cases} == {("one clean error", 1)}


def test_a_transport_of_ones_own_choice_is_drilled(capsys: pytest.CaptureFixture[str]) -> None:
    text = TWO.replace('adapter = "openai"', 'adapter = "openai"\ntransport = "httpx"')
    cases = drilled(capsys, text, "500-once", "cut-in-character", "gzip", "second-response")
    assert {case["read"] for case in beside(cases) if case["answer"] == "whole"} == {"whole answer"}
    assert "SSL_CERT_FILE" not in os.environ


OWN = """
class Parrot:
    async def chat_completion(self, request, config):
        raise RuntimeError("never asked in a drill")
"""


def test_a_backend_that_answers_by_itself_is_replaced_and_still_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    Path("parrot.py").write_text(OWN)
    text = '[backends.parrot]\nadapter = "./parrot.py:Parrot"\n[backends.cli]\nadapter = "claude-cli"\n'
    cases = drilled(capsys, text, "html")
    assert {(case["first"], case["rescued_by"]) for case in beside(cases)} == {("parrot", "fallback to cli")}


FAILS_ONCE = """
first = [True]

class Mine:
    async def __call__(self, request, call_next):
        if request.operation == "chat" and first:
            first.clear()
            raise RuntimeError("busy")
        return await call_next(request)
"""


def test_what_is_well_by_itself_was_a_busy_machine_and_that_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert drill(config_of(of_mine(FAILS_ONCE)), only=["gzip"], dialects=["openai"]) == 0
    assert "of the cases were well only by themselves and with more time" in capsys.readouterr().out


# --- what is broken -------------------------------------------------------------------------------------------------


def test_without_fallback_nothing_is_rescued_and_the_drill_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    text = 'pipeline = ["cors", "auth", "route", "log", "translate"]\n' + TWO
    cases = drilled(capsys, text, "500-once", "silence", "content-filter", status=1)
    assert problems(cases) == {
        "the caller was told 502 upstream_error, though second stood by",
        "the caller was told 502 upstream_error, though a second try would have done",
        "the caller was told 504 upstream_timeout, though second stood by",
    }
    assert {case["read"] for case in cases if case["problem"]} == {"BROKEN"}


def test_an_operator_who_wants_no_second_try_is_not_told_off_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    cases = drilled(capsys, ONE + "[middleware.fallback]\nretries = 0\n", "500-once")
    assert {case["read"] for case in cases} == {"one clean error"}
    short = f"[middleware.fallback]\nretry_after_max = {RETRY_AFTER / 2}\n"
    cases = drilled(capsys, ONE + short, "429-once")
    assert {case["read"] for case in cases} == {"one clean error"}


def test_an_operator_who_goes_round_filters_is_not_told_off_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    options = '[middleware.fallback]\ncontent_filter = "fallback"\n'
    cases = drilled(capsys, TWO + options, "content-filter", "bad-request", model="gpt-5-mini")
    told = {(case["fault"], bool(case["others"])): case["read"] for case in cases}
    assert told.pop(("content-filter", True)) == "whole answer"
    assert set(told.values()) == {"one clean error"}


SWALLOWS = """
from gw.document import Chunk
from gw.errors import GatewayError
from gw.stream import Stream

class Quiet(Stream):
    def __init__(self, inner):
        self.inner, self.over = inner, False

    async def read(self):
        try:
            return () if self.over else await self.inner.read()
        except GatewayError:
            self.over = True
            head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
            return [Chunk(value=head | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})]

    async def aclose(self):
        await self.inner.aclose()

class Mine:
    async def __call__(self, request, call_next):
        response = await call_next(request)
        if request.is_stream:
            response.content = Quiet(response.content)
        return response
"""


def test_a_middleware_that_tells_a_cut_answer_as_whole_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    cases = drilled(capsys, of_mine(SWALLOWS), "cut", "stall", "gzip", status=1)
    broken = [case for case in cases if case["problem"]]
    assert {(case["fault"], case["answer"]) for case in broken} == {("cut", "streamed"), ("stall", "streamed")}


ASKS_TEN_TIMES = """
from gw.errors import GatewayError

class Mine:
    async def __call__(self, request, call_next):
        for _ in range(9):
            try:
                return await call_next(request)
            except GatewayError:
                pass
        return await call_next(request)
"""


def test_a_middleware_that_hammers_the_provider_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    cases = drilled(capsys, of_mine(ASKS_TEN_TIMES), "html", status=1)
    (problem,) = problems([case for case in cases if not case["others"]])
    assert "first was asked" in problem


FAILS = """
class Mine:
    async def __call__(self, request, call_next):
        raise RuntimeError("no")
"""


def test_a_middleware_that_raises_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    cases = drilled(capsys, of_mine(FAILS), "gzip", status=1)
    assert all("500" in problem for problem in problems(cases))


FORGETS = """
class Mine:
    async def __call__(self, request, call_next):
        response = await call_next(request)
        request.exchange.attempts.clear()
        return response
"""


def test_books_that_are_wrong_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    cases = drilled(capsys, of_mine(FORGETS), "gzip", status=1)
    assert problems(cases) == {"the log has 0 attempts, the providers saw 1"}
