"""gateway.toml: what there is when nothing is configured, and what each of its tables makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gw.backend import Timeouts
from gw.config import DEFAULT_PIPELINE, build, read
from tests.config_files import backend_of, config_of, problems_of


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


def test_a_backend_that_was_not_ready_is_made_anew_by_a_reload_and_one_that_was_is_kept(tmp_path: Path) -> None:
    vertex = {"adapter": "vertex-anthropic", "project": "p", "location": "us-east5", "credentials": "key.json"}
    tables = {"backends": {"v": vertex, "o": {"adapter": "ollama", "model": "m"}}}
    former = build(read(tables, environ={}, folder=tmp_path))
    assert former.backends["v"].problem == f"no credentials, there is no file {tmp_path / 'key.json'}"
    (tmp_path / "key.json").write_text("{}")
    later = build(read(tables, environ={}, folder=tmp_path), former=former)
    assert later.backends["v"].is_ready
    assert later.backends["o"] is former.backends["o"]
