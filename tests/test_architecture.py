"""The house itself: imports go downwards, every package is shipped, starting loads nothing heavy."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ASSEMBLY = ("gw.app", "gw.gateway", "gw.supervisor", "gw.config", "gw.assembly", "gw.server", "gw.endpoints", "gw.cli")
# Whoever looks names up has to know the two tables; nobody else below the assembly knows what is above it.
TABLES = {"gw.registry", "gw.backend_table", "gw.backend_options"}
# Each of these is another door to the same provider, or the same wire at another host.
MAY_BUILD_ON = {"vertex_gemini": "gemini", "vertex_anthropic": "anthropic", "openrouter": "openai"}


def _modules() -> dict[str, Path]:
    found = {}
    for folder, prefix in ((ROOT / "gw", ""), (ROOT / "middleware", "gw."), (ROOT / "adapters", "gw.")):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if prefix or parts[1] not in ("middleware", "adapters"):
                found[(prefix + ".".join(parts)).removesuffix(".__init__")] = path
    return found


MODULES = _modules()


def _imports(path: Path) -> set[str]:
    """What a module imports when it is loaded: not inside functions, not for type checkers only."""
    found: set[str] = set()
    waiting: list[ast.AST] = list(ast.parse(path.read_text()).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        waiting += ast.iter_child_nodes(node)
    return found & set(MODULES)


IMPORTS = {name: _imports(path) for name, path in MODULES.items()}


def test_no_import_leads_back_to_where_it_came_from() -> None:
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for imported in IMPORTS[name] - {"gw"}:
                visit(imported, (*trail, name))
            done.add(name)

    for name in IMPORTS:
        visit(name, ())


@pytest.mark.parametrize("kind", ["middleware", "adapters"])
def test_middleware_and_adapters_never_import_each_other(kind: str) -> None:
    for name in MODULES:
        own = name.split(".")
        if own[:2] != ["gw", kind] or len(own) < 3:
            continue
        for imported in IMPORTS[name]:
            other = imported.split(".")
            if other[1:2] not in (["middleware"], ["adapters"]) or len(other) < 3:
                continue
            same = other[:3] == own[:3] or MAY_BUILD_ON.get(own[2]) == other[2]
            assert same, f"{name} imports {imported}"


def test_what_is_below_does_not_know_what_is_above() -> None:
    for name, imported in IMPORTS.items():
        if name.startswith(("gw.middleware.", "gw.adapters.")):
            above = {module for module in imported if module.startswith(ASSEMBLY)}
            assert not above, f"{name} imports {above}"
        elif not name.startswith(ASSEMBLY) and name not in TABLES:
            above = {module for module in imported if module.startswith(("gw.middleware", "gw.adapters"))}
            assert not above, f"{name} imports {above}"


def test_no_test_file_is_imported_by_another() -> None:
    """What tests share stands in modules of its own: whoever reads a test, or renames one, need not know a second."""
    for path in (*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                assert not re.match(r"(tests)?\.+test_", name), f"{path.relative_to(ROOT)}:{node.lineno} imports {name}"


def test_every_package_is_shipped() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert listed == folders


def test_the_top_level_is_what_the_owner_listed() -> None:
    allowed = {"pyproject.toml", "README.md", "gw", "middleware", "adapters", "gateway.toml", "tests", "benchmarks"}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    top = {line.partition("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} == allowed


def test_starting_loads_nothing_heavy() -> None:
    heavy = ["httpx", "sqlite3", "prometheus_client", "google", "multiprocessing", "pytest", "email", "tempfile", "h11"]
    code = f"import sys, gw.supervisor, gw.cli; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_gw_has_no_side_effects_to_speak_of() -> None:
    code = "import sys; before = set(sys.modules); import gw; print(len(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10
