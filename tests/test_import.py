"""The JSON of both founding documents becomes gateway.toml, and what could not stand is repaired and told."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from gw.cli.import_ import import_file
from gw.config import read
from gw.errors import ConfigError
from gw.import_text import import_json, to_toml

BACKENDS_JSON = """
{
  "backends": [
    {
      "name": "claude-cli-default",
      "type": "claude-cli",
      "configDir": "~/.claude-inst2",
      "maxConcurrent": 10,
      "queueSize": 50,
      "timeout": 120000,
      "supportsTools": true
    },
    {
      "name": "openrouter-glm",
      "type": "api",
      "provider": "openrouter",
      "baseUrl": "https://openrouter.ai/api/v1",
      "model": "z-ai/glm-4.7",
      "authTokenEnv": "OPENROUTER_API_KEY",
      "costPerRequest": 0.001,
      "supportsTools": false
    }
  ],
  "routing": {
    "defaultBackend": "claude-cli-default",
    "preferCheapest": true,
    "fallbackChain": [
      "claude-cli-default",
      "openrouter-glm",
      "gemini-1.5-pro"
    ]
  }
}
"""

CONFIG_JSON = """
{
  "port": 3000,
  "host": "localhost",
  "defaultBackend": "vertex-gemini",
  "backends": [
    {
      "id": "vertex-gemini",
      "type": "vertex-gemini",
      "apiKey": "your-gemini-api-key",
      "baseUrl": "https://generativelanguage.googleapis.com/v1beta",
      "enabled": true,
      "modelMapping": {
        "gpt-4": "gemini-1.5-pro",
        "gpt-3.5-turbo": "gemini-1.0-pro"
      },
      "additionalHeaders": {}
    },
    {
      "id": "vertex-anthropic",
      "type": "vertex-anthropic",
      "apiKey": "your-anthropic-api-key",
      "baseUrl": "https://us-central1-aiplatform.googleapis.com/v1",
      "projectId": "your-project-id",
      "enabled": true,
      "modelMapping": {
        "gpt-4": "claude-3-opus",
        "gpt-3.5-turbo": "claude-3-haiku"
      },
      "additionalHeaders": {
        "anthropic-version": "2023-06-01"
      }
    }
  ],
  "cors": {
    "origin": "*",
    "credentials": true
  },
  "rateLimit": {
    "windowMs": 900000,
    "max": 100
  },
  "timeout": 30000
}
"""

RULES_JSON = """
{
  "defaultBackend": "vertex-gemini",
  "backends": [
    {"id": "vertex-gemini", "type": "vertex-gemini", "apiKey": "k", "enabled": true},
    {"id": "ollama-local", "type": "ollama", "baseUrl": "http://localhost:11434", "enabled": false,
     "modelMapping": {"gpt-4": "llama3:latest"}}
  ],
  "routingRules": [
    {"condition": "model: claude-*", "backendId": "vertex-anthropic"},
    {"condition": "has_tools: true", "backendId": "vertex-gemini"}
  ]
}
"""

POOL_JSON = """{
  "maxConcurrent": 20,  // Allow more parallel processes
  "queueSize": 100,     // Larger queue
  "timeout": 180000     // 3 minutes timeout
}"""


def table_of(text: str) -> dict[str, Any]:
    """What the written TOML says."""
    return tomllib.loads(to_toml(import_json(text).table))


def test_document_a_becomes_toml() -> None:
    assert table_of(BACKENDS_JSON) == {
        "middleware": {
            "route": {"default_backend": "claude-cli-default", "prefer_cheapest": True, "unknown_model": "route"},
            "fallback": {"chain": ["claude-cli-default", "openrouter-glm"]},
        },
        "backends": {
            "claude-cli-default": {
                "adapter": "claude-cli",
                "config_dir": "~/.claude-inst2",
                "max_concurrent": 10,
                "queue_size": 50,
                "timeout": 120,
            },
            "openrouter-glm": {
                "adapter": "openrouter",
                "base_url": "https://openrouter.ai/api/v1",
                "model": "z-ai/glm-4.7",
                "api_key_env": "OPENROUTER_API_KEY",
                "cost_per_request": 0.001,
            },
        },
    }


def test_document_b_becomes_toml() -> None:
    assert table_of(CONFIG_JSON) == {
        "server": {"port": 3000, "host": "localhost"},
        "middleware": {
            "route": {"default_backend": "vertex-gemini", "balance": "all"},
            "cors": {"origins": ["*"], "credentials": False},
            "rate_limit": {"max": 100, "window": 900},
        },
        "backends": {
            "vertex-gemini": {
                "adapter": "gemini",
                "api_key": "your-gemini-api-key",
                "base_url": "https://generativelanguage.googleapis.com/v1beta",
                "models": {"gpt-4": "gemini-1.5-pro", "gpt-3.5-turbo": "gemini-1.0-pro"},
                "timeout": 30,
            },
            "vertex-anthropic": {
                "adapter": "vertex-anthropic",
                "api_key": "your-anthropic-api-key",
                "project": "your-project-id",
                "location": "us-central1",
                "models": {"gpt-4": "claude-3-opus", "gpt-3.5-turbo": "claude-3-haiku"},
                "headers": {"anthropic-version": "2023-06-01"},
                "timeout": 30,
            },
        },
    }


def test_a_chain_name_that_no_backend_has_stays_as_a_comment_and_is_told() -> None:
    imported = import_json(BACKENDS_JSON)
    assert '    # "gemini-1.5-pro",  # no backend has this name\n' in to_toml(imported.table)
    assert any(note.startswith('fallbackChain: no backend is called "gemini-1.5-pro"') for note in imported.notes)


def test_unknown_names_in_rules_and_default_stay_as_comments() -> None:
    text = to_toml(import_json(RULES_JSON).table)
    assert '    # { when = "model: claude-*", backend = "vertex-anthropic" },  # no backend has this name\n' in text
    assert tomllib.loads(text)["middleware"]["route"]["rules"] == [
        {"when": "has_tools: true", "backend": "vertex-gemini"}
    ]
    only_default = to_toml(import_json('{"defaultBackend": "gone"}').table)
    assert '# default_backend = "gone"  # no backend has this name\n' in only_default
    assert "default_backend" not in tomllib.loads(only_default)["middleware"]["route"]


def test_every_origin_with_credentials_is_repaired_and_told() -> None:
    imported = import_json(CONFIG_JSON)
    assert imported.table["middleware"]["cors"] == {"origins": ["*"], "credentials": False}
    assert any(note.startswith("cors: browsers refuse") for note in imported.notes)


def test_a_key_in_the_file_is_kept_and_told() -> None:
    notes = import_json(CONFIG_JSON).notes
    assert sum(".apiKey: the key stands in the file" in note for note in notes) == 2
    assert not any("your-gemini-api-key" in note for note in notes)


@pytest.mark.parametrize(
    ("host", "adapter"),
    [
        ("https://generativelanguage.googleapis.com/v1beta", "gemini"),
        ("https://us-central1-aiplatform.googleapis.com/v1", "vertex-gemini"),
        ("https://aiplatform.googleapis.com/v1", "vertex-gemini"),
        ("", "gemini"),
    ],
)
def test_vertex_gemini_is_told_apart_by_its_host(host: str, adapter: str) -> None:
    table = table_of(f'{{"backends": [{{"id": "g", "type": "vertex-gemini", "baseUrl": "{host}", "projectId": "p"}}]}}')
    assert table["backends"]["g"]["adapter"] == adapter


@pytest.mark.parametrize(
    ("provider", "adapter"),
    [("openrouter", "openrouter"), ("google", "gemini"), ("anthropic", "anthropic"), ("openai", "openai")],
)
def test_document_as_providers_are_adapters(provider: str, adapter: str) -> None:
    table = table_of(f'{{"backends": [{{"name": "x", "type": "api", "provider": "{provider}"}}]}}')
    assert table["backends"]["x"] == {"adapter": adapter}


def test_pool_sizes_alone_are_a_cli_backend() -> None:
    assert table_of(POOL_JSON) == {
        "middleware": {"route": {"unknown_model": "route"}},
        "backends": {
            "claude-cli-default": {
                "adapter": "claude-cli",
                "max_concurrent": 20,
                "queue_size": 100,
                "timeout": 180,
            }
        },
    }


def test_one_backend_alone_is_imported() -> None:
    text = """{"name": "claude-cli-kimi", "type": "claude-cli", "configDir": "~/.claude-inst10", "maxConcurrent": 5,
      "maxQueue": 25, "timeout": 120000, "supportsTools": true, "description": "Kimi K2 via Moonshot API"}"""
    assert table_of(text)["backends"] == {
        "claude-cli-kimi": {
            "adapter": "claude-cli",
            "config_dir": "~/.claude-inst10",
            "max_concurrent": 5,
            "queue_size": 25,
            "timeout": 120,
            "description": "Kimi K2 via Moonshot API",
        }
    }


def test_a_custom_chain_alone_is_imported_with_its_names_as_comments() -> None:
    text = to_toml(
        import_json(
            """{ "routing": { "defaultBackend": "claude-cli-default", "preferCheapest": false,  // quality over cost
                 "fallbackChain": [ "anthropic-api-sonnet",  /* direct first */ "claude-cli-default" ] } }"""
        ).table
    )
    assert tomllib.loads(text)["middleware"] == {
        "route": {"prefer_cheapest": False, "unknown_model": "route"},
        "fallback": {"chain": []},
    }
    assert '# "anthropic-api-sonnet",' in text


def test_comments_are_tolerated_and_those_in_strings_kept() -> None:
    table = table_of(
        """{ // line
          /* block
             of two */
          "backends": [ { "id": "o", "type": "ollama", "description": "see http://x/* and // y \\" // z", }, ],
        }"""
    )
    assert table["backends"]["o"]["description"] == 'see http://x/* and // y " // z'


def test_a_syntax_error_names_its_line() -> None:
    with pytest.raises(ConfigError, match=r"b\.json is not JSON: .* line 3 column"):
        import_json('{ // a comment\n "backends": [\n  {"id" "x"}] }', "b.json")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "expected a JSON object"),
        ('{"a": 1}', "its keys: a"),
        ('{"backends": [{"type": "api", "provider": "openai"}]}', "needs a name"),
        ('{"backends": [{"name": "x"}]}', "needs a type"),
        ('{"backends": [{"name": "x", "type": "api", "provider": "opnai"}]}', 'did you mean "openai"?'),
        (
            '{"backends": [{"id": "x", "type": "ollama"}, {"id": "x", "type": "ollama"}]}',
            'the name "x" is taken by an earlier backend',
        ),
        ('{"backends": [{"id": "x", "type": "ollama", "timeout": "1s"}]}', 'expected milliseconds, found "1s"'),
        ('{"backends": [], "backends": []}', 'the key "backends" occurs twice'),
        ('{"backends": [], "routing": []}', "routing: expected an object, found a list"),
        ('{"backends": [], "routing": {"fallbackChain": "x"}}', 'fallbackChain: expected a list, found "x"'),
        ('{"backends": [], "routingRules": [{"condition": 5}]}', "routingRules[0]: expected a condition"),
    ],
)
def test_what_cannot_be_imported_says_why(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        import_json(text)
    assert told in str(caught.value)


def test_what_nobody_knows_is_told_and_left_out() -> None:
    imported = import_json('{"backends": [{"id": "o", "type": "ollama", "colour": "red"}], "theme": "dark"}')
    assert "backends[0].colour: not known here, left out" in imported.notes
    assert "theme: not known here, left out" in imported.notes
    assert imported.table["backends"] == {"o": {"adapter": "ollama"}}


@pytest.mark.parametrize("text", [BACKENDS_JSON, CONFIG_JSON, RULES_JSON, POOL_JSON], ids=["A", "B", "rules", "pool"])
def test_both_documents_files_import_and_can_stand(text: str, tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(to_toml(import_json(text).table))
    config = read(path, environ={})
    assert "echo" in {backend.name for backend in config.backends}


@pytest.mark.parametrize("text", [BACKENDS_JSON, CONFIG_JSON], ids=["A", "B"])
def test_both_documents_files_are_read_directly(text: str, tmp_path: Path) -> None:
    path = tmp_path / "backends.json"
    path.write_text(text)
    assert read(path, environ={}).backends[0].name in ("claude-cli-default", "vertex-gemini")


def test_the_command_writes_toml_on_stdout_and_notes_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "backends.json"
    path.write_text(BACKENDS_JSON)
    assert import_file(str(path)) == 0
    out, err = capsys.readouterr()
    assert "openrouter-glm" in tomllib.loads(out)["backends"]
    assert err.startswith("note: fallbackChain: ")
