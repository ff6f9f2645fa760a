"""Claude's whole answer as a `chat.completion`; and the words that whole and streamed answers share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from gw.adapters.anthropic.plan import Plan
from gw.adapters.anthropic.thinking import Signed, as_details
from gw.chat_parts import as_function_call
from gw.errors import UpstreamProtocolError
from gw.message import Summary, Usage
from gw.provider_json import read_exactly, write_exactly
from gw.schema_check import answer_problem

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
    "pause_turn": "length",  # a server tool's loop stopped half way: there is more to come
}


def finish_reason(native: str, has_calls: bool, plan: Plan) -> str:
    """OpenAI's word for a stop reason; `has_calls`: whether the client was given a tool call."""
    reason = _FINISH.get(native, "stop")
    if reason == "tool_calls" and not has_calls:
        reason = "stop"  # the only tool was ours: the one that carries the answer
    elif reason == "stop" and has_calls:
        reason = "tool_calls"
    return "function_call" if reason == "tool_calls" and plan.is_deprecated else reason


_COUNTS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def usage_of(raw: Mapping[str, Any]) -> Usage:
    """Tokens from Claude's `usage`, whose input excludes what was read from and written to the cache.

    Where it lists `iterations` (compaction, fallback) their sum is what was used.
    """
    counts = dict.fromkeys(_COUNTS, 0)
    rounds = raw.get("iterations")
    for part in rounds if isinstance(rounds, list) and rounds else (raw,):
        for name in _COUNTS:
            counts[name] += part.get(name) or 0
    details = raw.get("output_tokens_details")
    read, written = counts["cache_read_input_tokens"], counts["cache_creation_input_tokens"]
    return Usage(
        prompt=counts["input_tokens"] + read + written,
        completion=counts["output_tokens"],
        cached=read,
        cache_written=written,
        reasoning=(details.get("thinking_tokens") or 0) if isinstance(details, dict) else 0,
    )


def usage_object(usage: Usage) -> dict[str, Any]:
    """OpenAI's `usage`, with the details that say more than zero on top."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.total,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_written},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def annotations_of(citations: Sequence[Any], start: int, end: int) -> list[dict[str, Any]]:
    """Citations with an address as `url_citation`s of the text from `start` to `end`, in characters of the answer.

    Citations of places inside a document have no address, and no place in OpenAI's answer.
    """
    found = []
    for citation in citations:
        url = citation.get("url") if isinstance(citation, dict) else None
        if not isinstance(url, str) or not url:
            continue
        place = {"start_index": start, "end_index": end, "url": url, "title": citation.get("title") or ""}
        found.append({"type": "url_citation", "url_citation": place})
    return found


def refusal_text(stop_details: Any) -> str | None:
    """Why Claude refused, where it says so."""
    explanation = stop_details.get("explanation") if isinstance(stop_details, dict) else None
    return explanation if isinstance(explanation, str) and explanation else None


def call_of(name: str, call_id: str, arguments: str, plan: Plan) -> dict[str, Any]:
    """A whole tool call as the client knows it; a custom tool's text is taken out of its wrapping."""
    client_name = plan.client_names.get(name, name)
    if name in plan.custom:
        return {"id": call_id, "type": "custom", "custom": {"name": client_name, "input": custom_input(arguments)}}
    return {"id": call_id, "type": "function", "function": {"name": client_name, "arguments": arguments}}


def custom_input(arguments: str) -> str:
    """The text inside `{"input": "..."}`; the arguments themselves where Claude wrote something else."""
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments
    text = value.get("input") if isinstance(value, dict) else None
    return text if isinstance(text, str) else arguments


def answer_text(arguments: str, plan: Plan) -> str:
    """The answer that came as the input of the answer tool."""
    if not plan.answer_wrapped:
        return arguments
    try:
        return write_exactly(read_exactly(arguments)["answer"]).decode()
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return arguments


def check_answer(plan: Plan, reason: str, texts: Sequence[str]) -> None:
    """Raise UpstreamProtocolError where an answer that is at its end is not what the client's schema allows."""
    if plan.strict_schema is None or reason != "stop":
        return
    problem = answer_problem("".join(texts), plan.strict_schema)
    if problem is not None:
        raise UpstreamProtocolError(f"an answer that does not fit the schema asked for with strict: {problem}")


class WholeAnswer:
    """Claude's `message` object, read block by block."""

    __slots__ = ("_plan", "annotations", "calls", "details", "reasoning", "signed", "text")

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.details: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.calls: list[dict[str, Any]] = []
        self.signed: Signed = []

    def read(self, message: Mapping[str, Any], summary: Summary) -> dict[str, Any]:
        """The one choice of the completion; fills the summary, its usage only where Claude told it."""
        for index, block in enumerate(message["content"]):
            if isinstance(block, dict):
                self._read_block(block, index)
        native = message.get("stop_reason") or "end_turn"
        raw_usage = message.get("usage")
        summary.usage = usage_of(raw_usage) if raw_usage else None
        summary.model = message.get("model")
        summary.upstream_id = message.get("id")
        summary.native_finish_reason = native
        summary.finish_reason = finish_reason(native, bool(self.calls), self._plan)
        choice = {
            "index": 0,
            "message": self._message(message),
            "logprobs": None,
            "finish_reason": summary.finish_reason,
            "native_finish_reason": native,
        }
        summary.output_characters = sum(map(len, self.text)) + sum(map(len, self.reasoning))
        check_answer(self._plan, summary.finish_reason, self.text)
        if self.calls and self.signed:
            ids = [call["id"] for call in self.calls]
            self._plan.signatures.keep(self._plan.scope, ids, self.signed)
        return choice

    def _read_block(self, block: Mapping[str, Any], index: int) -> None:
        kind = block.get("type")
        if kind == "text":
            text = block.get("text") or ""
            if text and self.signed:
                self.signed.append("text")
            start = sum(map(len, self.text))
            self.text.append(text)
            self.annotations += annotations_of(block.get("citations") or (), start, start + len(text))
        elif kind == "tool_use":
            arguments = write_exactly(block.get("input") or {}).decode()
            name = block.get("name") or ""
            if name == self._plan.answer_tool:
                self.text.append(answer_text(arguments, self._plan))
            else:
                if self.signed:
                    self.signed.append("tool_use")
                self.calls.append(call_of(name, block.get("id") or "", arguments, self._plan))
        elif kind == "thinking" or kind == "redacted_thinking":
            self.signed.append(dict(block))
            self.details.append(as_details(block, index))
            self.reasoning.append(block.get("thinking") or "")

    def _message(self, source: Mapping[str, Any]) -> dict[str, Any]:
        text = "".join(self.text)
        message: dict[str, Any] = {"role": "assistant", "content": text or (None if self.calls else "")}
        message["refusal"] = refusal_text(source.get("stop_details"))
        if not self._plan.hides_reasoning:
            reasoning = "".join(self.reasoning)
            if reasoning:
                message["reasoning_content"] = reasoning
            if self.details:
                message["reasoning_details"] = self.details
        if self.annotations:
            message["annotations"] = self.annotations
        if self.calls:
            message["tool_calls"] = self.calls
            if self._plan.is_deprecated:
                as_function_call(message)
        return message
