"""`gw drill`: every fault of a provider played against a configuration, and what the caller reads then."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import uvloop

from gw.adapters.faulty import FAULTS, Fault
from gw.adapters.faulty.faults import DIALECTS, SHAPES, Dialect, Shape
from gw.assembly import Config
from gw.cli.drill.cases import PATIENCE, Case, Outcome, chat, play
from gw.cli.drill.plans import Plan, plan
from gw.cli.drill.report import Progress, json_report, text_report
from gw.errors import ConfigError
from gw.gateway import GatewayServer
from gw.near import near

AT_ONCE = 8  # gateways that run beside each other: most of a drill is waiting
TIMES = 3.0  # how much longer the times are where a case is played again
ENOUGH = 6  # cases that have broken twice: the others need no second hearing


def drill(
    config: Config,
    *,
    only: Sequence[str] = (),
    dialects: Sequence[Dialect] | None = None,
    model: str | None = None,
    as_json: bool = False,
) -> int:
    """Play the faults (`only` these), print the report. 0: all was well, 1: something is broken. Raises ConfigError.

    `model` is what the requests ask for; None leaves the choice to the router.
    """
    faults = chosen(only)
    planned = plan(config)
    began = time.monotonic()
    nowhere = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull} if planned.uses_httpx else {}
    with _variables(nowhere), _quiet(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcomes = runner.run(_drill(planned, faults, dialects or DIALECTS, model))
    seconds = time.monotonic() - began
    print((json_report if as_json else text_report)(planned, outcomes, seconds))
    return 1 if any(outcome.problem for outcome in outcomes) else 0


def chosen(only: Sequence[str]) -> list[Fault]:
    """The faults of these names; all where none is named. Raises ConfigError for a name that there is not."""
    known = {fault.name: fault for fault in FAULTS}
    unknown = [name for name in only if name not in known]
    if unknown:
        raise ConfigError(
            [
                f'--only: there is no fault "{name}"{near(name, known)} (there are: {", ".join(known)})'
                for name in unknown
            ]
        )
    return [fault for name, fault in known.items() if not only or name in only]


async def _drill(
    planned: Plan, faults: Sequence[Fault], dialects: Sequence[Dialect], model: str | None
) -> list[Outcome]:
    limit = asyncio.Semaphore(AT_ONCE)
    with tempfile.TemporaryDirectory(prefix="gw-drill-") as name:
        folder = Path(name)
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
            model, asked = await _survey(planned, model, client, folder)
            cases = cases_of(planned, faults, dialects, asked)
            progress = Progress(len(cases))

            async def one(number: int, case: Case) -> Outcome:
                own = folder / str(number)
                own.mkdir()
                async with limit:
                    outcome = await play(planned, case, model, client, own)
                progress.step(case.fault.name)
                return outcome

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(number, case)) for number, case in enumerate(cases)]
            progress.end()

            async def again(case: Case) -> Outcome:
                own = Path(tempfile.mkdtemp(dir=folder))
                return await play(planned, case, model, client, own, TIMES)

            return await _heard_again([task.result() for task in tasks], again)


async def _heard_again(outcomes: list[Outcome], play_again: Callable[[Case], Awaitable[Outcome]]) -> list[Outcome]:
    """What broke is played again by itself: short times on a busy machine are no fault of the gateway."""
    broken_twice = 0
    for at, outcome in enumerate(outcomes):
        if outcome.problem and broken_twice < ENOUGH:
            second = await play_again(outcome.case)
            broken_twice += bool(second.problem)
            outcomes[at] = second if second.problem else replace(second, was_busy=True)
    return outcomes


@contextmanager
def _quiet() -> Iterator[None]:
    """Without gw's own warnings: faults are expected here, and the report tells them."""
    logger = logging.getLogger("gw")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def cases_of(
    planned: Plan, faults: Sequence[Fault], dialects: Sequence[Dialect], asked: dict[Shape, tuple[str, ...]]
) -> list[Case]:
    """Every case: with others by where somebody is, and alone. `asked` are the candidates, best first."""
    cases: list[Case] = []
    for fault in faults:
        for dialect in dialects:
            for shape in SHAPES:
                if dialect not in fault.dialects or shape not in fault.shapes:
                    continue
                first, *rest = asked[shape]
                others = tuple(rest)
                if fault.acts == ("too_long",):
                    others = planned.roomier(first, others)
                if others:
                    cases.append(Case(fault, shape, dialect, first, others))
                if not fault.needs_other:
                    cases.append(Case(fault, shape, dialect, first, ()))
    return cases


async def _survey(
    planned: Plan, model: str | None, client: httpx.AsyncClient, folder: Path
) -> tuple[str | None, dict[Shape, tuple[str, ...]]]:
    """The model to ask for, and who would be asked, best first. Raises ConfigError where nobody would."""
    async with GatewayServer(planned.gateway("openai", folder), environ={}) as gateway:
        headers = {"Authorization": f"Bearer {planned.token}"}

        async def candidates(model: str | None, shape: Shape) -> tuple[tuple[str, ...], str]:
            page = (await client.post(f"{gateway.url}/route", json=chat(shape, model), headers=headers)).json()
            names = tuple(one["backend"] for one in page.get("candidates", ()))
            return names, page.get("error", {}).get("message", "")

        refusal = ""
        listed = await client.get(f"{gateway.url}/v1/models", headers=headers)
        names = [one["id"] for one in listed.json().get("data", ())]
        for name in [model] if model else [None, *names]:
            asked = {shape: await candidates(name, shape) for shape in SHAPES}
            if all(found for found, _ in asked.values()):
                return name, {shape: found for shape, (found, _) in asked.items()}
            refusal = refusal or next(why for found, why in asked.values() if not found)
    raise ConfigError([f"a plain chat {f'with {model} ' if model else ''}would be refused: {refusal}"])
