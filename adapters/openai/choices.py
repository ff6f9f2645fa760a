"""One choice of a stream, made OpenAI's: the role first, tool calls by index, one end and nothing after it."""

from __future__ import annotations

from typing import Any

from gw.adapters.openai.answers import Source, finish_of, repair_content
from gw.adapters.openai.tool_calls import CallStream
from gw.message import Summary

_CONTENT = (
    *("content", "reasoning_content", "reasoning", "tool_calls", "refusal"),
    *("function_call", "audio", "images", "reasoning_details"),
)


class ChoiceStream:
    """What is known of one choice so far."""

    __slots__ = ("_details", "begun", "calls", "finished", "has_content")

    def __init__(self) -> None:
        self.calls = CallStream()
        self._details = 0  # elements of its reasoning_details so far
        self.begun = False  # its role has been told
        self.has_content = False
        self.finished = False

    def repair(self, choice: dict[str, Any], summary: Summary, source: Source) -> tuple[bool, bool]:
        """Repair a piece in place: (whether anything had to change, whether there is anything to pass on).

        Raises UpstreamError for a choice that is an error, and UpstreamProtocolError where content follows the end:
        two answers in one stream.
        """
        if choice.get("error"):
            raise source.error(choice["error"])
        delta = choice.get("delta")
        changed = not isinstance(delta, dict)
        if not isinstance(delta, dict):
            delta = choice["delta"] = {}
        changed |= repair_content(delta, self._details)
        if isinstance(details := delta.get("reasoning_details"), list):
            self._details += len(details)
        if "tool_calls" in delta:
            changed |= self._repair_calls(delta)
        content = [delta[name] for name in _CONTENT if delta.get(name)]
        if self.finished:
            if content:
                raise source.garbage("went on after the end of its answer: two answers in one stream")
            return True, False
        changed |= self._repair_role(choice, delta)
        if content:
            self.has_content = True
            summary.output_characters += _length(delta)
        changed |= self._repair_finish(choice, summary)
        return changed, True

    def give_arguments(self, choice: dict[str, Any]) -> list[dict[str, Any]]:
        """See to it that calls without any arguments have `{}` when their choice ends with this piece.

        A call that this very piece begins gets them in place; what is left has to be sent before the piece.
        """
        missing = self.calls.unfinished()
        begun = {
            fragment["index"]: fragment for fragment in choice["delta"].get("tool_calls") or () if "id" in fragment
        }
        for fragment in missing:
            if (first := begun.get(fragment["index"])) is not None:
                first["function"] = {**first["function"], **fragment["function"]}
        return [fragment for fragment in missing if fragment["index"] not in begun]

    def _repair_role(self, choice: dict[str, Any], delta: dict[str, Any]) -> bool:
        if self.begun:
            return delta.pop("role", None) is not None
        self.begun = True
        if delta.get("role") == "assistant":
            return False
        choice["delta"] = {**delta, "role": "assistant"}
        return True

    def _repair_calls(self, delta: dict[str, Any]) -> bool:
        fragments = delta["tool_calls"]
        repaired = self.calls.repair(fragments) if fragments else []
        if not repaired:
            del delta["tool_calls"]
            return True
        if len(repaired) == len(fragments) and all(new is old for new, old in zip(repaired, fragments, strict=True)):
            return False
        delta["tool_calls"] = repaired
        return True

    def _repair_finish(self, choice: dict[str, Any], summary: Summary) -> bool:
        native = choice.get("finish_reason")
        if not native:
            if native is None and "finish_reason" in choice:
                return False
            choice["finish_reason"] = None
            return True
        finish = finish_of(native, has_calls=len(self.calls) > 0)
        self.finished = True
        if choice["index"] == 0:
            summary.finish_reason = finish
            summary.native_finish_reason = choice.get("native_finish_reason") or native
        if finish == native:
            return False
        choice["finish_reason"] = finish
        choice.setdefault("native_finish_reason", native)
        return True


def _length(delta: dict[str, Any]) -> int:
    """Characters of text, reasoning and what tools are given in a repaired delta."""
    texts = (delta.get("content"), delta.get("reasoning_content"), delta.get("refusal"))
    length = sum(len(text) for text in texts if isinstance(text, str))
    for fragment in delta.get("tool_calls") or ():
        length += len((fragment.get("function") or {}).get("arguments") or "")
        length += len((fragment.get("custom") or {}).get("input") or "")
    return length
