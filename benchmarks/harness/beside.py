"""Other gateways beside gw, where they are installed: each as its quick start sets it up, its access log off."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import processes as p
from benchmarks.harness.load import KEY
from benchmarks.ports import free_port

MODEL = "gpt-4o-mini"
STARTING = 60.0  # seconds


@dataclass
class _Start:
    """How one is started."""

    command: list[str]
    environ: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)  # that it needs beside those of any OpenAI client


def _rolter(program: str, port: int, upstream: str, folder: Path) -> _Start:
    config = folder / "rolter.toml"
    config.write_text(
        f'server = {{ host = "127.0.0.1", port = {port} }}\n'
        f'virtual_keys = [{{ key = "{KEY}", name = "bench", models = [] }}]\n'
        f'providers = [{{ name = "mock", kind = "openai", api_base = "{upstream}", api_key_env = "BENCH_KEY" }}]\n'
        f'[[routes]]\nmodel = "{MODEL}"\nstrategy = "round_robin"\n'
        f'targets = [{{ provider = "mock", model = "{MODEL}" }}]\n'
    )
    return _Start([program, "gateway", "--config", str(config)], {"RUST_LOG": "warn"})


def _smg(program: str, port: int, upstream: str, folder: Path) -> _Start:
    options = f"--backend openai --worker-urls {upstream} --host 127.0.0.1 --port {port}"
    quiet = f"--history-backend none --log-level warn --prometheus-host 127.0.0.1 --prometheus-port {free_port()}"
    return _Start([program, "launch", *options.split(), *quiet.split()])


def _portkey(program: str, port: int, upstream: str, folder: Path) -> _Start:
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"{upstream}/v1"}
    environ = {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1"}
    return _Start(["node", program, "--headless", f"--port={port}"], environ, headers)


def _litellm(program: str, port: int, upstream: str, folder: Path) -> _Start:
    config = folder / "litellm.yaml"
    config.write_text(
        f"model_list:\n- model_name: {MODEL}\n  litellm_params: "
        f"{{model: openai/{MODEL}, api_base: {upstream}/v1, api_key: sk-bench}}\n"
    )
    environ = {"LITELLM_MASTER_KEY": KEY, "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    options = f"--config {config} --host 127.0.0.1 --port {port} --num_workers 1"
    return _Start([program, *options.split()], environ)


KNOWN: dict[str, Callable[[str, int, str, Path], _Start]] = {
    "rolter": _rolter,  # Rust; pip install rolter
    "smg": _smg,  # Rust; pip install smg
    "portkey": _portkey,  # Node; npm install @portkey-ai/gateway: portkey=.../build/start-server.js
    "litellm": _litellm,  # Python; pip install 'litellm[proxy]'
}


def found(wanted: list[str]) -> dict[str, str]:
    """The programs of `NAME` or `NAME=PATH`, by name; those that are not there are left out with a word."""
    programs: dict[str, str] = {}
    for name, _, path in (each.partition("=") for each in wanted):
        program = shutil.which(path or name) or (path if Path(path).is_file() else None)
        if name not in KNOWN:
            print(f"{name}: not known here; known are {', '.join(KNOWN)}")
        elif program is None:
            print(f"{name}: not installed, or not at {path or 'PATH'}: left out")
        else:
            programs[name] = program
    return programs


@contextmanager
def gateway(name: str, program: str, upstream: p.Program, folder: Path) -> Iterator[p.Program]:
    """One of the others, on the core of the servers."""
    port = free_port()
    start = KNOWN[name](program, port, upstream.url, folder)
    with p.run(
        name, start.command, port, p.SERVER_CORE, folder, patience=STARTING, BENCH_KEY="sk-bench", **start.environ
    ) as running:
        running.headers = start.headers
        yield running
