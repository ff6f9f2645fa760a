"""The soaks: `python -m benchmarks.soak [R1 R5 ...] [--scale 0.1] [--rounds 3] [--seed 1] [--json FILE]`.

Each starts gateways as a user would, does to them what its number says, and prints its figures beside their targets.
`--scale 1` are the loads and times that the targets were set for, some half an hour; less is shorter.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

import orjson
import uvloop

from benchmarks.soak import accounts, canaries, cli_pool, faults, hangups, lifetime, limits, suites, throughput, trouble
from benchmarks.soak.figure import Figure, worst
from benchmarks.soak.lab import Lab, lab

Soak = Callable[[Lab], Awaitable[list[Figure]]]

SOAKS: dict[str, Soak] = {
    "R1": throughput.load_held,  # and R23
    "R2": throughput.overload,
    "R3": faults.faults_survived,
    "R4": faults.cut_streams,
    "R5": faults.fallback_and_breaker,
    "R6": faults.storm_of_429s,
    "R7": hangups.clients_leave,
    "R8": hangups.slow_loris,
    "R9": accounts.two_ledgers,
    "R10": accounts.killed_while_logging,
    "R11": trouble.log_in_trouble,
    "R12": throughput.leak,
    "R13": throughput.idle_connections,
    "R14": suites.fuzz,
    "R15": lifetime.told_to_end,
    "R16": lifetime.reload_and_restart,
    "R17": faults.no_connection,
    "R18": limits.exact_and_small,
    "R19": cli_pool.chaos_in_the_pool,  # and R7's command line programs
    "R20": hangups.slow_readers,
    "R21": suites.attacks,
    "R22": canaries.no_key_anywhere,  # the last: it searches what all others have left
}


def main() -> int:
    """Run, print, write JSON where asked. The exit status: 0 where every target is held."""
    arguments = _arguments()
    print(_conditions(arguments))
    names = [name for name in SOAKS if not arguments.soaks or name in arguments.soaks]
    with tempfile.TemporaryDirectory(prefix="gw-soak-") as folder:
        figures = uvloop.run(_run(names, Path(folder), arguments))
    if arguments.json:
        found = {"conditions": _conditions(arguments), "figures": figures}
        arguments.json.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    missed = [figure for figure in figures if figure.is_held is False]
    print(
        f"\n{len(figures)} figures, {len(missed)} not held"
        + "".join(f"\n  {f.soak} {f.what}: {f.found}" for f in missed)
    )
    return 1 if missed else 0


async def _run(names: list[str], folder: Path, arguments: argparse.Namespace) -> list[Figure]:
    is_pinned = (os.cpu_count() or 1) > 1 and hasattr(os, "sched_setaffinity")
    if is_pinned:
        os.sched_setaffinity(0, set(range(1, os.cpu_count() or 2)))  # gateways have core 0 for themselves
    figures: list[Figure] = []
    async with lab(folder, scale=arguments.scale, seed=arguments.seed, is_pinned=is_pinned) as place:
        for name in names:
            began = time.monotonic()
            found = worst([await _once(name, place) for _ in range(arguments.rounds)])
            figures += found
            for figure in found:
                print(line(figure), flush=True)
            print(f"    {name} took {time.monotonic() - began:.1f} s", file=sys.stderr)
    return figures


async def _once(name: str, place: Lab) -> list[Figure]:
    try:
        return await SOAKS[name](place)
    except Exception as error:  # the others are still worth running
        traceback.print_exc()
        return [Figure(name, "the soak broke off", repr(error), "an end", False, is_count=True)]


def line(figure: Figure) -> str:
    """One line of the table."""
    verdict = {True: "held", False: "NOT HELD", None: "not measured"}[figure.is_held]
    return f"{figure.soak:4} {figure.what[:88]:88} {figure.found[:34]:>34}  {figure.target:>14}  {verdict}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("soaks", nargs="*", metavar="R1", help=f"which of {', '.join(SOAKS)}; default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the loads and times (default 1)")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is run; the worst is told (default 1)")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is left to chance (default 1)")
    parser.add_argument("--json", type=Path, help="write all figures there")
    arguments = parser.parse_args()
    arguments.soaks = [name.upper() for name in arguments.soaks]
    unknown = set(arguments.soaks) - set(SOAKS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))} (there are {', '.join(SOAKS)}; R23 comes with R1)")
    return arguments


def _conditions(arguments: argparse.Namespace) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("gw", "uvloop", "h11", "orjson"))
    return (
        f"Python {platform.python_version()}, {packages}; {os.cpu_count()} cores; scale {arguments.scale:g}, "
        f"seed {arguments.seed}, the worst of {arguments.rounds}"
    )


if __name__ == "__main__":
    sys.exit(main())
