"""What an answer has whoever gives it: one id, time and model for every object, and failures that name the backend."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import orjson

from gw.document import Chunk, Completion
from gw.errors import UpstreamError, UpstreamProtocolError
from gw.message import Headers, Request
from gw.provider_errors import from_answer, from_object, quote, scrub
from gw.provider_json import mended, read_exactly
from gw.secret import Secret

MOST_TOKENS = 2**53  # of one answer; JSON and SQLite could not hold every number beyond


class AnswerFrame:
    """The answer to one request, as the client's objects frame it."""

    __slots__ = ("_backend", "_calls", "_request_id", "_secrets", "_timestamp", "created", "id", "model")

    def __init__(self, request: Request) -> None:
        candidate = request.candidate
        self.id = f"chatcmpl-{request.id}"
        self.created = int(request.exchange.timestamp)
        self.model = candidate.answers_as
        self._request_id = request.id
        self._timestamp = request.exchange.timestamp
        self._backend = candidate.backend.name
        self._secrets: Sequence[Secret] = () if candidate.key is None else (candidate.key,)
        self._calls = 0

    def chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> Chunk:
        """One `chat.completion.chunk`; usage stands in the last one."""
        value = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
        if usage is not None:
            value["usage"] = usage
        try:  # now, not when somebody sends it: then it would be too late to ask another backend
            return Chunk(orjson.dumps(value), value)
        except TypeError as error:
            raise self._unwritable(error) from None

    def completion(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> Completion:
        """One `chat.completion`; without usage where nobody told it."""
        value = {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
        if usage is not None:
            value["usage"] = usage
        try:
            return Completion(orjson.dumps(value), value)
        except TypeError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: TypeError) -> UpstreamProtocolError:
        """For an integer beyond 64 bits where a provider has room for any."""
        return self.protocol(f"cannot be written as JSON: {error}")

    def new_call_id(self) -> str:
        """A tool call id that no other answer has: clients may choose request ids, hence the time beside them."""
        self._calls += 1
        seed = f"{self._request_id} {self._timestamp!r} {self._calls}".encode("utf-8", "surrogatepass")
        return "call_" + hashlib.blake2b(seed, digest_size=12).hexdigest()

    # --- failures -------------------------------------------------------------------------------------------------

    def parsed(self, content: bytes) -> Any:
        """JSON, mended where it must be. Raises UpstreamProtocolError for anything else."""
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            return self.parsed_exactly(content)

    def parsed_exactly(self, content: bytes) -> Any:
        """The same with every integer as it is written: in a call it may be an id."""
        try:
            return read_exactly(content)
        except orjson.JSONDecodeError:
            pass
        try:
            return mended(content)
        except ValueError:
            raise self.garbage(content) from None

    def garbage(self, content: bytes) -> UpstreamProtocolError:
        """The 502 for what the provider's API does not know, with a short quote of it."""
        return self.protocol(f"is none of its API: {self.quoted(content)}")

    def protocol(self, what: str) -> UpstreamProtocolError:
        """The 502 for an answer that is not what the provider's API says; `what` completes "the answer ..."."""
        return UpstreamProtocolError(f'the answer of backend "{self._backend}" {what}')

    def quoted(self, content: bytes) -> str:
        """A short piece of an answer, without keys."""
        return quote(content, self._secrets)

    def cleaned(self, text: str) -> str:
        """The provider's words, without keys."""
        return scrub(text, self._secrets)

    def told(self, value: Any) -> UpstreamError:
        """The failure that an error object inside an answer means."""
        return from_object(value, backend=self._backend, secrets=self._secrets)

    def failed(self, status: int, headers: Headers, content: bytes) -> UpstreamError:
        """The failure that an answer with an error status means."""
        return from_answer(status, headers, content, backend=self._backend, secrets=self._secrets, now=self._timestamp)
