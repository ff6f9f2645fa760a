"""An ended exchange as the values of its rows: what may be kept of it, in the types that SQLite takes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import orjson

from gw.backend import Backends
from gw.errors import GatewayError
from gw.estimate import account, total_cost, total_usage
from gw.known_secrets import KnownSecrets
from gw.message import Attempt, Exchange
from gw.outcome import code_of, is_client_gone, message_of, outcome_of, status_of, type_of
from gw.request_log.answers import is_more_than_text, messages_of, text_of
from gw.request_log.media import elided, redacted
from gw.request_log.schema import STARTED_NAMES

logger = logging.getLogger("gw.log")

Content = Literal["full", "redacted", "none"]
Value = str | int | float | None
Row = dict[str, Value]  # by column
TRUNCATED = "gw.log.truncated"  # the attribute of an exchange whose answer was too large to be kept whole
_TYPES = frozenset({str, int, float, bool, type(None)})
MAX_NAME = 1000  # characters of whatever a client names: model, session, path


class Rows(NamedTuple):
    """One exchange: its row of `requests` and its rows of `attempts`, by column."""

    request: Row
    attempts: list[Row]


class _Content(NamedTuple):
    folder: str | None
    prompt: str
    response: str | None
    metadata: str


class _Error(NamedTuple):
    message: str | None
    type: str | None
    code: str | None


class _Figures(NamedTuple):
    """Usage, or that nothing is known of it."""

    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None
    cache_written: int | None = None
    reasoning: int | None = None
    source: str | None = None


_NO_ERROR = _Error(None, None, None)
_UNKNOWN = _Figures()
_NOBODY = Attempt("", "", 0.0)


@dataclass(frozen=True, slots=True)
class RowMaker:
    """Turns exchanges into rows. Runs in the writer's thread: it parses, walks and copies whatever size comes."""

    content: Content
    instance: str
    secrets: KnownSecrets
    backends: Backends | None
    clock: Callable[[], float]  # the clock of Exchange.started

    def started(self, id: str, exchange: Exchange) -> Row:
        """The row that says that an exchange is under way."""
        row: Row = dict.fromkeys(STARTED_NAMES)
        row |= {"id": id, "instance": self.instance, "prompt": "", "state": "started"}
        row |= {
            "timestamp": int(exchange.timestamp * 1000),
            "model": _name(exchange.model),
            "session_id": _name(exchange.session_id),
            "request_id": exchange.id,
            "key_name": exchange.principal.name,
            "client": exchange.client,
            "operation": exchange.operation or None,
            "stream": exchange.stream,
        }
        return self._clean(row)

    def finished(self, id: str, exchange: Exchange) -> Rows:
        """The rows of an ended exchange. Content that cannot be read is left out, never the row."""
        account(exchange, self.backends)
        attempts = [self._attempt(id, n, attempt, exchange) for n, attempt in enumerate(exchange.attempts, 1)]
        return Rows(self._clean(self._request(id, exchange)), [self._clean(attempt) for attempt in attempts])

    def _request(self, id: str, exchange: Exchange) -> Row:
        content = self._content(id, exchange)
        usage = total_usage(exchange) or _UNKNOWN
        cost, cost_source = total_cost(exchange) or (None, None)
        error = self._error(exchange)
        started, first_content = exchange.started, exchange.first_content
        ended = exchange.ended if exchange.ended is not None else self.clock()
        last = exchange.attempt or _NOBODY
        first = exchange.attempts[0] if exchange.attempts else _NOBODY
        backend = self.backends.get(last.backend) if self.backends is not None else None
        # One literal: built by parts and merged it costs twice as much, and this runs for every request.
        return {
            "id": id,
            "timestamp": int(exchange.timestamp * 1000),
            "backend": last.backend or None,
            "backend_type": backend.kind if backend is not None else None,
            "instance": self.instance,
            "working_directory": content.folder,
            "model": _name(exchange.model),
            "session_id": _name(exchange.session_id),
            "prompt": content.prompt,
            "response": content.response,
            "error": error.message,
            "duration_ms": round((ended - started) * 1000, 3),
            "tokens_input": usage.prompt,
            "tokens_output": usage.completion,
            "cost_usd": cost,
            "queue_wait_ms": _waited(exchange),
            "degraded": exchange.degraded,
            "metadata": content.metadata,
            "request_id": exchange.id,
            "key_name": exchange.principal.name,
            "client": exchange.client,
            "operation": exchange.operation or None,
            "status": exchange.status or status_of(exchange.error),
            "stream": exchange.stream,
            "first_byte_ms": None if first_content is None else round((first_content - started) * 1000, 3),
            "attempts": len(exchange.attempts),
            "fallback_from": first.backend if first.backend != last.backend else None,
            "finish_reason": last.summary.finish_reason,
            "native_finish_reason": last.summary.native_finish_reason,
            "cost_source": cost_source,
            "usage_source": usage.source or None,
            "tokens_cached": usage.cached,
            "tokens_cache_written": usage.cache_written,
            "tokens_reasoning": usage.reasoning,
            "error_type": error.type,
            "error_code": error.code,
            "answered_model": last.summary.model or last.model or None,
            "losses": _losses(last) if last.losses else None,
            "state": "done",
        }

    def _attempt(self, id: str, number: int, attempt: Attempt, exchange: Exchange) -> Row:
        summary, error, started = attempt.summary, attempt.error, attempt.started
        usage = summary.usage or _UNKNOWN
        ended, first_content = attempt.ended, attempt.first_content
        return {
            "request_row": id,
            "number": number,
            "backend": attempt.backend,
            "model": attempt.model,
            "started": int((exchange.timestamp + started - exchange.started) * 1000),
            "duration_ms": None if ended is None else round((ended - started) * 1000, 3),
            "first_content_ms": None if first_content is None else round((first_content - started) * 1000, 3),
            "status": attempt.status,
            "error_type": None if error is None else outcome_of(error),
            "error": None if error is None else self._message(error),
            "finish_reason": summary.finish_reason,
            "tokens_input": usage.prompt,
            "tokens_output": usage.completion,
            "tokens_cached": usage.cached,
            "tokens_cache_written": usage.cache_written,
            "tokens_reasoning": usage.reasoning,
            "usage_source": usage.source or None,
            "cost_usd": summary.cost_usd,
            "cost_source": summary.cost_source,
            "queue_wait_ms": None if attempt.queue_wait is None else round(attempt.queue_wait * 1000, 3),
            "upstream_id": summary.upstream_id,
        }

    def _content(self, id: str, exchange: Exchange) -> _Content:
        metadata: dict[str, Any] = {"method": exchange.method, "path": exchange.path[:MAX_NAME]}
        try:
            chat = _chat(exchange)
            folder = chat.get("working_directory")
            folder = folder[:MAX_NAME] if isinstance(folder, str) else None
            prompt, response = ("", None) if self.content == "none" else self._texts(chat, metadata, exchange)
            return _Content(folder, prompt, response, _json(metadata))
        except Exception as error:
            logger.warning("the content of row %s is left out: %s", id, type(error).__name__)
            metadata = {"method": exchange.method, "content": "left out: it could not be read"}
            return _Content(None, "", None, _json(metadata))

    def _texts(self, chat: Mapping[str, Any], metadata: dict[str, Any], exchange: Exchange) -> tuple[str, str | None]:
        keep = elided if self.content == "full" else redacted
        prompt = next((_json(keep(chat[field])) for field in ("messages", "input", "prompt") if field in chat), "")
        if self.content == "full" and exchange.attributes:
            tags = {k: v for k, v in exchange.attributes.items() if type(v) in _TYPES and not k.startswith("gw.")}
            if tags:
                metadata["attributes"] = tags
        if exchange.attributes.get(TRUNCATED):
            metadata["truncated"] = True
        messages = messages_of(exchange.response) if exchange.response else ()
        if not messages:
            return prompt, None
        if len(messages) > 1:
            metadata["messages"] = keep(messages)
        elif is_more_than_text(messages[0]):
            metadata["message"] = keep(messages[0])
        return prompt, keep(text_of(messages[0]))

    def _error(self, exchange: Exchange) -> _Error:
        error = exchange.error
        if error is not None:
            return _Error(self._message(error), type_of(error), code_of(error))
        if exchange.status >= 400:
            return _Error(f"status {exchange.status}", "api_error", None)
        return _NO_ERROR

    def _message(self, error: BaseException) -> str:
        if self.content != "full" and isinstance(error, GatewayError) and not is_client_gone(error):
            return error.code or error.type  # a message may quote what was asked; its code does not
        return message_of(error)

    def _clean(self, row: Row) -> Row:
        """The row without the known secrets."""
        # Nearly every row is clean, so all of it is looked at in one go.
        if self.secrets and self.secrets.are_in("\n".join([text for text in row.values() if type(text) is str])):
            return {name: self.secrets.scrub(v) if isinstance(v, str) else v for name, v in row.items()}
        return row


