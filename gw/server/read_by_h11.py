"""A body whose framing h11 reads: chunked, or behind a head that was not plain. Imported for the first such body."""

from __future__ import annotations

import h11

from gw.server.body import SLICE
from gw.server.chunks import ChunkGuard
from gw.server.head import malformed
from gw.server.limits import Limits


class ReadByH11:
    """A body that h11 reads, and ChunkGuard before it where it is chunked."""

    __slots__ = ("_connection", "_guard", "done")

    def __init__(self, connection: h11.Connection, length: int, head_size: int, limits: Limits) -> None:
        """`length` is negative where the body is chunked."""
        self._connection = connection
        self._guard = ChunkGuard(limits, limits.max_head - head_size) if length < 0 else None
        self.done = False

    @property
    def keep_alive(self) -> bool:
        return self._connection.their_state is not h11.MUST_CLOSE

    @property
    def expects_continue(self) -> bool:
        return self._connection.they_are_waiting_for_100_continue

    @property
    def step(self) -> int:
        return SLICE if self._guard is not None else 0

    def feed(self, data: bytes, pieces: list[bytes]) -> bytes:
        if self._guard is not None:
            self._guard.check(data)
        try:
            if data:  # to h11 no bytes are the end of the connection
                self._connection.receive_data(data)
            while True:
                event = self._connection.next_event()
                if type(event) is h11.Data:
                    pieces.append(bytes(event.data))
                elif type(event) is h11.EndOfMessage:  # its trailers are never fields of the request
                    self.done = True
                    return self._connection.trailing_data[0]
                else:
                    return b""
        except h11.RemoteProtocolError:
            raise malformed("the framing of the body is broken") from None
