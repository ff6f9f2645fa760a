"""One fault played against one gateway: who was asked for what, what the caller read, and whether that is right."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from gw.adapters.faulty import Asked, Fault, Faulty
from gw.adapters.faulty.faults import Dialect, Shape
from gw.cli.drill.books import books_problem
from gw.cli.drill.plans import LOG, Plan
from gw.cli.drill.reading import Reading, read
from gw.gateway import GatewayServer

PATIENCE = 8.0  # seconds: several times what all limits of a drill allow together
MESSAGES = [{"role": "user", "content": "Say everything."}]


@dataclass(frozen=True, slots=True)
class Case:
    """What is played: a fault, streamed or whole, in a dialect, by the one backend (`alone`) or with others by."""

    fault: Fault
    shape: Shape
    dialect: Dialect
    first: str  # the backend that is asked first
    others: tuple[str, ...]  # who stands by

    @property
    def only(self) -> str | None:
        """The one backend that there is, where no other stands by."""
        return None if self.others else self.first


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went. `problem` is what is broken, empty where all is well; `attempts` are those providers saw.

    `was_busy` says that it was well only when it was played again by itself, with more time.
    """

    case: Case
    read: str  # "whole answer", "one clean error" or "BROKEN"
    rescued_by: str
    attempts: int
    seconds: float
    problem: str = ""
    was_busy: bool = False


@dataclass(slots=True)
class Seen:
    """One request as a provider saw it."""

    backend: str
    act: str
    key: str
    has_prefix: bool


@dataclass(slots=True)
class Stage:
    """Says what each provider does: whoever is asked first has the fault."""

    fault: Fault
    seen: list[Seen] = field(default_factory=list)
    sick: str | None = None
    _played: int = 0

    def choose(self, backend: str, asked: Asked) -> str:
        """The act for one request to one backend's provider."""
        self.sick = self.sick or backend
        act = self.fault.others
        if backend == self.sick:
            act = self.fault.acts[min(self._played, len(self.fault.acts) - 1)]
            self._played += 1
        key = asked.headers.get("authorization") or asked.headers.get("x-api-key", "")
        self.seen.append(Seen(backend, act, key, asked.json["messages"][-1]["role"] == "assistant"))
        return act


async def play(
    plan: Plan, case: Case, model: str | None, client: httpx.AsyncClient, folder: Path, times: float = 1.0
) -> Outcome:
    """Start the gateway, ask, stop it, and judge; `times` lengthens its timeouts."""
    stage = Stage(case.fault)
    gateway = GatewayServer(plan.gateway(case.dialect, folder, case.only, times), environ={})
    await gateway.start()
    try:
        for backend in gateway.backends:
            if isinstance(backend.adapter, Faulty):
                backend.adapter.server.choose = partial(stage.choose, backend.name)
        readings, asked, began = [], [0], time.monotonic()
        for _ in range(case.fault.requests):
            readings.append(await ask(gateway.url, plan.token, client, case.shape, model))
            asked.append(len(stage.seen))
        seconds = time.monotonic() - began
    finally:
        await gateway.close(grace=0)
    problem = next((text for reading in readings if (text := _problem(plan, case, reading))), "")
    problem = problem or _hammered(plan, case, stage)
    if not problem and plan.has_log:
        problem = books_problem(folder / LOG, readings, stage.seen)
    worst = max(readings, key=lambda reading: ("answer", "error", "broken").index(reading.kind))
    kind = "BROKEN" if problem else {"answer": "whole answer", "error": "one clean error"}[worst.kind]
    rescues = dict.fromkeys(
        _rescue(case, stage.sick or "", reading, stage.seen[asked[at] : asked[at + 1]])
        for at, reading in enumerate(readings)
    )
    return Outcome(case, kind, ", ".join(rescues) if not problem else "nothing", len(stage.seen), seconds, problem)


async def ask(url: str, token: str, client: httpx.AsyncClient, shape: Shape, model: str | None) -> Reading:
    """One chat completion, read to its end."""
    stream = shape == "streamed"
    try:
        async with asyncio.timeout(PATIENCE):
            response = await client.post(
                f"{url}/v1/chat/completions", json=chat(shape, model), headers={"Authorization": f"Bearer {token}"}
            )
            return read(response, response.content, stream=stream)
    except TimeoutError:
        return Reading("broken", f"no end after {PATIENCE:g} s")
    except httpx.HTTPError as error:
        return Reading("broken", f"the connection to the gateway broke ({type(error).__name__})")


def chat(shape: Shape, model: str | None) -> dict[str, Any]:
    """The request of the drill."""
    body: dict[str, Any] = {"messages": MESSAGES, "max_tokens": 1000, "stream": shape == "streamed"}
    if shape == "streamed":
        body["stream_options"] = {"include_usage": True}
    return body if model is None else {"model": model, **body}


def _problem(plan: Plan, case: Case, reading: Reading) -> str:
    """What is broken about one answer; empty for nothing."""
    fault, kind = case.fault, reading.kind
    if kind == "broken":
        return reading.about
    if fault.due == "refusal":
        if kind == "answer" and plan.may_hide(fault):
            return ""
        if kind == "answer":
            return "the refusal of a request was hidden from the caller"
        return "" if reading.status < 500 else f"the refusal of a request was told as {reading.about}"
    if kind == "answer":
        return ""
    told = f"the caller was told {reading.about}"
    if fault.due == "answer":
        return f"{told}, though the answer was there"
    if fault.due == "retry" and not case.others:
        return f"{told}, though a second try would have done" if not plan.may_give_up(fault) else ""
    if case.others and not (fault.due == "late" and reading.is_partial):
        return f"{told}, though {case.others[0]} stood by"
    return ""


def _hammered(plan: Plan, case: Case, stage: Stage) -> str:
    """Whether one backend was asked more often than its retries and keys allow."""
    # A connection that was reset before a byte came is replaced once, unasked.
    each = 1 + plan.retries + (plan.keys(case.first) - 1) + 1 + (case.fault.due == "late")
    most = each * case.fault.requests
    count = sum(seen.backend == stage.sick for seen in stage.seen)
    return f"{stage.sick} was asked {count} times, {most} at most are right" if count > most else ""


def _rescue(case: Case, sick: str, reading: Reading, seen: Sequence[Seen]) -> str:
    """What made one answer good, by what the providers saw."""
    if reading.kind != "answer":
        return reading.about
    if not seen:
        return "nobody was asked"
    last = seen[-1]
    if last.has_prefix:
        return f"continued by {last.backend}"
    if last.backend != sick:
        return f"fallback to {last.backend}" if seen[0].backend == sick else f"{last.backend} at once"
    if len(seen) == 1:
        return case.fault.cure
    return "another key" if last.key != seen[-2].key else "retry"
