"""gateway.toml: every problem at once, with its path and its cure, and nothing opened; who wins over whom."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gw.adapters import BUILT_IN as ADAPTERS
from gw.assembly import SERVICES
from gw.backend import Backend, Timeouts
from gw.backend_options import BackendOptions, TimeoutTable
from gw.config import DEFAULT_PIPELINE, Config, build, read
from gw.errors import ConfigError
from gw.middleware import BUILT_IN as MIDDLEWARE
from gw.options import options_of
from gw.registry import ADAPTER, find, register_custom_backend
from gw.registry import MIDDLEWARE as MIDDLEWARE_KIND
from gw.settings import ServerOptions, SessionOptions

MINE = """
class Audit:
    def __init__(self, *, path: str = "audit.jsonl", level: int = 1) -> None:
        self.path = path

    async def __call__(self, request, call_next):
        return await call_next(request)


class Head(Audit):
    head_only = True


class Wire(Audit):
    side = "wire"


async def plain(request, call_next):
    return await call_next(request)


not_middleware = 5


class Nobody:
    pass
"""


def written(folder: Path, text: str, name: str = "gateway.toml") -> Path:
    (folder / "mine.py").write_text(MINE)
    path = folder / name
    path.write_text(text)
    return path


def config_of(folder: Path, text: str = "", **more: Any) -> Config:
    return read(written(folder, text), **{"environ": {}, **more})


def problems_of(folder: Path, text: str, **more: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config_of(folder, text, **more)
    return caught.value.problems


def backend_of(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> Backend:
    """The first backend of a file."""
    return next(iter(build(config_of(folder, text, environ=environ or {})).backends))


# --- what stands -------------------------------------------------------------------------------------------------


def test_nothing_configured_serves_echo_on_loopback() -> None:
    config = read({}, environ={})
    assert (config.server.host, config.server.port) == ("127.0.0.1", 3456)
    assert config.pipeline == DEFAULT_PIPELINE
    built = build(config)
    assert [name for name, _ in built.middleware] == list(DEFAULT_PIPELINE)
    assert built.backends.names() == ["echo"]
    echo = built.backends["echo"]
    assert echo.is_ready
    assert echo.explicit_only
    assert (echo.provider is None) != (echo.adapter is None)


def test_a_configured_echo_takes_the_place_of_the_built_in_one(tmp_path: Path) -> None:
    config = config_of(tmp_path, '[backends.echo]\nadapter = "echo"\ndescription = "mine"\n')
    assert [(table.name, table.options.description) for table in config.backends] == [("echo", "mine")]
    assert [table.name for table in config_of(tmp_path, "[backends.echo]\nenabled = false\n").backends] == []


def test_backends_may_be_a_list_with_names(tmp_path: Path) -> None:
    text = '[[backends]]\nname = "a"\nadapter = "echo"\n[[backends]]\nid = "b"\nadapter = "echo"\n'
    assert build(config_of(tmp_path, text)).backends.names() == ["a", "b", "echo"]


def test_a_table_in_document_bs_shape_is_a_configuration() -> None:
    config = read(
        {
            "port": 3000,
            "defaultBackend": "vertex-gemini",
            "backends": [{"id": "vertex-gemini", "type": "vertex-gemini", "apiKey": "k", "enabled": True}],
        },
        environ={},
    )
    assert config.server.port == 3000
    assert config.backends[0].options.adapter == "gemini"
    assert [key.reveal() for key in config.backends[0].keys] == ["k"]


def test_reading_changes_nothing_of_a_table() -> None:
    table: dict[str, Any] = {"server": {"port": 1}}
    read(table, environ={"PORT": "2"}, overrides={"server.host": "localhost"})
    assert table == {"server": {"port": 1}}


def test_a_backend_has_what_its_table_says(tmp_path: Path) -> None:
    backend = backend_of(
        tmp_path,
        """
        [backends.one]
        adapter = "openai"
        base_url = "https://api.example.com/v1"
        api_key_env = "ONE_KEY"
        models = { "gpt-4" = "gpt-4o" }
        group = "g"
        weight = 3
        price = { input = 1, output = 2.5 }
        cost_per_request = 0.001
        context_length = 128000
        timeouts = { connect = 1, idle = 20 }
        capabilities = ["stream"]
        description = "words"
        """,
        {"ONE_KEY": "sk-one"},
    )
    assert (backend.name, backend.kind, backend.group, backend.weight) == ("one", "openai", "g", 3)
    assert backend.models == {"gpt-4": "gpt-4o"}
    assert [key.reveal() for key in backend.keys] == ["sk-one"]
    assert backend.timeouts == Timeouts(connect=1, idle=20)
    assert backend.capabilities == {"stream"}
    assert backend.price is not None
    assert backend.price.output == 2.5
    assert (backend.cost_per_request, backend.context_length, backend.description) == (0.001, 128000, "words")
    assert backend.is_ready
    assert not backend.explicit_only
    assert backend.adapter is not None


def test_a_switched_off_middleware_or_backend_is_gone(tmp_path: Path) -> None:
    config = config_of(
        tmp_path, '[middleware.rate_limit]\nenabled = false\n[backends.o]\nadapter = "ollama"\nenabled = false\n'
    )
    assert "rate_limit" not in config.pipeline
    assert [table.name for table in config.backends] == ["echo"]


# --- anybody's own -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", ["./mine.py:Audit", "./mine.py:plain"])
def test_middleware_of_ones_own_runs_where_the_pipeline_names_it(tmp_path: Path, use: str) -> None:
    pipeline = [*DEFAULT_PIPELINE[:-1], "audit", "translate"]
    config = config_of(tmp_path, f'pipeline = {pipeline}\n[middleware.audit]\nuse = "{use}"\n')
    assert config.pipeline == tuple(pipeline)
    assert dict(build(config).middleware)["audit"] is not None


def test_middleware_of_ones_own_gets_its_options_checked(tmp_path: Path) -> None:
    pipeline = [*DEFAULT_PIPELINE[:-1], "audit", "translate"]
    text = f'pipeline = {pipeline}\n[middleware.audit]\nuse = "./mine.py:Audit"\n'
    audit = dict(build(config_of(tmp_path, text + 'path = "x"\n')).middleware)["audit"]
    assert audit.path == "x"
    assert problems_of(tmp_path, text + "pth = 5\n") == [
        'middleware.audit.pth: unknown option; did you mean "path"? (allowed: enabled, level, path, use)'
    ]


@pytest.mark.parametrize(
    ("use", "told"),
    [
        ("./mine.py:Nobody", "it needs async def __call__(self, request, call_next)"),
        ("./mine.py:not_middleware", "it needs async def __call__(self, request, call_next)"),
        ("./mine.py:Audt", 'did you mean "Audit"?'),
        ("./other.py:Audit", "there is no file"),
    ],
)
def test_what_is_no_middleware_is_told_where_it_is_named(tmp_path: Path, use: str, told: str) -> None:
    pipeline = [*DEFAULT_PIPELINE[:-1], "audit", "translate"]
    (problem,) = problems_of(tmp_path, f'pipeline = {pipeline}\n[middleware.audit]\nuse = "{use}"\n')
    assert problem.startswith("middleware.audit.use: ")
    assert told in problem


def test_an_option_that_has_no_effect_is_a_warning(tmp_path: Path) -> None:
    text = '[backends.x]\nadapter = "ollama"\nqueue_size = 5\n'
    assert config_of(tmp_path, text).warnings == ("backends.x: queue_size: no effect without max_concurrent",)


class Parrot:
    type = "parrot"

    async def chat_completion(self, request: Any, config: Any) -> Any:
        return "hello"

    def supports_tools(self) -> bool:
        return False

    def validate_config(self, config: Any) -> Any:
        errors = [] if "region" in config.options else ["region is missing"]
        return {"valid": not errors, "errors": errors}


def test_a_custom_backend_is_a_provider_with_the_capabilities_it_says(tmp_path: Path) -> None:
    register_custom_backend("parrot", Parrot)
    backend = backend_of(tmp_path, '[backends.p]\nadapter = "parrot"\nregion = "eu"\n')
    assert backend.provider is not None
    assert backend.capabilities == {"images"}  # it has no chat_completion_stream


def test_a_custom_backend_may_stand_in_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "parrot.py").write_text(
        "class Parrot:\n    async def chat_completion(self, request, config):\n        return 'hello'\n"
    )
    assert backend_of(tmp_path, '[backends.p]\nadapter = "./parrot.py:Parrot"\nanything = 1\n').provider is not None


def test_a_custom_backend_that_breaks_at_load_is_told(tmp_path: Path) -> None:
    (tmp_path / "parrot.py").write_text(
        "class Parrot:\n    async def chat_completion(self, request, config): ...\n"
        "    def supports_tools(self):\n        raise OSError('no such parrot')\n"
    )
    (problem,) = problems_of(tmp_path, '[backends.p]\nadapter = "./parrot.py:Parrot"\n')
    assert problem.endswith("cannot be asked what it can do: OSError: no such parrot")


def test_a_custom_backends_validation_is_a_problem_at_load(tmp_path: Path) -> None:
    register_custom_backend("parrot", Parrot)
    assert problems_of(tmp_path, '[backends.p]\nadapter = "parrot"\n') == ["backends.p: region is missing"]


# --- everything wrong at once ------------------------------------------------------------------------------------


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    problems = problems_of(
        tmp_path,
        """
        pipeline = ["cors", "auth", "rate_limt", "route", "fallback", "log", "translate"]
        colour = "red"
        [server]
        prt = 1
        port = 99999
        [middleware.rate_limit]
        windw = 5
        [middleware.fallback]
        chain = ["on", "two"]
        [backends.one]
        adapter = "opnai"
        [backends.two]
        adapter = "openrouter"
        weight = "heavy"
        modle = "x"
        """,
    )
    heads = sorted(problem.partition(":")[0] for problem in problems)
    assert heads == [
        "backends.one.adapter",
        "backends.two.modle",
        "backends.two.weight",
        "colour",
        "middleware.fallback.chain[0]",
        "middleware.rate_limit.windw",
        "pipeline",
        "server.prt",
    ]
    assert any('did you mean "rate_limit"?' in problem for problem in problems)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[server]\nport = 70000", "server: port is 0 to 65535, found 70000"),
        ("[server]\nport = true", "server.port: expected an integer, found true"),
        ("server = 5", "server: expected a table, [server]"),
        ("[sever]\nport = 1", 'sever: unknown table; did you mean "server"? (allowed: backends, middleware, models, '),
        ('[server]\ntls_cert = "c.pem"', "server: tls_cert and tls_key come together: tls_key is missing"),
        ("[sessions]\nttl_hours = 0", "sessions: ttl_hours is more than 0, found 0"),
        ("pipeline = 5", "pipeline: expected a list of names"),
        (
            'pipeline = ["cors", "cors", "auth", "rate_limit", "route", "fallback", "log", "translate"]',
            'pipeline: "cors" stands in it 2 times',
        ),
        ('pipeline = ["route"]', 'pipeline: "translate" is missing: nothing would reach a provider'),
        ('pipeline = ["translate"]', 'pipeline: "route" is missing: nothing would choose a backend'),
        ('pipeline = ["fallback", "route", "translate"]', "pipeline: fallback, route, translate stand in the wrong"),
        ("[middleware.audit]\npath = 1", 'middleware.audit: no middleware is called "audit"'),
        ("[middleware]\nlog = 5", "middleware.log: expected a table"),
        (
            "[middleware.route]\ndefault_backend = 'eco'",
            'middleware.route.default_backend: no backend is called "eco"; did you mean "echo"? (there are: echo)',
        ),
        (
            "[middleware.route]\nrules = [{ when = 'model: a', backend = 'x' }]",
            'middleware.route.rules[0].backend: no backend is called "x"',
        ),
        (
            "[middleware.route]\nrules = [{ when = 'model: a', backends = ['echo', { backend = 'x', model = 'm' }] }]",
            'middleware.route.rules[0].backends[1]: no backend is called "x"',
        ),
        ("[backends.x]", "backends.x.adapter: missing; expected a string"),
        ("[backends]\nx = 5", "backends.x: expected a table with an adapter"),
        ('[backends."a/b"]\nadapter = "echo"', 'backends."a/b": a backend\'s name is part of a URL'),
        ('[backends.x]\nadapter = "ollama"\nname = "y"', 'backends.x.name: the table is called "x" already'),
        ('[backends.x]\nadapter = "ollama"\ntimeouts = { total = 0 }', "backends.x: timeouts.total is more than 0"),
        ('[backends.x]\nadapter = "ollama"\nbase_url = "ftp://x"', "backends.x: base_url is a URL that begins with"),
        ('[backends.x]\nadapter = "ollama"\nheaders = { "a b" = "c" }', "backends.x: headers: 'a b' is not a header's"),
        (
            '[backends.x]\nadapter = "ollama"\nheaders = { "a" = "b\\r\\nc: d" }',
            "backends.x: headers: the value of a holds characters",
        ),
        (
            '[backends.x]\nadapter = "ollama"\ncapabilities = ["cli_tools"]',
            'backends.x.capabilities: ollama has no "cli_tools"; it can only be narrowed',
        ),
        ('[models."gpt-9"]\ninputs = 1', 'models."gpt-9".inputs: unknown'),
    ],
)
def test_a_problem_names_its_path_and_its_cure(tmp_path: Path, text: str, problem: str) -> None:
    assert any(told.startswith(problem) for told in problems_of(tmp_path, text)), problems_of(tmp_path, text)


def test_every_rule_that_cannot_be_read_is_told_and_nothing_that_follows_from_it(tmp_path: Path) -> None:
    rules = "[{ when = 'modl: a', backend = 'echo' }, { when = 'has_tools: maybe', backend = 'echo' }]"
    first, second = problems_of(tmp_path, f"[middleware.route]\nrules = {rules}")
    assert first.startswith("middleware.route: rules[0]: ")
    assert second.startswith("middleware.route: rules[1]: ")


def test_a_rule_that_cannot_be_read_is_told_with_its_table(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "[middleware.route]\nrules = [{ when = 'modl: a', backend = 'echo' }]")
    assert problem.startswith('middleware.route: rules[0]: unknown condition "modl"')


@pytest.mark.parametrize(
    ("text", "told"),
    [("a = [", "is not TOML: "), ("\x00", "is not TOML: "), ("[a]\n[a]\n", "is not TOML: ")],
)
def test_a_file_that_is_no_toml_says_where(tmp_path: Path, text: str, told: str) -> None:
    (problem,) = problems_of(tmp_path, text)
    assert told in problem
    assert "(at " in problem


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for path, told in ((tmp_path / "no.toml", "there is no file"), (tmp_path, "is a folder")):
        with pytest.raises(ConfigError, match=told):
            read(path, environ={})
    (tmp_path / "latin.toml").write_bytes(b'a = "\xe9"')
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read(tmp_path / "latin.toml", environ={})


# --- order -------------------------------------------------------------------------------------------------------


def pipeline_with(folder: Path, name: str, use: str, before: str) -> str:
    pipeline = list(DEFAULT_PIPELINE)
    place = pipeline.index(before) if before else len(pipeline)
    pipeline.insert(place, name)
    return f'pipeline = {pipeline}\n[middleware.{name}]\nuse = "./mine.py:{use}"\n'


def test_middleware_that_needs_the_body_may_not_stand_before_one_that_decides_on_the_head(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, pipeline_with(tmp_path, "audit", "Audit", "rate_limit"))
    assert problem.startswith('pipeline: "audit" stands before "rate_limit"')
    assert 'put "audit" behind "rate_limit"' in problem
    assert "head_only = True" in problem


def test_middleware_that_decides_on_the_head_may_stand_in_front(tmp_path: Path) -> None:
    assert config_of(tmp_path, pipeline_with(tmp_path, "head", "Head", "auth")).pipeline[1] == "head"


def test_the_wires_middleware_stands_behind_translate_and_the_calls_before_it(tmp_path: Path) -> None:
    assert config_of(tmp_path, pipeline_with(tmp_path, "wire", "Wire", "")).pipeline[-1] == "wire"
    (problem,) = problems_of(tmp_path, pipeline_with(tmp_path, "wire", "Wire", "translate"))
    assert 'put it behind "translate"' in problem
    (problem,) = problems_of(tmp_path, pipeline_with(tmp_path, "audit", "Audit", ""))
    assert 'put it before "translate"' in problem
    assert 'side = "wire"' in problem


def test_a_configured_middleware_that_does_not_run_is_a_warning(tmp_path: Path) -> None:
    config = config_of(tmp_path, '[middleware.audit]\nuse = "./mine.py:Audit"\n')
    assert config.warnings == ('middleware.audit does not run: "audit" is not in pipeline',)


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


def test_without_its_program_the_claude_cli_is_not_ready(tmp_path: Path) -> None:
    text = """
    [backends.claude-cli-default]
    adapter = "claude-cli"
    command = "no-such-claude"
    config_dir = "~/.claude-inst2"
    max_concurrent = 10
    maxQueue = 50
    queue_timeout = 30
    timeout = 120
    allowed_tools = ["Read"]
    roots = ["."]
    min_idle = 1
    """
    backend = backend_of(tmp_path, text)
    assert not backend.is_ready
    assert backend.problem is not None
    assert "no-such-claude" in backend.problem
    assert "cli_tools" in backend.capabilities
    assert problems_of(tmp_path, text + "\nalowed_tools = []")[0].startswith("backends.claude-cli-default.alowed_tools")


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


def test_every_origin_with_credentials_is_refused_with_the_cure() -> None:
    with pytest.raises(ConfigError) as caught:
        read({}, environ={"GATEWAY_CORS_ORIGIN": "*", "GATEWAY_CORS_CREDENTIALS": "true"})
    (problem,) = caught.value.problems
    assert problem.startswith("middleware.cors")
    assert "credentials" in problem


def test_timeouts_of_one_backend_are_told_apart(tmp_path: Path) -> None:
    text = '[backends.x]\nadapter = "ollama"\ntimeout = 9\ntimeouts = { total = 5 }'
    assert backend_of(tmp_path, text).timeouts == Timeouts(first_content=9, total=5)
    assert backend_of(tmp_path, text, {"GATEWAY_TIMEOUT": "1000"}).timeouts == Timeouts(first_content=1, total=1)


# --- local safety ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.example"])
def test_an_address_that_others_reach_is_refused_without_a_key(tmp_path: Path, host: str) -> None:
    (problem,) = problems_of(tmp_path, f'[server]\nhost = "{host}"')
    assert "API_AUTH_TOKEN" in problem
    assert 'host = "127.0.0.1"' in problem


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1"])
def test_this_machines_own_addresses_need_no_key(tmp_path: Path, host: str) -> None:
    assert config_of(tmp_path, f'[server]\nhost = "{host}"').server.is_loopback


def test_a_key_opens_the_address_and_auth_off_does_not(tmp_path: Path) -> None:
    text = '[server]\nhost = "0.0.0.0"\n'
    token = {"API_AUTH_TOKEN": "a-long-enough-token-for-everybody"}
    assert config_of(tmp_path, text, environ=token).server.host == "0.0.0.0"
    assert problems_of(tmp_path, text + '[middleware.auth]\nmode = "off"\n', environ=token)
    assert problems_of(tmp_path, text + "[middleware.auth]\nenabled = false\n", environ=token)
    named = text + '[middleware.auth.keys.ci]\ntoken_env = "GATEWAY_KEY_CI"\n'
    assert problems_of(tmp_path, named)
    assert config_of(tmp_path, named, environ={"GATEWAY_KEY_CI": token["API_AUTH_TOKEN"]}).server.host == "0.0.0.0"


# --- the committed file ------------------------------------------------------------------------------------------

COMMITTED = Path(__file__).parent.parent / "gateway.toml"


def test_the_committed_file_starts_with_nothing_configured() -> None:
    built = build(read(COMMITTED, environ={}, folder=Path("nowhere")))
    assert [name for name, _ in built.middleware] == list(DEFAULT_PIPELINE)
    assert [backend.name for backend in built.backends if backend.is_ready] == ["echo"]
    assert all(backend.problem for backend in built.backends if backend.name != "echo")


def test_what_the_committed_file_shows_commented_out_can_stand(tmp_path: Path) -> None:
    """Each such line is a valid option where it stands: names, types, and the names of backends."""
    (tmp_path / "audit.py").write_text(MINE)
    made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=gw"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(["openssl", "req", "-x509", *made, *files], check=True, capture_output=True)
    (tmp_path / "corporate-ca.pem").write_bytes((tmp_path / "cert.pem").read_bytes())
    path = tmp_path / "gateway.toml"
    path.write_text(uncommented(COMMITTED.read_text(encoding="utf-8")))
    config = read(path, environ={"GATEWAY_KEY_CI": "a-long-enough-token-for-everybody"})
    assert {table.options.adapter for table in config.backends} == set(ADAPTERS)


def uncommented(text: str) -> str:
    return "\n".join(line[2:] if line.startswith("# ") and is_option(line[2:]) else line for line in text.splitlines())


def is_option(line: str) -> bool:
    name, equals, _ = line.partition(" = ")
    return line.startswith("[") or (bool(equals) and name.replace("_", "").replace("-", "").isalnum())


def sections(text: str) -> dict[str, set[str]]:
    """The keys that the annotated file shows in each table, commented out or not."""
    found: dict[str, set[str]] = {}
    table = ""
    for line in uncommented(text).splitlines():
        if line.startswith("["):
            table = line.strip("[]").partition("]")[0]
            found.setdefault(table, set())
        elif is_option(line.removeprefix("#   ")):  # an alternative, which excludes the line above it
            found.setdefault(table, set()).add(line.removeprefix("#   ").partition(" = ")[0])
    return found


def test_every_option_of_every_component_stands_in_the_committed_file() -> None:
    shown = sections(COMMITTED.read_text(encoding="utf-8"))
    for kind, table in ((ServerOptions, "server"), (SessionOptions, "sessions"), (TimeoutTable, "")):
        missing = {option.name for option in options_of(kind)} - shown[table] if table else set()
        assert not missing, f"[{table}]"
    for name in MIDDLEWARE:
        wanted = {option.name for option in options_of(find(MIDDLEWARE_KIND, name), SERVICES)}
        tables = {table.removeprefix(f"middleware.{name}.").partition(".")[0] for table in shown}
        assert wanted <= shown.get(f"middleware.{name}", set()) | tables, f"[middleware.{name}]"
    everywhere = {option.name for option in options_of(BackendOptions)} - {"name"}
    by_adapter = backends_by_adapter(shown)
    in_any = set().union(*by_adapter.values())
    assert everywhere <= in_any
    for name in ADAPTERS:
        wanted = {option.name for option in options_of(find(ADAPTER, name), SERVICES)} - everywhere - {"name"}
        assert wanted <= by_adapter[name], f'adapter = "{name}"'


def backends_by_adapter(shown: dict[str, set[str]]) -> dict[str, set[str]]:
    tables = tomllib.loads(uncommented(COMMITTED.read_text(encoding="utf-8")))["backends"]
    return {table["adapter"]: shown[f"backends.{name}"] for name, table in tables.items()}
