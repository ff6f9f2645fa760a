"""Configurations of two backends, a drill of them in a folder of its own, and the cases that it played."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from gw.cli.drill import drill
from gw.config import Config, read

ONE = '[backends.first]\nadapter = "openai"\nmodels = { "gpt-5-mini" = "gpt-5-mini" }\n'
TWO = ONE + '[backends.second]\nadapter = "anthropic"\nmodels = { "gpt-5-mini" = "claude-opus-4-8" }\n'


def config_of(text: str, **environ: str) -> Config:
    Path("gateway.toml").write_text(text)
    return read(Path("gateway.toml"), environ=environ)


def drilled(
    capsys: pytest.CaptureFixture[str], text: str, *only: str, status: int = 0, **options: Any
) -> list[dict[str, Any]]:
    """The cases of one drill, played in one dialect unless `options` say otherwise."""
    environ: Mapping[str, str] = options.pop("environ", {})
    found = drill(config_of(text, **environ), only=only, as_json=True, **{"dialects": ["openai"], **options})
    page = orjson.loads(capsys.readouterr().out)
    assert page["ok"] is (found == 0)
    assert found == status, [case["problem"] for case in page["cases"] if case["problem"]]
    cases: list[dict[str, Any]] = page["cases"]
    return cases


def problems(cases: Sequence[dict[str, Any]]) -> set[str]:
    return {case["problem"] for case in cases if case["problem"]}


def beside(cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [case for case in cases if case["others"]]


def of_mine(code: str) -> str:
    """A configuration of two backends with a middleware of the operator's own, around fallback."""
    Path("mine.py").write_text(code)
    pipeline = ["cors", "auth", "rate_limit", "route", "mine", "fallback", "log", "translate"]
    return f'pipeline = {orjson.dumps(pipeline).decode()}\n[middleware.mine]\nuse = "./mine.py:Mine"\n' + TWO
