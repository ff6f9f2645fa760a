"""Whether the log's figures are those of the providers: one row for each request, nothing billed that was not said."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gw.adapters.faulty.dialects import USAGE
from gw.cli.drill.reading import Reading

if TYPE_CHECKING:
    from gw.cli.drill.cases import Seen


def books_problem(path: Path, readings: Sequence[Reading], seen: Sequence[Seen]) -> str:
    """What is wrong with the log after one fault; empty for nothing."""
    with closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        rows = database.execute("SELECT * FROM requests WHERE operation = 'chat' ORDER BY id").fetchall()
        tries = database.execute("SELECT * FROM attempts ORDER BY request_row, number").fetchall()
    if len(rows) != len(readings):
        return f"the log has {len(rows)} rows of {len(readings)} requests"
    replaced = sum(one.act in ("reset", "closes_behind") for one in seen)  # a kept connection that is found closed
    if not len(tries) <= len(seen) <= len(tries) + replaced:
        return f"the log has {len(tries)} attempts, the providers saw {len(seen)}"
    by_request = {row["request_id"]: row for row in rows}
    for reading in readings:
        row = by_request.get(reading.request_id)
        if row is None:
            return "the log does not know the request's id"
        if problem := _wrong(row, [one for one in tries if one["request_row"] == row["id"]], reading):
            return problem
    return ""


def _wrong(row: Any, tries: Sequence[Any], reading: Reading) -> str:
    if (row["error"] is None) != (reading.kind == "answer"):
        return f"the log says {row['error'] or 'all went well'!r}, the caller read something else"
    failed = [one for one in tries if one["error_type"] is not None]
    if any(one["tokens_output"] for one in failed if one["first_content_ms"] is None):
        return "an attempt that failed is billed"
    if any(one["usage_source"] != "estimated" for one in failed if one["tokens_output"]):
        return "what a broken answer used is not marked as estimated"
    if reading.kind != "answer":
        return ""
    last = tries[-1]
    if (last["tokens_input"], last["tokens_output"]) != USAGE:
        logged = f"{last['tokens_input']} + {last['tokens_output']}"
        return f"the provider billed {USAGE[0]} + {USAGE[1]} tokens, the log has {logged}"
    usage = reading.usage or {}
    told = usage.get("prompt_tokens"), usage.get("completion_tokens")
    # The row counts what every attempt has used; an answer that went on elsewhere tells that, another one its own.
    if told not in ((row["tokens_input"], row["tokens_output"]), USAGE):
        return f"the caller was told a usage of {told[0]} + {told[1]} tokens, the log has another"
    return ""
