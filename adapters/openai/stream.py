"""A provider's stream, made OpenAI's: one id, one model, one `created`, each choice in order, usage last."""

from __future__ import annotations

import uuid
from typing import Any

import orjson

from gw.adapters.openai.answers import Source, note_usage, repair_usage, usage_in, with_function_call
from gw.adapters.openai.choices import ChoiceStream
from gw.adapters.openai.template import ARGUMENTS, PART, TEXTS, learn
from gw.document import Chunk
from gw.json_splice import find_member
from gw.message import Summary
from gw.provider_errors import details_of, quote
from gw.provider_json import parse, written
from gw.text_events import Template

_OBJECT = "chat.completion.chunk"
_OWN = frozenset({"id", "object", "created", "model", "choices", "usage"})
_LEARNT_AT_MOST = 8  # templates of one stream, unless they pay
_SEARCHES_AT_MOST = 8  # for the model's name in a chunk


class ChunkStream:
    """Events in, canonical chunks out; `done` is set by the provider's `[DONE]`."""

    def __init__(
        self, source: Source, summary: Summary, answers_as: str, created: int, speaks_functions: bool = False
    ) -> None:
        self.done = False
        self.templates: list[Template] = []  # of the events that need no decoding, the last used first
        self.filled = 0  # how many they served
        self._source = source
        self._summary = summary
        self._model = answers_as
        self._model_json = orjson.dumps(answers_as)
        self._created = created  # Unix seconds, for a provider that does not say
        self._speaks_functions = speaks_functions
        self._id: str | None = None
        self._upstream_id: str | None = None
        self._repeats = 0  # how often that id was repeated
        self._choices: dict[int, ChoiceStream] = {}
        self._extras: dict[str, Any] = {}  # fields of a chunk that is not passed on, for the next one
        self._usage: dict[str, Any] | None = None  # the chunk that tells it, held until the end
        self._model_at: tuple[bytes, int] | None = None  # the bytes up to the model's name, and where it ends
        self._searches = self._learnt = 0

    @property
    def is_complete(self) -> bool:
        """Whether every choice that began has its finish reason."""
        return bool(self._choices) and all(choice.finished for choice in self._choices.values())

    def close(self) -> list[Chunk]:
        """The chunks with which a stream ends that the provider says is whole."""
        if not any(choice.finished or choice.has_content for choice in self._choices.values()):
            raise self._source.garbage("ended its stream without an answer")
        chunks: list[Chunk] = []
        for index, choice in self._choices.items():
            if not choice.finished:
                finish = {"index": index, "delta": {}, "finish_reason": "tool_calls" if choice.calls else "stop"}
                chunks += self._emit(self._head(), [finish], None)[0]
        if self._usage is not None:
            chunks.append(_chunk(self._usage))
            self._usage = None
        return chunks

    def read(self, name: str, payload: bytes) -> list[Chunk]:
        """The chunks that one event means. Raises UpstreamError for an error, UpstreamProtocolError for garbage."""
        payload = payload.strip()
        if self.done or not payload:
            return []
        if payload == b"[DONE]":
            self.done = True
            return self.close()
        try:
            value, clean = parse(payload)
        except ValueError:
            raise self._source.garbage(f"sent an event that is not JSON: {quote(payload)}") from None
        if isinstance(value, list) and value:  # Google wraps its errors
            value, clean = value[0], False
        if not isinstance(value, dict):
            raise self._source.garbage(f"sent an event that is no object: {quote(payload)}")
        error = _error_in(name, value)
        if error is not None:
            raise self._source.error(error)
        choices = value.get("choices")
        if not isinstance(choices, list):
            choices = []
        if not choices and usage_in(value) is None:
            # A ping, a notice, or Azure's verdict on the prompt before its first choice.
            if "choices" in value:
                self._extras |= {key: extra for key, extra in value.items() if key not in _OWN and extra is not None}
            return []
        if any(map(_is_whole, choices)):
            return self._read_whole(value, choices)
        self._check_id(value, choices)
        only = None if self._extras else _only_text(choices)
        chunks, raw = self._emit(value, choices, payload if clean else None)
        if only is not None and len(chunks) == 1:
            self._learn(payload, *only, value, raw)
        return chunks

    def _read_whole(self, value: dict[str, Any], choices: list[Any]) -> list[Chunk]:
        """The chunks of an answer that came in one piece although a stream was asked for.

        Behind chunks of the same answer it only repeats them: then its end and its usage are what is new.
        """
        opening: list[dict[str, Any]] = []
        ending: list[dict[str, Any]] = []
        for place, choice in enumerate(choices):
            index = choice.get("index") if isinstance(choice.get("index"), int) else place
            message = choice.pop("message", None)
            if isinstance(message, dict) and not self._has_content(index):
                for at, call in enumerate(message.get("tool_calls") or ()):
                    call.setdefault("index", at)
                piece = {"index": index, "delta": message, "finish_reason": None}
                opening.append(piece | {name: choice[name] for name in ("logprobs", "error") if name in choice})
            ending.append(
                {**choice, "index": index, "delta": {}, "finish_reason": choice.get("finish_reason") or "stop"}
            )
        head = {name: field for name, field in value.items() if name not in ("choices", "usage", "x_groq")}
        chunks = self._emit({**head}, opening, None)[0] if opening else []
        return [*chunks, *self._emit({**value}, ending, None)[0]]

    def _emit(self, value: dict[str, Any], choices: list[Any], raw: bytes | None) -> tuple[list[Chunk], bytes | None]:
        """Repair a chunk in place. `raw` are its bytes, None where they cannot be passed on.

        The chunks that it becomes, and the bytes of the last where they are the provider's own but for the model.
        """
        kept: list[dict[str, Any]] = []
        closing: list[dict[str, Any]] = []
        changed = self._repair_head(value)
        for place, choice in enumerate(choices):
            if not isinstance(choice.get("index"), int):
                choice["index"] = place
                changed = True
            index = choice["index"]
            state = self._choices.get(index)
            if state is None:
                state = self._choices[index] = ChoiceStream()
            was_finished = state.finished
            calls = len(state.calls)
            repaired, passed = state.repair(choice, self._summary, self._source)
            if len(state.calls) != calls:  # what came before may go on under the new call's index
                self.templates = [template for template in self.templates if template.key != ARGUMENTS]
            changed |= repaired
            if passed:
                kept.append(choice)
            if state.finished and not was_finished:
                self.templates.clear()
                if state.calls.unfinished():
                    changed = True
                    if missing := state.give_arguments(choice):
                        closing.append({"index": index, "delta": {"tool_calls": missing}, "finish_reason": None})
        changed |= self._take_usage(value)
        if self._speaks_functions:
            for choice in (*closing, *kept):
                changed |= with_function_call(choice, "delta", self._summary)
        if not kept:
            return [], None
        value["choices"] = kept
        if self._extras:
            value |= self._extras
            self._extras = {}
            changed = True
        chunks = [_chunk({**value, "choices": closing})] if closing else []
        raw = self._named(value, None if changed else raw)
        chunks.append(_chunk(value, raw))
        return chunks, raw

    # --- the head of a chunk --------------------------------------------------------------------------------------

    def _head(self) -> dict[str, Any]:
        return {"id": self._id, "object": _OBJECT, "created": self._created, "model": self._model}

    def _check_id(self, value: dict[str, Any], choices: list[Any]) -> None:
        """A new id together with a new role, where the ids did not change before, is a second answer."""
        given = value.get("id") or None
        if given is None or given == self._upstream_id:
            self._repeats += given is not None
            return
        if self._repeats and any(
            choice.get("delta") and choice["delta"].get("role") and self._has_content(choice.get("index") or 0)
            for choice in choices
        ):
            raise self._source.garbage("began a second answer in the same stream")
        self._upstream_id, self._repeats = given, 0

    def _has_content(self, index: int) -> bool:
        state = self._choices.get(index)
        return state is not None and state.has_content

    def _repair_head(self, value: dict[str, Any]) -> bool:
        """One id and one `created` for the whole stream; whether anything had to change."""
        if self._id is None:
            self._id = value.get("id") or f"chatcmpl-{uuid.uuid4().hex}"
            if isinstance(value.get("created"), int) and value["created"]:
                self._created = value["created"]
            self._summary.upstream_id = value.get("id") or None
        if self._summary.model is None and isinstance(value.get("model"), str):
            self._summary.model = value["model"] or None
        changed = False
        for name, wanted in (("id", self._id), ("object", _OBJECT), ("created", self._created)):
            if value.get(name) != wanted:
                value[name] = wanted
                changed = True
        return changed

    def _named(self, value: dict[str, Any], raw: bytes | None) -> bytes | None:
        """Put the name that the client shall read into a chunk, and into its bytes where that can be done."""
        if value.get("model") != self._model:
            if raw is not None:
                raw = self._renamed(raw) if "model" in value else None
            value["model"] = self._model
        return raw

    def _renamed(self, raw: bytes) -> bytes | None:
        """A chunk's bytes with the client's name for the model; None where writing it anew is cheaper."""
        if self._model_at is not None:
            before, start = self._model_at
            if raw.startswith(before) and raw.find(b'"model"', len(before)) < 0:
                return b"".join((raw[:start], self._model_json, raw[len(before) :]))
        if self._searches >= _SEARCHES_AT_MOST:
            return None
        self._searches += 1
        span = find_member(raw, b"model", is_there=True)
        if span is None:
            return None
        self._model_at = raw[: span[1]], span[0]
        return b"".join((raw[: span[0]], self._model_json, raw[span[1] :]))

    # --- usage ----------------------------------------------------------------------------------------------------

    def _take_usage(self, value: dict[str, Any]) -> bool:
        """Keep a chunk's usage for the end, in a chunk of its own as OpenAI has it; whether the chunk had any."""
        usage = usage_in(value)
        if usage is None:
            return False
        usage = repair_usage(usage)
        note_usage(self._summary, usage)
        rest = {name: field for name, field in value.items() if name not in ("choices", "usage")}
        self._usage = {**rest, "model": self._model, "choices": [], "usage": usage}
        value.pop("usage", None)
        return True

    # --- the short way --------------------------------------------------------------------------------------------

    def _learn(self, payload: bytes, key: str, text: str, value: dict[str, Any], raw: bytes | None) -> None:
        """Remember the bytes around this chunk's text, unless that has not paid so far."""
        state = self._choices[0]
        if state.finished or (self._learnt >= _LEARNT_AT_MOST and self.filled < 4 * self._learnt):
            return
        if "role" in value["choices"][0]["delta"]:
            return  # it is told once
        if key == ARGUMENTS and (self._speaks_functions or not state.calls.has_ids):
            return  # without ids, a call's end shows in its arguments
        self._learnt += 1
        template = learn(payload, key, text, value, raw)
        if template is not None:
            self.templates = [template, *(other for other in self.templates if other.key != key)]


