"""What providers' JSON comes to: mended where it is nearly right, and no digit of an integer lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.provider_json import mended, parse, read_exactly, write_exactly

VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(exclude_categories=["Cs"])),
    ),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)),
)


@given(VALUES)
def test_a_value_is_read_as_it_was_written(value: Any) -> None:
    written = write_exactly(value)
    assert read_exactly(written) == value
    assert write_exactly(read_exactly(written)) == written


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 12345678901234567890123, 10**400])
def test_integers_beyond_64_bits_keep_every_digit(number: int) -> None:
    assert write_exactly(mended(b'{"id":%d,"x":NaN}' % number)) == b'{"id":%d,"x":null}' % number
    if number < 10**300:  # more than a float holds is nothing that orjson takes
        assert write_exactly(read_exactly(b'{"id":%d}' % number)) == b'{"id":%d}' % number


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (rb'"cut \ud83d"', "cut \ufffd"),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (rb'"\\ud83d \ude00"', "\\ud83d \ufffd"),
        (b"[NaN, Infinity, -Infinity, 1e400]", [None] * 4),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
    ],
)
def test_what_is_nearly_json_is_mended(raw: bytes, value: Any) -> None:
    assert parse(raw)[0] == value
    write_exactly(parse(raw)[0])


@pytest.mark.parametrize("raw", [b"", b"{", b"<html>", b"[" * 100_000, b"\xff\xfe", b"1" * 5000])
def test_what_is_no_json_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(raw)


def test_what_is_nested_too_deep_to_be_written_is_a_type_error() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(TypeError):
        write_exactly(value)
