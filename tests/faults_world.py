"""A gateway over a faulty provider, what its client read, what the log says; and what each fault ends in alone."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson

from gw.backend import Health
from tests.faulty_provider import FaultyProvider
from tests.running import Running, running, settings

HI = [{"role": "user", "content": "Say everything."}]
PATIENT = {"connect": 60, "first_content": 60, "idle": 60, "total": 60}  # nothing that answers is too slow for it
BRIEF = 0.3  # seconds
SOON = 20.0  # far above BRIEF and all retries, far below PATIENT
DIALECTS = ["openai", "anthropic"]
# What never ends, and the limit that ends it where it is streamed; where it is whole, `total` does.
ENDLESS = {
    "silence": "first_content",
    "keep_alives_only": "first_content",
    "drip_for_ever": "first_content",
    "stall_40": "idle",
    "keep_alives_after_40": "idle",
}


@dataclass
class Answer:
    """What the client read, what the provider saw, and what the log says."""

    status: int
    text: str
    finish: str | None
    error: dict[str, Any] | None
    is_done: bool
    headers: httpx.Headers
    usage: dict[str, Any] | None
    seconds: float
    chunks: list[dict[str, Any]] = field(default_factory=list)
    row: dict[str, Any] = field(default_factory=dict)
    tries: list[dict[str, Any]] = field(default_factory=list)


class Scene:
    """A gateway whose backends `openai` and `anthropic` are faulty, with `well` behind them where a plan says so.

    `openai-first_content` and the like are the same with one limit brief, and `total`: whatever is to time out is asked
    there, and nothing else, for nobody knows how long a busy machine takes for all that is to be answered.
    """

    def __init__(self, gw: Running, folder: Path, **fallback: Any) -> None:
        self.provider = FaultyProvider()
        gw.run(gw._stack.enter_async_context(self.provider.loopback))
        self.gw = gw
        self.database = folder / "requests.db"
        url = self.provider.loopback.url
        sick = {"timeouts": PATIENT, "api_key": "sk-canary-one"}
        backends = {
            **{name: {"adapter": name, "base_url": f"{url}/v1", **sick} for name in DIALECTS},
            **{
                f"{name}-{limit}": {
                    "adapter": name,
                    "base_url": f"{url}/v1",
                    **sick,
                    "timeouts": PATIENT | {limit: BRIEF, "total": BRIEF},
                }
                for name in DIALECTS
                for limit in sorted(set(ENDLESS.values()))
            },
            "claude": {
                "adapter": "anthropic",
                "base_url": f"{url}/v1",
                "model": "fault:going_on",
                "flags": {"prefill": True},
                **sick,
            },
            "well": {"adapter": "openai", "base_url": f"{url}/v1", "model": "fault:going_on", **sick},
        }
        rules = [
            {"when": f"header x-plan: {name}{more}", "backends": [name, *([] if not more else ["well"])]}
            for name in (*DIALECTS, *(name for name in backends if "-" in name))
            for more in ("", "+well")
        ]
        rules.append({"when": "header x-plan: openai+claude", "backends": ["openai", "claude"]})
        tables = {
            "fallback": {"backoff": 0.02, "retry_after_max": 0.1, "retry_budget": {"share": 1}} | fallback,
            "route": {"rules": rules},
            "log": {"path": str(self.database), "durability": "durable"},
            "rate_limit": {"enabled": False},
        }
        self.url = gw.start(settings(folder, backends=backends, middleware=tables), keep_alive=60)
        self.client = httpx.Client(trust_env=False, timeout=90)

    def reset(self) -> None:
        self.provider.reset()
        for backend in self.gw.gateway.backends:
            backend.health = Health()

    def ask(self, plan: str, fault: str, *, stream: bool, **more: Any) -> Answer:
        """One request; its answer as a client of OpenAI reads it."""
        headers = {"X-Plan": plan} | more.pop("headers", {})
        chat = {"model": f"fault:{fault}", "messages": HI, "stream": stream, "max_tokens": 1000} | more
        if stream:
            chat["stream_options"] = {"include_usage": True}
        began = time.monotonic()
        response = self.client.post(self.url + "/v1/chat/completions", json=chat, headers=headers)
        seconds = time.monotonic() - began
        is_stream = response.headers["content-type"].startswith("text/event-stream")
        answer = (_read_stream if is_stream else _read_whole)(response, seconds)
        self._look_up(answer)
        return answer

    def ask_in_time(self, dialect: str, fault: str, *, stream: bool, others: str = "") -> Answer:
        """The same, asked where what never ends is given up soon, and not before the provider has the request."""
        backend = backend_of(dialect, fault)
        if backend == dialect:
            return self.ask(dialect + others, fault, stream=stream)
        # A connection is there then: the request is out before its time has begun to pass.
        assert self.ask("openai", "fine", stream=False).status == 200
        hung_up = self.provider.loopback.hung_up
        answer = self.ask(backend + others, fault, stream=stream)
        self.gw.run(asyncio.wait_for(hung_up.wait(), 30))
        return answer

    def _look_up(self, answer: Answer) -> None:
        with sqlite3.connect(self.database) as database:
            database.row_factory = sqlite3.Row
            request = answer.headers["x-request-id"]
            rows = database.execute("SELECT * FROM requests WHERE request_id = ?", [request]).fetchall()
            assert len(rows) == 1, "one row per exchange"
            answer.row = dict(rows[0])
            query = "SELECT * FROM attempts WHERE request_row = ? ORDER BY number"
            answer.tries = [dict(row) for row in database.execute(query, [answer.row["id"]])]
        database.close()


def _read_whole(response: httpx.Response, seconds: float) -> Answer:
    value = response.json()
    choice = (value.get("choices") or [{}])[0]
    return Answer(
        response.status_code,
        (choice.get("message") or {}).get("content") or "",
        choice.get("finish_reason"),
        value.get("error"),
        True,
        response.headers,
        value.get("usage"),
        seconds,
    )


def _read_stream(response: httpx.Response, seconds: float) -> Answer:
    events = [event for event in response.text.split("\n\n") if event.startswith("data: ")]
    is_done = events[-1] == "data: [DONE]"
    values = [orjson.loads(event[6:]) for event in events[: -1 if is_done else None]]
    chunks = [value for value in values if "error" not in value]
    errors = [value for value in values if "error" in value]
    assert len(errors) <= 1
    choices = [choice for value in chunks for choice in value["choices"]]
    assert sum("role" in choice["delta"] for choice in choices) <= 1
    assert len({value["id"] for value in chunks}) <= 1
    return Answer(
        response.status_code,
        "".join(choice["delta"].get("content") or "" for choice in choices),
        next((choice["finish_reason"] for choice in choices if choice["finish_reason"]), None),
        errors[0]["error"] if errors else None,
        is_done,
        response.headers,
        next((value["usage"] for value in values if value.get("usage")), None),
        seconds,
        chunks,
    )


@contextmanager
def scene(folder: Path, **fallback: Any) -> Iterator[Scene]:
    with running() as gw:
        made = Scene(gw, folder, **fallback)
        try:
            yield made
        finally:
            made.client.close()


# fault: (what a stream ends in when nobody else is there, what a whole answer ends in); "ok", "filtered", or the
# status. "cut" is a break after content: an error event in a 200.
ALONE: dict[str, tuple[Any, Any]] = {
    "limited": (429, 429),
    "limited_without_a_word": (429, 429),
    "no_quota": (429, 429),
    "error_500": (502, 502),
    "error_500+fine": ("ok", "ok"),
    "overload_503": (502, 502),
    "overload_529": (502, 502),
    "overload_503+fine": ("ok", "ok"),
    "dead_key": (502, 502),
    "reset": (502, 502),
    "reset+fine": ("ok", "ok"),
    "silence": (504, 504),
    "slow_first": ("ok", "ok"),
    "steady": ("ok", "ok"),
    "cut_40": ("cut", 502),
    "stall_40": ("cut", 504),
    "closed_40": ("cut", 502),
    "malformed_event": (502, 502),
    "malformed_40": ("cut", 502),
    "missing_done": ("ok", "ok"),
    "too_long": (400, 400),
    "error_before": (502, 502),
    "error_after": ("cut", 502),
    "cut_in_tool": ("cut", 502),
    "cut_in_character": ("cut", 502),
    "keep_alives_only": (504, 504),
    "keep_alives_after_40": ("cut", 504),
    "empty_200": (502, 502),
    "html_200": (502, 502),
    "false_length": ("cut", 502),
    "gzip_body": ("ok", "ok"),
    "duplicate_finish": ("ok", "ok"),
    "usage_without_choices": ("ok", "ok"),
    "closes_behind": ("ok", "ok"),
    "second_response": ("ok", "ok"),
    "drip_for_ever": (504, 504),
}
OF_ANTHROPIC = {"missing_done": ("cut", "ok")}  # only message_stop ends an answer of its dialect
CASES = [(fault, stream) for fault in ALONE for stream in (True, False)]


def backend_of(dialect: str, fault: str) -> str:
    """The backend that is asked for this fault: where nothing ends by itself, one with a brief limit."""
    return f"{dialect}-{ENDLESS[fault]}" if fault in ENDLESS else dialect


def expected(fault: str, dialect: str, stream: bool) -> Any:
    outcomes = OF_ANTHROPIC.get(fault, ALONE[fault]) if dialect == "anthropic" else ALONE[fault]
    return outcomes[0 if stream else 1]
