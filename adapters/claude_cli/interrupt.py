"""A client that leaves a conversation's process: the turn is stopped, the process and what it knows may live on."""

from __future__ import annotations

import asyncio

from gw.adapters.claude_cli.lines import TurnReader
from gw.adapters.claude_cli.pool import Worker
from gw.adapters.claude_cli.prompt import control
from gw.errors import GatewayError

PATIENCE = 1.0  # seconds; it takes about 0.05, and longer only where a tool hangs
_ID = "gw-interrupt"


async def interrupted(worker: Worker, reader: TurnReader) -> bool:
    """Stop the turn of a process; whether it has, in time, and without leaving anything running.

    What it had said by then is in `reader.text`, what the turn cost in `reader.cost`.
    """
    process = worker.process
    process.write(control(_ID, {"subtype": "interrupt"}))
    reader.is_interrupted = True
    try:
        async with asyncio.timeout(PATIENCE):
            while not (reader.is_complete and _ID in reader.answered):
                data = await process.read()
                if not data:
                    return False
                reader.feed(data)
                for reply in reader.replies:
                    process.write(reply)
                reader.replies.clear()
    except (TimeoutError, GatewayError):
        return False
    return not await process.descendants()
