"""One readable line per request on stdout, or one JSON object, written by a thread: a full pipe stalls nobody."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import BinaryIO, Literal

import orjson

from gw.drain import Drain
from gw.estimate import total_cost, total_usage
from gw.known_secrets import KnownSecrets
from gw.message import Exchange, Usage
from gw.outcome import code_of, message_of, status_of

logger = logging.getLogger("gw.access")

QUEUE = 20_000  # lines that may wait for a reader who does not read; beyond, they are dropped and counted
MAX_VALUE = 500  # characters of one value
ATOMIC = 4096  # bytes: what a pipe takes in one piece, so that the lines of several workers do not mix
_CUT = MAX_VALUE + 1  # characters: one more tells that there was more
_LONG = 1500  # bytes of a line in JSON; a longer one may have a value that is longer than MAX_VALUE
_is_word = re.compile(r"[!#-\[\]-~]{1,500}").fullmatch  # ASCII that prints, without blank, quote and backslash
Fact = str | int | float | bool | None


class AccessLines:
    """Writes lines about exchanges that have ended. `dropped` counts those that nobody took."""

    def __init__(
        self,
        *,
        format: Literal["text", "json"] = "text",
        may_quote: bool = True,
        output: BinaryIO | None = None,
        secrets: KnownSecrets | None = None,
        clock: Callable[[], float] = time.monotonic,
        queue: int = QUEUE,
    ) -> None:
        """Without `may_quote` errors are told by their codes alone, as their messages quote prompts and answers.

        `output` is sys.stdout where none is given; `clock` is that of Exchange.started.
        """
        self.dropped = 0
        self._line = json_line if format == "json" else text_line
        self._may_quote = may_quote
        self._output: BinaryIO = output if output is not None else _stdout()
        self._secrets = secrets or KnownSecrets()
        self._clock = clock
        self._queue = queue
        self._drain: Drain[Exchange] = Drain(self._work, name="gw-access-lines", gather=0.01, batch=256)

    def start(self) -> None:
        """Start its thread."""
        self._drain.start()

    def write(self, exchange: Exchange) -> None:
        """Write a line about an exchange that has ended; the text is made in the thread."""
        if len(self._drain) < self._queue:
            self._drain.put(exchange)
        else:
            self.dropped += 1

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until the lines of all exchanges so far are out; False after `timeout` seconds."""
        return self._drain.flush(timeout)

    def close(self, timeout: float | None = 2.0) -> bool:
        """Write what is left and stop; False where the reader of stdout does not read."""
        return self._drain.close(timeout)

    def _work(self, exchanges: Sequence[Exchange]) -> None:
        lines = []
        for exchange in exchanges:
            try:
                lines.append(self._line(exchange, self._clock(), self._may_quote))
            except Exception:
                logger.exception("the access line of request %s could not be made", exchange.id)
        if self._secrets and self._secrets.are_in("".join(lines)):  # hardly ever; together they cost less to search
            lines = [self._secrets.scrub(line) for line in lines]
        piece: list[bytes] = []
        size = 0
        for line in lines:
            data = line.encode("utf-8", "replace")
            if piece and size + len(data) > ATOMIC:
                self._put(piece)
                piece, size = [], 0
            piece.append(data)
            size += len(data)
        if piece:
            self._put(piece)

    def _put(self, lines: Sequence[bytes]) -> None:
        try:
            self._output.write(b"".join(lines))
            self._output.flush()
        except (OSError, ValueError):  # nobody reads any more
            self.dropped += len(lines)


def text_line(exchange: Exchange, now: float, may_quote: bool = True) -> str:
    """`TIME METHOD PATH STATUS BACKEND MODEL DURATION` and then what else there is, as name=value."""
    last, error, started, began = exchange.attempt, exchange.error, exchange.started, exchange.first_content
    usage, cost = _spent(exchange)
    ended = now if exchange.ended is None else exchange.ended
    path, model = exchange.path, exchange.model if last is None else last.model
    what = _what(
        exchange.method,
        path if len(path) < _CUT else path[:_CUT],
        exchange.status or status_of(error),
        last and last.backend,
        model if model is None or len(model) < _CUT else model[:_CUT],
    )
    line = f"{_time(exchange.timestamp)} {what} {_duration(ended - started)}"
    if began is not None:
        line += f" first={_duration(began - started)}"
    if usage is not None:
        about = "" if usage.source == "reported" else "~"
        line += f" in={about}{usage.prompt} out={about}{usage.completion}"
    if cost is not None:
        line += f" cost=${cost:.6f}"
    if len(exchange.attempts) > 1:
        line += f" attempts={len(exchange.attempts)}"
    if exchange.degraded:
        line += " degraded"
    line += f" {_who(exchange.principal.name, exchange.client)} id={_shown(exchange.id)}"
    if error is not None:
        line += f" error={_shown(code_of(error) or '-')} {_quoted(message_of(error, may_quote=may_quote))}"
    return line + "\n"


