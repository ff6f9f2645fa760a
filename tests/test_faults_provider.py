"""Whatever a provider does, the client reads the whole answer or one clean error, soon; the log says what happened."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults_world import CASES, DIALECTS, SOON, Scene, expected, scene
from tests.faulty_provider import ANSWER


@pytest.fixture(scope="module")
def erring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("e")) as made:
        yield made


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
