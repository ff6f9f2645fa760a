"""The README's own examples run: the middleware, the backend, the clients, the library, its commands and tables."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from gw import GatewayServer
from gw.config import read
from gw.variables import settings as variables
from tests import option_tables
from tests.running import running, settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def block(language: str, containing: str) -> str:
    """The README's one code block of a language that contains a text."""
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", README, re.S)
    found = [text for text in blocks if containing in text]
    assert len(found) == 1, f"{len(found)} blocks of {language} contain {containing!r}"
    return found[0]


def test_the_middleware_of_ten_lines_runs_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "shout.py").write_text(block("python", "# shout.py"))
    table = f'[server]\nport = 0\n[middleware.log]\npath = "{tmp_path}/x.db"\n'
    lines = block("toml", "shout").splitlines()
    (tmp_path / "gateway.toml").write_text("\n".join([lines[0], table, *lines[1:]]))
    with running() as gateway:
        url = gateway.start(tmp_path / "gateway.toml")
        for stream in (False, True):
            body = {"messages": [{"role": "user", "content": "hello"}], "stream": stream}
            response = httpx.post(f"{url}/v1/chat/completions", json=body, trust_env=False)
            assert response.headers["x-shouted"] == "yes"
            assert "HELLO" in response.text


def test_the_backend_of_your_own_runs_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "parrot.py").write_text(block("python", "# parrot.py"))
    table = f'[server]\nport = 0\n[middleware.log]\npath = "{tmp_path}/x.db"\n'
    (tmp_path / "gateway.toml").write_text(table + block("toml", "parrot"))
    with running() as gateway:
        url = gateway.start(tmp_path / "gateway.toml")
        body: dict[str, Any] = {"model": "parrot", "messages": [{"role": "user", "content": "pieces of eight"}]}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, trust_env=False).json()
        assert answer["choices"][0]["message"]["content"] == "pieces of eight"
        streamed = httpx.post(f"{url}/v1/chat/completions", json=body | {"stream": True}, trust_env=False).text
        assert streamed.count('"content":') >= 3
        assert streamed.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("containing", ["from openai import OpenAI", "from gw import GatewayClient"])
def test_the_clients_examples_run(tmp_path: Path, containing: str) -> None:
    with running() as gateway:
        url = gateway.start(settings(tmp_path))
        code = block("python", containing).replace("http://127.0.0.1:3456", url)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "README.md", "exec"), {})
    assert "Hello" in printed.getvalue()


def test_the_library_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    body = "".join(f"    {line}\n" for line in block("python", "async with GatewayServer").splitlines())
    space: dict[str, Any] = {}
    exec(compile(f"async def main():\n{body}", "README.md", "exec"), space)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        asyncio.run(space["main"]())
    assert printed.getvalue().startswith("http://127.0.0.1:")


def test_the_committed_configuration_reads_cleanly_and_only_echo_is_ready() -> None:
    config = read(ROOT / "gateway.toml", environ={})
    assert config.warnings == ()
    ready = [table.name for table in config.backends if table.problem is None]
    assert ready == ["echo"]


def test_every_variable_of_the_table_sets_what_it_says() -> None:
    names = [
        name for row in re.findall(r"^\| (`[A-Z].*?) \|", README, re.M) for name in re.findall(r"`([A-Z_]+)`", row)
    ]
    assert {"PORT", "GATEWAY_TIMEOUT", "DATABASE_PATH", "API_AUTH_TOKEN"} <= set(names)
    values = {
        "PORT": "1",
        "GATEWAY_PORT": "2",
        "LOG_LEVEL": "warn",
        "GATEWAY_TIMEOUT": "30000",
        "DATABASE_PATH": "x.db",
    }
    found, problems = variables(values, Path())
    assert problems == []
    assert {name for _, _, name in found} == set(values)


def test_the_log_query_runs(tmp_path: Path) -> None:
    with running() as gateway:
        url = gateway.start(settings(tmp_path))
        httpx.post(
            f"{url}/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hi"}]}, trust_env=False
        )
    with closing(sqlite3.connect(tmp_path / "requests.db")) as database:
        rows = database.execute(block("sql", "cost_source")).fetchall()
    assert rows[0][0] == "echo"


def test_a_server_is_made_from_a_table_a_path_or_a_config(tmp_path: Path) -> None:
    table = settings(tmp_path)
    path = tmp_path / "gateway.toml"
    path.write_text(f'[server]\nport = 0\n[middleware.log]\npath = "{tmp_path}/x.db"\n')

    async def serve(config: Any) -> int:
        async with GatewayServer(config, environ={}) as gateway:
            assert gateway.port > 0
            async with httpx.AsyncClient(trust_env=False) as http:
                return (await http.get(f"{gateway.url}/health/live")).status_code

    for config in (table, path, str(path), read(path, environ={})):
        assert asyncio.run(serve(config)) == 200


def test_close_without_start_is_harmless() -> None:
    asyncio.run(GatewayServer({}, environ={}).close())


def test_the_option_tables_are_those_of_gateway_toml() -> None:
    assert option_tables.readme() == README, "run `python -m tests.option_tables`"
    assert README.count("| `rate` |") == 1
    assert "| `window` | `60` | seconds; GATEWAY_RATE_LIMIT_WINDOW_MS |" in README
