"""A provider's own rate limits, in every spelling, reach its backend and nobody else."""

from __future__ import annotations

import pytest

from gw.backend import Backend
from gw.message import Headers
from gw.provider_limits import LONGEST, Allowance, heed, read_allowances
from tests.fakes import FakeClock

NOW = 1_700_000_000.0


def headers(**fields: str) -> Headers:
    return Headers([(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()])


def test_openais_spelling() -> None:
    found = read_allowances(
        headers(
            x_ratelimit_limit_requests="5000",
            x_ratelimit_remaining_requests="4999",
            x_ratelimit_reset_requests="12ms",
            x_ratelimit_limit_tokens="160000",
            x_ratelimit_remaining_tokens="0",
            x_ratelimit_reset_tokens="1m6.5s",
        )
    )
    assert found == [Allowance("requests", 5000, 4999, 0.012), Allowance("tokens", 160000, 0, 66.5)]
    assert [allowance.is_used_up for allowance in found] == [False, True]


def test_anthropics_spelling() -> None:
    found = read_allowances(
        headers(
            anthropic_ratelimit_input_tokens_limit="400000",
            anthropic_ratelimit_input_tokens_remaining="399000",
            anthropic_ratelimit_input_tokens_reset="2023-11-14T22:13:50Z",
        ),
        now=NOW,
    )
    assert found == [Allowance("input-tokens", 400000, 399000, 30.0)]


def test_mistrals_spelling() -> None:
    found = read_allowances(headers(x_ratelimit_limit_tokens_minute="500", x_ratelimit_remaining_tokens_minute="7"))
    assert found == [Allowance("tokens-minute", 500, 7, None)]


@pytest.mark.parametrize("value", ["", "many", "-1", "1.5", "9" * 400, "١"])
def test_a_figure_that_is_none_is_not_believed(value: str) -> None:
    name = b"x-ratelimit-remaining-requests"
    assert read_allowances(Headers([(name, value.encode())])) == [Allowance("requests")]


def test_a_backend_whose_limit_is_used_up_is_left_alone_until_it_resets() -> None:
    clock = FakeClock()
    backend = Backend("b", "openai", clock=clock)
    heed(backend, headers(x_ratelimit_remaining_requests="1", x_ratelimit_reset_requests="5s"))
    assert not backend.is_cooling
    heed(backend, headers(x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests="5s"))
    assert backend.cooling_for == 5.0
    assert backend.cooling_reason == "its limit of requests is used up"
    clock.now += 5.0
    assert not backend.is_cooling


def test_a_far_reset_does_not_put_a_backend_away_for_long() -> None:
    backend = Backend("b", "openai", clock=FakeClock())
    heed(backend, headers(x_ratelimit_remaining_tokens="0", x_ratelimit_reset_tokens="23h59m"))
    assert backend.cooling_for == LONGEST


def test_an_answer_that_says_nothing_of_limits_changes_nothing() -> None:
    backend = Backend("b", "openai")
    heed(backend, headers(content_type="application/json", x_ratelimit_reset_requests="5s"))
    assert not backend.is_cooling
