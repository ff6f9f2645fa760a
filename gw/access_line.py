"""One readable line per request on stdout, or one JSON object, written by a thread: a full pipe stalls nobody."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import BinaryIO, Literal

from gw.drain import Drain
from gw.estimate import total_cost, total_usage
from gw.known_secrets import KnownSecrets
from gw.message import Exchange
from gw.outcome import code_of, message_of, status_of

logger = logging.getLogger("gw.access")

QUEUE = 20_000  # lines that may wait for a reader who does not read; beyond, they are dropped and counted
MAX_VALUE = 500  # characters of one value
ATOMIC = 4096  # bytes: what a pipe takes in one piece, so that the lines of several workers do not mix
Fact = str | int | float | bool | None


class AccessLines:
    """Writes lines about exchanges that have ended. `dropped` counts those that nobody took."""

    def __init__(
        self,
        *,
        format: Literal["text", "json"] = "text",
        output: BinaryIO | None = None,
        secrets: KnownSecrets | None = None,
        clock: Callable[[], float] = time.monotonic,
        queue: int = QUEUE,
    ) -> None:
        """`output` is sys.stdout where none is given; `clock` is that of Exchange.started."""
        self.dropped = 0
        self._line = json_line if format == "json" else text_line
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
        piece = b""
        for exchange in exchanges:
            try:
                line = self._secrets.scrub(self._line(facts(exchange, self._clock()))).encode("utf-8", "replace")
            except Exception:
                logger.exception("the access line of request %s could not be made", exchange.id)
                continue
            if piece and len(piece) + len(line) > ATOMIC:
                self._put(piece)
                piece = b""
            piece += line
        if piece:
            self._put(piece)

    def _put(self, piece: bytes) -> None:
        try:
            self._output.write(piece)
            self._output.flush()
        except (OSError, ValueError):  # nobody reads any more
            self.dropped += piece.count(b"\n")


def facts(exchange: Exchange, now: float) -> dict[str, Fact]:
    """What the line tells of an exchange, in order; times in seconds, None where there is nothing to tell."""
    last = exchange.attempt
    usage = total_usage(exchange)
    cost = total_cost(exchange)
    ended = exchange.ended if exchange.ended is not None else now
    began = exchange.first_content
    return {
        "time": datetime.fromtimestamp(exchange.timestamp, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
        "method": exchange.method,
        "path": exchange.path,
        "status": exchange.status or status_of(exchange.error),
        "backend": last.backend if last is not None else None,
        "model": last.model if last is not None else exchange.model,
        "duration": round(ended - exchange.started, 6),
        "first_content": round(began - exchange.started, 6) if began is not None else None,
        "tokens_input": usage.prompt if usage is not None else None,
        "tokens_output": usage.completion if usage is not None else None,
        "tokens_estimated": usage is not None and usage.source != "reported",
        "cost_usd": cost[0] if cost is not None else None,
        "degraded": exchange.degraded,
        "attempts": len(exchange.attempts),
        "key": exchange.principal.name,
        "client": exchange.client,
        "request_id": exchange.id,
        "error": None if exchange.error is None else message_of(exchange.error),
        "code": None if exchange.error is None else code_of(exchange.error),
    }


def json_line(found: dict[str, Fact]) -> str:
    """One JSON object in ASCII."""
    kept = {name: value[:MAX_VALUE] if isinstance(value, str) else value for name, value in found.items()}
    return json.dumps(kept).replace("\x7f", "\\u007f") + "\n"


def text_line(found: dict[str, Fact]) -> str:
    """`TIME METHOD PATH STATUS BACKEND MODEL DURATION` and then what else there is, as name=value."""
    told = [str(found["time"]), _shown(found["method"]), _shown(found["path"]), str(found["status"] or "-")]
    told += [_shown(found["backend"] or "-"), _shown(found["model"] or "-"), _duration(found["duration"])]
    if found["first_content"] is not None:
        told.append(f"first={_duration(found['first_content'])}")
    if found["tokens_input"] is not None:
        about = "~" if found["tokens_estimated"] else ""
        told.append(f"in={about}{found['tokens_input']} out={about}{found['tokens_output']}")
    if found["cost_usd"] is not None:
        told.append(f"cost=${found['cost_usd']:.6f}")
    if found["attempts"] not in (0, 1):
        told.append(f"attempts={found['attempts']}")
    if found["degraded"]:
        told.append("degraded")
    told += [f"key={_shown(found['key'])}", f"client={_shown(found['client'] or '-')}"]
    told.append(f"id={_shown(found['request_id'])}")
    if found["error"] is not None:
        told.append(f"error={_shown(found['code'] or '-')} {_quoted(str(found['error']))}")
    return " ".join(told) + "\n"


def _shown(value: Fact) -> str:
    """A value as one word: quoted where it holds a blank or a quote, escaped where it holds what does not print."""
    text = str(value)
    if text.isprintable() and len(text) <= MAX_VALUE and text and not set(text) & set(' "\\'):
        return text
    return _quoted(text)


def _quoted(text: str) -> str:
    shown = text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + "..."
    shown = shown.replace("\\", "\\\\").replace('"', '\\"')
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    return f'"{shown}"'


def _duration(seconds: Fact) -> str:
    value = float(seconds or 0.0)
    return f"{value:.2f}s" if value >= 10 else f"{value * 1000:.1f}ms"


def _stdout() -> BinaryIO:
    """Standard output as bytes; the process's own where a program has put a text stream in its place."""
    for stream in (sys.stdout, sys.__stdout__):
        output: BinaryIO | None = getattr(stream, "buffer", None)
        if output is not None:
            return output
    return open(os.devnull, "wb")
