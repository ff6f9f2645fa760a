"""Middleware and backends of one's own: named in gateway.toml, checked as it is read, and each in its place."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gw.config import DEFAULT_PIPELINE, build
from gw.errors import ConfigError
from gw.gateway import GatewayServer
from gw.message import Request
from gw.registry import register_custom_backend
from tests.config_files import backend_of, config_of, problems_of

# --- middleware --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", ["./mine.py:Audit", "./mine.py:plain"])
def test_middleware_of_ones_own_runs_where_the_pipeline_names_it(tmp_path: Path, use: str) -> None:
    pipeline = [*DEFAULT_PIPELINE[:-1], "audit", "translate"]
    config = config_of(tmp_path, f'pipeline = {pipeline}\n[middleware.audit]\nuse = "{use}"\n')
    assert config.pipeline == tuple(pipeline)
    assert dict(build(config).middleware)["audit"] is not None


def test_middleware_of_ones_own_gets_its_options_checked(tmp_path: Path) -> None:
    pipeline = [*DEFAULT_PIPELINE[:-1], "audit", "translate"]
    text = f'pipeline = {pipeline}\n[middleware.audit]\nuse = "./mine.py:Audit"\n'
    audit = dict(build(config_of(tmp_path, text + 'path = "x"\n')).middleware)["audit"]
    assert audit.path == "x"
    assert problems_of(tmp_path, text + "pth = 5\n") == [
        'middleware.audit.pth: unknown option; did you mean "path"? (allowed: enabled, level, path, use)'
    ]


@pytest.mark.parametrize(
    ("use", "told"),
    [
        ("./mine.py:Nobody", "it needs async def __call__(self, request, call_next)"),
        ("./mine.py:not_middleware", "it needs async def __call__(self, request, call_next)"),
        ("./mine.py:Audt", 'did you mean "Audit"?'),
        ("./other.py:Audit", "there is no file"),
    ],
)
def test_what_is_no_middleware_is_told_where_it_is_named(tmp_path: Path, use: str, told: str) -> None:
    pipeline = [*DEFAULT_PIPELINE[:-1], "audit", "translate"]
    (problem,) = problems_of(tmp_path, f'pipeline = {pipeline}\n[middleware.audit]\nuse = "{use}"\n')
    assert problem.startswith("middleware.audit.use: ")
    assert told in problem


@pytest.mark.parametrize(
    ("use", "told"),
    [
        ("without_async", "without_async is not asynchronous: write `async def without_async(request, call_next)`"),
        ("generating", "generating is not asynchronous: write `async def generating(request, call_next)`"),
        ("one", "it is called with two arguments: write `async def one(request, call_next)`"),
        ("Mistyped", 'operations: nothing is called "chta"; did you mean "chat"?'),
        ("Spelled", "operations is a set of names"),
    ],
)
def test_middleware_that_could_not_run_is_told_at_load(tmp_path: Path, use: str, told: str) -> None:
    (problem,) = problems_of(tmp_path, pipeline_with(tmp_path, "audit", use, "translate"))
    assert problem.startswith(f"middleware.audit: {told}")


def test_a_star_is_all_operations(tmp_path: Path) -> None:
    assert "audit" in config_of(tmp_path, pipeline_with(tmp_path, "audit", "Every", "route")).pipeline


def test_middleware_that_a_program_gives_is_looked_at_too() -> None:
    async def one(request: Request) -> None: ...

    with pytest.raises(ConfigError, match=r'middleware "mine": it is called with two arguments'):
        asyncio.run(GatewayServer({"server": {"port": 0}}, middleware=[("mine", one)]).start())


def test_a_configured_middleware_that_does_not_run_is_a_warning(tmp_path: Path) -> None:
    config = config_of(tmp_path, '[middleware.audit]\nuse = "./mine.py:Audit"\n')
    assert config.warnings == ('middleware.audit does not run: "audit" is not in pipeline',)


# --- order -------------------------------------------------------------------------------------------------------


def pipeline_with(folder: Path, name: str, use: str, before: str) -> str:
    pipeline = list(DEFAULT_PIPELINE)
    place = pipeline.index(before) if before else len(pipeline)
    pipeline.insert(place, name)
    return f'pipeline = {pipeline}\n[middleware.{name}]\nuse = "./mine.py:{use}"\n'


def test_middleware_that_needs_the_body_may_not_stand_before_one_that_decides_on_the_head(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, pipeline_with(tmp_path, "audit", "Audit", "rate_limit"))
    assert problem.startswith('pipeline: "audit" stands before "rate_limit"')
    assert 'put "audit" behind "rate_limit"' in problem
    assert "head_only = True" in problem


def test_middleware_that_decides_on_the_head_may_stand_in_front(tmp_path: Path) -> None:
    assert config_of(tmp_path, pipeline_with(tmp_path, "head", "Head", "auth")).pipeline[1] == "head"


def test_the_wires_middleware_stands_behind_translate_and_the_calls_before_it(tmp_path: Path) -> None:
    assert config_of(tmp_path, pipeline_with(tmp_path, "wire", "Wire", "")).pipeline[-1] == "wire"
    (problem,) = problems_of(tmp_path, pipeline_with(tmp_path, "wire", "Wire", "translate"))
    assert 'put it behind "translate"' in problem
    (problem,) = problems_of(tmp_path, pipeline_with(tmp_path, "audit", "Audit", ""))
    assert 'put it before "translate"' in problem
    assert 'side = "wire"' in problem


# --- backends ----------------------------------------------------------------------------------------------------


class Parrot:
    type = "parrot"

    async def chat_completion(self, request: Any, config: Any) -> Any:
        return "hello"

    def supports_tools(self) -> bool:
        return False

    def validate_config(self, config: Any) -> Any:
        errors = [] if "region" in config.options else ["region is missing"]
        return {"valid": not errors, "errors": errors}


def test_a_custom_backend_is_a_provider_with_the_capabilities_it_says(tmp_path: Path) -> None:
    register_custom_backend("parrot", Parrot)
    backend = backend_of(tmp_path, '[backends.p]\nadapter = "parrot"\nregion = "eu"\n')
    assert backend.provider is not None
    assert backend.capabilities == {"images"}  # it has no chat_completion_stream


def test_a_custom_backend_may_stand_in_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "parrot.py").write_text(
        "class Parrot:\n    async def chat_completion(self, request, config):\n        return 'hello'\n"
    )
    assert backend_of(tmp_path, '[backends.p]\nadapter = "./parrot.py:Parrot"\nanything = 1\n').provider is not None


def test_a_custom_backend_that_breaks_at_load_is_told(tmp_path: Path) -> None:
    (tmp_path / "parrot.py").write_text(
        "class Parrot:\n    async def chat_completion(self, request, config): ...\n"
        "    def supports_tools(self):\n        raise OSError('no such parrot')\n"
    )
    (problem,) = problems_of(tmp_path, '[backends.p]\nadapter = "./parrot.py:Parrot"\n')
    assert problem.endswith("cannot be asked what it can do: OSError: no such parrot")


def test_a_custom_backends_validation_is_a_problem_at_load(tmp_path: Path) -> None:
    register_custom_backend("parrot", Parrot)
    assert problems_of(tmp_path, '[backends.p]\nadapter = "parrot"\n') == ["backends.p: region is missing"]
