"""One exchange with Claude: the wire request, and its answer whole, streamed or failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from gw.adapter import WireRequest
from gw.adapters.anthropic.answer import WholeAnswer, usage_object
from gw.adapters.anthropic.plan import Plan
from gw.adapters.anthropic.stream import EventReader
from gw.document import Chunk, Chunks, Completion
from gw.errors import UpstreamError, UpstreamProtocolError
from gw.message import Headers, Loss, Request, Summary
from gw.provider_errors import from_answer, from_object, quote
from gw.provider_json import mended, read_exactly
from gw.secret import Secret
from gw.sse import Event, EventTooLarge, SSEDecoder
from gw.text_events import MARK, PADDING, Template, cut

_LESSONS = 8  # templates of one stream: a block of text needs one


class AnthropicCodec:
    """A `gw.adapter.Codec` for the Messages API, on whichever host it is spoken."""

    __slots__ = (
        "_backend",
        "_created",
        "_decoder",
        "_failure",
        "_id",
        "_lessons",
        "_model",
        "_next",
        "_plan",
        "_reader",
        "_secrets",
        "_template",
        "_timestamp",
        "losses",
        "summary",
        "wire",
    )

    def __init__(self, request: Request, wire: WireRequest, plan: Plan) -> None:
        candidate = request.candidate
        self.wire = wire
        self.losses: Sequence[Loss] = plan.losses
        self.summary = Summary()
        self._plan = plan
        self._id = f"chatcmpl-{request.id}"
        self._timestamp = request.exchange.timestamp
        self._created = int(self._timestamp)
        self._model = candidate.answers_as
        self._backend = candidate.backend.name
        self._secrets: Sequence[Secret] = () if candidate.key is None else (candidate.key,)
        self._decoder = SSEDecoder()
        self._reader = EventReader(self._id, self._created, self._model, plan, self.summary)
        self._failure: UpstreamError | None = None
        self._lessons = _LESSONS  # templates that may still be made
        self._template: Template | None = None  # of the events with text that need no decoding
        self._next: Template | None = None  # the same, where an event begins with the next piece

    @property
    def is_done(self) -> bool:
        """Whether nothing that may still come of the stream matters: `message_stop` was read, or an error waits."""
        return self._reader.is_complete or self._failure is not None

    def complete(self, content: bytes, /) -> Completion:
        """The whole answer. Raises UpstreamError for an error in a 200, UpstreamProtocolError for no answer at all."""
        try:
            message = _value_of(content)
        except ValueError:
            raise self._garbage(f"something that is not JSON: {quote(content, self._secrets)}") from None
        if isinstance(message, dict) and (message.get("type") == "error" or message.get("error")):
            raise from_object(message, backend=self._backend, secrets=self._secrets)
        if not isinstance(message, dict) or not isinstance(message.get("content"), list):
            raise self._garbage(f"no message: {quote(content, self._secrets)}")
        try:
            choice = WholeAnswer(self._plan).read(message, self.summary)
        except UpstreamProtocolError as error:
            raise self._garbage(error.message) from None
        except (AttributeError, TypeError):  # a field of a type that the API does not have
            raise self._garbage(f"a message of a strange shape: {quote(content, self._secrets)}") from None
        completion = {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "choices": [choice],
        }
        if self.summary.usage is not None:
            completion["usage"] = usage_object(self.summary.usage)
        return Completion(None, completion)

    def feed(self, data: bytes, /) -> Sequence[Chunk]:
        """The chunks that are complete with this piece.

        A failure that stands behind chunks in the same piece is raised by the next call, so that none of them is lost.
        """
        template = self._next
        if template is not None:
            one = template.take_one(data)  # nearly always one event comes at a time
            if one is not None:
                self._reader.count_text(template.characters)
                return one
            self._next = None
        if self._failure is not None:
            raise self._failure
        if self._reader.is_complete:
            return ()
        chunks = Chunks()
        try:
            self._take(self._decoder.resumed(data), chunks)
        except EventTooLarge as error:
            self._failure = self._garbage(str(error))
        except UpstreamError as error:
            self._failure = error
        else:
            self._next = None if self._decoder.is_inside else self._template
        chunks.add(self._reader.taken())
        if self._failure is not None and not chunks:
            raise self._failure
        return chunks

    def _take(self, data: bytes, chunks: Chunks) -> None:
        """Event by event: those with text that are like the one before are not decoded."""
        decoder, reader = self._decoder, self._reader
        position, size = 0, len(data)
        while position < size:
            is_between = not decoder.is_inside
            if is_between and self._template is not None:
                run = self._template.take_run(data, position)
                if run is not None:
                    chunks.add_run(run)
                    reader.count_text(self._template.characters)
                    position = self._template.end
                    continue
            end = data.find(b"\n\n", position) + 2
            if end == 1:
                end = size
            piece = data if end - position == size else data[position:end]
            events = decoder.feed(piece)
            for event in events:
                text = self._read(event)
                taken = reader.taken()
                if text and is_between and len(events) == 1 and not decoder.is_inside:
                    self._learn(piece, text, taken)
                chunks.add(taken)
            if reader.is_complete:  # what may follow depends on when it is read: nobody is told of it
                self._template = None
                return
            position = end

    def _learn(self, event: bytes, text: str, chunks: list[Chunk]) -> None:
        """Remember the bytes around an event's text, and those around it in the one chunk that it became."""
        if self._lessons == 0 or b"\\" in event:
            return
        self._lessons -= 1
        around = cut(event, "text", text)
        if len(chunks) != 1 or around is None or PADDING in event or not event.endswith(b"\n\n"):
            return
        (chunk,) = chunks
        (choice,) = chunk.peek()["choices"]
        marked = {**chunk.peek(), "choices": [{**choice, "delta": {"content": MARK}}]}
        # Escapes go out as orjson writes them.
        self._template = Template(*around, orjson.dumps(marked).split(MARK.encode()), takes_escapes=False)

    def finish(self) -> Sequence[Chunk]:
        """The last chunks; UpstreamProtocolError where the stream was cut before `message_stop`."""
        if self._failure is not None:
            raise self._failure
        for event in self._decoder.finish():
            self._read(event)
        if not self._reader.is_complete:
            raise self._garbage("a stream that ended before its message_stop")
        return self._reader.taken()

    def fail(self, status: int, headers: Headers, content: bytes, /) -> UpstreamError:
        """The failure behind an error status."""
        self.summary.upstream_id = headers.get("request-id") or None
        return from_answer(status, headers, content, backend=self._backend, secrets=self._secrets, now=self._timestamp)

    def _read(self, event: Event) -> str:
        """Take in one event; the text where it is nothing but a piece of that. Behind the end nothing counts."""
        if self._reader.is_complete or event.data == b"[DONE]":  # Claude does not send it; a gateway in between may
            return ""
        try:
            value = _value_of(event.data)
        except ValueError:
            raise self._garbage(f"an event that is not JSON: {quote(event.data, self._secrets)}") from None
        if isinstance(value, list):  # Google wraps its errors
            value = value[0] if value else None
        if not isinstance(value, dict):
            return ""
        if value.get("type") == "error" or event.name == "error" or value.get("error"):
            raise from_object(value, backend=self._backend, secrets=self._secrets)
        try:
            if value.get("type") == "message" and isinstance(value.get("content"), list):
                self._reader.read_whole(value)
            else:
                return self._reader.read(value)
        except UpstreamProtocolError as error:
            raise self._garbage(error.message) from None
        except (AttributeError, TypeError):  # a field of a type that the API does not have
            raise self._garbage(f"an event of a strange shape: {quote(event.data, self._secrets)}") from None
        return ""

    def _garbage(self, what: str) -> UpstreamProtocolError:
        return UpstreamProtocolError(f'backend "{self._backend}" sent {what}', upstream_status=200)


def _value_of(raw: bytes) -> Any:
    """What Claude's bytes say, the input of tools to the last digit. Raises ValueError where they are no JSON."""
    try:
        return read_exactly(raw) if b'"tool_use"' in raw else orjson.loads(raw)
    except orjson.JSONDecodeError:
        return mended(raw)
