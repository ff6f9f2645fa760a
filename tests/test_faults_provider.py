"""Whatever a provider does, the client reads the whole answer or one clean error, soon; the log says what happened."""

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
import pytest

from gw.backend import Health
from tests.faulty_provider import ANSWER, FaultyProvider
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


@pytest.fixture(scope="module")
def continuing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("c"), after_content="continue", continues=["well", "claude"]) as made:
        yield made


@pytest.fixture(scope="module")
def erring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("e")) as made:
        yield made


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


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("fault", "stream"), CASES)
def test_alone_a_faulty_provider_gives_the_whole_answer_or_one_clean_error_soon(
    erring: Scene, dialect: str, fault: str, stream: bool
) -> None:
    erring.reset()
    answer = erring.ask_in_time(dialect, fault, stream=stream)
    outcome = expected(fault, dialect, stream)
    assert answer.seconds < SOON
    seen = len(erring.provider.times[f"fault:{fault}"])
    if "reset" in fault:  # a kept connection that is closed before any byte came is replaced once, unasked
        assert len(answer.tries) <= seen <= len(answer.tries) + 1 <= 4
    else:
        assert len(answer.tries) == seen <= 3
    if outcome == "ok":
        assert (answer.status, answer.text, answer.finish, answer.error) == (200, ANSWER, "stop", None)
        assert answer.is_done
        assert answer.row["error"] is None
        assert (answer.row["tokens_input"], answer.row["tokens_output"]) == (9, 60)
    elif outcome == "cut":
        assert answer.status == 200
        assert answer.error is not None
        assert not answer.is_done
        assert answer.finish is None
        assert ANSWER.startswith(answer.text)
        assert answer.usage is not None
        assert answer.row["usage_source"] == "estimated"
        assert answer.row["tokens_output"] > 0
    else:
        assert answer.status == outcome
        assert answer.error is not None
        assert set(answer.error) == {"message", "type", "param", "code"}
        assert answer.text == ""
        assert answer.row["tokens_output"] is None  # a failed attempt is no completion
    if outcome != "ok":
        assert answer.row["error_type"] is not None
        assert answer.tries[-1]["error_type"] not in (None, "gateway", "client_gone")
        assert "canary" not in str(answer.error)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("fault", "stream"), [case for case in CASES if case[0] != "slow_first"])
def test_every_fault_is_rescued_where_somebody_else_can_answer(
    continuing: Scene, dialect: str, fault: str, stream: bool
) -> None:
    continuing.reset()
    answer = continuing.ask_in_time(dialect, fault, stream=stream, others="+well")
    assert answer.seconds < SOON
    assert (answer.status, answer.text, answer.finish, answer.error) == (200, ANSWER, "stop", None)
    assert answer.is_done
    assert answer.row["error"] is None
    assert answer.row["attempts"] == len(answer.tries)
    if expected(fault, dialect, stream) != "ok":
        assert answer.row["backend"] == "well"
        assert answer.row["fallback_from"] == backend_of(dialect, fault)
        assert answer.row["degraded"] == 1
        assert all(attempt["error_type"] for attempt in answer.tries[:-1])


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("fault", "status"), [("bad_request", 422), ("content_filter", 400)])
def test_a_refused_request_is_told_and_not_routed_around(
    continuing: Scene, dialect: str, fault: str, status: int, stream: bool
) -> None:
    continuing.reset()
    if dialect == "anthropic" and fault == "content_filter":
        status = 400
    answer = continuing.ask(f"{dialect}+well", fault, stream=stream)
    assert answer.status == status
    assert answer.error is not None
    assert len(answer.tries) == 1


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_filtered_answer_is_told_as_such(continuing: Scene, dialect: str) -> None:
    continuing.reset()
    answer = continuing.ask(f"{dialect}+well", "filtered_answer", stream=False)
    assert (answer.status, answer.finish) == (200, "content_filter")
    assert len(answer.tries) == 1


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [True, False])
def test_a_drip_of_single_bytes_is_read_whole(erring: Scene, dialect: str, stream: bool) -> None:
    erring.reset()
    answer = erring.ask(dialect, "drip", stream=stream)
    assert (answer.status, answer.text, answer.finish) == (200, "ab", "stop")


@pytest.mark.parametrize("fault", ["closes_behind", "second_response"])
@pytest.mark.parametrize("stream", [True, False])
def test_what_comes_behind_an_answer_never_reaches_the_next_request(erring: Scene, fault: str, stream: bool) -> None:
    erring.reset()
    for _ in range(5):
        answer = erring.ask("openai", fault, stream=stream)
        assert (answer.status, answer.text) == (200, ANSWER)


