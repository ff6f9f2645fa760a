"""The gateway.toml that comes with gw: it starts as it is, and shows every option of every component."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

from gw.adapters import BUILT_IN as ADAPTERS
from gw.assembly import SERVICES
from gw.backend_options import BackendOptions, TimeoutTable
from gw.config import DEFAULT_PIPELINE, build, read
from gw.middleware import BUILT_IN as MIDDLEWARE
from gw.options import options_of
from gw.registry import ADAPTER, find
from gw.registry import MIDDLEWARE as MIDDLEWARE_KIND
from gw.settings import ServerOptions, SessionOptions
from tests.config_files import MINE

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
    for kind, table in ((ServerOptions, "server"), (SessionOptions, "sessions")):
        missing = {option.name for option in options_of(kind)} - shown[table]
        assert not missing, f"[{table}]"
    timeouts = next(line for line in COMMITTED.read_text(encoding="utf-8").splitlines() if "timeouts = {" in line)
    assert [option.name for option in options_of(TimeoutTable) if f"{option.name} = " not in timeouts] == []
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
