"""The command `gw`: what it prints, where, and with which exit status."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gw.cli import locate, main
from tests.config_files import empty_folder

__all__ = ["empty_folder"]

PYTHON = sys.executable
ROOT = Path(__file__).parent.parent


def run(*arguments: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})}
    return subprocess.run([PYTHON, "-m", "gw", *arguments], capture_output=True, text=True, env=variables, timeout=30)


def test_check_with_nothing_there_is_fine_with_echo() -> None:
    result = run("check")
    assert (result.returncode, result.stderr) == (0, "")
    assert "the built-in defaults: ok" in result.stdout
    assert "http://127.0.0.1:3456" in result.stdout
    assert "cors -> auth -> rate_limit -> route -> fallback -> log -> translate" in result.stdout
    assert "echo" in result.stdout


def test_check_lists_each_backend_with_its_cure(capsys: pytest.CaptureFixture[str]) -> None:
    Path("gateway.toml").write_text('[backends.glm]\nadapter = "openrouter"\n')
    assert main(["check"]) == 0
    out = capsys.readouterr().out
    assert "gateway.toml: ok" in out
    assert "no key, set OPENROUTER_API_KEY" in out


def test_check_tells_every_problem_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    Path("gateway.toml").write_text('[server]\nprt = 1\n[backends.x]\nadapter = "opnai"\n')
    assert main(["check"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("the configuration has 2 problems:\n")
    assert 'server.prt: unknown option; did you mean "port"?' in err
    assert 'did you mean "openai"?' in err


def test_check_opens_nothing() -> None:
    main(["check"])
    assert list(Path().iterdir()) == []


def test_flags_reach_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.toml").write_text("[server]\nport = 1\n")
    assert main(["check", "--config", "other.toml", "--port", "8080", "--host", "::1"]) == 0
    out = capsys.readouterr().out
    assert "other.toml: ok" in out
    assert "http://[::1]:8080" in out


def test_keys_of_dotenv_make_a_backend_ready(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "")  # so that what the command sets is undone again
    monkeypatch.delenv("OPENROUTER_API_KEY")
    Path("gateway.toml").write_text('[backends.glm]\nadapter = "openrouter"\n')
    Path(".env").write_text("OPENROUTER_API_KEY=sk-or-1234567\n")
    assert main(["check"]) == 0
    out, err = capsys.readouterr()
    assert "no key" not in out
    assert "sk-or-1234567" not in out + err
    assert os.environ["OPENROUTER_API_KEY"] == "sk-or-1234567"  # libraries look there


def test_import_writes_a_file_that_check_accepts() -> None:
    Path("backends.json").write_text(
        '{ // mine\n "backends": [{"name": "glm", "type": "api", "provider": "openrouter", "model": "z-ai/glm-4.7"}],'
        '\n "routing": {"defaultBackend": "glm", "fallbackChain": ["glm", "gone"]} }'
    )
    imported = run("import", "backends.json")
    assert imported.returncode == 0
    assert 'no backend is called "gone"' in imported.stderr
    assert tomllib.loads(imported.stdout)["backends"]["glm"]["model"] == "z-ai/glm-4.7"
    Path("gateway.toml").write_text(imported.stdout)
    assert run("check").returncode == 0


def test_import_of_what_is_none_fails_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.json").write_text("{ nonsense")
    assert main(["import", "x.json"]) == 1
    assert "x.json is not JSON" in capsys.readouterr().err
    assert main(["import", "nowhere.json"]) == 1
    assert "there is no file nowhere.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["chekc"], 'there is no command "chekc"; did you mean "check"?'),
        (["--port", "many"], "a port is 0 to 65535, found 'many'"),
        (["check", "--port", "70000"], "a port is 0 to 65535, found '70000'"),
        (["--colour"], "unrecognized arguments: --colour"),
        (["--workers", "0"], "expected 1 or more, found '0'"),
    ],
)
def test_a_mistyped_command_line_is_told_with_status_2(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_flag_names_the_file_before_a_variable_before_this_folder() -> None:
    here = Path.cwd()
    assert locate(None, {}, here) == (None, here)
    Path("gateway.toml").touch()
    assert locate(None, {}, here) == (here / "gateway.toml", here)
    Path(".env").write_text("BACKENDS_CONFIG=./config/a.json\n")
    assert locate(None, {}, here) == (here / "config/a.json", here)
    assert locate(None, {"BACKENDS_CONFIG": "b.json"}, here) == (here / "b.json", here)
    assert locate(Path("c.toml"), {"BACKENDS_CONFIG": "b.json"}, here) == (Path("c.toml"), None)


def test_backends_config_is_read_as_it_is() -> None:
    Path("config").mkdir()
    Path("config/backends.json").write_text('{"backends": [{"name": "glm", "type": "api", "provider": "openrouter"}]}')
    Path(".env").write_text("BACKENDS_CONFIG=./config/backends.json\nOPENROUTER_API_KEY=k\n")
    result = run("check")
    assert result.returncode == 0
    assert "backends.json: ok" in result.stdout
    assert "no key" not in result.stdout


def test_a_missing_backends_config_is_told() -> None:
    result = run("check", environ={"BACKENDS_CONFIG": "gone.json"})
    assert result.returncode == 1
    assert "there is no file" in result.stderr


def test_the_command_itself_loads_nothing_heavy() -> None:
    code = "import sys, gw.cli; print([name for name in sys.modules if name in %r])"
    heavy = ("httpx", "sqlite3", "asyncio", "uvloop", "h11", "ssl", "tomli_w", "prometheus_client", "gw.config")
    result = subprocess.run([PYTHON, "-c", code % (heavy,)], capture_output=True, text=True, cwd=ROOT, timeout=30)
    assert result.stdout.strip() == "[]"


def test_reading_a_configuration_loads_no_client_and_no_database() -> None:
    code = "import sys; from gw.config import read; read({}, environ={}); print([n for n in sys.modules if n in %r])"
    heavy = ("httpx", "sqlite3", "uvloop", "prometheus_client", "tomli_w", "importlib.metadata")
    result = subprocess.run([PYTHON, "-c", code % (heavy,)], capture_output=True, text=True, cwd=ROOT, timeout=30)
    assert result.stdout.strip() == "[]", result.stderr