def storable(rows: Rows) -> Rows:
    """The same rows with what neither SQLite nor JSON takes left out: half characters, numbers beyond 64 bits."""
    attempts = [{name: _value(value) for name, value in attempt.items()} for attempt in rows.attempts]
    return Rows({name: _value(value) for name, value in rows.request.items()}, attempts)


def _value(value: Any) -> Value:
    if type(value) is str:
        return value.encode("utf-8", "replace").decode()
    if type(value) is int and not -(2**63) <= value < 2**63:
        return None
    return value if type(value) in _TYPES else None


def _name(value: Any) -> str | None:
    return value[:MAX_NAME] if isinstance(value, str) else None


def _waited(exchange: Exchange) -> float | None:
    waits = [attempt.queue_wait for attempt in exchange.attempts if attempt.queue_wait is not None]
    return round(sum(waits) * 1000, 3) if waits else None


def _losses(attempt: Attempt) -> str:
    return _json([{"pointer": loss.pointer[:MAX_NAME], "kind": loss.kind} for loss in attempt.losses])


def _chat(exchange: Exchange) -> Mapping[str, Any]:
    try:
        return exchange.request.peek() if exchange.request is not None else {}
    except ValueError:  # refused as bad JSON; what it holds may be anything, so nothing of it is kept
        return {}


def _json(value: Any) -> str:
    return orjson.dumps(value, default=str).decode()
