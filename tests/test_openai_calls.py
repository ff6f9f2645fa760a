"""Tool calls in pieces, however a provider numbers, names and cuts them, are OpenAI's when a client reads them."""

from __future__ import annotations

from typing import Any

import pytest

from gw.errors import UpstreamProtocolError
from tests.fakes import chunk, sse
from tests.openai_fakes import calls, fragment, read, reading

# --- tool calls ---------------------------------------------------------------------------------------------------


def test_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    found = calls(fragment('{"a":1}', name="f", id="x"), fragment('{"b":2}', name="f", id="y"))
    assert found.tool_calls == [("x", "f", {"a": 1}), ("y", "f", {"b": 2})]


def test_calls_that_share_an_index_are_told_apart_by_their_ids() -> None:
    found = calls(
        fragment('{"a"', name="f", id="x", index=0),
        fragment(":1}", index=0),
        fragment("", name="g", id="y", index=0),
        fragment('{"b"', index=0),
        fragment(":2}", index=0),
    )
    assert found.tool_calls == [("x", "f", {"a": 1}), ("y", "g", {"b": 2})]


def test_calls_without_ids_are_told_apart_by_their_names_and_then_by_being_whole() -> None:
    found = calls(
        fragment("{", name="f", index=0),
        fragment("}", index=0),
        fragment("{}", name="g", index=0),
        fragment('{"a":1}', name="g", index=0),
    )
    assert [(name, arguments) for _, name, arguments in found.tool_calls] == [("f", {}), ("g", {}), ("g", {"a": 1})]
    assert len({call_id for call_id, _, _ in found.tool_calls}) == 3


def test_a_name_and_an_id_that_are_repeated_begin_no_new_call() -> None:
    found = calls(
        fragment('{"a"', name="f", id="x", index=0),
        fragment(":", name="f", id="x", index=0),
        fragment("1}", name="", id="x", index=0),
    )
    assert found.tool_calls == [("x", "f", {"a": 1})]


def test_indexes_are_counted_anew_from_zero() -> None:
    found = calls(fragment("{}", name="f", id="x", index=3), fragment("{}", name="g", id="y", index=7))
    assert [name for _, name, _ in found.tool_calls] == ["f", "g"]


def test_interleaved_calls_are_kept_apart() -> None:
    found = calls(
        fragment("", name="f", id="x", index=0),
        fragment("", name="g", id="y", index=1),
        fragment('{"a":', index=0),
        fragment('{"b":', index=1),
        fragment("1}", index=0),
        fragment("2}", index=1),
    )
    assert found.tool_calls == [("x", "f", {"a": 1}), ("y", "g", {"b": 2})]


@pytest.mark.parametrize("arguments", ["", None])
def test_a_call_without_arguments_gets_an_empty_object(arguments: str | None) -> None:
    assert calls(fragment(arguments, name="f", id="x", index=0)).tool_calls == [("x", "f", {})]


def test_a_call_without_arguments_that_comes_with_the_end_gets_an_empty_object() -> None:
    begins = fragment("", name="g", id="y", index=1, type="function")
    found = reading(
        chunk({"tool_calls": [fragment("", name="f", id="x", index=0, type="function")]}),
        chunk({"tool_calls": [begins]}, "tool_calls"),
    )
    assert found.tool_calls == [("x", "f", {}), ("y", "g", {})]
    only = chunk({"role": "assistant", "content": None, "tool_calls": [begins | {"index": 0}]}, "tool_calls")
    assert reading(only).tool_calls == [("y", "g", {})]


def test_arguments_as_an_object_become_text() -> None:
    assert calls(fragment({"a": [1]}, name="f", id="x", index=0)).tool_calls == [("x", "f", {"a": [1]})]


def test_stop_becomes_tool_calls_where_calls_were_made() -> None:
    assert calls(fragment("{}", name="f", id="x", index=0), finish="stop").finish_reason == "tool_calls"


def test_a_piece_of_a_call_that_nobody_began_is_garbage() -> None:
    with pytest.raises(UpstreamProtocolError, match="before its name"):
        calls(fragment("{}", index=0))


def test_an_empty_list_of_calls_is_dropped() -> None:
    found = read(sse(chunk({"content": "a", "tool_calls": []}), chunk({}, "stop")))
    assert "tool_calls" not in found[0]["choices"][0]["delta"]


# --- custom tools -------------------------------------------------------------------------------------------------

FUNCTION = [fragment("{}", name="f", id="x", index=0, type="function")]
SQL = [
    {"index": 1, "id": "y", "type": "custom", "custom": {"name": "sql", "input": ""}},
    {"index": 1, "custom": {"input": "SELECT"}},
    {"index": 1, "custom": {"input": " 1"}},
]


def passed_on(*fragments: dict[str, Any]) -> list[dict[str, Any]]:
    """What the client is sent of a stream's tool calls."""
    found = read(sse(*(chunk({"tool_calls": [one]}) for one in fragments), chunk({}, "tool_calls")))
    return [call for one in found for call in one["choices"][0]["delta"].get("tool_calls", ())]


def test_a_custom_tools_call_keeps_its_pieces_before_and_behind_a_functions_call() -> None:
    assert passed_on(*FUNCTION, *SQL) == [*FUNCTION, *SQL]
    assert passed_on(*SQL, *FUNCTION) == [one | {"index": 0} for one in SQL] + [FUNCTION[0] | {"index": 1}]


def test_interleaved_calls_of_both_types_are_kept_apart() -> None:
    begins, *rest = SQL
    mixed = [FUNCTION[0] | {"function": {"name": "f", "arguments": ""}}, begins, fragment("{}", index=0), *rest]
    assert passed_on(*mixed) == mixed


def test_a_custom_tools_call_without_any_input_is_given_none() -> None:
    assert passed_on(SQL[0]) == [SQL[0] | {"index": 0}]


def test_stop_becomes_tool_calls_behind_a_custom_tools_call() -> None:
    found = read(sse(*(chunk({"tool_calls": [one]}) for one in SQL), chunk({}, "stop")))
    assert found[-1]["choices"][0]["finish_reason"] == "tool_calls"
