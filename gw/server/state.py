"""What the connections of one server share: the handler, the limits, who is connected and how much is in flight."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

from gw.burst import Burst
from gw.errors import GatewayError, Unavailable
from gw.server.head import PlainHeads
from gw.server.limits import Limits
from gw.server.response import AppHandler

if TYPE_CHECKING:
    from gw.server.connection import Connection

Refused = Callable[[str, GatewayError, str], None]  # the client's address, why, and the request's id


class State:
    """One per server; `draining` makes each answer the last of its connection."""

    __slots__ = (
        "_addresses",
        "_numbers",
        "_prefix",
        "_quiet",
        "aborting",
        "burst",
        "connections",
        "draining",
        "handler",
        "in_flight",
        "limits",
        "plain_heads",
        "refused",
    )

    def __init__(self, handler: AppHandler, limits: Limits, *, matches_plain: bool, refused: Refused | None) -> None:
        self.handler = handler
        self.limits = limits
        self.plain_heads = PlainHeads(limits) if matches_plain else None
        self.refused = refused
        self.connections: set[Connection] = set()
        self.in_flight = 0  # requests; who counts one out while `draining` calls `settle`
        self.draining = False
        self.aborting = False
        self.burst = Burst()
        self._addresses: dict[str, int] = {}
        self._quiet: asyncio.Future[None] | None = None
        self._prefix = f"req-{os.urandom(6).hex()}-"
        self._numbers = count(1)

    def new_id(self) -> str:
        """An id that no other request has: the server's random prefix and a number."""
        return f"{self._prefix}{next(self._numbers):x}"

    def enter(self, connection: Connection, address: str) -> GatewayError | None:
        """Count a new connection; an error where there are too many."""
        self.connections.add(connection)
        here = self._addresses.get(address, 0) + 1
        self._addresses[address] = here
        limits = self.limits
        if len(self.connections) > limits.max_connections:
            return too_busy("connections are open", "too_many_connections")
        if here > limits.max_connections_per_address:
            return too_busy("connections are open from this address", "too_many_connections")
        return None

    def leave(self, connection: Connection, address: str) -> None:
        """The connection is gone."""
        self.connections.discard(connection)
        here = self._addresses.get(address, 0) - 1
        if here > 0:
            self._addresses[address] = here
        else:
            self._addresses.pop(address, None)
        self.settle()

    def quiet(self) -> asyncio.Future[None]:
        """Done when no connection is open and no request in flight."""
        if self._quiet is None:
            self._quiet = asyncio.get_running_loop().create_future()
        self.settle()
        return self._quiet

    def settle(self) -> None:
        """Tell who waits for `quiet`."""
        waiter = self._quiet
        if waiter is not None and not waiter.done() and not self.connections and not self.in_flight:
            waiter.set_result(None)


def too_busy(what: str, code: str) -> Unavailable:
    """503: too many of what there can only be so many of."""
    return Unavailable(f"too many {what}: try again in a moment", code=code, retry_after=1.0)
