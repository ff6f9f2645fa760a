"""What others do about a provider's faults: the whole answer is read where one may go on, else one clean error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults_world import CASES, DIALECTS, SOON, Scene, backend_of, expected, scene
from tests.faulty_provider import ANSWER


@pytest.fixture(scope="module")
def continuing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("c"), after_content="continue", continues=["well", "claude"]) as made:
        yield made


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


def test_the_clients_deadline_leaves_time_for_the_next(continuing: Scene) -> None:
    continuing.reset()
    answer = continuing.ask("openai+well", "silence", stream=True, headers={"X-Gateway-Deadline-Ms": "3000"})
    assert (answer.status, answer.text, answer.finish) == (200, ANSWER, "stop")
    assert answer.seconds < SOON
    assert [attempt["error_type"] for attempt in answer.tries] == ["timeout", None]


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
    assert (answer.status, answer.error, len(answer.tries), answer.is_done) == (200, None, 2, True)
    assert not any("tool_calls" in choice["delta"] for chunk in answer.chunks for choice in chunk["choices"])
