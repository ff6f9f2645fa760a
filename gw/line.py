"""The line between the supervisor and a worker: JSON messages over a pair of sockets. Its end is the other one's."""

from __future__ import annotations

import socket
from typing import Any

import orjson

SEND = 5.0  # seconds that a message may take: a worker that does not read must not hold the supervisor up


class Line:
    """One end. `send` and `receive` are the supervisor's; a worker's event loop takes `socket`."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self._rest = b""
        self.is_over = False  # the other end is gone

    @classmethod
    def pair(cls) -> tuple[Line, Line]:
        """Both ends of a new line."""
        ours, theirs = socket.socketpair()
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        """For `select`."""
        return self.socket.fileno()

    def send(self, message: dict[str, Any]) -> None:
        """Raises OSError where the other end is gone, or does not read."""
        self.socket.settimeout(SEND)
        self.socket.sendall(orjson.dumps(message) + b"\n")

    def receive(self) -> list[dict[str, Any]]:
        """The messages that are complete; to be called where something can be read."""
        self.socket.setblocking(False)
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        self.is_over = not data
        self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        return [orjson.loads(line) for line in lines]

    def close(self) -> None:
        """Hang up."""
        self.socket.close()
