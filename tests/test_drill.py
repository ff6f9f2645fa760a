"""`gw drill` tells the truth: a gateway that survives is told so, and one that does not is called broken."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from gw.adapters.faulty import ACTS, FAULTS, Faulty
from gw.adapters.faulty.acts import RETRY_AFTER
from gw.adapters.faulty.dialects import ANSWER
from gw.cli import main
from gw.cli.drill import chosen, drill
from gw.cli.drill.plans import plan
from gw.cli.drill.report import Progress
from gw.config import Config, read
from gw.errors import ConfigError
from tests.faults_world import ALONE, DIALECTS
from tests.running import running, settings

ONE = '[backends.first]\nadapter = "openai"\nmodels = { "gpt-5-mini" = "gpt-5-mini" }\n'
TWO = ONE + '[backends.second]\nadapter = "anthropic"\nmodels = { "gpt-5-mini" = "claude-opus-4-8" }\n'
BENCH = [fault.name for fault in FAULTS[:16]]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every drill runs in a folder of its own, with no variables but these."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name not in ("PATH", "HOME", "TMPDIR"):
            monkeypatch.delenv(name)


def config_of(text: str, **environ: str) -> Config:
    Path("gateway.toml").write_text(text)
    return read(Path("gateway.toml"), environ=environ)


def drilled(
    capsys: pytest.CaptureFixture[str], text: str, *only: str, status: int = 0, **options: Any
) -> list[dict[str, Any]]:
    """The cases of one drill, played in one dialect unless `options` say otherwise."""
    environ: Mapping[str, str] = options.pop("environ", {})
    found = drill(config_of(text, **environ), only=only, as_json=True, **{"dialects": ["openai"], **options})
    page = orjson.loads(capsys.readouterr().out)
    assert page["ok"] is (found == 0)
    assert found == status, [case["problem"] for case in page["cases"] if case["problem"]]
    cases: list[dict[str, Any]] = page["cases"]
    return cases


def problems(cases: Sequence[dict[str, Any]]) -> set[str]:
    return {case["problem"] for case in cases if case["problem"]}


def beside(cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [case for case in cases if case["others"]]


# --- what is well ------------------------------------------------------------------------------------------------


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


# --- what is broken ----------------------------------------------------------------------------------------------


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


def of_mine(code: str) -> str:
    """A configuration of two backends with a middleware of the operator's own, around fallback."""
    Path("mine.py").write_text(code)
    pipeline = ["cors", "auth", "rate_limit", "route", "mine", "fallback", "log", "translate"]
    return f'pipeline = {orjson.dumps(pipeline).decode()}\n[middleware.mine]\nuse = "./mine.py:Mine"\n' + TWO


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


# --- what is the user's ------------------------------------------------------------------------------------------


def test_no_key_no_address_and_no_database_of_the_users_is_touched() -> None:
    text = TWO + '[middleware.log]\npath = "mine/requests.db"\n'
    planned = plan(config_of(text, OPENAI_API_KEY="sk-canary", ANTHROPIC_API_KEY="sk-canary"))
    config = planned.gateway("openai", Path("scratch"))
    assert {table.factory for table in config.backends} == {Faulty}
    assert not any("sk-canary" in key.reveal() for table in config.backends for key in table.keys)
    assert str(config.middleware["log"].keywords["path"]).startswith("scratch")
    assert config.server.host == "127.0.0.1"
    assert config.server.port == 0


def test_a_drill_leaves_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    drilled(capsys, TWO, "500-once")
    assert [path.name for path in Path().iterdir()] == ["gateway.toml"]


def test_what_is_changed_of_the_configuration_is_told() -> None:
    told = "\n".join(
        plan(config_of(TWO + "[middleware.fallback]\nretry_budget = { share = 0.2, at_least = 1 }")).changes
    )
    assert "retry_budget.at_least is 2, not 1" in told
    assert "rate_limit lets everything through" in told
    assert "retry_budget" not in "\n".join(plan(config_of(TWO)).changes)


# --- the command -------------------------------------------------------------------------------------------------


def test_the_command_prints_a_table_and_its_status_is_for_ci(capsys: pytest.CaptureFixture[str]) -> None:
    Path("gateway.toml").write_text(TWO)
    assert main(["drill", "--only", "500-once", "--only", "html", "--dialect", "anthropic"]) == 0
    out, err = capsys.readouterr()
    assert "first fails, second stands by" in out
    assert "1 of 1 faults of the public bench" in out
    assert "8 of 8 played" in err
    Path("gateway.toml").write_text('pipeline = ["cors", "auth", "route", "log", "translate"]\n' + TWO)
    assert main(["drill", "--only", "html"]) == 1
    assert "html (a web page with 200), streamed and whole: the caller was told 502" in capsys.readouterr().out