def _chunk(value: dict[str, Any], raw: bytes | None = None) -> Chunk:
    """One chunk, written here, where a value that cannot be written is the provider's failure."""
    return Chunk(raw if raw is not None else written(value), value)


def _is_whole(choice: Any) -> bool:
    """Whether it brings a message and no piece of one. Perplexity sends an empty delta beside its whole answers."""
    if not isinstance(choice, dict) or "message" not in choice:
        return False
    delta = choice.get("delta")
    return not isinstance(delta, dict) or not any(value for name, value in delta.items() if name != "role")


def _only_text(choices: list[Any]) -> tuple[str, str] | None:
    """The one text of a chunk that carries nothing else that varies, and its field; None for any other chunk."""
    if len(choices) != 1 or choices[0].get("index") != 0 or choices[0].get("finish_reason"):
        return None
    delta = choices[0].get("delta")
    if not isinstance(delta, dict):
        return None
    texts = [name for name in TEXTS if delta.get(name)]
    calls = delta.get("tool_calls")
    if not calls:
        if texts == ["content"] and isinstance(delta["content"], list):
            return _only_part(delta["content"])
        return (texts[0], delta[texts[0]]) if len(texts) == 1 and isinstance(delta[texts[0]], str) else None
    function = calls[0].get("function") or {}
    arguments = function.get(ARGUMENTS)
    if texts or len(calls) > 1 or calls[0].get("id") or function.get("name") or not isinstance(arguments, str):
        return None
    return (ARGUMENTS, arguments) if arguments else None


def _only_part(parts: list[Any]) -> tuple[str, str] | None:
    """The same for content that is a list: of one text, or of one thought with one text in it (Mistral)."""
    while len(parts) == 1 and isinstance(parts[0], dict):
        part = parts[0]
        if part.keys() == {"type", "text"} and part["type"] == "text":
            return (PART, part["text"]) if isinstance(part["text"], str) and part["text"] else None
        if part.keys() != {"type", "thinking"} or not isinstance(part["thinking"], list):
            return None
        parts = part["thinking"]
    return None


def _error_in(name: str, value: dict[str, Any]) -> dict[str, Any] | None:
    """The error that an event is, in any of the shapes in which providers send one; None for any other event."""
    if value.get("error") or name == "error" or value.get("object") == "error":
        return value
    if "choices" in value:
        groq = value.get("x_groq")
        return groq if isinstance(groq, dict) and groq.get("error") else None
    return value if isinstance(value.get("code"), int | str) and details_of(value) is not None else None
