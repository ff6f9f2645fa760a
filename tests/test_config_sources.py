"""Where keys and settings come from: flags, variables, .env, the file, the defaults; who wins, and no key is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gw.backend import Timeouts
from gw.config import build, read
from gw.errors import ConfigError
from tests.config_files import backend_of, config_of, problems_of, written

# --- keys --------------------------------------------------------------------------------------------------------


def test_a_missing_key_is_no_problem_of_the_file_but_of_the_backend(tmp_path: Path) -> None:
    assert backend_of(tmp_path, '[backends.x]\nadapter = "openrouter"').problem == "no key, set OPENROUTER_API_KEY"
    text = '[backends.x]\nadapter = "openai"\napi_key_env = "MINE"\napi_key_envs = ["OTHER"]'
    assert backend_of(tmp_path, text, {"OPENAI_API_KEY": "k"}).problem == "no key, set MINE or OTHER"


def test_keys_come_from_the_named_variables_else_from_the_usual_ones(tmp_path: Path) -> None:
    def keys(text: str, environ: dict[str, str]) -> list[str]:
        return [key.reveal() for key in backend_of(tmp_path, text, environ).keys]

    several = '[backends.x]\nadapter = "openai"\napi_key_envs = ["A", "B", "C"]'
    assert keys(several, {"A": "1", "C": "3", "B": ""}) == ["1", "3"]
    gemini = '[backends.x]\nadapter = "gemini"'
    assert keys(gemini, {"GEMINI_API_KEY": "gemini"}) == ["gemini"]
    assert keys(gemini, {"GEMINI_API_KEY": "gemini", "GOOGLE_API_KEY": "google"}) == ["google"]


@pytest.mark.parametrize(
    ("adapter", "variable"),
    [("openai", "OPENAI_API_KEY"), ("anthropic", "ANTHROPIC_API_KEY"), ("gemini", "GEMINI_API_KEY")],
)
def test_the_usual_key_is_not_sent_to_another_host(tmp_path: Path, adapter: str, variable: str) -> None:
    text = f'[backends.x]\nadapter = "{adapter}"\nbase_url = "https://elsewhere.example/v1"'
    config = config_of(tmp_path, text, environ={variable: "k"})
    assert config.backends[0].keys == ()
    assert config.backends[0].problem is None
    assert any(f"{variable} is not sent to https://elsewhere.example/v1" in told for told in config.warnings)
    named = config_of(tmp_path, text + f'\napi_key_env = "{variable}"', environ={variable: "k"})
    assert [key.reveal() for key in named.backends[0].keys] == ["k"]


def test_a_key_in_the_file_works_with_a_warning_and_a_look_at_its_mode(tmp_path: Path) -> None:
    path = written(tmp_path, '[backends.x]\nadapter = "openai"\napi_key = "sk-inline"')
    path.chmod(0o644)
    config = read(path, environ={})
    assert [key.reveal() for key in config.backends[0].keys] == ["sk-inline"]
    assert any("others can read it: chmod 600" in told for told in config.warnings)
    assert "sk-inline" not in repr(config.backends[0].options) + " ".join(config.warnings)
    path.chmod(0o600)
    assert not any("chmod" in told for told in read(path, environ={}).warnings)


def test_no_key_is_seen_in_what_a_configuration_prints(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OTHER_KEY=canary-of-dotenv\n")
    text = """
    [backends.x]
    adapter = "openai"
    api_key = "canary-of-file"
    headers = { Authorization = "canary-of-headers" }
    [middleware.auth.keys.ci]
    token = "canary-of-auth"
    """
    config = config_of(tmp_path, text, environ={"API_AUTH_TOKEN": "canary-of-process"})
    assert "canary" not in repr(config)
    assert "canary" not in repr(build(config).backends["x"])
    assert {secret.reveal() for secret in config.secrets} == {
        "canary-of-file",
        "canary-of-headers",
        "canary-of-auth",
        "canary-of-process",
    }


# --- who wins ----------------------------------------------------------------------------------------------------


def test_a_flag_wins_over_a_variable_over_dotenv_over_the_file_over_the_default(tmp_path: Path) -> None:
    def port(text: str, dotenv: str, environ: dict[str, str], flags: dict[str, Any]) -> int:
        (tmp_path / ".env").write_text(dotenv)
        return config_of(tmp_path, text, environ=environ, overrides=flags).server.port

    assert port("", "", {}, {}) == 3456
    assert port("[server]\nport = 1", "", {}, {}) == 1
    assert port("[server]\nport = 1", "PORT=2", {}, {}) == 2
    assert port("[server]\nport = 1", "PORT=2", {"PORT": "3"}, {}) == 3
    assert port("[server]\nport = 1", "GATEWAY_PORT=2", {"PORT": "3"}, {}) == 3
    assert port("[server]\nport = 1", "PORT=2", {"PORT": "3"}, {"server.port": 4}) == 4


def test_gateway_port_wins_over_port() -> None:
    assert read({}, environ={"PORT": "1", "GATEWAY_PORT": "2"}).server.port == 2


def test_keys_are_found_in_dotenv_and_those_of_the_process_win(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OPENROUTER_API_KEY=\"from file\" # a comment\nexport OTHER='x'\n")
    text = '[backends.x]\nadapter = "openrouter"'
    assert backend_of(tmp_path, text).keys[0].reveal() == "from file"
    assert backend_of(tmp_path, text, {"OPENROUTER_API_KEY": "real"}).keys[0].reveal() == "real"
    assert backend_of(tmp_path, text, {"OPENROUTER_API_KEY": ""}).problem == "no key, set OPENROUTER_API_KEY"


def test_a_line_of_dotenv_that_is_none_is_told_without_showing_it(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\nsk-secret-without-name\n")
    (problem,) = problems_of(tmp_path, "")
    assert problem.endswith(".env, line 2: expected NAME=value")


@pytest.mark.parametrize(
    ("environ", "pair"),
    [
        ({}, (60, 60.0)),
        ({"RATE_LIMIT_MAX": "10"}, (10, 60.0)),
        ({"GATEWAY_RATE_LIMIT_MAX": "10", "GATEWAY_RATE_LIMIT_WINDOW_MS": "5000"}, (10, 5.0)),
        ({"GATEWAY_RATE_LIMIT_MAX": "10"}, (10, 900.0)),
        ({"GATEWAY_RATE_LIMIT_WINDOW_MS": "5000"}, (100, 5.0)),
        ({"RATE_LIMIT_MAX": "10", "GATEWAY_RATE_LIMIT_WINDOW_MS": "5000"}, (100, 5.0)),
    ],
)
def test_the_two_pairs_of_a_rate_limit_never_mix(environ: dict[str, str], pair: tuple[int, float]) -> None:
    keywords = read({}, environ=environ).middleware["rate_limit"].keywords
    assert (keywords.get("max", 60), keywords.get("window", 60.0)) == pair


def test_the_environment_of_both_documents_sets_the_file_it_says(tmp_path: Path) -> None:
    config = read(
        {},
        environ={
            "HOST": "localhost",
            "LOG_LEVEL": "WARN",
            "DATABASE_PATH": str(tmp_path / "requests.db"),
            "GATEWAY_CORS_ORIGIN": "https://a.example, https://b.example",
            "GATEWAY_CORS_CREDENTIALS": "true",
            "GATEWAY_TIMEOUT": "1500",
        },
    )
    assert config.server.host == "localhost"
    assert config.server.log_level == "warn"
    assert str(config.middleware["log"].keywords["path"]) == str(tmp_path / "requests.db")
    assert config.middleware["cors"].keywords["origins"] == ["https://a.example", "https://b.example"]
    assert config.middleware["cors"].keywords["credentials"] is True
    assert config.backends[0].timeouts == Timeouts(first_content=1.5, total=1.5)
    assert read({}, environ={"HOST": "localhost", "GATEWAY_HOST": "127.0.0.2"}).server.host == "127.0.0.2"


@pytest.mark.parametrize(("variable", "name"), [("ENABLE_SQLITE_LOGGING", "log"), ("RATE_LIMIT_ENABLED", "rate_limit")])
def test_a_variable_switches_a_middleware_off(variable: str, name: str) -> None:
    assert name in read({}, environ={variable: "true"}).pipeline
    assert name not in read({}, environ={variable: "false"}).pipeline


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"PORT": "many"}, 'PORT: expected a port number, 0 to 65535, found "many"'),
        ({"RATE_LIMIT_ENABLED": "maybe"}, 'RATE_LIMIT_ENABLED: expected true or false, found "maybe"'),
        ({"GATEWAY_TIMEOUT": "0"}, 'GATEWAY_TIMEOUT: expected milliseconds, 1 or more, found "0"'),
        ({"RATE_LIMIT_MAX": "-1"}, 'RATE_LIMIT_MAX: expected a whole number, 1 or more, found "-1"'),
        (
            {"LOG_LEVEL": "inof"},
            'server.log_level: expected one of "debug", "info", "warn", "error", found "inof"; did you mean "info"? '
            "(set by LOG_LEVEL)",
        ),
    ],
)
def test_a_wrong_variable_is_told_by_its_name(environ: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read({}, environ=environ)
    assert caught.value.problems == [problem]


def test_timeouts_of_one_backend_are_told_apart(tmp_path: Path) -> None:
    text = '[backends.x]\nadapter = "ollama"\ntimeout = 9\ntimeouts = { total = 5 }'
    assert backend_of(tmp_path, text).timeouts == Timeouts(first_content=9, total=5)
    assert backend_of(tmp_path, text, {"GATEWAY_TIMEOUT": "1000"}).timeouts == Timeouts(first_content=1, total=1)