@pytest.mark.parametrize("fault", ["silence", "stall_40", "keep_alives_only", "drip_for_ever"])
def test_a_provider_that_is_given_up_is_hung_up_on(erring: Scene, fault: str) -> None:
    erring.reset()
    erring.ask_in_time("openai", fault, stream=True)
    assert erring.provider.loopback.hung_up.is_set()
    assert erring.provider.loopback.hangups == 1


@pytest.mark.parametrize("fault", ["silence", "keep_alives_only"])
@pytest.mark.parametrize("stream", [True, False])
def test_the_clients_deadline_is_kept_and_told(erring: Scene, fault: str, stream: bool) -> None:
    erring.reset()
    answer = erring.ask("openai", fault, stream=stream, headers={"X-Gateway-Deadline-Ms": "500"})
    assert 0.49 <= answer.seconds < SOON
    assert answer.status == 504
    assert answer.error is not None
    assert "500 ms (X-Gateway-Deadline-Ms)" in answer.error["message"]
    assert [attempt["error_type"] for attempt in answer.tries] == ["timeout"]


def test_the_clients_deadline_leaves_time_for_the_next(continuing: Scene) -> None:
    continuing.reset()
    answer = continuing.ask("openai+well", "silence", stream=True, headers={"X-Gateway-Deadline-Ms": "3000"})
    assert (answer.status, answer.text, answer.finish) == (200, ANSWER, "stop")
    assert answer.seconds < SOON
    assert [attempt["error_type"] for attempt in answer.tries] == ["timeout", None]


def test_no_retry_comes_at_once_and_the_pauses_grow(erring: Scene) -> None:
    erring.reset()
    erring.ask("openai", "error_500", stream=True)
    first, second = erring.provider.gaps("fault:error_500")
    assert first >= 0.01
    assert second >= 0.02


def test_a_retry_after_is_not_slept_beyond_the_limit_and_passed_on(erring: Scene) -> None:
    erring.reset()
    answer = erring.ask("openai", "limited", stream=True)
    assert answer.headers["retry-after"] == "1"
    assert len(answer.tries) == 1


def test_sums_over_the_log_equal_what_the_provider_counted(continuing: Scene) -> None:
    continuing.reset()
    answer = continuing.ask("openai+well", "error_500", stream=False)
    assert [attempt["tokens_output"] for attempt in answer.tries] == [None, None, None, 60]
    assert answer.row["tokens_output"] == 60
    assert sum(len(times) for times in continuing.provider.times.values()) == len(answer.tries)


def test_a_provider_that_refuses_a_prefill_leaves_a_clean_error(continuing: Scene) -> None:
    """The only one left to go on says no: the break is told."""
    continuing.reset()
    answer = continuing.ask("openai", "cut_40+refuses_prefill", stream=True)
    assert answer.error is not None
    assert not answer.is_done
    assert len(answer.tries) == 2


def test_a_second_beginning_is_never_passed_on(continuing: Scene) -> None:
    continuing.reset()
    answer = continuing.ask("openai", "cut_40+begins_again", stream=True)
    assert answer.error is not None
    assert ANSWER.startswith(answer.text)
    assert len(answer.tries) == 2  # each is asked to go on once


def test_the_seam_is_marked_and_usage_summed(continuing: Scene) -> None:
    continuing.reset()
    answer = continuing.ask("openai+well", "cut_40", stream=True)
    seams = [chunk["gateway"] for chunk in answer.chunks if chunk.get("gateway", {}).get("failed")]
    assert seams == [{"continued": True, "failed": "openai", "backend": "well"}]
    assert answer.chunks[-1]["gateway"]["continued"] is True
    assert answer.usage is not None
    assert answer.usage["prompt_tokens"] == answer.row["tokens_input"] == answer.tries[0]["tokens_input"] + 9
    assert answer.usage["completion_tokens"] == answer.row["tokens_output"] > 60
    assert [attempt["usage_source"] for attempt in answer.tries] == ["estimated", "reported"]
    prefix = continuing.provider.bodies[-1]["messages"][-1]
    assert prefix["role"] == "assistant"
    assert ANSWER.startswith(prefix["content"])
    assert answer.row["response"].split() == ANSWER.split()


def test_a_provider_of_another_dialect_goes_on_from_the_prefix(continuing: Scene) -> None:
    continuing.reset()
    answer = continuing.ask("openai+claude", "cut_40", stream=True)
    assert (answer.status, answer.text, answer.finish, answer.error) == (200, ANSWER, "stop", None)
    assert [attempt["backend"] for attempt in answer.tries] == ["openai", "claude"]


def test_half_a_tool_call_is_never_followed_by_another(continuing: Scene) -> None:
    continuing.reset()
    answer = continuing.ask("openai+well", "cut_in_tool", stream=True)
    assert not any("tool_calls" in choice["delta"] for chunk in answer.chunks for choice in chunk["choices"])
