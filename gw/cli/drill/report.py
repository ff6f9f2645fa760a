"""What a drill shows: a bar while it runs, a table when it is over, or all of it as JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import orjson

from gw.adapters.faulty.faults import FAULTS
from gw.cli.drill.cases import Outcome
from gw.cli.drill.plans import Plan

_WIDTH = 40  # of the bar, in characters
_BENCH = 16  # the first faults are those of the public bench
_HEAD = ("fault", "answer", "dialect", "the caller read", "rescued by", "asked", "seconds")


class Progress:
    """A bar on a terminal; elsewhere a line at each quarter. It goes to stderr where no other file is given."""

    def __init__(self, total: int, file: TextIO | None = None) -> None:
        self._total = total
        self._done = 0
        self._file = file or sys.stderr
        self._is_terminal = self._file.isatty()

    def step(self, name: str) -> None:
        """One more is done."""
        before, self._done = self._done, self._done + 1
        if self._is_terminal:
            filled = _WIDTH * self._done // self._total
            bar = "#" * filled + "." * (_WIDTH - filled)
            print(f"\r[{bar}] {self._done}/{self._total} {name:<20}", end="", file=self._file, flush=True)
        elif 4 * before // self._total < 4 * self._done // self._total:
            print(f"{self._done} of {self._total} played", file=self._file, flush=True)

    def end(self) -> None:
        """Take the bar away."""
        if self._is_terminal:
            print(f"\r{' ' * (_WIDTH + 40)}\r", end="", file=self._file, flush=True)


def text_report(plan: Plan, outcomes: Sequence[Outcome], seconds: float) -> str:
    """The tables for a terminal, and what it comes to."""
    lines = [f"{_file(plan)}, drilled; what differs from it:"]
    lines += [f"  {change}" for change in plan.changes]
    beside = [outcome for outcome in outcomes if outcome.case.others]
    alone = [outcome for outcome in outcomes if not outcome.case.others]
    if beside:
        case = beside[0].case
        lines += ["", f"{case.first} fails, {' and '.join(case.others)} stand{'s' * (len(case.others) == 1)} by", ""]
        lines += _table(beside)
    if alone:
        lines += ["", f"{alone[0].case.first} fails, and there is nobody else", "", *_table(alone)]
    lines += _broken(outcomes)
    return "\n".join([*lines, "", *_summary(outcomes, seconds)])


def _file(plan: Plan) -> str:
    path, here = plan.config.path, Path.cwd()
    if path is None:
        return "the configuration"
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _summary(outcomes: Sequence[Outcome], seconds: float) -> list[str]:
    lines = []
    bench = {fault.name for fault in FAULTS[:_BENCH]}
    for about, names in (("the public bench", bench), ("the others", {f.name for f in FAULTS} - bench)):
        played = {outcome.case.fault.name for outcome in outcomes} & names
        broken = {outcome.case.fault.name for outcome in outcomes if outcome.problem} & names
        if played:
            lines.append(
                f"{len(played - broken)} of {len(played)} faults of {about} end in a whole answer or a clean error"
            )
    whole = sum(outcome.read == "whole answer" for outcome in outcomes)
    clean = sum(outcome.read == "one clean error" for outcome in outcomes)
    busy = sum(outcome.was_busy for outcome in outcomes)
    if busy:
        lines.append(f"{busy} of the cases were well only by themselves and with more time: the machine was busy")
    return [
        *lines,
        f"{len(outcomes)} cases in {seconds:.1f} s: {whole} whole answers, {clean} clean errors, "
        f"{len(outcomes) - whole - clean} broken",
    ]


def _table(outcomes: Sequence[Outcome]) -> list[str]:
    """One row for all cases of a fault that ended alike."""
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.case.fault.name, outcome.read, outcome.rescued_by), []).append(outcome)
    rows = [
        (
            name,
            _joined([outcome.case.shape for outcome in group]),
            _joined([outcome.case.dialect for outcome in group]),
            read,
            rescued_by,
            _span([outcome.attempts for outcome in group]),
            f"{max(outcome.seconds for outcome in group):.2f}",
        )
        for (name, read, rescued_by), group in groups.items()
    ]
    widths = [max(len(row[column]) for row in [_HEAD, *rows]) for column in range(len(_HEAD))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [_HEAD, *rows]
    ]


def _joined(words: Sequence[str]) -> str:
    found = dict.fromkeys(words)
    return "both" if len(found) == 2 else next(iter(found))


def _span(counts: Sequence[int]) -> str:
    return str(min(counts)) if min(counts) == max(counts) else f"{min(counts)}-{max(counts)}"


def _broken(outcomes: Sequence[Outcome]) -> list[str]:
    """What is broken, one line for all cases of a fault that broke alike."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.problem:
            fault = outcome.case.fault
            groups.setdefault((f"{fault.name} ({fault.about})", outcome.problem), []).append(outcome)
    lines = ["", "BROKEN"] if groups else []
    for (name, problem), group in groups.items():
        shapes = " and ".join(dict.fromkeys(outcome.case.shape for outcome in group))
        lines.append(f"  {name}, {shapes}: {problem}")
    return lines


def json_report(plan: Plan, outcomes: Sequence[Outcome], seconds: float) -> str:
    """All of it, case by case."""
    page: dict[str, Any] = {
        "ok": not any(outcome.problem for outcome in outcomes),
        "seconds": round(seconds, 3),
        "config": None if plan.config.path is None else str(plan.config.path),
        "changes": plan.changes,
        "cases": [_case(outcome) for outcome in outcomes],
    }
    return orjson.dumps(page, option=orjson.OPT_INDENT_2).decode()


def _case(outcome: Outcome) -> dict[str, Any]:
    case = outcome.case
    return {
        "fault": case.fault.name,
        "about": case.fault.about,
        "answer": case.shape,
        "dialect": case.dialect,
        "first": case.first,
        "others": case.others,
        "read": outcome.read,
        "rescued_by": outcome.rescued_by,
        "asked": outcome.attempts,
        "seconds": round(outcome.seconds, 3),
        "problem": outcome.problem or None,
        "was_busy": outcome.was_busy,
    }