def json_line(exchange: Exchange, now: float, may_quote: bool = True) -> str:
    """One JSON object in ASCII; times in seconds, null where there is nothing to tell."""
    last, error, started, began = exchange.attempt, exchange.error, exchange.started, exchange.first_content
    usage, cost = _spent(exchange)
    found: dict[str, Fact] = {
        "time": _time(exchange.timestamp),
        "method": exchange.method,
        "path": exchange.path,
        "status": exchange.status or status_of(error),
        "backend": last.backend if last is not None else None,
        "model": last.model if last is not None else exchange.model,
        "duration": round((now if exchange.ended is None else exchange.ended) - started, 6),
        "first_content": round(began - started, 6) if began is not None else None,
        "tokens_input": usage.prompt if usage is not None else None,
        "tokens_output": usage.completion if usage is not None else None,
        "tokens_estimated": usage is not None and usage.source != "reported",
        "cost_usd": cost,
        "degraded": exchange.degraded,
        "attempts": len(exchange.attempts),
        "key": exchange.principal.name,
        "client": exchange.client,
        "request_id": exchange.id,
        "error": None if error is None else message_of(error, may_quote=may_quote),
        "code": None if error is None else code_of(error),
    }
    try:
        line = orjson.dumps(found)
        if len(line) <= _LONG and line.isascii() and b"\x7f" not in line:
            return line.decode() + "\n"
    except TypeError:  # half a character
        pass
    kept = {name: value[:MAX_VALUE] if isinstance(value, str) else value for name, value in found.items()}
    return json.dumps(kept).replace("\x7f", "\\u007f") + "\n"


def _spent(exchange: Exchange) -> tuple[Usage | None, float | None]:
    if len(exchange.attempts) == 1:
        summary = exchange.attempts[0].summary
        return summary.usage, summary.cost_usd
    return total_usage(exchange), (total_cost(exchange) or (None,))[0]


def _time(timestamp: float) -> str:
    second = int(timestamp)
    return f"{_second(second)}.{int((timestamp - second) * 1000):03}Z"


# There are few different values of these, and they repeat from line to line: kept, a line costs two thirds.


@lru_cache(maxsize=16)
def _second(timestamp: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(timestamp))


@lru_cache(maxsize=256)
def _what(method: str, path: str, status: int | None, backend: str | None, model: str | None) -> str:
    return f"{_shown(method)} {_shown(path)} {status or '-'} {_shown(backend or '-')} {_shown(model or '-')}"


@lru_cache(maxsize=256)
def _who(key: str, client: str) -> str:
    return f"key={_shown(key)} client={_shown(client or '-')}"


def _shown(text: str) -> str:
    """A value as one word: quoted where it holds a blank or a quote, escaped where it holds what does not print."""
    if _is_word(text):
        return text
    if text.isprintable() and len(text) <= MAX_VALUE and text and not set(text) & set(' "\\'):
        return text
    return _quoted(text)


def _quoted(text: str) -> str:
    shown = text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + "..."
    shown = shown.replace("\\", "\\\\").replace('"', '\\"')
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    return f'"{shown}"'


def _duration(seconds: float) -> str:
    if seconds >= 10:
        return f"{seconds:.2f}s"
    tenths = int(seconds * 10_000 + 0.5)  # as integers: to format a float costs 0.5 us
    return f"{tenths // 10}.{tenths % 10}ms"


def _stdout() -> BinaryIO:
    """Standard output as bytes; the process's own where a program has put a text stream in its place."""
    for stream in (sys.stdout, sys.__stdout__):
        output: BinaryIO | None = getattr(stream, "buffer", None)
        if output is not None:
            return output
    return open(os.devnull, "wb")
