"""What is wrong in gateway.toml is told all at once, each problem with its path and its cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from gw.config import read
from gw.errors import ConfigError
from tests.config_files import backend_of, config_of, problems_of


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    problems = problems_of(
        tmp_path,
        """
        pipeline = ["cors", "auth", "rate_limt", "route", "fallback", "log", "translate"]
        colour = "red"
        [server]
        prt = 1
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
        ('[models."gpt-9"]\ncontext = 1\ninput = nan', 'models."gpt-9".input: USD per million tokens, not nan'),
        (
            '[backends.x]\nadapter = "ollama"\nprice = { output = -1 }',
            "backends.x: price.output is 0 or more, found -1",
        ),
        ('[backends.x]\nadapter = "ollama"\napi_key = "a\\nb"', "backends.x: api_key holds characters that no header"),
        (
            '[backends.x]\nadapter = "ollama"\napi_key = ""',
            "backends.x.api_key: expected a secret string, found an empty",
        ),
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


def test_every_origin_with_credentials_is_refused_with_the_cure() -> None:
    with pytest.raises(ConfigError) as caught:
        read({}, environ={"GATEWAY_CORS_ORIGIN": "*", "GATEWAY_CORS_CREDENTIALS": "true"})
    (problem,) = caught.value.problems
    assert problem.startswith("middleware.cors")
    assert "credentials" in problem


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            '[backends.x]\nadapter = "ollama"\nqueue_size = 5',
            "backends.x: queue_size: no effect without max_concurrent",
        ),
        ("[sessions]\n[middleware.log]\nenabled = false", 'sessions: no effect, as "log" does not run: '),
        (
            "[sessions]\n[middleware.log]\ncontent = 'none'",
            'sessions: no effect, as middleware.log.content is "none": ',
        ),
        ("[middleware.auth.keys.ci]\ntoken_env = 'CI'\nexpires = 2020-01-31", "middleware.auth.keys.ci: expired after"),
    ],
)
def test_an_option_that_has_no_effect_is_a_warning(tmp_path: Path, text: str, told: str) -> None:
    (warning,) = config_of(tmp_path, text, environ={"CI": "a-long-enough-token"}).warnings
    assert warning.startswith(told)


@pytest.mark.parametrize(
    "text",
    [
        "[sessions]\nenabled = false\n[middleware.log]\nenabled = false",
        "[middleware.log]\nenabled = false",
        "[sessions]\nttl_hours = 1",
        "[middleware.auth.keys.ci]\ntoken_env = 'CI'\nexpires = 9000-01-31",
    ],
)
def test_an_option_that_has_its_effect_is_no_warning(tmp_path: Path, text: str) -> None:
    assert config_of(tmp_path, text, environ={"CI": "a-long-enough-token"}).warnings == ()


def test_a_variable_with_a_key_that_no_header_can_hold_leaves_its_backend_out(tmp_path: Path) -> None:
    text = '[backends.x]\nadapter = "openrouter"\nmodel = "m"\napi_key_env = "KEY"\n'
    backend = backend_of(tmp_path, text, environ={"KEY": "sk-one\nsk-two"})
    assert backend.problem == "KEY: no header can hold such a key: set it in one line"
    assert backend_of(tmp_path, text, environ={"KEY": "sk-one\n"}).problem is None


# --- local safety ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.example"])
def test_an_address_that_others_reach_is_refused_without_a_key(tmp_path: Path, host: str) -> None:
    (problem,) = problems_of(tmp_path, f'[server]\nhost = "{host}"')
    assert "API_AUTH_TOKEN" in problem
    assert 'host = "127.0.0.1"' in problem


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1"])
def test_this_machines_own_addresses_need_no_key(tmp_path: Path, host: str) -> None:
    assert config_of(tmp_path, f'[server]\nhost = "{host}"').server.is_loopback


TOKEN = {"API_AUTH_TOKEN": "a-long-enough-token-for-everybody"}
OPEN = 'pipeline = ["route", "fallback", "log", "translate"]\n'
CI = '[middleware.auth.keys.ci]\ntoken_env = "API_AUTH_TOKEN"\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (OPEN, "pipeline: nobody would ask for API_AUTH_TOKEN, "),
        ("[middleware.auth]\nenabled = false\n", "middleware.auth.enabled: nobody would ask for API_AUTH_TOKEN, "),
        (OPEN + CI, "pipeline: nobody would ask for API_AUTH_TOKEN, keys.ci, "),
        (OPEN + '[middleware.auth.keys.ci]\ntoken = "another-long-enough-token"\n', "pipeline: nobody would ask for"),
    ],
)
def test_a_key_that_nobody_would_ask_for_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (problem,) = problems_of(tmp_path, text, environ=TOKEN)
    assert problem.startswith(told)
    assert "or unset API_AUTH_TOKEN" in problem


def test_without_a_key_auth_may_be_left_out_and_one_of_your_own_may_stand_in_its_place(tmp_path: Path) -> None:
    config_of(tmp_path, OPEN)
    config_of(tmp_path, "[middleware.auth]\nenabled = false\n[middleware.auth.keys.ci]\ntoken_env = 'NOT_SET'\n")
    config_of(tmp_path, "[middleware.auth]\nuse = './mine.py:Head'\n", environ=TOKEN)
    config_of(tmp_path, 'pipeline = ["gate", "route", "translate"]\n[middleware.gate]\nuse = "auth"\n', environ=TOKEN)
    (problem,) = problems_of(tmp_path, "[middleware.auth]\nmod = 5\n", environ=TOKEN)
    assert problem.startswith("middleware.auth.mod: "), "one that is written wrongly is there all the same"


@pytest.mark.parametrize(
    "text",
    [
        "[middleware.rate_limit]\nenabled = false\n",
        'pipeline = ["auth", "route", "fallback", "log", "translate"]\n',
        'pipeline = ["rate_limit", "auth", "route", "fallback", "log", "translate"]\n',
    ],
)
def test_a_keys_rate_that_nothing_would_enforce_is_refused(tmp_path: Path, text: str) -> None:
    rate = '[middleware.auth.keys.ci]\ntoken_env = "CI"\nrate = { max = 2 }\n'
    environ = {"CI": "a-long-enough-token-for-everybody"}
    (problem,) = problems_of(tmp_path, text + rate, environ=environ)
    assert problem.startswith("middleware.auth.keys.ci.rate: nothing would enforce it")
    config_of(tmp_path, rate, environ=environ)
    config_of(tmp_path, text + rate.replace("rate =", "# rate ="), environ=environ)


def test_a_key_opens_the_address_and_auth_off_does_not(tmp_path: Path) -> None:
    text = '[server]\nhost = "0.0.0.0"\n'
    assert config_of(tmp_path, text, environ=TOKEN).server.host == "0.0.0.0"
    assert problems_of(tmp_path, text + '[middleware.auth]\nmode = "off"\n', environ=TOKEN)
    assert problems_of(tmp_path, text + "[middleware.auth]\nenabled = false\n", environ=TOKEN)
    named = text + '[middleware.auth.keys.ci]\ntoken_env = "GATEWAY_KEY_CI"\n'
    assert problems_of(tmp_path, named)
    assert config_of(tmp_path, named, environ={"GATEWAY_KEY_CI": TOKEN["API_AUTH_TOKEN"]}).server.host == "0.0.0.0"
