"""One exchange with a provider that speaks OpenAI: what is sent, and the provider's bytes made canonical."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from gw.adapter import WireRequest
from gw.adapters.openai.answers import Source, note_plain, repair_completion, with_function_call
from gw.adapters.openai.stream import ChunkStream
from gw.document import Chunk, Chunks, Completion
from gw.errors import UpstreamError, UpstreamProtocolError
from gw.json_splice import replace_member
from gw.message import Headers, Loss, Summary
from gw.provider_errors import details_of, from_answer, quote
from gw.provider_json import mended, written
from gw.schema_check import answer_problem
from gw.secret import Secret
from gw.sse import EventTooLarge, SSEDecoder
from gw.text_events import Template


class OpenAICodec:
    """See `gw.adapter.Codec`. `created` (Unix seconds) stands in where the provider does not say.

    `speaks_functions`: the client reads `function_call` where the provider answers with tool calls. `schema`: what an
    answer is held to, because the provider is not.
    """

    __slots__ = (
        "_answers_as",
        "_created",
        "_decoder",
        "_failed",
        "_schema",
        "_secrets",
        "_speaks_functions",
        "_stream",
        "_template",
        "_texts",
        "losses",
        "summary",
        "wire",
    )

    def __init__(
        self,
        wire: WireRequest,
        losses: Sequence[Loss],
        answers_as: str,
        created: float,
        secrets: Sequence[Secret] = (),
        speaks_functions: bool = False,
        schema: dict[str, Any] | None = None,
    ) -> None:
        self.wire = wire
        self.losses = losses
        self.summary = Summary()
        self._answers_as = answers_as
        self._created = created
        self._secrets = secrets
        self._failed: UpstreamError | None = None  # what the next call has to tell
        self._schema = schema
        self._speaks_functions = speaks_functions
        self._texts: dict[int, str | None]  # of each choice, where they are held to a schema; None: it refuses
        if schema is not None:
            self._texts = {}
        self._decoder: SSEDecoder
        self._stream: ChunkStream | None = None  # a whole answer needs neither
        self._template: Template | None = None  # of the next event, where that begins with the next piece

    @property
    def _source(self) -> Source:
        """Who is answering, for what is said of a failure."""
        return Source(self.wire.backend, self._secrets)

    @property
    def is_done(self) -> bool:
        """Whether nothing that may still come of the stream matters: `[DONE]` was read, or an error waits."""
        return self._failed is not None or (self._stream is not None and self._stream.done)

    @property
    def filled(self) -> int:
        """How many events of the stream were like one before but for their text, and so were not decoded."""
        return self._stream.filled if self._stream is not None else 0

    def _begin(self) -> ChunkStream:
        self._decoder = SSEDecoder()
        self._stream = stream = ChunkStream(
            self._source, self.summary, self._answers_as, int(self._created), self._speaks_functions
        )
        return stream

    def complete(self, content: bytes) -> Completion:
        """The whole answer: the provider's bytes with the client's name for the model, repaired where it must be."""
        raw: bytes | None = content
        try:
            value = orjson.loads(content)
        except orjson.JSONDecodeError:
            value, raw = self._mended(content), None
        answers_as, text = self._answers_as, None
        if not self._speaks_functions and self._schema is None:
            text = note_plain(value, self.summary)
        if text is None and self._repair(value, content):
            raw = None
        if value.get("model") != answers_as:
            if raw is not None:
                raw = replace_member(raw, b"model", orjson.dumps(answers_as), "model" in value)
            value["model"] = answers_as
        completion = Completion(raw if raw is not None else written(value), value)
        completion.text = text
        return completion

    def _mended(self, content: bytes) -> Any:
        """The value of an answer that is JSON but for what is seen in the wild."""
        try:
            return mended(content, is_exact=False)
        except ValueError:
            raise self._source.garbage(
                f"answered with {quote(content, self._secrets)}, which is no chat completion: check base_url"
            ) from None

    def _repair(self, value: Any, content: bytes) -> bool:
        """Make a whole answer OpenAI's, in place; whether anything had to change. Raises what it says went wrong."""
        if not isinstance(value, dict) or value.get("error") or not isinstance(value.get("choices"), list):
            if details_of(value) is not None:
                raise self._source.error(value[0] if isinstance(value, list) else value)
            raise self._source.garbage(f"answered with {quote(content, self._secrets)}: no chat completion")
        given_id = value.get("id")
        self.summary.model = value.get("model") or None
        self.summary.upstream_id = given_id or None
        changed = repair_completion(value, self.summary, self._source)
        if self._speaks_functions:
            for choice in value["choices"]:
                changed |= with_function_call(choice, "message", self.summary)
        if self._schema is not None:
            for choice in value["choices"]:
                if (problem := self._misfit(choice, choice["message"])) is not None:
                    raise problem
        if not given_id or not value.get("created") or value.get("object") != "chat.completion":
            value["id"] = given_id or f"chatcmpl-{self.wire.request_id}"
            value["object"] = "chat.completion"
            value["created"] = value.get("created") or int(self._created)
            changed = True
        return changed

    def feed(self, data: bytes) -> Sequence[Chunk]:
        """The chunks that are complete with this piece of an event stream.

        Content that stands before an error in the same piece is given out first; the error is raised by the next call.
        """
        stream = self._stream or self._begin()
        template = self._template
        if template is not None:
            one = template.take_one(data)  # nearly always one event comes at a time, and is like the one before
            if one is not None:
                self.summary.output_characters += template.characters
                stream.filled += 1
                return one
            self._template = None
        if self._failed is not None:
            raise self._failed
        chunks = Chunks()
        try:
            self._read(stream, self._decoder.resumed(data), chunks)
        except EventTooLarge as error:
            raise self._source.garbage(f"sent too much: {error}") from error
        except UpstreamError as error:
            if not any(chunk.has_content() for chunk in chunks):
                raise
            self._failed = error
        else:
            if stream.templates and self._schema is None and not self._decoder.is_inside:
                self._template = stream.templates[0]
        return chunks if self._schema is None else self._held_to_schema(chunks)

    def _held_to_schema(self, chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        """Those before the end of an answer that does not fit; the next call tells of it."""
        for place, chunk in enumerate(chunks):
            for choice in chunk.peek().get("choices") or ():
                problem = self._misfit(choice, choice.get("delta") or {})
                if problem is not None:
                    self._failed = problem
                    return chunks[:place]
        return chunks

    def _misfit(self, choice: dict[str, Any], message: dict[str, Any]) -> UpstreamProtocolError | None:
        """What is wrong with a choice that has come to its end by itself; until then its text is put together."""
        assert self._schema is not None, "asked only where there is one"
        index = choice["index"]
        text = self._texts.get(index, "")
        if text is None or message.get("refusal"):  # in words, which no schema asks for
            self._texts[index] = None
            return None
        text = self._texts[index] = text + (message.get("content") or "")
        problem = answer_problem(text, self._schema) if choice.get("finish_reason") == "stop" else None
        if problem is None:
            return None
        return self._source.garbage(f"gave an answer that does not fit the schema asked for with strict: {problem}")

    def _read(self, stream: ChunkStream, data: bytes, chunks: Chunks) -> None:
        """Event by event: those that fit a template are not decoded, not even cut out of the piece."""
        decoder, summary = self._decoder, self.summary
        position, size = 0, len(data)
        while position < size:
            if stream.templates and not decoder.is_inside:
                for template in stream.templates:
                    run = template.take_run(data, position)
                    if run is not None:
                        break
                if run is not None:
                    chunks.add_run(run)
                    summary.output_characters += template.characters
                    stream.filled += len(run)
                    position = template.end
                    continue
            # One event, so that the template which it may teach serves the next one.
            end = data.find(b"\n\n", position) + 2
            if end == 1:
                end = size
            for name, payload in decoder.feed(data if end - position == size else data[position:end]):
                chunks.add(stream.read(name, payload))
            position = end

    def finish(self) -> Sequence[Chunk]:
        """The end of the bytes: complete after `[DONE]` or where every choice had its finish reason, else cut short."""
        if self._failed is not None:
            raise self._failed
        stream = self._stream or self._begin()
        chunks: list[Chunk] = []
        try:
            for name, payload in self._decoder.finish():
                chunks += stream.read(name, payload)
        except UpstreamProtocolError:
            if not stream.is_complete:  # half an event behind the end is nobody's loss
                raise self._cut_short() from None
        if stream.done:
            return chunks
        if not stream.is_complete:
            raise self._cut_short()
        chunks += stream.close()
        if self._schema is None:
            return chunks
        held = self._held_to_schema(chunks)
        if self._failed is not None and not held:
            raise self._failed
        return held

    def fail(self, status: int, headers: Headers, content: bytes) -> UpstreamError:
        """The failure that an answer with an error status means."""
        return from_answer(status, headers, content, backend=self.wire.backend, secrets=self._secrets)

    def _cut_short(self) -> UpstreamProtocolError:
        return self._source.garbage("broke its stream off: no finish reason and no [DONE] came")
