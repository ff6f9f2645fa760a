"""Splicing into JSON is exact or not done at all."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.json_splice import SCAN_LIMIT, append_members, replace_member


@pytest.mark.parametrize(
    ("raw", "result"),
    [
        (b'{"model":"a"}', b'{"model":X}'),
        (b' { "model"\n:\t"a" , "b":1 } ', b' { "model"\n:\tX , "b":1 } '),
        (b'{"b":{"c":[1,"]}"]},"model":null}', b'{"b":{"c":[1,"]}"]},"model":X}'),
        (b'{"model":-1.5e3,"b":1}', b'{"model":X,"b":1}'),
        (b'{"b":{"model":"n"},"model":"a"}', b'{"b":{"model":"n"},"model":X}'),
        (b'{"b":"\\"model\\":","model":"a\\"b"}', b'{"b":"\\"model\\":","model":X}'),
        (b'{"b":"x\\"model","model":"a"}', b'{"b":"x\\"model","model":X}'),
        (b'{"b":"model","model":"a"}', b'{"b":"model","model":X}'),
        (b'{"b":"\\u00e9","model":"a"}', b'{"b":"\\u00e9","model":X}'),
    ],
)
def test_the_objects_own_member_is_replaced(raw: bytes, result: bytes) -> None:
    assert replace_member(raw, b"model", b"X") == result


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b'{"b":{"model":"n"}}',
        b'[{"model":"n"}]',
        b'{"model":"a","model":"b"}',
        b'{"model":{"a":1}}',
        b'{"model":["a"]}',
        b'{"b":"model"}',
        b'{"b":"\\"model"}',
        b'{"model":"a","mod\\u0065l":"b"}',
        b'{"mod\\u0065l":"b","model":"a"}',
        b'{"mod\\u0065l":"b"}',
        b'{"b":"' + b"x" * SCAN_LIMIT + b'","model":"a"}',
    ],
)
def test_what_cannot_be_proven_is_left_alone(raw: bytes) -> None:
    assert replace_member(raw, b"model", b"X") is None


@pytest.mark.parametrize(
    ("raw", "result"),
    [
        (b"{}", b'{"n":1}'),
        (b" { } \n", b' {"n":1}'),
        (b'{"a":{}}', b'{"a":{},"n":1}'),
        (b'{"a":[1] }\n', b'{"a":[1],"n":1}'),
    ],
)
def test_members_are_added_at_the_end(raw: bytes, result: bytes) -> None:
    assert append_members(raw, {"n": 1}) == result


_value = st.recursive(
    st.none() | st.integers(-99, 99) | st.text(max_size=6) | st.sampled_from(["model", '"model":"a"', "\\"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["model", "a", '"']), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["model", "a", "b", 'm"odel', "c\\"]), _value, max_size=5), st.booleans())
def test_a_replaced_member_means_what_a_rewritten_object_means(value: dict[str, Any], indent: bool) -> None:
    raw = orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else None)
    replaced = replace_member(raw, b"model", b'"new"')
    if replaced is None:
        assert isinstance(value.get("model", {}), dict | list)
    else:
        assert orjson.loads(replaced) == value | {"model": "new"}
        assert list(orjson.loads(replaced)) == list(value)


@given(st.dictionaries(st.text(max_size=3), _value, max_size=4))
def test_added_members_mean_what_a_rewritten_object_means(value: dict[str, Any]) -> None:
    added = append_members(orjson.dumps(value), {"new member": [1]})
    assert orjson.loads(added) == value | {"new member": [1]}
