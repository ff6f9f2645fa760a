"""The lines that the Claude program writes, read without I/O: bytes in, chunks of the answer and its one end out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from gw.adapters.claude_cli.failures import Failures
from gw.adapters.claude_cli.prompt import control_answer
from gw.document import Chunk
from gw.message import Summary, Usage

MAX_LINE = 16 * 1024 * 1024  # bytes: a tool's result may hold an image
MAX_TURN = 128 * 1024 * 1024  # bytes of one turn
MAX_GARBAGE = 64 * 1024  # bytes that are no JSON: a few warnings are let pass
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "stop",  # the tools are the program's own and have run
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
_SYNTHETIC = "<synthetic>"  # the model's name of what the program wrote by itself


class TurnReader:
    """One turn. `steps` is how many results come before the one that counts: one for each earlier user message."""

    def __init__(
        self,
        *,
        id: str,
        created: int,
        model: str,
        summary: Summary,
        failures: Failures,
        steps: int = 0,
        is_structured: bool = False,
        cost_before: float = 0.0,
    ) -> None:
        self._head = {"id": id, "object": "chat.completion.chunk", "created": created, "model": model}
        self.summary = summary
        self._failures = failures
        self._steps = steps
        self._is_structured = is_structured
        self._cost_before = cost_before
        self._buffer = bytearray()
        self._seen = 0  # bytes of this turn
        self._out: list[Chunk] = []
        self._garbage = bytearray()
        self._streamed: set[Any] = set()  # the messages whose events were seen
        self._is_open = False  # a message has begun and not ended
        self._said = 0  # characters of the open message
        self._needs_gap = False  # a tool ran between the last text and the next
        self._usage: dict[str, Any] = {}
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.steps_done = 0
        self.replies: list[bytes] = []  # lines that the program waits for
        self.session_id: str | None = None
        self.version: str | None = None
        self.cost = cost_before  # USD of the whole process so far
        self.is_complete = False
        self.is_interrupted = False  # it was told to stop: its result is the end, and no failure
        self.answered: set[str] = set()  # our control requests that it has answered

    # --- bytes ------------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take in a piece of stdout. Raises GatewayError where the turn has failed."""
        self._seen += len(data)
        if self._seen > MAX_TURN:
            raise self._failures.garbage(f"wrote more than {MAX_TURN} bytes for one answer")
        *lines, rest = data.split(b"\n")
        for line in lines:
            if self._buffer:
                line = bytes(self._buffer) + line
                self._buffer.clear()
            if not self.is_complete or self.is_interrupted:
                self._line(line)
        self._buffer += rest
        if len(self._buffer) > MAX_LINE:
            raise self._failures.garbage(f"wrote a line of more than {MAX_LINE} bytes")

    def taken(self) -> list[Chunk]:
        """The chunks since the last call."""
        out, self._out = self._out, []
        return out

    @property
    def garbage(self) -> bytes:
        """What it wrote that is no JSON."""
        return bytes(self._garbage or self._buffer[:4096])

    def _line(self, raw: bytes) -> None:
        if not raw.strip():
            return
        try:
            line = orjson.loads(raw)
        except orjson.JSONDecodeError:
            line = None
        if not isinstance(line, dict):
            self._garbage += raw[: MAX_GARBAGE + 1]
            if len(self._garbage) > MAX_GARBAGE:
                raise self._failures.garbage(f"wrote what is not its protocol: {self._garbage[:80]!r}...")
            return
        handler = _HANDLERS.get(str(line.get("type")))
        if handler is not None and line.get("parent_tool_use_id") is None:
            handler(self, line)

    # --- lines ------------------------------------------------------------------------------------------------------

    def _system(self, line: Mapping[str, Any]) -> None:
        if line.get("subtype") == "init":
            self.session_id = line.get("session_id")
            self.version = line.get("claude_code_version")

    def _control_response(self, line: Mapping[str, Any]) -> None:
        response = _table(line.get("response"))
        self.answered.add(str(response.get("request_id")))
        if response.get("subtype") == "error":
            raise self._failures.garbage(f"refused what it was told: {str(response.get('error'))[:300]}")
        version = _table(response.get("response")).get("version")
        if isinstance(version, str):
            self.version = version

    def _control_request(self, line: Mapping[str, Any]) -> None:
        # It asks for a permission and waits until somebody answers; nobody is there who could give one.
        self.replies.append(control_answer(line.get("request_id")))

    def _stream_event(self, line: Mapping[str, Any]) -> None:
        event = _table(line.get("event"))
        handler = _EVENTS.get(str(event.get("type")))
        if handler is not None:
            handler(self, event)

    def _message_start(self, event: Mapping[str, Any]) -> None:
        if self._is_open and self._said:
            # The connection broke and the program asked again: what was passed on cannot be taken back.
            raise self._failures.garbage("lost its connection to the provider in the middle of the answer")
        message = _table(event.get("message"))
        self._streamed.add(message.get("id"))
        self._is_open, self._said = True, 0
        self._begin(message)

    def _begin(self, message: Mapping[str, Any]) -> None:
        summary = self.summary
        if summary.upstream_id is None:
            self._send({"role": "assistant", "content": ""})
        summary.upstream_id = str(message.get("id"))
        summary.model = message.get("model") or summary.model
        self._count(message.get("usage"))

    def _message_delta(self, event: Mapping[str, Any]) -> None:
        stop = _table(event.get("delta")).get("stop_reason")
        if stop is not None:
            self.summary.native_finish_reason = stop
            self._needs_gap = stop == "tool_use" and bool(self.text)

    def _message_stop(self, event: Mapping[str, Any]) -> None:
        self._is_open = False

    def _delta(self, event: Mapping[str, Any]) -> None:
        delta = _table(event.get("delta"))
        if delta.get("type") == "text_delta":
            self._say(delta.get("text"))
        elif delta.get("type") == "thinking_delta" and delta.get("thinking"):
            thought = delta["thinking"]
            self.reasoning.append(thought)
            self._said += len(thought)
            self.summary.output_characters += len(thought)
            self._send({"reasoning_content": thought})

    def _assistant(self, line: Mapping[str, Any]) -> None:
        """A finished block: news only where it was not streamed, as after a broken connection."""
        message = _table(line.get("message"))
        if message.get("model") == _SYNTHETIC or message.get("id") in self._streamed:
            return
        if self._is_open and self._said:
            raise self._failures.garbage("lost its connection to the provider in the middle of the answer")
        self._is_open = False
        self._begin(message)
        for block in message.get("content") or ():
            if _table(block).get("type") == "text":
                self._say(block.get("text"))

    def _say(self, text: Any) -> None:
        if not isinstance(text, str) or not text or self._is_structured:
            return
        if self._needs_gap:
            self._needs_gap = False
            text = f"\n\n{text}"
        self._said += len(text)
        self.summary.output_characters += len(text)
        self.text.append(text)
        self._send({"content": text})

    # --- the end ----------------------------------------------------------------------------------------------------

    def _result(self, result: Mapping[str, Any]) -> None:
        stop = result.get("stop_reason") or self.summary.native_finish_reason
        is_failed = bool(result.get("is_error")) or result.get("subtype") != "success"
        if not is_failed and self.steps_done < self._steps:
            self.steps_done += 1
            return
        self._count(result.get("usage"))
        self._pay(result.get("total_cost_usd"))
        if self.is_interrupted:
            self.is_complete = True
            return
        if is_failed and stop != "refusal":
            raise self._failures.of_result(result)
        if self._is_structured:
            self._say_structured(result)
        elif not self.text and stop != "refusal":
            self._say(result.get("result"))
        self._finish(stop)

    def _say_structured(self, result: Mapping[str, Any]) -> None:
        if "structured_output" not in result:
            raise self._failures.garbage("gave no answer that fits the JSON schema")
        self._is_structured = False
        self._say(orjson.dumps(result["structured_output"]).decode())

    def _finish(self, stop: Any) -> None:
        summary = self.summary
        if summary.upstream_id is None:
            self._send({"role": "assistant", "content": ""})
        summary.native_finish_reason = stop if isinstance(stop, str) else None
        summary.finish_reason = _FINISH.get(str(stop), "stop")
        self._send({}, summary.finish_reason)
        if summary.usage is not None:
            self._out.append(Chunk(value={**self._head, "choices": [], "usage": usage_object(summary.usage)}))
        self.is_complete = True

    def _pay(self, total: Any) -> None:
        # It counts for the life of the process, and from the beginning of the session.
        if isinstance(total, (int, float)):
            self.cost = float(total)
            self.summary.cost_usd = max(0.0, self.cost - self._cost_before)
            self.summary.cost_source = "reported"

    def _count(self, usage: Any) -> None:
        if isinstance(usage, dict) and usage:
            self.summary.usage = usage_of(usage)

    def _send(self, delta: dict[str, Any], finish: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        self._out.append(Chunk(value={**self._head, "choices": [choice]}))


def usage_of(usage: Mapping[str, Any]) -> Usage:
    """Claude's counts, whose input excludes what was read from and written to the cache."""
    read = usage.get("cache_read_input_tokens") or 0
    written = usage.get("cache_creation_input_tokens") or 0
    return Usage(
        prompt=(usage.get("input_tokens") or 0) + read + written,
        completion=usage.get("output_tokens") or 0,
        cached=read,
        cache_written=written,
        reasoning=_table(usage.get("output_tokens_details")).get("thinking_tokens") or 0,
    )


def usage_object(usage: Usage) -> dict[str, Any]:
    """OpenAI's `usage`."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.total,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_written},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


_HANDLERS: dict[str, Callable[[TurnReader, dict[str, Any]], None]] = {
    "system": TurnReader._system,
    "stream_event": TurnReader._stream_event,
    "assistant": TurnReader._assistant,
    "result": TurnReader._result,
    "control_response": TurnReader._control_response,
    "control_request": TurnReader._control_request,
}
_EVENTS: dict[str, Callable[[TurnReader, Mapping[str, Any]], None]] = {
    "message_start": TurnReader._message_start,
    "message_delta": TurnReader._message_delta,
    "message_stop": TurnReader._message_stop,
    "content_block_delta": TurnReader._delta,
}
