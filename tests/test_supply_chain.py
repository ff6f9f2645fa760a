"""What others get from us, and what we take from others: nothing but our files, nothing at import, versions by hash."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCK = ROOT / ".ci" / "requirements.lock"
PIN = re.compile(r"^([a-z0-9][a-z0-9.-]*)==([^\s;\\]+)", re.MULTILINE)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUN_TIME = {"uvloop", "h11", "httpx", "orjson", "tomli-w", "prometheus-client"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, Version]:
    return {name: Version(version) for name, version in PIN.findall(LOCK.read_text())}


def wanted(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for, its own extras resolved."""
    found = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    for extra in extras:
        for requirement in map(Requirement, PROJECT["project"]["optional-dependencies"][extra]):
            found += wanted(*requirement.extras) if requirement.name == "gw" else [requirement]
    return found


# --- what we take -----------------------------------------------------------------------------------------------


def test_there_are_few_dependencies_at_run_time_each_with_a_lower_bound() -> None:
    assert {requirement.name for requirement in wanted()} == RUN_TIME
    assert all(str(requirement.specifier).startswith(">=") for requirement in wanted("test-cli", "lint"))


def test_the_lock_has_what_pyproject_asks_for_in_versions_that_fit() -> None:
    locked = pins()
    for requirement in wanted("test-cli", "lint"):
        assert canonical(requirement.name) in locked, f"{requirement} is not locked: run .ci/lock"
        version = locked[canonical(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement}, locked {version}: .ci/lock"


def test_the_lock_is_closed() -> None:
    """What a locked version needs is locked too, as far as that very version is installed here."""
    locked = pins()
    for name, version in locked.items():
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if Version(installed.version) == version:
            for needed in map(Requirement, installed.requires or ()):
                if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                    assert canonical(needed.name) in locked, f"{name} needs {needed}: run .ci/lock"


def test_every_version_has_hashes_and_no_line_says_where_it_comes_from() -> None:
    text = LOCK.read_text()
    blocks = re.split(r"\n(?=[a-z0-9])", text)[1:]
    assert len(blocks) == len(pins()) > 40
    for block in blocks:
        first, *hashes = block.rstrip().split(" \\\n")
        assert PIN.match(first), first
        assert hashes, f"{first} has no hash"
        assert all(re.fullmatch(r" {4}--hash=sha256:[0-9a-f]{64}", line) for line in hashes), first
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


# --- what others get --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the files as they are, built from a copy: building leaves things behind."""
    if Version(metadata.version("setuptools")) < Version("77"):
        pytest.skip("needs what pip install -e '.[test]' brings: setuptools 77 or newer")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("gw", "middleware", "adapters", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "gateway.toml"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", folder, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("gw-*.whl")
    return built


def test_the_wheel_holds_nothing_but_our_files(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    kept = {"py.typed", "models.json"}
    ours = set()
    for folder in ("gw", "middleware", "adapters"):
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT / folder).parts
            is_linked = folder == "gw" and inside[0] in ("middleware", "adapters")
            if path.is_file() and not is_linked and (path.suffix == ".py" or path.name in kept):
                ours.add("/".join(("gw", *([folder] if folder != "gw" else []), *inside)))
    about = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert names - about == ours
    assert {name.split("/", 1)[1] for name in about} <= {
        "METADATA",
        "WHEEL",
        "RECORD",
        "entry_points.txt",
        "top_level.txt",
    }
    assert not [name for name in names if name.endswith(".pth")]


IMPORTER = """
import os, pkgutil, sys, threading
sys.path[:0] = [sys.argv[1]]
seen = []

def ours():
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(sys.argv[1]):
            return True
        if "importlib" not in name:
            return False  # somebody else's own doing
        frame = frame.f_back

def audit(event, details):
    if event.startswith(("socket.", "subprocess.", "os.putenv", "os.fork", "os.exec", "os.system", "os.mkdir",
                         "os.remove", "sqlite3.", "urllib.", "signal.", "os.kill")):
        seen.append(event)
    if event == "open" and isinstance(details[1], str) and set(details[1]) & set("wax+"):
        seen.append(f"{event} {details[0]} {details[1]}")

class Watched(type(os.environ)):
    def __getitem__(self, name):
        if ours():
            seen.append(f"reads {name}")
        return super().__getitem__(name)

environ = os.environ
os.environ = Watched(environ._data, environ.encodekey, environ.decodekey, environ.encodevalue, environ.decodevalue)
before = threading.enumerate()
sys.dont_write_bytecode = True
sys.addaudithook(audit)
import gw
assert gw.__file__.startswith(sys.argv[1]), gw.__file__
count = 0
for module in pkgutil.walk_packages(gw.__path__, "gw."):
    if module.name != "gw.__main__":
        __import__(module.name)
        count += 1
assert threading.enumerate() == before, threading.enumerate()
assert len(os.listdir("/proc/self/task")) == 1 if os.path.isdir("/proc/self/task") else True
print(count, seen)
"""


def test_importing_any_part_opens_nothing_starts_nothing_and_reads_no_environment(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    done = subprocess.run(
        [sys.executable, "-c", IMPORTER, str(site)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    count, _, seen = done.stdout.strip().partition(" ")
    assert int(count) > 100
    assert seen == "[]"
    assert not [path for path in tmp_path.iterdir() if path != site], "nothing is written where it is imported"
