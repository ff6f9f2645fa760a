"""Somebody who asks a server all the time, and tells how long the longest answer took.

    python -m benchmarks.harness.bystander PORT

Asks `/health/live` until its standard input ends, a line on which ends a span: the longest wait of the span, in
seconds, is told on standard output. It runs before everybody else on its core where the system lets it (a real-time
priority is root's to take), for what it waits for shall be the server, not its turn.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from contextlib import suppress

PAUSE = 0.0002  # seconds between two questions: nearly all of the server's time stays its own
_QUESTION = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def main() -> None:
    """Ask until nobody listens any more."""
    with suppress(PermissionError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    longest = 0.0
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
        print("ready", flush=True)
        while True:
            began = time.monotonic()
            connection.sendall(_QUESTION)
            if not connection.recv(4096):
                raise SystemExit("the server hung up")
            longest = max(longest, time.monotonic() - began)
            if select.select([sys.stdin], [], [], PAUSE)[0]:
                if not sys.stdin.readline():
                    return
                print(longest, flush=True)
                longest = 0.0


if __name__ == "__main__":
    main()
