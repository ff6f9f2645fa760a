"""Claude's events as chunks: one role frame, tool calls counted anew, one finish, then the usage.

https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gw.adapters.anthropic.answer import (
    annotations_of,
    answer_text,
    call_of,
    check_answer,
    finish_reason,
    refusal_text,
    usage_object,
    usage_of,
)
from gw.adapters.anthropic.plan import FORMAT, Plan
from gw.adapters.anthropic.thinking import Signed, as_details
from gw.document import Chunk
from gw.errors import UpstreamProtocolError
from gw.message import Summary
from gw.provider_json import write_exactly


class _Block:
    """One content block while it is open."""

    __slots__ = (
        "call_id",
        "citations",
        "index",
        "input",
        "is_streamed",
        "kind",
        "name",
        "pieces",
        "signature",
        "start",
    )

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.pieces: list[str] = []  # thinking, or JSON that is held back or counted
        self.signature = ""
        self.citations: list[Any] = []
        self.start = 0  # characters of text before it
        self.index = -1  # of the client's tool call
        self.call_id = ""
        self.name = ""
        self.input: Any = None
        self.is_streamed = False  # whether its JSON is passed on as it comes


class EventReader:
    """One stream's events, read in order. Raises UpstreamProtocolError for an order that the API does not have."""

    __slots__ = (
        "_annotations",
        "_blocks",
        "_call_ids",
        "_calls",
        "_created",
        "_id",
        "_is_started",
        "_model",
        "_out",
        "_plan",
        "_signed",
        "_stop",
        "_summary",
        "_text_length",
        "_texts",
        "_usage",
        "is_complete",
    )

    def __init__(self, id: str, created: int, model: str, plan: Plan, summary: Summary) -> None:
        self._id = id
        self._created = created
        self._model = model
        self._plan = plan
        self._summary = summary
        self._out: list[Chunk] = []
        self._annotations = 0  # sent so far
        self._blocks: dict[Any, _Block] = {}
        self._calls = 0
        self._call_ids: list[str] = []
        self._signed: Signed = []
        self._stop: dict[str, Any] | None = None
        self._usage: dict[str, Any] = {}
        self._text_length = 0
        self._texts: list[str] = []  # kept only where the answer is checked
        self._is_started = False
        self.is_complete = False

    def read(self, event: dict[str, Any]) -> str:
        """Take in one event; its chunks are what `taken` returns next. An unknown event means nothing.

        The text where the event is nothing but a piece of that, and the next ones like it may be counted only.
        """
        handler = _HANDLERS.get(event.get("type", ""))
        if handler is not None:
            handler(self, event)
            if handler is EventReader._delta and self._plan.strict_schema is None:
                delta = event.get("delta") or {}
                if delta.get("type") == "text_delta":
                    return delta.get("text") or ""
        return ""

    def count_text(self, characters: int) -> None:
        """A piece of text, or several, went by that were not read."""
        self._text_length += characters
        self._summary.output_characters += characters

    def read_whole(self, message: dict[str, Any]) -> None:
        """Take in a message that came in one piece although a stream was asked for, as the events it stands for."""
        self._message_start({"message": message})
        for index, block in enumerate(message["content"]):
            if isinstance(block, dict):
                self._block_start({"index": index, "content_block": block})
                self._block_stop({"index": index})
        self._message_delta({"delta": {**message, "stop_reason": message.get("stop_reason") or "end_turn"}})
        self._message_stop({})

    def taken(self) -> list[Chunk]:
        """The chunks since the last call."""
        out, self._out = self._out, []
        return out

    def _send(self, delta: dict[str, Any]) -> None:
        self._out.append(
            Chunk(
                None,
                {
                    "id": self._id,
                    "object": "chat.completion.chunk",
                    "created": self._created,
                    "model": self._model,
                    "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
                },
            )
        )

    # --- the message ----------------------------------------------------------------------------------------------

    def _message_start(self, event: dict[str, Any]) -> None:
        if self._is_started:
            raise UpstreamProtocolError("a second message begins inside the stream of the first")
        self._is_started = True
        message = event.get("message") or {}
        self._summary.model = message.get("model")
        self._summary.upstream_id = message.get("id")
        self._count(message.get("usage"))
        self._send({"role": "assistant", "content": ""})

    def _message_delta(self, event: dict[str, Any]) -> None:
        self._count(event.get("usage"))
        delta = event.get("delta") or {}
        if delta.get("stop_reason"):
            self._stop = delta

    def _count(self, usage: Any) -> None:
        # Cumulative: what a later event repeats is newer, what it leaves out still holds.
        if isinstance(usage, dict):
            self._usage.update({name: value for name, value in usage.items() if value is not None})
            self._summary.usage = usage_of(self._usage)

    def _message_stop(self, event: dict[str, Any]) -> None:
        if not self._is_started or self._stop is None:
            raise UpstreamProtocolError("the message stops without having begun, or without saying why")
        plan, summary = self._plan, self._summary
        native = self._stop["stop_reason"]
        summary.native_finish_reason = native
        summary.finish_reason = finish_reason(native, self._calls > 0, plan)
        check_answer(plan, summary.finish_reason, self._texts)
        self.is_complete = True
        explanation = refusal_text(self._stop.get("stop_details"))
        if explanation:
            self._send({"refusal": explanation})
        self._send({})
        choice = self._out[-1].peek()["choices"][0]
        choice["finish_reason"] = summary.finish_reason
        choice["native_finish_reason"] = native
        if summary.usage is not None:
            self._send({})
            last = self._out[-1].peek()
            last["choices"] = []
            last["usage"] = usage_object(summary.usage)
        if self._call_ids and self._signed:
            plan.signatures.keep(plan.scope, self._call_ids, self._signed)

    # --- its blocks -----------------------------------------------------------------------------------------------

    def _block_start(self, event: dict[str, Any]) -> None:
        if not self._is_started:
            raise UpstreamProtocolError("a content block begins before its message")
        content = event.get("content_block") or {}
        kind = content.get("type") or ""
        block = self._blocks[event.get("index")] = _Block(kind)
        if kind == "text":
            block.start = self._text_length
            block.citations += content.get("citations") or ()
            if content.get("text"):
                self._text(content["text"])
        elif kind == "thinking":
            if content.get("thinking"):
                self._thinking(block, content["thinking"], event)
            block.signature = content.get("signature") or ""
        elif kind == "redacted_thinking":
            self._signed.append(dict(content))
            self._reasoning_details(as_details(content, event.get("index") or 0))
        elif kind == "tool_use":
            self._call_start(block, content)

    def _call_start(self, block: _Block, content: dict[str, Any]) -> None:
        block.name, block.call_id = content.get("name") or "", content.get("id") or ""
        block.input = content.get("input")
        plan = self._plan
        if block.name == plan.answer_tool:
            block.is_streamed = not plan.answer_wrapped
            return
        if self._signed:
            self._signed.append("tool_use")
        block.index = self._calls
        self._calls += 1
        self._call_ids.append(block.call_id)
        block.is_streamed = block.name not in plan.custom
        if block.is_streamed:
            self._send_call(block.index, call_of(block.name, block.call_id, "", plan))

    def _delta(self, event: dict[str, Any]) -> None:
        delta = event.get("delta") or {}
        kind = delta.get("type")
        if kind == "text_delta":
            if delta.get("text"):
                self._text(delta["text"])
            return
        block = self._blocks.get(event.get("index"))
        if block is None:
            raise UpstreamProtocolError("a piece of a content block that has not begun")
        if kind == "input_json_delta":
            self._json(block, delta.get("partial_json") or "")
        elif kind == "thinking_delta":
            if delta.get("thinking"):
                self._thinking(block, delta["thinking"], event)
        elif kind == "signature_delta":
            block.signature += delta.get("signature") or ""
        elif kind == "citations_delta":
            block.citations.append(delta.get("citation"))

    def _text(self, text: str) -> None:
        self._text_length += len(text)
        if self._plan.strict_schema is not None:
            self._texts.append(text)
        self._summary.output_characters += len(text)
        self._send({"content": text})

    def _thinking(self, block: _Block, text: str, event: dict[str, Any]) -> None:
        block.pieces.append(text)
        self._summary.output_characters += len(text)
        if self._plan.hides_reasoning:
            return
        detail = _fragment({"text": text}, len(block.pieces) == 1, event)
        self._send({"reasoning_content": text, "reasoning_details": [detail]})

    def _reasoning_details(self, detail: dict[str, Any]) -> None:
        if not self._plan.hides_reasoning:
            self._send({"reasoning_details": [detail]})

    def _json(self, block: _Block, piece: str) -> None:
        if not piece or block.kind != "tool_use":  # the first is often empty; server tools are not the client's
            return
        block.pieces.append(piece)
        if not block.is_streamed:
            return
        if block.index < 0:
            self._text(piece)
        else:
            self._send_call(block.index, {"function": {"arguments": piece}})

    def _send_call(self, index: int, fragment: dict[str, Any]) -> None:
        if not self._plan.is_deprecated:
            self._send({"tool_calls": [{"index": index, **fragment}]})
        elif index == 0:
            self._send({"function_call": fragment["function"]})

    def _block_stop(self, event: dict[str, Any]) -> None:
        index = event.get("index")
        block = self._blocks.pop(index, None)
        if block is None:
            raise UpstreamProtocolError("a content block ends that has not begun")
        if block.kind == "text" and self._signed and self._text_length > block.start:
            self._signed.append("text")
        if block.kind == "tool_use":
            self._call_stop(block)
        elif block.kind == "thinking":
            signature = block.signature
            self._signed.append({"type": "thinking", "thinking": "".join(block.pieces), "signature": signature})
            if signature:
                self._reasoning_details(_fragment({"signature": signature}, not block.pieces, event))
        elif block.citations:
            annotations = annotations_of(block.citations, block.start, self._text_length)
            if annotations:
                # OpenAI's own client puts the pieces of a list together by their index.
                numbered = [{"index": at} | one for at, one in enumerate(annotations, self._annotations)]
                self._annotations += len(annotations)
                self._send({"annotations": numbered})

    def _call_stop(self, block: _Block) -> None:
        plan = self._plan
        arguments = "".join(block.pieces)
        if block.is_streamed and arguments:
            return
        arguments = arguments or write_exactly(block.input or {}).decode()
        if block.index < 0:
            self._text(answer_text(arguments, plan))
        elif block.is_streamed:
            self._send_call(block.index, {"function": {"arguments": arguments}})
        else:
            self._send_call(block.index, call_of(block.name, block.call_id, arguments, plan))


def _fragment(part: dict[str, str], is_first: bool, event: dict[str, Any]) -> dict[str, Any]:
    """A part of a thought. Clients join the texts of the fragments with one index, so the format is said once."""
    detail: dict[str, Any] = {"type": "reasoning.text"} | part
    if is_first:
        detail["format"] = FORMAT
    detail["index"] = event.get("index") or 0
    return detail


_HANDLERS: dict[str, Callable[[EventReader, dict[str, Any]], None]] = {
    "content_block_delta": EventReader._delta,
    "content_block_start": EventReader._block_start,
    "content_block_stop": EventReader._block_stop,
    "message_start": EventReader._message_start,
    "message_delta": EventReader._message_delta,
    "message_stop": EventReader._message_stop,
}
