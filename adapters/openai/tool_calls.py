"""Tool calls as OpenAI writes them, from providers that number, name and spell them as they like."""

from __future__ import annotations

import uuid
from typing import Any

import orjson

from gw.errors import UpstreamProtocolError

_Fragment = dict[str, Any]
_LATER = frozenset({"index", "function"})
_FUNCTION = frozenset({"arguments"})


def new_call_id() -> str:
    """An id for a call that came without one."""
    return f"call_{uuid.uuid4().hex[:24]}"


def as_arguments(value: Any) -> str:
    """A call's arguments as text that holds JSON; none at all are `{}`."""
    if isinstance(value, str):
        return value if value.strip() else "{}"
    return "{}" if value is None else orjson.dumps(value).decode()


def repair_calls(message: dict[str, Any]) -> bool:
    """Make the `tool_calls` of a whole message OpenAI's, in place; whether anything had to change."""
    calls = message.get("tool_calls")
    if calls is None:
        return False
    if not calls:
        del message["tool_calls"]
        return True
    changed = False
    for call in calls:
        function = call.get("function")
        if function is None:
            continue  # a custom tool's call
        arguments = as_arguments(function.get("arguments"))
        if function.get("arguments") != arguments:
            function["arguments"] = arguments
            changed = True
        if not call.get("id"):
            call["id"] = new_call_id()
            changed = True
        if not call.get("type"):
            call["type"] = "function"
            changed = True
    return changed


class _Call:
    """One call of a stream, as far as it is known."""

    __slots__ = ("arguments", "id", "index", "name")

    def __init__(self, index: int, call_id: str | None, name: str) -> None:
        self.index = index
        self.id = call_id  # the provider's; None where it gave none
        self.name = name
        self.arguments: list[str] = []  # kept only where the provider gives no ids

    @property
    def is_complete(self) -> bool:
        """Whether what came of its arguments is a whole JSON value."""
        try:
            orjson.loads("".join(self.arguments))
        except orjson.JSONDecodeError:
            return False
        return True


class CallStream:
    """The tool calls of one choice of a stream: each fragment finds its call, however the provider numbers them.

    A new call is known by a new index; where that is missing or given twice, by a new id; where there are no ids, by a
    new name; and where even that is the same, by the last call's arguments being whole.
    """

    __slots__ = ("_by_index", "_calls", "_last", "_started")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._last: _Call | None = None
        self._started: set[int] = set()  # calls with some arguments

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def has_ids(self) -> bool:
        """Whether the provider named every call so far, so that its fragments need no guessing."""
        return all(call.id for call in self._calls)

    def unfinished(self) -> list[_Fragment]:
        """The fragments that give `{}` to the calls which came without any arguments."""
        return [
            {"index": call.index, "function": {"arguments": "{}"}}
            for call in self._calls
            if call.index not in self._started
        ]

    def repair(self, fragments: list[_Fragment]) -> list[_Fragment]:
        """The same fragments as OpenAI would send them; the very same objects where nothing had to change."""
        repaired = []
        for fragment in fragments:
            if "function" not in fragment and fragment.get("type") not in (None, "function"):
                repaired.append(fragment)  # a custom tool's call
                continue
            new = self._repair(fragment)
            if new is not None:
                repaired.append(new)
        return repaired

    def _repair(self, fragment: _Fragment) -> _Fragment | None:
        function = fragment.get("function") or {}
        name = function.get("name") or ""
        arguments = function.get("arguments")
        text = (
            arguments if isinstance(arguments, str) else "" if arguments is None else orjson.dumps(arguments).decode()
        )
        call = self._of(fragment, name)
        is_first = call is None
        if call is None:
            if not name:
                raise UpstreamProtocolError("the provider sent a piece of a tool call before its name")
            call = self._begin(fragment, name)
        self._last = call
        if text:
            self._started.add(call.index)
            if call.id is None:
                call.arguments.append(text)
        return _first(fragment, call, text) if is_first else _later(fragment, call, text)

    def _begin(self, fragment: _Fragment, name: str) -> _Call:
        call = _Call(len(self._calls), fragment.get("id") or None, name)
        self._calls.append(call)
        if isinstance(fragment.get("index"), int):
            self._by_index[fragment["index"]] = call
        return call

    def _of(self, fragment: _Fragment, name: str) -> _Call | None:
        """The call that a fragment goes on; None where it begins one."""
        index, call_id = fragment.get("index"), fragment.get("id")
        known = self._by_index.get(index) if isinstance(index, int) else self._last
        if not name:
            if isinstance(call_id, str) and call_id:
                known = next((call for call in self._calls if call.id == call_id), known)
            return known or self._last
        if known is None or (call_id and call_id != known.id):
            return next((call for call in self._calls if call_id and call.id == call_id), None)
        if call_id:
            return known
        if name != known.name or (known.id is None and known.is_complete):
            return None
        return known


def _first(fragment: _Fragment, call: _Call, text: str) -> _Fragment:
    """The fragment that begins a call: index, id, type and name."""
    function = fragment["function"]
    if (
        fragment.get("index") == call.index
        and fragment.get("type") == "function"
        and fragment.get("id")
        and function.get("arguments") == text
    ):
        return fragment
    return {
        **fragment,
        "index": call.index,
        "id": fragment.get("id") or new_call_id(),
        "type": "function",
        "function": {**function, "arguments": text},
    }


def _later(fragment: _Fragment, call: _Call, text: str) -> _Fragment | None:
    """A fragment that goes on: arguments only, and what extra a provider put beside them."""
    function = fragment.get("function")
    if fragment.get("index") == call.index and function == {"arguments": text} and fragment.keys() == _LATER:
        return fragment
    extras = {name: value for name, value in fragment.items() if name not in ("index", "id", "type", "function")}
    if not text and not extras:
        return None
    return {"index": call.index, **extras, "function": {"arguments": text}}
