"""A body stays the bytes it came as until somebody opens it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gw.document import Chunk, Completion, Document


def test_looking_leaves_the_bytes_as_they_came() -> None:
    raw = b'{ "a" : 1 }'
    document = Document(raw)
    assert document.peek() == {"a": 1}
    assert document.raw is raw
    assert not document.is_opened


def test_an_opened_document_is_written_from_its_value() -> None:
    document = Document(b'{ "a" : 1 }')
    document.data["b"] = 2
    assert document.is_opened
    assert document.raw == b'{"a":1,"b":2}'
    document.data["a"] = 3
    assert document.raw == b'{"a":3,"b":2}'


def test_both_ways_of_looking_show_the_same_value() -> None:
    document = Document(b'{"a":1}')
    assert document.peek() is document.data


def test_bytes_are_made_once_from_a_value_that_nobody_opened() -> None:
    document = Document(value={"a": 1})
    assert document.raw == b'{"a":1}'
    assert document.raw is document.raw


def test_bytes_and_value_given_together_are_both_kept() -> None:
    raw, value = b'{ "a":1}', {"a": 1}
    document = Document(raw, value)
    assert document.raw is raw
    assert document.peek() is value


@pytest.mark.parametrize("raw", [b"", b"[1]", b"null", b'"x"', b"{", b'{"a":NaN}'])
def test_what_is_no_json_object_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Document(raw).peek()
    with pytest.raises(ValueError, match=r"."):
        _ = Document(raw).data


def test_a_value_that_json_cannot_hold_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        _ = Document(value={"a": object()}).raw


@pytest.mark.parametrize(
    ("delta", "content"),
    [
        ({"content": "a"}, True),
        ({"reasoning_content": "a"}, True),
        ({"reasoning": "a"}, True),
        ({"refusal": "no"}, True),
        ({"tool_calls": [{"index": 0}]}, True),
        ({"function_call": {"name": "f"}}, True),
        ({"audio": {"data": ""}}, True),
        ({"role": "assistant", "content": ""}, False),
        ({"role": "assistant", "content": None, "tool_calls": []}, False),
        ({}, False),
    ],
)
def test_content_is_what_commits_a_stream(delta: dict[str, Any], content: bool) -> None:
    value = {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    assert Chunk(orjson.dumps(value)).has_content() is content
    assert Chunk(value=value).has_content() is content


@pytest.mark.parametrize("value", [{}, {"choices": []}, {"choices": None}, {"choices": [{"delta": None}]}])
def test_a_chunk_without_a_delta_has_no_content(value: dict[str, Any]) -> None:
    assert not Chunk(value=value).has_content()


def test_content_of_any_choice_counts() -> None:
    assert Chunk(value={"choices": [{"delta": {}}, {"delta": {"content": "a"}}]}).has_content()


def test_a_document_shows_its_size_and_never_its_text() -> None:
    document = Completion(b'{"secret":"words"}')
    assert repr(document) == "<Completion 18 bytes, as it came>"
    _ = document.data
    assert "words" not in repr(document)
    assert "opened" in repr(document)


def test_what_was_found_of_a_chat_is_forgotten_once_it_is_opened() -> None:
    document = Document(b'{"messages":[]}', None, 7, True)
    document.peek()
    assert (document.characters, document.is_flat) == (7, True)
    document.data["tools"] = []
    assert (document.characters, document.is_flat) == (None, False)
