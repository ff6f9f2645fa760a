"""The harness: `python -m benchmarks.harness [--rounds N] [--seconds S] [--beside NAME[=PATH] ...] [--json FILE]`.

Starts nginx as provider, nginx as bare proxy, gw with its whole pipeline and, for streams, an event source; pins the
servers to one core and everything else to the other; interleaves the runs, so that a noisy neighbour hits all alike;
prints medians and ratios, and checks Little's law on each run.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson

from benchmarks.harness import beside, single
from benchmarks.harness import processes as p
from benchmarks.harness.load import StreamRun, WholeRun, streams, whole, wrk_path

# Below, connections have stalled and the run says nothing. There is no upper bound: wrk corrects its mean for
# coordinated omission, which only ever raises it.
LITTLE = 0.9


def main() -> int:
    """Measure, print, and write JSON where asked."""
    arguments = _arguments()
    missing = [name for name, path in (("nginx", p.nginx_path()), ("wrk", wrk_path())) if path is None]
    if missing:
        print(f"{' and '.join(missing)} not installed: nothing to compare with (apt-get install nginx-light wrk)")
        return 0
    if (os.cpu_count() or 1) < 2:
        print("this needs two cores: one for the servers, one for the load")
        return 0
    print(_conditions())
    results: dict[str, Any] = {"conditions": _conditions(), "rows": []}
    with ExitStack() as stack:
        folder = stack.enter_context(p.workspace())
        if not arguments.only or arguments.only == "whole":
            _whole(stack, folder, arguments, results)
        if not arguments.only or arguments.only == "streams":
            _streams(stack, folder, arguments, results)
        if not arguments.only or arguments.only == "single":
            _single(folder, arguments, results)
    if arguments.json:
        arguments.json.write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.harness", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each run is repeated (default 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long one run of wrk takes (default 3)")
    parser.add_argument("--only", choices=("whole", "streams", "single"), help="only these runs")
    parser.add_argument(
        "--beside",
        nargs="+",
        default=[],
        metavar="NAME[=PATH]",
        help=f"other gateways that are installed, for whole answers: {', '.join(beside.KNOWN)}",
    )
    parser.add_argument("--json", type=Path, help="write all figures there")
    return parser.parse_args()


def _conditions() -> str:
    nginx = subprocess.run([p.nginx_path() or "nginx", "-v"], capture_output=True, text=True, check=False).stderr
    cpu = next((line.partition(":")[2] for line in _cpuinfo() if line.startswith("model name")), platform.machine())
    return f"{cpu.strip()}, Python {platform.python_version()}, {nginx.strip().rpartition(' ')[2]}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def _median(runs: list[Any], field: str) -> float:
    return float(statistics.median(getattr(run, field) for run in runs))


def _whole(stack: ExitStack, folder: Path, arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    upstream = stack.enter_context(p.provider(folder))
    servers = {
        "nginx": stack.enter_context(p.proxy(upstream, folder)),
        "gw": stack.enter_context(p.gateway(upstream, folder)),
        "gw, h11 for every byte": stack.enter_context(p.gateway(upstream, folder, name="gw-h11", http="h11")),
    }
    for name, program in beside.found(arguments.beside).items():
        servers[name] = stack.enter_context(beside.gateway(name, program, upstream, folder))
    started = {name: p.resident_kb(server.pid) for name, server in servers.items()}
    for server in servers.values():
        whole(server, 16, 1, folder)  # warm up
    print("\nwhole answers, 0.4 KB request, 0.65 KB answer, all seven middlewares on")
    print(f"{'':24}{'c':>5}{'req/s':>9}{'CPU us':>9}{'x nginx':>9}{'p50 ms':>9}{'p99 ms':>9}{'errors':>8}")
    for connections in (1, 64, 256):
        runs: dict[str, list[WholeRun]] = {name: [] for name in servers}
        for _ in range(arguments.rounds):
            for name, server in servers.items():
                run = whole(server, connections, arguments.seconds, folder)
                if run.little >= LITTLE:
                    runs[name].append(run)
                else:
                    print(f"{name}, c={connections}: Little's law fails ({run.little:.2f}): the run is left out")
        for name, kept in runs.items():
            if kept:
                _print_whole(name, connections, kept, runs["nginx"], results)
    for name, server in servers.items():
        after = p.resident_kb(server.pid)
        print(f"{name}: {started[name] / 1024:.1f} MB after start, {after / 1024:.1f} MB after load")


def _print_whole(
    name: str, connections: int, runs: list[WholeRun], nginx: list[WholeRun], results: dict[str, Any]
) -> None:
    row = {field: _median(runs, field) for field in ("per_second", "cpu_us", "p50_ms", "p99_ms")}
    row["ratio"] = row["cpu_us"] / _median(nginx, "cpu_us") if nginx else 0.0
    errors = sum(run.errors for run in runs)
    print(
        f"{name:24}{connections:>5}{row['per_second']:>9.0f}{row['cpu_us']:>9.1f}{row['ratio']:>9.2f}"
        f"{row['p50_ms']:>9.2f}{row['p99_ms']:>9.2f}{errors:>8}"
    )
    results["rows"].append({"what": "whole", "server": name, "connections": connections, "errors": errors, **row})


def _streams(stack: ExitStack, folder: Path, arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    cases: list[tuple[str, int, int, int, int]] = [
        ("8 streams, 500 events/s each", 8, 1500, 2, 1),
        ("64 streams, 200 events at once", 64, 200, 0, 4),
        ("500 streams, an event every 50 ms", 500, 80, 50, 1),
        ("1 stream (time to first content)", 1, 5, 1, 50),
    ]
    source = stack.enter_context(p.event_source(folder))
    nginx = stack.enter_context(p.proxy(source, folder))
    print("\nevent streams")
    print(
        f"{'':36}{'':18}{'events/s':>10}{'CPU us':>9}{'x nginx':>9}{'p50 ms':>9}{'p99 ms':>9}"
        f"{'starts':>9}{'TTFT ms':>9}{'core':>7}"
    )
    for title, connections, count, pause, times in cases:
        with ExitStack() as case:
            asks: dict[str, Callable[[], StreamRun]] = {
                "nginx": _ask(nginx, f"/openai/{count}/{pause}/x", connections, count, times)
            }
            for name, adapter in (("gw", "openai"), ("gw, translated", "anthropic")):
                server = case.enter_context(
                    p.gateway(source, folder, name=f"gw-{adapter}", adapter=adapter, path=f"/{adapter}/{count}/{pause}")
                )
                asks[name] = _ask(server, "/v1/chat/completions", connections, count, times)
            runs: dict[str, list[StreamRun]] = {name: [] for name in asks}
            for ask in asks.values():
                ask()  # the first requests of a program are those of its start
            for _ in range(arguments.rounds):
                for name, ask in asks.items():
                    runs[name].append(ask())
            for name, kept in runs.items():
                _print_streams(title, name, kept, runs["nginx"], results)


def _ask(server: p.Program, path: str, connections: int, count: int, times: int) -> Callable[[], StreamRun]:
    return lambda: streams(server, path, connections=connections, count=count, times=times)


def _print_streams(
    title: str, name: str, runs: list[StreamRun], nginx: list[StreamRun], results: dict[str, Any]
) -> None:
    fields = ("per_second", "cpu_us", "p50_ms", "p99_ms", "start_p99_ms", "first_ms", "core")
    row = {field: _median(runs, field) for field in fields}
    row["ratio"] = row["cpu_us"] / _median(nginx, "cpu_us")
    errors = sum(run.errors for run in runs)
    print(
        f"{title:36}{name:18}{row['per_second']:>10.0f}{row['cpu_us']:>9.1f}{row['ratio']:>9.2f}{row['p50_ms']:>9.2f}"
        f"{row['p99_ms']:>9.2f}{row['start_p99_ms']:>9.2f}{row['first_ms']:>9.2f}{row['core']:>7.0%}"
        + (f"  {errors} errors" if errors else "")
    )
    results["rows"].append({"what": title, "server": name, "errors": errors, **row})


def _single(folder: Path, arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    print(f"\n{'without load':52}{'figure':>10}{'':8}{'target':>8}")
    for what, figure, unit, target in single.rows(folder, arguments.rounds, arguments.seconds):
        print(f"{what:52}{figure:>10.2f} {unit:7}{target:>8}")
        results["rows"].append({"what": what, "figure": figure, "unit": unit, "target": float(target)})


if __name__ == "__main__":
    sys.exit(main())
