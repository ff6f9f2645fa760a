"""What a client of OpenAI's reads, judged without mercy: the whole answer, one clean error, or something broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import httpx
import orjson

from gw.adapters.faulty.dialects import ANSWER
from gw.sse import SSEDecoder

Kind = Literal["answer", "error", "broken"]
DONE = b"[DONE]"
TEXTS = (ANSWER, "ab")  # a drip is a short answer
_FIELDS = {"message", "type", "param", "code"}


@dataclass(frozen=True, slots=True)
class Reading:
    """One answer. `about` is the error's status and code, or what is broken. `usage` is what the client was told."""

    kind: Kind
    about: str = ""
    status: int = 0
    usage: dict[str, Any] | None = None
    request_id: str = ""
    is_partial: bool = False  # content had been passed on before the error


class Broken(Exception):
    """What was read is neither an answer nor an error."""


def read(response: httpx.Response, content: bytes, *, stream: bool) -> Reading:
    """Judge a response whose body was read to its end."""
    request_id = response.headers.get("x-request-id", "")
    try:
        kind = response.headers.get("content-type", "")
        if response.status_code == 200 and stream:
            if not kind.startswith("text/event-stream"):
                raise Broken(f"a stream was asked for, {kind or 'nothing known'} came")
            found = _stream(content)
        elif response.status_code == 200:
            found = _whole(_json(content))
        else:
            error = _json(content).get("error")
            found = Reading("error", f"{response.status_code} {_clean(error)}")
    except Broken as broken:
        found = Reading("broken", str(broken))
    return Reading(found.kind, found.about, response.status_code, found.usage, request_id, found.is_partial)


def _json(content: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(content)
    except ValueError:
        raise Broken(f"not JSON: {content[:40]!r}") from None
    if not isinstance(value, dict):
        raise Broken(f"not a JSON object: {content[:40]!r}")
    return value


def _clean(error: object) -> str:
    """The code of an error in OpenAI's shape."""
    if not isinstance(error, dict) or set(error) != _FIELDS or not error["message"]:
        raise Broken("an error that is not OpenAI's {message, type, param, code}")
    if "drill-key" in str(error):
        raise Broken("an error that tells the key")
    return str(error["code"] or error["type"])


def _whole(value: dict[str, Any]) -> Reading:
    try:
        (choice,) = value["choices"]
        text, finish = choice["message"]["content"], choice["finish_reason"]
    except (KeyError, TypeError, ValueError):
        raise Broken("200 without an answer in it") from None
    _check_text(text, finish)
    return Reading("answer", usage=value.get("usage"))


def _check_text(text: object, finish: object) -> None:
    if not isinstance(text, str) or text not in TEXTS:
        if isinstance(text, str) and ANSWER.startswith(text):
            raise Broken(f"a truncated answer, told as whole ({len(text.split())} of 60 tokens, {finish!r})")
        raise Broken("not the answer that was given")
    if finish != "stop":
        raise Broken(f"a whole answer that ends in {finish!r}")


def _stream(content: bytes) -> Reading:
    """An event stream that ends in the answer's end, or in one error and nothing behind it."""
    decoder = SSEDecoder()
    events = [event.data for event in decoder.feed(content)]
    if decoder.finish():
        raise Broken("a stream that ends inside an event")
    is_done = bool(events) and events[-1] == DONE
    values = [_json(data) for data in (events[:-1] if is_done else events)]
    errors = [at for at, value in enumerate(values) if "error" in value]
    chunks = [value for value in values if "error" not in value]
    text, finish = _joined(chunks)
    if errors:
        if len(errors) > 1 or errors[0] != len(values) - 1 or is_done or finish:
            raise Broken("an error event that is not the end")
        if not ANSWER.startswith(text):
            raise Broken("not the answer that was given, and an error behind it")
        return Reading("error", f"error event, {_clean(values[-1]['error'])}", is_partial=bool(text))
    if not is_done:
        raise Broken(f"a stream that just ends, after {len(text.split())} of 60 tokens")
    _check_text(text, finish)
    return Reading("answer", usage=next((value["usage"] for value in chunks if value.get("usage")), None))


def _joined(chunks: list[dict[str, Any]]) -> tuple[str, str | None]:
    """The text and the one finish reason; every chunk of one answer."""
    text, roles, has_call = "", 0, False
    finishes: list[str] = []
    for value in chunks:
        try:
            for choice in value["choices"]:
                delta = choice["delta"]
                if finishes and delta.get("content"):
                    raise Broken("text behind the end")
                has_call = has_call or bool(delta.get("tool_calls"))
                text += delta.get("content") or ""
                roles += "role" in delta
                finishes += [choice["finish_reason"]] if choice.get("finish_reason") else []
        except (KeyError, TypeError, AttributeError):
            raise Broken("a chunk that is not OpenAI's") from None
    if len({value.get("id") for value in chunks}) > 1 or roles > 1:
        raise Broken("two answers in one stream")
    if len(finishes) > 1:
        raise Broken("an answer that ends twice")
    if finishes and has_call:
        raise Broken("half of a tool call, told as whole")
    return text, finishes[0] if finishes else None
