"""What the faulty provider says, in the words of OpenAI's chat completions and of Anthropic's Messages API."""

from __future__ import annotations

from typing import Any

import orjson

TOKENS = [f"t{n} " for n in range(60)]
ANSWER = "".join(TOKENS)
USAGE = (9, 60)  # what the provider bills for a whole answer: tokens of the prompt, tokens of the answer
_CALL = {"id": "call_1", "name": "look_up", "arguments": '{"what": "everything"}'}


class OpenAIDialect:
    """Its answers and events as OpenAI writes them."""

    keep_alive = b": ping\n\n"
    finish_at = 0  # which of the last events tells the finish reason

    def whole(self, text: str = ANSWER) -> bytes:
        """A whole answer."""
        return orjson.dumps(self._completion(text, "stop"))

    def filtered(self) -> bytes:
        """A whole answer that was taken back by a content filter."""
        return orjson.dumps(self._completion("", "content_filter"))

    def _completion(self, text: str, reason: str) -> dict[str, Any]:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
        return {**_HEAD, "object": "chat.completion", "choices": [choice], "usage": _usage()}

    def event(self, value: Any) -> bytes:
        """One event of a stream."""
        return b"data: " + orjson.dumps(value) + b"\n\n"

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
        return {**_HEAD, "object": "chat.completion.chunk", "choices": choices}

    def begin(self) -> list[bytes]:
        """The events before the first token."""
        return [self.event(self._chunk({"role": "assistant", "content": ""}))]

    def text(self, token: str) -> bytes:
        """One token."""
        return self.event(self._chunk({"content": token}))

    def call(self) -> list[bytes]:
        """The first half of a tool call."""
        head = {"index": 0, "id": _CALL["id"], "type": "function", "function": {"name": _CALL["name"], "arguments": ""}}
        more = {"index": 0, "function": {"arguments": _CALL["arguments"][:9]}}
        return [self.event(self._chunk({"tool_calls": [part]})) for part in (head, more)]

    def finish(self) -> list[bytes]:
        """The events behind the last token."""
        return [self.event(self._chunk({}, "stop")), self.usage(), b"data: [DONE]\n\n"]

    def usage(self, *, without_choices: bool = False) -> bytes:
        """The event that tells what was used."""
        value = {**self._chunk({}), "choices": [], "usage": _usage()}
        if without_choices:
            del value["choices"]
        return self.event(value)

    def error(self, kind: str, message: str) -> dict[str, Any]:
        """The body of a refusal."""
        return {"error": {"message": message, "type": kind, "code": kind, "param": None}}

    def error_event(self) -> bytes:
        """A failure inside a stream."""
        return self.event(self.error("server_error", "the engine fell over"))

    def too_long(self) -> dict[str, Any]:
        """The refusal of a prompt that does not fit."""
        return self.error("context_length_exceeded", "This model's maximum context length is 10 tokens.")

    def refusal(self) -> dict[str, Any]:
        """The refusal of a content filter."""
        return self.error("content_filter", "The prompt was refused.")


class AnthropicDialect(OpenAIDialect):
    """The same in the Messages API."""

    keep_alive = b'event: ping\ndata: {"type": "ping"}\n\n'
    finish_at = 1

    def whole(self, text: str = ANSWER) -> bytes:
        return orjson.dumps(self._message([{"type": "text", "text": text}], "end_turn"))

    def filtered(self) -> bytes:
        return orjson.dumps(self._message([], "refusal"))

    @staticmethod
    def _message(content: list[Any], reason: str | None) -> dict[str, Any]:
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "real",
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": {"input_tokens": USAGE[0], "output_tokens": USAGE[1] if reason else 1},
        }

    def event(self, value: Any) -> bytes:
        return f"event: {value['type']}\n".encode() + super().event(value)

    def begin(self) -> list[bytes]:
        return [
            self.event({"type": "message_start", "message": self._message([], None)}),
            self.event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        ]

    def text(self, token: str) -> bytes:
        return self.event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": token}})

    def call(self) -> list[bytes]:
        block = {"type": "tool_use", "id": _CALL["id"], "name": _CALL["name"], "input": {}}
        delta = {"type": "input_json_delta", "partial_json": _CALL["arguments"][:9]}
        return [
            self.event({"type": "content_block_stop", "index": 0}),
            self.event({"type": "content_block_start", "index": 1, "content_block": block}),
            self.event({"type": "content_block_delta", "index": 1, "delta": delta}),
        ]

    def finish(self) -> list[bytes]:
        return [
            self.event({"type": "content_block_stop", "index": 0}),
            self.usage(),
            self.event({"type": "message_stop"}),
        ]

    def usage(self, *, without_choices: bool = False) -> bytes:
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        return self.event({"type": "message_delta", "delta": delta, "usage": {"output_tokens": USAGE[1]}})

    def error(self, kind: str, message: str) -> dict[str, Any]:
        kinds = {"server_error": "api_error", "overloaded": "overloaded_error", "rate_limit": "rate_limit_error"}
        return {"type": "error", "error": {"type": kinds.get(kind, kind), "message": message}}

    def too_long(self) -> dict[str, Any]:
        return self.error("invalid_request_error", "prompt is too long: 300000 tokens > 200000 maximum")


_HEAD = {"id": "chatcmpl-1", "created": 1, "model": "real"}


def _usage() -> dict[str, int]:
    return {"prompt_tokens": USAGE[0], "completion_tokens": USAGE[1], "total_tokens": sum(USAGE)}
