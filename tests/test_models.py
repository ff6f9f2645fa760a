"""The catalogue of models: found by any of their names, priced only where the price is known, overridable."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pytest

from gw.message import Usage
from gw.models import FLAGS, Catalogue, LongPrice, Model, catalogue

FOUND = catalogue()


def model(name: str, of: Catalogue = FOUND) -> Model:
    found = of.find(name)
    assert found is not None
    return found


def test_every_model_has_known_flags_and_a_dated_source_for_its_price() -> None:
    assert len(FOUND) > 100
    for one in FOUND:
        assert one.flags <= set(FLAGS)
        assert (one.price is None) == (one.source == "")
        if one.price is not None:
            assert one.source.startswith("https://")
            datetime.date.fromisoformat(one.date)
            assert one.price.output >= one.price.input or one.price.input == one.price.output == 0


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("claude-opus-5-5", "claude-opus-5-5"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("anthropic/claude-opus-4.5", "claude-opus-4-5"),
        ("claude-3-5-sonnet-latest", "claude-3-5-sonnet"),
        ("claude-3-5-sonnet-v2@20241022", "claude-3-5-sonnet"),
        ("Claude-Haiku-4-5", "claude-haiku-4-5"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("publishers/google/models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("mistral-large-latest", "mistral-large-latest"),
        ("z-ai/glm-4.7", "glm-4.7"),
    ],
)
def test_a_model_is_found_by_any_of_its_names(name: str, known: str) -> None:
    assert model(name).name == known
    assert model(name).price is not None


@pytest.mark.parametrize(
    ("name", "relative"),
    [
        ("claude-opus-6", "claude-opus-5-5"),
        ("claude-fable-5-2", "claude-fable-5-1"),
        ("claude-haiku-7", "claude-haiku-5-5"),
        ("claude-new-family-1", "claude-opus-5-5"),
        ("gemini-2.5-flash-preview-09-2025", "gemini-2.5-flash"),
    ],
)
def test_a_later_member_of_a_family_has_its_flags_and_neither_price_nor_limits(name: str, relative: str) -> None:
    found = model(name)
    assert found.flags == model(relative).flags
    assert (found.price, found.max_output, found.context) == (None, None, None)


def test_a_tag_makes_the_price_unknown() -> None:
    assert model("z-ai/glm-4.7:free").price is None
    assert model("anthropic/claude-opus-5:thinking").flags == model("claude-opus-5").flags


def test_a_stranger_is_not_known() -> None:
    assert FOUND.find("llama3") is None
    assert FOUND.find("") is None


def test_a_price_counts_cached_tokens_at_their_own_rate() -> None:
    price = model("claude-sonnet-4-5").price
    assert price is not None
    usage = Usage(prompt=1_000_000, completion=1_000_000, cached=500_000, cache_written=100_000)
    assert price.of(usage) == pytest.approx(0.4 * 3 + 0.5 * 0.3 + 0.1 * 3.75 + 15)


def test_a_long_prompt_has_its_own_price() -> None:
    price = model("gemini-2.5-pro").price
    assert isinstance(price, LongPrice)
    short, long = Usage(prompt=200_000, completion=1000), Usage(prompt=200_001, completion=1000)
    assert price.of(short) == pytest.approx(0.2 * 1.25 + 0.001 * 10)
    assert price.of(long) == pytest.approx(0.200001 * 2.5 + 0.001 * 15)


def test_the_file_overrides_what_is_shipped() -> None:
    changed = FOUND.changed(
        {
            "claude-opus-5": {"input": 1, "output": 2, "sampling": True, "max_output": 10},
            "house-model": {
                "input": 0.5,
                "output": 1.5,
                "long": {"above": 10, "input": 5, "output": 15},
                "context": 8000,
            },
            "claude-haiku-4-5": {"output": 6},
            "claude-sonnet-5": {"flags": ["prefill"]},
        }
    )
    opus = model("claude-opus-5", changed)
    assert opus.price is not None
    assert (opus.price.input, opus.price.output, opus.price.cache_read) == (1, 2, None)
    assert (opus.source, opus.max_output, opus.has("sampling"), opus.has("adaptive_thinking")) == ("", 10, True, True)
    house = model("house-model", changed).price
    assert house is not None
    assert house.of(Usage(prompt=11)) == pytest.approx(11 * 5 / 1e6)
    haiku = model("claude-haiku-4-5", changed).price
    assert haiku is not None
    assert (haiku.input, haiku.output, haiku.cache_read) == (1, 6, 0.1)
    assert model("claude-sonnet-5", changed).flags == {"prefill"}
    assert not model("claude-opus-5").has("sampling")


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"smapling": True}, "smapling: unknown"),
        ({"sampling": 1}, "sampling: true or false"),
        ({"flags": ["nope"]}, "'nope' is unknown"),
        ({"input": "cheap"}, "input: USD per million"),
        ({"output": -1}, "output: USD per million"),
        ({"max_output": 0}, "max_output: a number of tokens"),
        ({"long": {"input": 1}}, "long: a table"),
        ({"long": {"above": 1, "inptu": 1}}, "long.inptu: unknown"),
        ({"long": {"above": 1, "input": math.inf}}, "long.input: USD per million"),
        ({"input": math.nan}, "input: USD per million"),
    ],
)
def test_a_wrong_override_names_the_model_and_the_key(table: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        FOUND.changed({"m": table, "n": {"input": 1}})
    assert str(caught.value).startswith('models."m".')


def test_everything_that_is_wrong_with_an_override_is_told() -> None:
    table = {"input": "cheap", "context": 0, "smapling": True, "flags": ["nope"], "long": {"above": 1, "output": -1}}
    with pytest.raises(ValueError, match="unknown") as caught:
        FOUND.changed({"m": table, "n": {"input": -1}})
    told = [line.partition(":")[0] for line in str(caught.value).splitlines()]
    keys = ("context", "smapling", "flags", "input", "long.output")
    assert told == [*(f'models."m".{key}' for key in keys), 'models."n".input']
