"""A gateway.toml in a folder, beside middleware of one's own, and what is read of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gw.backend import Backend
from gw.config import Config, build, read
from gw.errors import ConfigError

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


def without_async(request, call_next):
    return call_next(request)


async def generating(request, call_next):
    yield await call_next(request)


async def one(request):
    pass


class Mistyped(Audit):
    operations = {"chta"}


class Spelled(Audit):
    operations = "chat"


class Every(Audit):
    operations = "*"


not_middleware = 5


class Nobody:
    pass
"""


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command runs in a folder of its own, with no variables but these."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name not in ("PATH", "HOME", "TMPDIR"):
            monkeypatch.delenv(name)


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
