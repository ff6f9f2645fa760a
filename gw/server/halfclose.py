"""Tells a client that has only ended its sending, and still reads, from one that is gone.

Both look the same on the wire: a FIN. The first must get its answer; for the second nothing more shall be spent. So a
few bytes that change nothing are sent, and a client that is gone answers them with a reset.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol

_FIRST_LOOK = 0.025  # seconds; an answer that is quicker goes out undisturbed
_LONGEST = 1.0  # between two looks; the last one is the end: a reset takes one round trip


class Peer(Protocol):
    """What is asked of a connection."""

    @property
    def is_lost(self) -> bool:
        """Whether it is gone already."""

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task that answers its request."""

    def stimulate(self) -> None:
        """Send bytes that change nothing."""


def watch(connection: Peer, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
    """Abort the transport if the client that ended its sending turns out to be gone before its request is answered."""
    endpoint = transport.get_extra_info("socket")
    if endpoint is not None:
        loop.call_later(_FIRST_LOOK, _look, connection, transport, loop, endpoint, connection.task, 0.0)


def _look(
    connection: Peer,
    transport: asyncio.Transport,
    loop: asyncio.AbstractEventLoop,
    endpoint: socket.socket,
    task: asyncio.Task[None] | None,
    waited: float,
) -> None:
    if connection.is_lost or connection.task is not task:
        return
    if endpoint.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        transport.abort()
        return
    if not waited:
        connection.stimulate()
    pause = min(2 * waited, _LONGEST) or _FIRST_LOOK
    if waited < _LONGEST:
        loop.call_later(pause, _look, connection, transport, loop, endpoint, task, pause)
