"""What a provider signed and wants back, kept for clients that drop unknown fields: tool call id -> opaque blocks.

Claude refuses a tool loop whose thinking blocks are gone, Gemini 3 one without its thought signatures. Adapters keep
them here under the ids of the tool calls, which every client sends back, and restore them where the client's own
message does not carry them. `scope` separates those who must not read each other's blocks: the provider's family and
the principal, `"anthropic:ci"`, because a client may choose ids.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import orjson

ENTRIES = 20_000  # tool calls kept at most
CAPACITY = 64 * 1024 * 1024  # bytes kept at most; a turn of thinking is some kilobytes
TTL = 6 * 3600.0  # seconds; a tool loop lasts minutes, an agent's pause hours

Messages = Sequence[Mapping[str, Any]]


class Row(NamedTuple):
    """What is kept under one tool call id; `expires` in Unix seconds, `content` is JSON."""

    scope: str
    call_id: str
    expires: float
    content: bytes


class SignatureStore(Protocol):
    """Where signed blocks wait for the next turn. `find` is asked after `recall`, and never waits."""

    def keep(self, scope: str, call_ids: Iterable[str], blocks: Any, /) -> None:
        """Remember `blocks` (anything JSON can write) under each of these tool call ids."""

    def find(self, scope: str, call_id: str, /) -> Any:
        """The blocks kept under a tool call id, a fresh copy; None where there are none (any more)."""

    async def recall(self, scope: str, messages: Messages, /) -> None:
        """Bring to hand what is kept elsewhere under the tool calls of a conversation."""


class MemorySignatures:
    """The store of one process: bounded in entries, bytes and age; what was kept longest ago goes first."""

    __slots__ = ("_capacity", "_clock", "_entries", "_held", "_limit", "_ttl")

    def __init__(
        self,
        *,
        limit: int = ENTRIES,
        capacity: int = CAPACITY,
        ttl: float = TTL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._capacity = capacity
        self._ttl = ttl
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str], tuple[float, bytes]] = OrderedDict()
        self._held = 0  # bytes

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def held(self) -> int:
        """Bytes kept now, a block counted once for each of its ids."""
        return self._held

    def keep(self, scope: str, call_ids: Iterable[str], blocks: Any, /) -> None:
        """Remember `blocks` under each id; a later value replaces an earlier one."""
        self.hold(scope, call_ids, orjson.dumps(blocks), self._ttl)

    def hold(self, scope: str, call_ids: Iterable[str], content: bytes, ttl: float) -> None:
        """The same for JSON, with the seconds that it is kept; b"" remembers that there is nothing."""
        now = self._clock()
        for call_id in call_ids:
            self._forget((scope, call_id))
            self._entries[scope, call_id] = (now + ttl, content)
            self._held += len(content)
        while self._entries:
            oldest = next(iter(self._entries))
            is_over = len(self._entries) > self._limit or self._held > self._capacity
            if not is_over and self._entries[oldest][0] > now:
                break
            self._forget(oldest)

    def find(self, scope: str, call_id: str, /) -> Any:
        """The blocks kept under an id, a fresh copy; None where there are none or they are too old."""
        entry = self._entries.get((scope, call_id))
        if entry is None:
            return None
        expires, content = entry
        if expires <= self._clock():
            self._forget((scope, call_id))
            return None
        return orjson.loads(content) if content else None

    async def recall(self, scope: str, messages: Messages, /) -> None:
        """Nothing to do: all is at hand."""

    def unknown(self, scope: str, messages: Messages) -> list[str]:
        """The ids of a conversation's tool calls of which neither something nor nothing is remembered."""
        entries = self._entries
        found = []
        for message in messages:
            for call in message.get("tool_calls") or ():
                call_id = call.get("id")
                if isinstance(call_id, str) and (scope, call_id) not in entries:
                    found.append(call_id)
        return found

    def _forget(self, key: tuple[str, str]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._held -= len(entry[1])


SHARED = MemorySignatures()  # what adapters of this process use unless they are given another