def test_a_configuration_that_cannot_be_drilled_is_told_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drill"]) == 2
    assert "there is none but echo" in capsys.readouterr().err
    Path("gateway.toml").write_text(TWO)
    assert main(["drill", "--only", "cutt"]) == 2
    assert 'there is no fault "cutt"; did you mean "cut"?' in capsys.readouterr().err
    assert main(["drill", "--model", "unknown"]) == 2
    assert "The model `unknown` does not exist" in capsys.readouterr().err
    Path("gateway.toml").write_text("[servr]\n")
    assert main(["drill"]) == 2
    assert "unknown table" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_and_a_file_a_line_at_each_quarter() -> None:
    terminal, file = Terminal(), io.StringIO()
    for output in (terminal, file):
        progress = Progress(8, output)
        for _ in range(8):
            progress.step("cut")
        progress.end()
    assert "] 4/8 cut" in terminal.getvalue()
    assert f"[{'#' * 40}] 8/8 cut" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")
    assert file.getvalue() == "2 of 8 played\n4 of 8 played\n6 of 8 played\n8 of 8 played\n"


# --- the faults --------------------------------------------------------------------------------------------------


def test_every_fault_is_made_of_acts_that_there_are() -> None:
    used = {act for fault in FAULTS for act in (*fault.acts, fault.others)}
    assert used <= set(ACTS)
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 16


def test_what_the_drill_plays_is_tested_one_by_one_too() -> None:
    tested = {act for plan in ALONE for act in plan.split("+")} | {"fine", "drip", "bad_request", "content_filter"}
    assert {act for fault in FAULTS for act in fault.acts} <= tested
    assert {dialect for fault in FAULTS for dialect in fault.dialects} == set(DIALECTS)


def test_an_act_that_there_is_not_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match='did you mean "cut_40"'):
        Faulty(plays=["cut_4"])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_faulty_backend_of_ones_own_plays_what_it_is_told(tmp_path: Path, dialect: str) -> None:
    bad = {"adapter": "faulty", "model": "m", "speaks": dialect, "plays": ["error_500", "fine"]}
    with running() as gateway:
        url = gateway.start(settings(tmp_path, backends={"bad": bad}))
        body = {"messages": [{"role": "user", "content": "Hi"}]}
        response = httpx.post(f"{url}/v1/chat/completions", json=body, trust_env=False)
    assert response.headers["x-gateway-attempts"] == "2"
    assert response.json()["choices"][0]["message"]["content"] == ANSWER


def test_names_choose_faults_in_their_own_order() -> None:
    assert [fault.name for fault in chosen(["cut", "reset"])] == ["reset", "cut"]
    assert chosen([]) == list(FAULTS)


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


def test_a_transport_of_ones_own_choice_is_drilled(capsys: pytest.CaptureFixture[str]) -> None:
    text = TWO.replace('adapter = "openai"', 'adapter = "openai"\ntransport = "httpx"')
    cases = drilled(capsys, text, "500-once", "cut-in-character", "gzip", "second-response")
    assert {case["read"] for case in beside(cases) if case["answer"] == "whole"} == {"whole answer"}
    assert "SSL_CERT_FILE" not in os.environ


def test_the_readme_shows_what_is_printed_now() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    transcript = readme.partition("$ gw drill")[2].partition("```")[0]
    command, *lines = transcript.splitlines()
    assert all(chosen([name]) for name in command.split()[1::2])
    told = plan(config_of(TWO + '[middleware.fallback]\nafter_content = "continue"\n')).changes
    assert [line.strip() for line in lines[1 : 1 + len(told)]] == list(told)
    assert f"{len(FAULTS)} faults" in readme


@pytest.mark.parametrize("auth", ["", 'mode = "always"\ntoken_env = "NOT_SET"\n', 'mode = "off"\n'])
def test_no_key_of_the_gateway_has_to_be_there(capsys: pytest.CaptureFixture[str], auth: str) -> None:
    Path("gateway.toml").write_text(f"{TWO}[middleware.auth]\n{auth}")
    assert main(["drill", "--only", "gzip", "--dialect", "openai"]) == 0
    assert "0 broken" in capsys.readouterr().out


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
