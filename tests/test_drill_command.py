"""`gw drill` as a command: what it prints, what it leaves alone, and the faults that it can be told to play."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import pytest

from gw.adapters.faulty import ACTS, FAULTS, Faulty
from gw.adapters.faulty.dialects import ANSWER
from gw.cli import main
from gw.cli.drill import chosen
from gw.cli.drill.plans import plan
from gw.cli.drill.report import Progress
from gw.errors import ConfigError
from tests.config_files import empty_folder
from tests.drill_world import TWO, config_of, drilled
from tests.faults_world import ALONE, DIALECTS
from tests.running import running, settings

__all__ = ["empty_folder"]

# --- what is the user's ---------------------------------------------------------------------------------------------


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


# --- the command ----------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("auth", ["", 'mode = "always"\ntoken_env = "NOT_SET"\n', 'mode = "off"\n'])
def test_no_key_of_the_gateway_has_to_be_there(capsys: pytest.CaptureFixture[str], auth: str) -> None:
    Path("gateway.toml").write_text(f"{TWO}[middleware.auth]\n{auth}")
    assert main(["drill", "--only", "gzip", "--dialect", "openai"]) == 0
    assert "0 broken" in capsys.readouterr().out


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


def test_the_readme_shows_what_is_printed_now() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    transcript = readme.partition("$ gw drill")[2].partition("```")[0]
    command, *lines = transcript.splitlines()
    assert all(chosen([name]) for name in command.split()[1::2])
    told = plan(config_of(TWO + '[middleware.fallback]\nafter_content = "continue"\n')).changes
    assert [line.strip() for line in lines[1 : 1 + len(told)]] == list(told)
    assert f"{len(FAULTS)} faults" in readme


# --- the faults -----------------------------------------------------------------------------------------------------


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
