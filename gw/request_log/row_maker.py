"""An ended exchange as the values of its rows: what may be kept of it, in the types that SQLite takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gw.backend import Backends
from gw.estimate import account, total_cost, total_usage
from gw.known_secrets import KnownSecrets
from gw.message import Attempt, Exchange
from gw.outcome import code_of, message_of, outcome_of, status_of, type_of
from gw.request_log.content import MAX_NAME, Content, ContentKeeper, to_json
from gw.request_log.rows import Rows, mapped
from gw.request_log.schema import (
    HAS_COST,
    HAS_DETAILS,
    HAS_DURATION,
    HAS_FIRST_BYTE,
    HAS_RESPONSE,
    HAS_SESSION,
    HAS_TIMESTAMP,
    HAS_TOKENS,
    HAS_TRY,
    HAS_UPSTREAM_ID,
    REQUESTS,
    TRIES,
)
from gw.request_log.tables import Row, Shape, Value

MANY = 1024 * 1024  # characters that are searched for secrets as one text
_KEPT = 256  # shapes
_NO_ERROR: tuple[str | None, str | None, str | None] = (None, None, None)
_NO_DETAILS: tuple[int | None, int | None, int | None] = (None, None, None)
_NOBODY = Attempt("", "", 0.0)
_KNOWN = (  # what the shape of a finished row follows from, beside its kind
    *("backend", "working_directory", "model", "error", "queue_wait_ms", "degraded", "metadata", "key_name"),
    *("operation", "status", "stream", "attempts", "first_backend", "finish_reason", "native_finish_reason"),
    *("cost_source", "usage_source", "details", "answered_model", "losses", "try_model", "try_status"),
)


class RowMaker:
    """Turns exchanges into rows. Runs in the writer's thread: it parses, walks and copies whatever size comes."""

    def __init__(
        self,
        content: Content,
        instance: str,
        secrets: KnownSecrets,
        backends: Backends | None,
        clock: Callable[[], float],
    ) -> None:
        """`clock` is that of Exchange.started; `instance` says which process writes the rows."""
        self._is_full = content == "full"
        self._read = ContentKeeper(content).read
        self._instance = instance
        self._secrets = secrets
        self._backends = backends
        self._kinds = {} if backends is None else {name: backends[name].kind for name in backends.names()}
        self._clock = clock
        # What rows share, by the fewer values that it follows from:
        self._openings: dict[tuple[object, ...], Shape] = {}
        self._shapes: dict[tuple[object, ...], Shape] = {}

    def started(self, number: int, exchange: Exchange) -> Rows:
        """The row that says that an exchange is under way."""
        own: list[Value] = [number, "", exchange.id, exchange.client]
        kind = HAS_TIMESTAMP
        session = exchange.session_id
        if isinstance(session, str):
            own.append(session[:MAX_NAME])
            kind += HAS_SESSION
        own.append(int(exchange.timestamp * 1000.0))
        known = (kind, _name(exchange.model), exchange.principal.name, exchange.operation, exchange.stream)
        shape = self._openings.get(known) or self._opening(known)
        return (shape, own), ()

    def _opening(self, known: tuple[Any, ...]) -> Shape:
        kind, model, key_name, operation, stream = known
        shared: dict[str, Value] = {
            "instance": self._instance,
            "model": model,
            "key_name": key_name,
            "operation": operation or None,
            "degraded": 0,
            "stream": stream,
            "attempts": 0,
            "state": "started",
        }
        if len(self._openings) >= _KEPT:
            self._openings.clear()
        shape = self._openings[known] = REQUESTS.shape((kind, *map(shared.get, REQUESTS.shared)))
        return shape

    def finished(self, number: int, exchange: Exchange) -> Rows:
        """The rows of an ended exchange. Content that cannot be read is left out, never the row."""
        tries = exchange.attempts
        if len(tries) == 1:
            only = tries[0]
            if only.summary.usage is None or only.summary.cost_usd is None:
                account(exchange, self._backends)
            if only.error is None and only.ended is not None and only.first_content == exchange.first_content:
                return self._request(number, exchange, only), ()
        elif tries:
            account(exchange, self._backends)
        rows = [self._try(number, place, attempt, exchange) for place, attempt in enumerate(tries, 1)]
        return self._request(number, exchange, None), rows

    def _request(self, number: int, exchange: Exchange, only: Attempt | None) -> Row:
        """The row of `requests`; it tells of the `only` try, too, where one is given."""
        # Built in one go, calling as little as may be: as a dictionary by column, read out again, it takes six times as
        # long.
        # Its floats are divided by floats: an int would be converted first, each time.
        folder, prompt, response, metadata = self._read(exchange)
        started, began, ended = exchange.started, exchange.first_content, exchange.ended
        tries = exchange.attempts
        last = only or (tries[-1] if tries else _NOBODY)
        summary, backend, model = last.summary, last.backend, exchange.model
        if type(model) is not str or len(model) > MAX_NAME:
            model = _name(model)
        own: list[Value] = [number, prompt, exchange.id, exchange.client]
        kind = HAS_TIMESTAMP | HAS_DURATION
        session, upstream_id = exchange.session_id, summary.upstream_id
        if isinstance(session, str):
            own.append(session[:MAX_NAME])
            kind += HAS_SESSION
        if response is not None:
            own.append(response)
            kind += HAS_RESPONSE
        if isinstance(upstream_id, str):
            own.append(upstream_id)
            kind += HAS_UPSTREAM_ID
        if ended is None:
            ended = self._clock()
        first = try_model = try_status = waited = None
        if only is not None:
            tried = only.started
            own += (
                int(exchange.timestamp * 1000.0),
                ((ended - started) * 1e6 + 0.5) // 1.0 / 1000.0,
                ((tried - started) * 1e6 + 0.5) // 1.0 / 1000.0,
                (((only.ended or tried) - tried) * 1e6 + 0.5) // 1.0 / 1000.0,
            )
            kind += HAS_TRY
            usage, cost, cost_source = summary.usage, summary.cost_usd, summary.cost_source
            try_model, try_status = only.model, only.status
            if only.queue_wait is not None:
                waited = _milliseconds(only.queue_wait)
        else:
            own += (int(exchange.timestamp * 1000.0), ((ended - started) * 1e6 + 0.5) // 1.0 / 1000.0)
            usage, waited = total_usage(exchange), _waited(exchange)
            cost, cost_source = total_cost(exchange) or (None, None)
            first = tries[0].backend if tries else None
        if began is not None:
            own.append(((began - started) * 1e6 + 0.5) // 1.0 / 1000.0)
            kind += HAS_FIRST_BYTE
        source, details = None, _NO_DETAILS
        if usage is not None:
            source, details = usage.source, (usage.cached, usage.cache_written, usage.reasoning)
            own += (usage.prompt, usage.completion)
            kind += HAS_TOKENS
            if details != (0, 0, 0):
                own += details
                kind += HAS_DETAILS
                details = _NO_DETAILS
        if cost is not None:
            own.append(cost)
            kind += HAS_COST
        error = _NO_ERROR
        if exchange.error is not None or exchange.status >= 400:
            error = self._error(exchange)
        known = (
            kind,
            backend,
            folder,
            model,
            error,
            waited,
            exchange.degraded,
            metadata,
            exchange.principal.name,
            exchange.operation,
            exchange.status or status_of(exchange.error),
            exchange.stream,
            len(tries),
            first,
            summary.finish_reason,
            summary.native_finish_reason,
            cost_source,
            source,
            details,
            summary.model or last.model,
            _losses(last) if last.losses else None,
            try_model,
            try_status,
        )
        try:
            shape = self._shapes.get(known)
        except TypeError:  # something that is no plain value, from somebody's own backend
            return self._shape(known), own
        if shape is None:
            if len(self._shapes) >= _KEPT:
                self._shapes.clear()
            shape = self._shapes[known] = self._shape(known)
        return shape, own

    def _shape(self, known: tuple[Any, ...]) -> Shape:
        """The shape of finished rows that have all this in common: the values of `_KNOWN`."""
        kind, *values = known
        shared: dict[str, Any] = dict(zip(_KNOWN, values, strict=True))
        backend, first = shared["backend"], shared["first_backend"]
        shared["backend_type"] = self._kinds.get(backend)
        shared["instance"] = self._instance
        shared["fallback_from"] = first if first != backend else None
        shared["error"], shared["error_type"], shared["error_code"] = shared["error"]
        shared["tokens_cached"], shared["tokens_cache_written"], shared["tokens_reasoning"] = shared["details"]
        shared["state"] = "done"
        for name in ("backend", "operation", "usage_source", "answered_model"):
            shared[name] = shared[name] or None
        return REQUESTS.shape((kind, *map(shared.get, REQUESTS.shared)))

    def _try(self, number: int, place: int, attempt: Attempt, exchange: Exchange) -> Row:
        summary, error, started = attempt.summary, attempt.error, attempt.started
        usage, ended, began = summary.usage, attempt.ended, attempt.first_content
        return TRIES.from_dict(
            number,
            {
                "number": place,
                "backend": attempt.backend,
                "model": attempt.model,
                "started": int((exchange.timestamp + started - exchange.started) * 1000),
                "duration_ms": None if ended is None else _milliseconds(ended - started),
                "first_content_ms": None if began is None else _milliseconds(began - started),
                "status": attempt.status,
                "error_type": None if error is None else outcome_of(error),
                "error": None if error is None else self._message(error),
                "finish_reason": summary.finish_reason,
                "tokens_input": None if usage is None else usage.prompt,
                "tokens_output": None if usage is None else usage.completion,
                "tokens_cached": None if usage is None else usage.cached,
                "tokens_cache_written": None if usage is None else usage.cache_written,
                "tokens_reasoning": None if usage is None else usage.reasoning,
                "usage_source": None if usage is None else usage.source or None,
                "cost_usd": summary.cost_usd,
                "cost_source": summary.cost_source,
                "queue_wait_ms": None if attempt.queue_wait is None else _milliseconds(attempt.queue_wait),
                "upstream_id": summary.upstream_id,
            },
        )

    def _error(self, exchange: Exchange) -> tuple[str | None, str | None, str | None]:
        """Message, type and code."""
        error = exchange.error
        if error is not None:
            return self._message(error), type_of(error), code_of(error)
        return f"status {exchange.status}", "api_error", None

    def _message(self, error: BaseException) -> str:
        return message_of(error, may_quote=self._is_full)

    def cleaned(self, batch: list[Rows]) -> list[Rows]:
        """The rows without the known secrets."""
        if not self._secrets or not batch:
            return batch
        # Nearly every batch is clean, so all of it is looked at in one go: a search in a long text skips by the length
        # of the key, so that each form of a key costs a row 0.1 us instead of 0.4.
        texts: list[Any] = []
        before: Shape | None = None
        for (shape, own), tries in batch:
            texts += own[1 : shape.last_text]
            if shape is not before:
                texts += shape.texts
                before = shape
            for shape_of_try, _ in tries:
                texts += shape_of_try.texts
        if sum(map(len, texts)) <= MANY:
            texts = ["\n".join(texts)]
        if not any(map(self._secrets.are_in, texts)):
            return batch
        return [mapped(row, self._scrubbed) for row in batch]

    def _scrubbed(self, value: Value) -> Value:
        return self._secrets.scrub(value) if isinstance(value, str) else value


def _milliseconds(seconds: float) -> float:
    return int(seconds * 1e6 + 0.5) / 1000  # a third of the price of round(..., 3)


def _waited(exchange: Exchange) -> float | None:
    waits = [attempt.queue_wait for attempt in exchange.attempts if attempt.queue_wait is not None]
    return _milliseconds(sum(waits)) if waits else None


def _losses(attempt: Attempt) -> str:
    return to_json([{"pointer": loss.pointer[:MAX_NAME], "kind": loss.kind} for loss in attempt.losses])


def _name(value: object) -> str | None:
    return value[:MAX_NAME] if isinstance(value, str) else None
