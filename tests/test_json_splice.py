"""Small changes to the bytes of a JSON object are exact, or are not made."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.json_splice import SCAN_LIMIT, append_members, has_duplicates, replace_member

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)
PADDING = {"padding": "x" * SCAN_LIMIT}


@pytest.mark.parametrize("more", [{}, PADDING], ids=["small", "large"])
@given(value=st.dictionaries(st.text(max_size=3), VALUES, max_size=4))
def test_an_object_without_a_name_twice_has_no_duplicates(value: dict[str, Any], more: dict[str, str]) -> None:
    for raw in (orjson.dumps(value | more), orjson.dumps(value | more, option=orjson.OPT_INDENT_2)):
        assert has_duplicates(raw, orjson.loads(raw)) is (b"\\u0022" in raw)


@pytest.mark.parametrize("more", [{}, PADDING], ids=["small", "large"])
@pytest.mark.parametrize(
    "twice",
    [
        b'{"model":"cheap","model":"dear"}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":[{"b":"x","b":"y"}]}',
        rb'{"a":1,"\u0061":2}',
        rb'{"a":"\"","a":"\""}',
    ],
)
def test_a_name_that_is_there_twice_is_seen_wherever_it_is(twice: bytes, more: dict[str, str]) -> None:
    raw = append_members(twice, more) if more else twice
    assert has_duplicates(raw, orjson.loads(raw))


def test_many_parts_are_counted_as_exactly_as_few_large_ones() -> None:
    value = {"messages": [{"role": "user", "content": f'say "{n}"'} for n in range(5000)]}
    raw = orjson.dumps(value)
    assert not has_duplicates(raw, value)
    assert has_duplicates(b'{"messages":1,' + raw[1:], orjson.loads(b'{"messages":1,' + raw[1:]))


@pytest.mark.parametrize("count", [1999, 2000, 2001, 5000])
def test_a_text_full_of_marks_is_searched_as_exactly_as_an_image(count: int) -> None:
    for mark in ('"', "\\", "\n"):
        raw = orjson.dumps(PADDING | {"text": mark * count, "model": "old"})
        assert not has_duplicates(raw, orjson.loads(raw))
        twice = raw[:-1] + b',"model":"old"}'
        assert has_duplicates(twice, orjson.loads(twice))
        escaped = raw[:-1] + rb',"more":"\u0022"}'
        assert has_duplicates(escaped, orjson.loads(escaped)), "whether a name is hidden in it cannot be told"
    quotes = {"text": '"' * count, "messages": [PADDING]}
    for model in ("new", "an older one"):
        first = orjson.dumps({"model": "old"} | quotes)
        assert replace_member(first, b"model", orjson.dumps(model)) == orjson.dumps({"model": model} | quotes)
        hidden = first[:-1] + rb',"\u006dodel":"old"}'
        assert replace_member(hidden, b"model", orjson.dumps(model)) is None


@given(value=st.dictionaries(st.text(max_size=3), VALUES, max_size=4), name=st.sampled_from(["old", 'o"d', ""]))
def test_a_replaced_member_is_the_only_thing_that_changes(value: dict[str, Any], name: str) -> None:
    whole = {**value, "model": name}
    replaced = replace_member(orjson.dumps(whole), b"model", b'"new"')
    assert replaced is not None
    assert orjson.loads(replaced) == whole | {"model": "new"}


@pytest.mark.parametrize(
    "raw",
    [b'{"a":{"model":"x"}}', b'{"model":{"a":1}}', b'{"model":"x","model":"y"}', rb'{"model":"x","mode\u006c":"y"}'],
)
def test_a_member_that_is_not_surely_the_only_one_is_left_alone(raw: bytes) -> None:
    assert replace_member(raw, b"model", b'"new"') is None


NESTED = st.recursive(
    st.none() | st.integers(-9, 9) | st.sampled_from(["model", 'a "model" of', '"model"', "\\", "\\u006d", "é"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["model", "a", 'm"']), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "Model", 'model"']), NESTED, max_size=4),
    st.sampled_from(["old", 'o"d', "", None, 7, -1.5e9, True, ["x"], {"model": "x"}]),
    st.sampled_from([0, orjson.OPT_INDENT_2]),
    st.booleans(),
    st.booleans(),
)
def test_a_member_that_is_known_to_be_there_is_replaced_as_one_that_is_searched_for(
    more: dict[str, Any], old: Any, option: int, is_first: bool, is_escaped: bool
) -> None:
    whole = {"model": old, **more} if is_first else {**more, "model": old}
    raw = orjson.dumps(whole, option=option)
    if is_escaped:
        raw = raw.replace(b'"model"', rb'"mode\u006c"', 1)
    known, searched = (replace_member(raw, b"model", b'"new"', is_there) for is_there in (True, False))
    if known is not None:
        assert orjson.loads(known) == orjson.loads(raw) | {"model": "new"}
    assert known == searched
