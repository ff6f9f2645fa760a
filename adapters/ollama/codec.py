"""One exchange with Ollama: what is sent, and the answer, one JSON object or a line for each piece."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gw.adapter import WireRequest
from gw.answer_frame import MOST_TOKENS, AnswerFrame
from gw.chat_parts import as_function_call, sniff_image
from gw.document import Chunk, Completion
from gw.errors import GatewayError, UpstreamError
from gw.message import Headers, Loss, Request, Summary, Usage
from gw.provider_json import write_exactly
from gw.sse import EventTooLarge, NDJSONDecoder

Delta = dict[str, Any]


class OllamaCodec:
    """See `gw.adapter.Codec`."""

    def __init__(
        self, wire: WireRequest, request: Request, losses: Sequence[Loss], *, is_deprecated: bool = False
    ) -> None:
        self.wire = wire
        self.losses = losses
        self.summary = Summary()
        self._frame = AnswerFrame(request)
        self._is_deprecated = is_deprecated  # the client reads `function_call`
        self._lines = NDJSONDecoder()
        self._head = b""  # the first bytes of a stream, to quote where it turns out to be none
        self._has_begun = False
        self._calls = 0
        self._images = 0
        self._last: Mapping[str, Any] | None = None  # the line that says done
        self._error: GatewayError | None = None  # to be raised once what came before it is given out

    # --- whole ----------------------------------------------------------------------------------------------------

    @property
    def is_done(self) -> bool:
        """Whether nothing that may still come of the stream matters: a line said done, or an error waits."""
        return self._last is not None or self._error is not None

    def complete(self, content: bytes) -> Completion:
        """See `gw.adapter.Codec`."""
        value = self._frame.parsed(content)
        self._check(value, content)
        if not isinstance(value.get("message"), dict):
            raise self._frame.garbage(content)
        if value.get("done") is False:
            raise self._frame.protocol("was cut short: it is not done")
        delta = self._read(value, content)
        reason = self._finish(value)
        calls = delta.get("tool_calls")
        message = {"role": "assistant", "content": None if calls else "", "refusal": None, **delta}
        for entry in (*(calls or ()), *(delta.get("images") or ())):
            del entry["index"]
        if self._is_deprecated:
            as_function_call(message)
        choice = {"index": 0, "message": message, "finish_reason": reason}
        choice["native_finish_reason"] = self.summary.native_finish_reason
        if value.get("logprobs"):
            choice["logprobs"] = _logprobs(value["logprobs"])
        return self._frame.completion([choice], self._usage_object())

    # --- streamed -------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> Sequence[Chunk]:
        """See `gw.adapter.Codec`. A failure behind good lines in one piece is raised by the next call."""
        if self._error is not None:
            raise self._error
        if not self._head:
            self._head = data[:400]
        try:
            lines = self._lines.feed(data)
        except EventTooLarge as error:
            raise self._frame.protocol(str(error)) from None
        return self._chunks(lines)

    def finish(self) -> Sequence[Chunk]:
        """See `gw.adapter.Codec`."""
        chunks = [] if self._error is not None else self._chunks(self._lines.finish())
        if self._error is not None:
            raise self._error
        if self._last is None:
            what = (
                "was cut short: no line says done" if self._has_begun else f"is empty: {self._frame.quoted(self._head)}"
            )
            raise self._frame.protocol(what)
        reason = self._finish(self._last)
        choice = {"index": 0, "delta": {}, "finish_reason": reason}
        choice["native_finish_reason"] = self.summary.native_finish_reason
        chunks.append(self._frame.chunk([choice]))
        usage = self._usage_object()
        if usage is not None:
            chunks.append(self._frame.chunk([], usage))
        return chunks

    def _chunks(self, lines: Sequence[bytes]) -> list[Chunk]:
        """Chunks of whole lines. An error is raised where it comes first, else kept for the next call."""
        chunks: list[Chunk] = []
        try:
            for line in lines:
                self._line(line, chunks)
        except GatewayError as error:
            if not chunks:
                raise
            self._error = error
        return chunks

    def _line(self, line: bytes, chunks: list[Chunk]) -> None:
        if self._last is not None:
            return  # it is over; had this come a moment later, nobody would have read it
        value = self._frame.parsed(line)
        self._check(value, line)
        if not self._has_begun:
            self._has_begun = True
            first = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
            chunks.append(self._frame.chunk([first]))
        delta = self._read(value, line)
        logprobs = value.get("logprobs")
        if delta or logprobs:
            if self._is_deprecated and "tool_calls" in delta:
                is_first = delta["tool_calls"][0]["index"] == 0
                as_function_call(delta)
                if not is_first:  # that form has room for one call
                    del delta["function_call"]
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            if logprobs:
                choice["logprobs"] = _logprobs(logprobs)
            chunks.append(self._frame.chunk([choice]))
        if value.get("done"):
            self._last = value
            self.summary.usage = _usage_of(value)

    # --- both -----------------------------------------------------------------------------------------------------

    def _check(self, value: Any, raw: bytes) -> None:
        if not isinstance(value, dict):
            raise self._frame.garbage(raw)
        if value.get("error"):
            raise self._frame.told(value)

    def _read(self, value: Mapping[str, Any], raw: bytes) -> Delta:
        """The message of an answer or a line as a delta, without a role; empty where it holds nothing."""
        message = value.get("message")
        delta: Delta = {}
        if not message:
            return delta
        try:
            thinking, content = message.get("thinking"), message.get("content")
            if thinking:
                delta["reasoning_content"] = thinking
                self.summary.output_characters += len(thinking)
            if content:
                delta["content"] = content
                self.summary.output_characters += len(content)
            if message.get("tool_calls"):
                exact = self._frame.parsed_exactly(raw)["message"]
                delta["tool_calls"] = [self._call(call) for call in exact["tool_calls"]]
            if message.get("images"):
                delta["images"] = [_image(at, data) for at, data in enumerate(message["images"], self._images)]
                self._images += len(delta["images"])
        except (AttributeError, TypeError, KeyError) as error:
            raise self._frame.protocol(f"holds a message that its API does not know: {error!r}") from None
        return delta

    def _call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        function = call["function"]
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            arguments = write_exactly({} if arguments is None else arguments).decode()
        index = self._calls
        self._calls += 1
        return {
            "index": index,
            "id": call.get("id") or self._frame.new_call_id(),
            "type": "function",
            "function": {"name": function["name"], "arguments": arguments or "{}"},
        }

    def _finish(self, value: Mapping[str, Any]) -> str:
        """OpenAI's finish reason for the last line. UpstreamProtocolError where it is no answer to a chat."""
        native = str(value.get("done_reason") or "stop")
        if native in ("load", "unload"):
            raise self._frame.protocol(f"is no answer to a chat: it ended with {native}")
        reason = "length" if native == "length" else "stop"
        if self._calls and reason == "stop":
            reason = "function_call" if self._is_deprecated else "tool_calls"
        self._last = value
        self.summary.finish_reason = reason
        self.summary.native_finish_reason = native
        self.summary.model = value.get("model")
        self.summary.usage = _usage_of(value)
        return reason

    def _usage_object(self) -> dict[str, Any] | None:
        usage = self.summary.usage
        if usage is None:
            return None
        return {
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
            "total_tokens": usage.total,
        }

    # --- failures -------------------------------------------------------------------------------------------------

    def fail(self, status: int, headers: Headers, content: bytes) -> UpstreamError:
        """See `gw.adapter.Codec`."""
        return self._frame.failed(status, headers, content)


def _usage_of(value: Mapping[str, Any]) -> Usage | None:
    """Tokens; the prompt's are left out where it was cached whole. None where nothing is told."""
    if "eval_count" not in value and "prompt_eval_count" not in value:
        return None
    prompt, completion = value.get("prompt_eval_count") or 0, value.get("eval_count") or 0
    return Usage(prompt=prompt, completion=completion) if prompt + completion <= MOST_TOKENS else None


def _image(index: int, data: str) -> dict[str, Any]:
    url = f"data:{sniff_image(data) or 'image/png'};base64,{data}"
    return {"index": index, "type": "image_url", "image_url": {"url": url}}


def _logprobs(tokens: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    content = [
        {**_token(one), "top_logprobs": [_token(top) for top in one.get("top_logprobs") or ()]} for one in tokens
    ]
    return {"content": content, "refusal": None}


def _token(one: Mapping[str, Any]) -> dict[str, Any]:
    token = one.get("token") or ""
    given = one.get("bytes")
    spelt = given if given is not None else list(token.encode("utf-8", "surrogatepass"))
    return {"token": token, "logprob": one.get("logprob", 0.0), "bytes": spelt}
