"""Tool calls as OpenAI writes them, from providers that number, name and spell them as they like."""

from __future__ import annotations

import uuid
from typing import Any

import orjson

from gw.errors import UpstreamProtocolError
from gw.provider_json import written

_Fragment = dict[str, Any]
_TEXT_OF = {"function": "arguments", "custom": "input"}  # what a call says, by its type
_LATER = {kind: {"index", kind} for kind in _TEXT_OF}


def new_call_id() -> str:
    """An id for a call that came without one."""
    return f"call_{uuid.uuid4().hex[:24]}"


def as_arguments(value: Any) -> str:
    """A call's arguments as text that holds JSON; none at all are `{}`."""
    if isinstance(value, str):
        return value if value.strip() else "{}"
    return "{}" if value is None else written(value).decode()


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

    __slots__ = ("id", "index", "kind", "name", "said")

    def __init__(self, index: int, call_id: str | None, kind: str, name: str) -> None:
        self.index = index
        self.id = call_id  # the provider's; None where it gave none
        self.kind = kind
        self.name = name
        self.said: list[str] = []  # kept only where the provider gives no ids

    @property
    def is_complete(self) -> bool:
        """Whether what came of its arguments is a whole JSON value."""
        try:
            orjson.loads("".join(self.said))
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
            if call.index not in self._started and call.kind == "function"
        ]

    def repair(self, fragments: list[_Fragment]) -> list[_Fragment]:
        """The same fragments as OpenAI would send them; the very same objects where nothing had to change."""
        repaired = []
        for fragment in fragments:
            kind = _kind_of(fragment)
            new = fragment if kind is None else self._repair(fragment, kind)
            if new is not None:
                repaired.append(new)
        return repaired

    def _repair(self, fragment: _Fragment, kind: str) -> _Fragment | None:
        body = fragment.get(kind) or {}
        name = body.get("name") or ""
        said = body.get(_TEXT_OF[kind])
        text = said if isinstance(said, str) else "" if said is None else written(said).decode()
        call = self._of(fragment, name)
        is_first = call is None
        if call is None:
            if not name:
                raise UpstreamProtocolError("the provider sent a piece of a tool call before its name")
            call = self._begin(fragment, kind, name)
        self._last = call
        if text:
            self._started.add(call.index)
            if call.id is None:
                call.said.append(text)
        return _first(fragment, call, text) if is_first else _later(fragment, call, text)

    def _begin(self, fragment: _Fragment, kind: str, name: str) -> _Call:
        call = _Call(len(self._calls), fragment.get("id") or None, kind, name)
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


def _kind_of(fragment: _Fragment) -> str | None:
    """`function` or `custom`; None for a call of a type that only this provider knows."""
    for kind in _TEXT_OF:  # only a call's first fragment tells its type
        if fragment.get(kind) is not None:
            return kind
    kind = fragment.get("type") or "function"
    return kind if kind in _TEXT_OF else None


def _first(fragment: _Fragment, call: _Call, text: str) -> _Fragment:
    """The fragment that begins a call: index, id, type and name."""
    body, said = fragment[call.kind], _TEXT_OF[call.kind]
    if (
        fragment.get("index") == call.index
        and fragment.get("type") == call.kind
        and fragment.get("id")
        and body.get(said) == text
    ):
        return fragment
    return {
        **fragment,
        "index": call.index,
        "id": fragment.get("id") or new_call_id(),
        "type": call.kind,
        call.kind: {**body, said: text},
    }


def _later(fragment: _Fragment, call: _Call, text: str) -> _Fragment | None:
    """A fragment that goes on: arguments only, and what extra a provider put beside them."""
    kind, said = call.kind, {_TEXT_OF[call.kind]: text}
    if fragment.get("index") == call.index and fragment.get(kind) == said and fragment.keys() == _LATER[kind]:
        return fragment
    extras = {name: value for name, value in fragment.items() if name not in ("index", "id", "type", *_TEXT_OF)}
    if not text and not extras:
        return None
    return {"index": call.index, **extras, kind: said}
