"""Anybody's backend, a class with two methods: `chat_completion` and `chat_completion_stream`, made a Provider.

The class has a `type`, `async chat_completion(request, config)` that returns a chat completion as a dict (or its text),
an async generator `chat_completion_stream(request, config)` of chunks (or pieces of text), `supports_streaming()`,
`supports_tools()`, `supports_images()`, and optionally `validate_config(config)`.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gw.backend import Timeouts
from gw.document import Chunk, Completion
from gw.errors import GatewayError, UpstreamError, UpstreamProtocolError, UpstreamTimeout
from gw.message import Request, Response, Summary, Usage
from gw.provider_errors import from_object
from gw.secret import Secret
from gw.stream import Stream

logger = logging.getLogger("gw.backend")

Written = TypeVar("Written", Chunk, Completion)


@dataclass(frozen=True)
class BackendConfig:
    """What a custom backend is handed with each call: its table in gateway.toml. Times are seconds."""

    id: str
    type: str
    api_key: Secret | None = None
    base_url: str | None = None
    models: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeouts: Timeouts = Timeouts()  # noqa: RUF009 (frozen)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)  # every other key of the table


def is_custom(factory: Any) -> bool:
    """Whether a class has that shape and is neither an Adapter nor a Provider of ours."""
    ours = any(callable(getattr(factory, method, None)) for method in ("open", "answer"))
    return callable(getattr(factory, "chat_completion", None)) and not ours


class CustomBackend:
    """A Provider around such an object. Its failures become UpstreamError (502); a GatewayError passes as it is."""

    def __init__(self, backend: Any, config: BackendConfig, *, now: Callable[[], float] = time.time) -> None:
        self._backend = backend
        self._config = config
        self._now = now

    @property
    def capabilities(self) -> frozenset[str]:
        """What its `supports_...()` say; True where it has no such method."""
        questions = {"stream": "supports_streaming", "functions": "supports_tools", "images": "supports_images"}
        found = {name for name, question in questions.items() if self._says(question)}
        if not callable(getattr(self._backend, "chat_completion_stream", None)):
            found.discard("stream")
        return frozenset(found)

    @property
    def timeouts(self) -> Timeouts:
        """Those of its table."""
        return self._config.timeouts

    def problems(self) -> list[str]:
        """What its `validate_config` finds wrong."""
        validate = getattr(self._backend, "validate_config", None)
        if validate is None:
            return []
        verdict = validate(self._config)
        if not isinstance(verdict, Mapping) or not isinstance(verdict.get("errors", []), Sequence):
            return ['validate_config must return {"valid": bool, "errors": [...]}']
        errors = [str(error) for error in verdict.get("errors", [])]
        if verdict.get("valid", not errors) and not errors:
            return []
        return errors or ["validate_config refused it without saying why"]

    async def answer(self, request: Request, /) -> Response:
        """The object's answer as a completion, or as a stream where one is asked for."""
        chat = {**request.chat, "model": request.candidate.model}
        summary = Summary()
        if request.is_stream:
            pieces = self._calling(lambda: self._backend.chat_completion_stream(chat, self._config))
            if not hasattr(pieces, "__anext__"):
                raise self.protocol_error("chat_completion_stream is no async generator: use `async def` and `yield`")
            return Response(_PieceStream(self, pieces, request.candidate.model, summary), summary=summary)
        waiting = self._awaiting(self._calling(lambda: self._backend.chat_completion(chat, self._config)))
        answer = await self.within(self._config.timeouts.total, "total", waiting)
        completion = self._calling(lambda: self._completion(answer, request.candidate.model, summary))
        return Response(completion, summary=summary)

    async def within(self, seconds: float, name: str, work: Awaitable[Any]) -> Any:
        """The work's result. Raises UpstreamTimeout after `seconds`, with the name of the setting."""
        try:
            async with asyncio.timeout(seconds) as limit:
                return await work
        except TimeoutError as error:
            if not limit.expired():
                raise self.failure(error) from error
            raise UpstreamTimeout(
                f'backend "{self._config.id}" gave nothing for {seconds:g} s ({name}): '
                f"raise timeouts.{name} or look at the backend"
            ) from error

    def _says(self, question: str) -> bool:
        method = getattr(self._backend, question, None)
        return True if method is None else bool(method())

    def _calling(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            raise self.failure(error) from error

    async def _awaiting(self, answer: Any) -> Any:
        try:
            return await answer if hasattr(answer, "__await__") else answer
        except Exception as error:
            raise self.failure(error) from error

    def failure(self, error: Exception) -> GatewayError:
        """Anybody's exception as one of ours: the border. Its text may hold anything and stays in the cause."""
        if isinstance(error, GatewayError):
            return error
        logger.warning("backend %s failed", self._config.id, exc_info=error)
        return UpstreamError(f'backend "{self._config.id}" failed: {type(error).__name__}')

    def protocol_error(self, what: str) -> UpstreamProtocolError:
        """The failure of an answer that is none."""
        return UpstreamProtocolError(f'backend "{self._config.id}": {what}')

    def _completion(self, answer: Any, model: str, summary: Summary) -> Completion:
        if isinstance(answer, str):
            answer = {"choices": [{"message": {"content": answer}}]}
        self._raise_told(answer)
        choices = answer.get("choices") if isinstance(answer, Mapping) else None
        if not choices or not isinstance(choices, Sequence):
            raise self.protocol_error("chat_completion must return a chat completion with choices, or its text")
        choices = [self._choice(choice, index) for index, choice in enumerate(choices)]
        value = {**self.frame("chat.completion", model), **answer, "choices": choices}
        _summarise(summary, value)
        return self.written(Completion(value=value), "chat_completion returned")

    def _choice(self, choice: Any, index: int) -> dict[str, Any]:
        message = choice.get("message") if isinstance(choice, Mapping) else None
        if not isinstance(message, Mapping):
            raise self.protocol_error(f"choices[{index}] has no message")
        finish = choice.get("finish_reason") or ("tool_calls" if message.get("tool_calls") else "stop")
        self.check(message, finish)
        whole = {"role": "assistant", "content": None, **message}
        return {"index": index, **choice, "finish_reason": finish, "message": whole}

    def written(self, document: Written, what: str) -> Written:
        """The same, written as JSON here, so that what cannot be is this backend's failure. `what` it did, for that."""
        try:
            document.raw  # noqa: B018
        except TypeError as error:
            raise self.protocol_error(f"{what} what is no JSON: {error}") from error
        return document

    def check(self, said: Any, finish: Any) -> None:
        """Raises UpstreamProtocolError for what no client of OpenAI's could read as a message or a delta."""
        is_said = isinstance(said, Mapping) and isinstance(said.get("content"), str | list | None)
        calls = said.get("tool_calls") or () if is_said else ()
        if not is_said or not isinstance(calls, Sequence) or not all(isinstance(call, Mapping) for call in calls):
            raise self.protocol_error("a message or delta is an object, its content a text, its tool_calls objects")
        if not isinstance(finish, str | None):
            raise self.protocol_error(f"a finish_reason is a word or None, not {type(finish).__name__}")

    def _raise_told(self, answer: Any) -> None:
        """Raise the failure that an answer or a chunk with an `error` means: passed on, it would look like an end."""
        if isinstance(answer, Mapping) and answer.get("error"):
            key = self._config.api_key
            raise from_object(dict(answer), backend=self._config.id, secrets=() if key is None else (key,))

    def frame(self, kind: str, model: str) -> dict[str, Any]:
        """The outer fields of an answer or chunk of one."""
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(self._now()),
            "model": model,
        }

    def fields(self, piece: Any) -> dict[str, Any]:
        """One piece of a stream as the fields of a chunk. Raises UpstreamProtocolError."""
        if isinstance(piece, str):
            return {"choices": [{"index": 0, "delta": {"content": piece}}]}
        self._raise_told(piece)
        if isinstance(piece, Mapping):
            choices = piece.get("choices", [] if piece.get("usage") else None)
            if isinstance(choices, Sequence) and all(isinstance(choice, Mapping) for choice in choices):
                return {**piece, "choices": choices}
        raise self.protocol_error("chat_completion_stream must yield chunks or text")


