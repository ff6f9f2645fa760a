"""One exchange with Gemini: what is sent, and the answer, whole or streamed, in OpenAI's objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gw.adapter import WireRequest
from gw.adapters.gemini.candidate import Candidate, Delta
from gw.adapters.gemini.draft import Draft
from gw.adapters.gemini.framing import Framing, framing_of
from gw.adapters.gemini.metadata import (
    FAILURES,
    annotations_of,
    finish_reason,
    logprobs_object,
    native_reason,
    usage_object,
    usage_of,
)
from gw.answer_frame import AnswerFrame
from gw.chat_parts import as_function_call
from gw.document import Chunk, Completion
from gw.errors import GatewayError, UpstreamError
from gw.message import Headers, Loss, Request, Summary
from gw.schema_check import answer_problem
from gw.sse import EventTooLarge

_KEPT = 4_000_000  # characters of a stream that are kept for the places of its citations


class GeminiCodec:
    """See `gw.adapter.Codec`. `keep` stores a thought signature under a tool call's id."""

    def __init__(
        self,
        wire: WireRequest,
        request: Request,
        draft: Draft,
        keep: Callable[[str, str], None],
        *,
        is_deprecated: bool = False,
    ) -> None:
        self.wire = wire
        self.losses: Sequence[Loss] = draft.losses
        self.summary = Summary()
        self._names = draft.names
        self._strict_schema = draft.strict_schema
        self._keep = keep
        self._is_deprecated = is_deprecated  # the client reads `function_call`
        self._frame = AnswerFrame(request)
        self._audio_id = f"audio_{request.id}"
        self._stream: Framing | None = None
        self._head = b""  # the first bytes of a stream, to quote where it turns out to be none
        self._candidates: dict[int, Candidate] = {}
        self._counts: Mapping[str, Any] | None = None
        self._block: Mapping[str, Any] | None = None  # promptFeedback of a prompt that was refused
        self._error: GatewayError | None = None  # to be raised once what came before it is given out

    # --- whole ----------------------------------------------------------------------------------------------------

    @property
    def is_done(self) -> bool:
        """Whether nothing that may still come of the stream matters: an error waits. Gemini marks no end."""
        return self._error is not None

    def complete(self, content: bytes) -> Completion:
        """See `gw.adapter.Codec`."""
        value = self._frame.parsed_exactly(content) if b'"functionCall"' in content else self._frame.parsed(content)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if not isinstance(value, dict):
            raise self._frame.garbage(content)
        if value.get("error"):
            raise self._frame.told(value)
        self._note(value)
        choices = [self._choice(found, at) for at, found in enumerate(value.get("candidates") or ())]
        if not choices:
            if self._block is None:
                raise self._frame.garbage(content)
            choices = [self._blocked_choice()]
        self._settle(choices[0]["finish_reason"])
        usage = None if self._counts is None else usage_object(self._counts)
        return self._frame.completion(choices, usage)

    def _choice(self, found: Mapping[str, Any], at: int) -> dict[str, Any]:
        candidate = self._candidate(found.get("index", at))
        delta = self._read(candidate, found)
        self._join(delta, candidate.close())
        if candidate.finish is None and not delta:
            raise self._frame.protocol("holds a candidate with neither content nor a finish reason")
        native = candidate.finish or "STOP"
        reason = finish_reason(native, candidate.calls > 0)
        content = delta.pop("content", None)
        self._check(reason, content or "")
        if content is None and "tool_calls" not in delta:
            content = ""  # null is for calls only: whoever sends this message back would be refused
        message = {"role": "assistant", "content": content, "refusal": None, **delta}
        for name in ("tool_calls", "images"):
            for entry in message.get(name) or ():
                del entry["index"]
        self._add_audio_id(message)
        annotations = annotations_of(found, content or "")
        if annotations:
            message["annotations"] = annotations
        choice = {"index": candidate.index, "message": message, "finish_reason": self._old(reason, message)}
        choice["native_finish_reason"] = native
        if "logprobsResult" in found:
            choice["logprobs"] = logprobs_object(found["logprobsResult"])
        return choice

    @staticmethod
    def _join(delta: Delta, rest: Delta) -> None:
        for name, value in rest.items():
            delta[name] = delta[name] + value if name in delta else value

    def _old(self, reason: str, message: dict[str, Any]) -> str:
        """The finish reason, and the message changed in place, for a client of `functions`."""
        if not self._is_deprecated:
            return reason
        as_function_call(message)
        return "function_call" if reason == "tool_calls" else reason

    def _blocked_choice(self) -> dict[str, Any]:
        block = self._block or {}
        message = {"role": "assistant", "content": "", "refusal": block.get("blockReasonMessage")}
        return {
            "index": 0,
            "message": message,
            "finish_reason": "content_filter",
            "native_finish_reason": self.summary.native_finish_reason,
        }

    # --- streamed -------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> Sequence[Chunk]:
        """See `gw.adapter.Codec`. A failure behind good events in one piece is raised by the next call."""
        if self._error is not None:
            raise self._error
        if self._stream is None:
            data = data.lstrip()
            if not data:
                return ()
            self._head = data[:400]
            self._stream = framing_of(data)
        try:
            values = self._stream.feed(data)
        except EventTooLarge as error:
            raise self._frame.protocol(str(error)) from None
        return self._chunks(values)

    def finish(self) -> Sequence[Chunk]:
        """See `gw.adapter.Codec`."""
        if self._error is None and self._stream is not None:
            try:
                values = self._stream.finish()
            except ValueError as error:
                raise self._frame.protocol(f"was cut short: {error}") from None
            chunks = self._chunks(values)
        else:
            chunks = []
        if self._error is not None:
            raise self._error
        if not self._candidates and self._block is not None:
            chunks += self._blocked_chunks()
        elif not self._candidates:
            raise self._frame.protocol(f"ended without an answer: {self._frame.quoted(self._head)}")
        elif any(candidate.finish is None for candidate in self._candidates.values()):
            raise self._frame.protocol("was cut short: no finish reason came")
        for candidate in self._candidates.values():
            chunks += self._last_chunks(candidate)
        if self._counts is not None:
            chunks.append(self._frame.chunk([], usage_object(self._counts)))
        return chunks

    def _chunks(self, values: Sequence[bytes]) -> list[Chunk]:
        """Chunks of whole events. An error is raised where it comes first, else kept for the next call."""
        chunks: list[Chunk] = []
        try:
            for value in values:
                # Not `in`: that asks first whether the bytes are a number, and costs 1,500 instructions more.
                has_call = value.find(b'"functionCall"') >= 0
                event = self._frame.parsed_exactly(value) if has_call else self._frame.parsed(value)
                if isinstance(event, dict):
                    self._event(event, chunks)
                elif isinstance(event, list) and all(isinstance(one, dict) for one in event):
                    for one in event:
                        self._event(one, chunks)
                else:
                    raise self._frame.garbage(value)
        except GatewayError as error:
            if not chunks:
                raise
            self._error = error
        finally:
            if self._counts is not None:
                self.summary.usage = usage_of(self._counts)
        return chunks

    def _event(self, event: Mapping[str, Any], chunks: list[Chunk]) -> None:
        if event.get("error"):
            raise self._frame.told(event)
        self._note(event)
        for found in event.get("candidates") or ():
            index = found.get("index", 0)
            candidate = self._candidates.get(index)
            if candidate is None:
                candidate = self._candidate(index)
                chunks.append(self._delta_chunk(candidate, {"role": "assistant", "content": ""}))
            delta = self._read(candidate, found)
            if "content" in delta and (self.summary.output_characters < _KEPT or self._strict_schema is not None):
                candidate.texts.append(delta["content"])
            if len(found) <= 2:  # content and index: nearly every event
                if delta:
                    chunks.append(self._delta_chunk(candidate, delta))
                continue
            if "groundingMetadata" in found or "citationMetadata" in found:
                annotations = annotations_of(found, "".join(candidate.texts))
                if annotations:
                    delta["annotations"] = [
                        {"index": at, **one} for at, one in enumerate(annotations, candidate.citations)
                    ]
                    candidate.citations += len(annotations)
            if delta:
                chunks.append(self._delta_chunk(candidate, delta))
            if "logprobsResult" in found:
                logprobs = logprobs_object(found["logprobsResult"])
                chunks.append(
                    self._frame.chunk([{"index": index, "delta": {}, "logprobs": logprobs, "finish_reason": None}])
                )

    def _last_chunks(self, candidate: Candidate) -> list[Chunk]:
        rest = candidate.close()
        chunks = [self._delta_chunk(candidate, rest)] if rest else []
        native = candidate.finish or "STOP"
        reason = finish_reason(native, candidate.calls > 0)
        self._check(reason, "".join(candidate.texts))
        reason = self._old(reason, {})
        if candidate.index == 0:
            self._settle(reason)
        choice = {"index": candidate.index, "delta": {}, "finish_reason": reason, "native_finish_reason": native}
        chunks.append(self._frame.chunk([choice]))
        return chunks

    def _blocked_chunks(self) -> list[Chunk]:
        self._settle("content_filter")
        choice = self._blocked_choice()
        refusal = choice.pop("message")["refusal"]
        first = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        if refusal:
            first["delta"] = {"role": "assistant", "content": "", "refusal": refusal}
        return [self._frame.chunk([first]), self._frame.chunk([{**choice, "delta": {}}])]

    def _delta_chunk(self, candidate: Candidate, delta: Delta) -> Chunk:
        if self._is_deprecated and "tool_calls" in delta:
            is_first = delta["tool_calls"][0]["index"] == 0
            as_function_call(delta)
            if not is_first:  # that form has room for one call
                del delta["function_call"]
        if "audio" in delta and not candidate.has_spoken:  # clients add up what comes again
            candidate.has_spoken = True
            self._add_audio_id(delta)
        return self._frame.chunk([{"index": candidate.index, "delta": delta, "finish_reason": None}])

    # --- both -----------------------------------------------------------------------------------------------------

    def _read(self, candidate: Candidate, found: Mapping[str, Any]) -> Delta:
        """What a candidate holds as a delta. Raises UpstreamError where the model failed at it."""
        content = found.get("content")
        try:
            delta = candidate.read(content.get("parts") or ()) if content else {}
            if "content" in delta:
                self.summary.output_characters += len(delta["content"])
            if "reasoning_content" in delta:
                self.summary.output_characters += len(delta["reasoning_content"])
        except (ValueError, AttributeError, TypeError) as error:
            raise self._frame.protocol(f"sent parts that its API does not know: {error}") from None
        reason = found.get("finishReason")
        if reason is not None:
            candidate.finish = native_reason(reason)
            self.summary.native_finish_reason = candidate.finish
            if candidate.finish in FAILURES:
                raise self._failed(candidate.finish, found.get("finishMessage"))
        return delta

    def _check(self, reason: str, text: str) -> None:
        """Hold a finished answer to the client's schema where Gemini is not held to it."""
        if self._strict_schema is None or reason != "stop":
            return
        problem = answer_problem(text, self._strict_schema)
        if problem is not None:
            raise self._frame.protocol(f"does not fit the schema asked for with strict: {problem}")

    def _candidate(self, index: int) -> Candidate:
        candidate = self._candidates[index] = Candidate(index, self._names, self._frame.new_call_id, self._keep)
        return candidate

    def _add_audio_id(self, holder: dict[str, Any]) -> None:
        if "audio" in holder:
            holder["audio"] = {"id": self._audio_id, "expires_at": self._frame.created, **holder["audio"]}

    def _note(self, value: Mapping[str, Any]) -> None:
        """Keep what an answer or event says about itself."""
        summary = self.summary
        counts = value.get("usageMetadata")
        if counts:
            self._counts = counts
        if summary.upstream_id is None:
            summary.upstream_id = value.get("responseId")
            summary.model = value.get("modelVersion")
        feedback = value.get("promptFeedback")
        if feedback and feedback.get("blockReason"):
            self._block = feedback
            summary.native_finish_reason = str(feedback["blockReason"])

    def _settle(self, reason: str) -> None:
        self.summary.finish_reason = reason
        if self._counts is not None:
            self.summary.usage = usage_of(self._counts)

    # --- failures -------------------------------------------------------------------------------------------------

    def fail(self, status: int, headers: Headers, content: bytes) -> UpstreamError:
        """See `gw.adapter.Codec`."""
        return self._frame.failed(status, headers, content)

    def _failed(self, native: str, message: Any) -> UpstreamError:
        detail = f": {self._frame.cleaned(str(message))[:500]}" if message else ""
        return UpstreamError(
            f'backend "{self.wire.backend}" ended its answer with {native}{detail}', upstream_status=200
        )
