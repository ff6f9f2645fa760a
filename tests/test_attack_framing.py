"""Requests that two parsers could read in two ways: one answer, a closed connection, and nothing reaches a provider."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attack_world import CANARY, World, world
from tests.framing_requests import BODY, LIMITS, RIGHT, ROWS


@pytest.fixture(scope="module", params=["auto", "h11"])
def attacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("framing")
    with world(folder, limits=LIMITS, server={"http": request.param}) as attacked:
        yield attacked


# --- one answer, then silence -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROWS)
def test_what_can_be_read_in_two_ways_gets_one_answer_and_nothing_behind_it(attacked: World, name: str) -> None:
    data, status, code = ROWS[name]
    before = len(attacked.reached)
    answer = attacked.attack(data, [status], kept=False)[0]
    assert answer.code == code
    assert CANARY.encode() not in answer.body
    assert len(attacked.reached) == before


def test_there_are_hundreds_of_them() -> None:
    assert len(ROWS) > 400


# --- what is odd and right ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_odd_and_right_is_served_and_the_connection_kept(attacked: World, name: str) -> None:
    data, reaching = RIGHT[name]
    before = len(attacked.reached)
    attacked.attack(data, [200], kept=True)
    assert attacked.reached[before:] == [BODY] * reaching