class _PieceStream(Stream):
    """One id for the whole stream, the role first, a finish reason at the end."""

    __slots__ = ("_begun", "_ended", "_finished", "_frame", "_owner", "_pieces", "_summary", "_tools")

    def __init__(self, owner: CustomBackend, pieces: AsyncIterator[Any], model: str, summary: Summary) -> None:
        self._owner = owner
        self._pieces = pieces
        self._frame = owner.frame("chat.completion.chunk", model)
        self._summary = summary
        summary.model = model
        self._begun: dict[int, None] = {}  # the choices that have had their role, in order
        self._tools: set[int] = set()  # ... that call tools
        self._finished: set[int] = set()
        self._ended = False

    async def read(self) -> Sequence[Chunk]:
        if self._ended:
            return ()
        timeouts = self._owner.timeouts
        name, seconds = ("idle", timeouts.idle) if self._begun else ("first_content", timeouts.first_content)
        try:
            piece = await self._owner.within(seconds, name, anext(self._pieces))
            return (self._chunk(self._owner.fields(piece)),)
        except StopAsyncIteration:
            self._ended = True
            return self._finish()
        except Exception as error:
            self._ended = True
            raise self._owner.failure(error) from error

    async def aclose(self) -> None:
        self._ended = True
        close = getattr(self._pieces, "aclose", None)
        if close is None:
            return
        try:
            await close()
        except Exception:  # anybody's `finally`: closing never raises
            logger.exception("a custom backend's stream failed while it was closed")

    def _chunk(self, fields: Mapping[str, Any]) -> Chunk:
        choices = [self._choice(choice) for choice in fields["choices"]]
        value = {**fields, **self._frame, "choices": choices}
        _note_usage(self._summary, value)
        return self._owner.written(Chunk(value=value), "chat_completion_stream yielded")

    def _choice(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        index, delta, finish = choice.get("index", 0), choice.get("delta") or {}, choice.get("finish_reason")
        self._owner.check(delta, finish)
        if type(index) is not int:
            raise self._owner.protocol_error("the index of a choice is an integer")
        if index in self._finished and any(part for name, part in delta.items() if name != "role"):
            raise self._owner.protocol_error("chat_completion_stream went on behind its finish_reason")
        if index not in self._begun:
            self._begun[index] = None
            delta = {"role": "assistant", **delta}
        if delta.get("tool_calls"):
            self._tools.add(index)
        if isinstance(delta.get("content"), str):
            self._summary.output_characters += len(delta["content"])
        if finish is not None:
            self._finished.add(index)
            self._summary.finish_reason = finish
        return {**choice, "index": index, "delta": delta, "finish_reason": finish}

    def _finish(self) -> Sequence[Chunk]:
        """A generator that returned has ended well: the finish reasons that it left out."""
        open_choices = [index for index in self._begun if index not in self._finished]
        if not open_choices:
            return ()
        reasons = {index: "tool_calls" if index in self._tools else "stop" for index in open_choices}
        choices = [{"index": index, "delta": {}, "finish_reason": reason} for index, reason in reasons.items()]
        self._summary.finish_reason = reasons[open_choices[0]]
        return (Chunk(value={**self._frame, "choices": choices}),)


def _summarise(summary: Summary, completion: dict[str, Any]) -> None:
    summary.model = completion.get("model")
    summary.upstream_id = completion.get("id")
    first = completion["choices"][0]
    summary.finish_reason = first["finish_reason"]
    content = first["message"].get("content")
    summary.output_characters = len(content) if isinstance(content, str) else 0
    _note_usage(summary, completion)


def _note_usage(summary: Summary, answer: dict[str, Any]) -> None:
    """What an answer or a chunk tells of its tokens. What cannot be used is taken out, and estimated in the end."""
    told = answer.get("usage")
    if told is None:
        return
    usage = _usage(told)
    if usage is None:
        del answer["usage"]
    else:
        summary.usage = usage


def _usage(told: Any) -> Usage | None:
    prompt, completion = (_count(told, name) for name in ("prompt_tokens", "completion_tokens"))
    if prompt is None or completion is None:
        return None
    cached = _count(told.get("prompt_tokens_details"), "cached_tokens")
    return Usage(prompt, completion, min(cached or 0, prompt))


def _count(holder: Any, name: str) -> int | None:
    """A number of tokens; None where it is none."""
    value = holder.get(name) if isinstance(holder, Mapping) else None
    return value if type(value) is int and value >= 0 else None
