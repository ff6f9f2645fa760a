"""Sliding windows that count exactly: at most `limit` requests in any `window` seconds, for each of many keys.

`LocalWindows` keeps them in one process. `SharedWindows` keeps the same in memory that forked processes share, laid
out so that a process killed at any instruction leaves nothing that misleads the others. Both are bounded: when they
are full, keys that have been idle for long are forgotten first.
"""

from __future__ import annotations

import os
from array import array
from collections import OrderedDict
from fcntl import LOCK_EX, LOCK_UN, lockf
from typing import TypeAlias

MAX_LIMIT = 100_000  # requests in one window: a key's times then fill at most a fifth of its stripe
MAX_KEYS = 65_536  # an IPv4 scan or a botnet may show more addresses than that; the memory stays the same
MAX_BLOCKS = 262_144  # of 15 times each, for all keys together: 32 MiB
MAX_PLACES = 8_192  # keys whose place a process remembers


Admission: TypeAlias = tuple[bool, int, float]
"""The decision on one request, and what its X-RateLimit headers say: allowed, remaining, reset.

Reset is in seconds: until the oldest counted request leaves the window, or, where the request was not allowed, until
one will be. A plain tuple, because one with names costs a fifth of the decision.
"""


class _Times:
    """The times of one key, oldest first; those before `start` have left the window."""

    __slots__ = ("start", "times")

    def __init__(self) -> None:
        self.times = array("d")
        self.start = 0


class LocalWindows:
    """Windows of one process: a list of times per key, the longest untouched key first in line to be forgotten."""

    __slots__ = ("_count", "_keys", "_latest", "_latest_key", "_max_keys", "_max_times")

    def __init__(self, max_keys: int = MAX_KEYS, max_times: int = 15 * MAX_BLOCKS) -> None:
        self._keys: OrderedDict[bytes, _Times] = OrderedDict()
        self._max_keys = max_keys
        self._max_times = max_times  # of all keys together: 8 bytes each
        self._count = 0
        # Who asked last is the last in line already; often nobody else asks.
        self._latest_key: bytes | None = None
        self._latest = _Times()

    def admit(self, key: bytes, limit: int, window: float, now: float) -> Admission:
        """Count one request of `key` at `now` (monotonic seconds) if `limit` per `window` seconds allows it."""
        found = self._latest if key == self._latest_key else self._find(key)
        times, start = found.times, found.start
        end, oldest = len(times), now
        while start < end and (oldest := times[start]) + window <= now:
            start += 1
        if start > 32 and start * 2 > end:
            # Cut off in bulk: to move the rest forward at every request costs as much as the window is long.
            del times[:start]
            self._count -= start
            end -= start
            start = 0
        found.start = start
        count = end - start
        if count >= limit:
            return False, 0, times[end - limit] + window - now
        if not count:
            oldest = now
        elif times[-1] > now:
            now = times[-1]
        times.append(now)
        self._count += 1
        if self._count > self._max_times:
            self._make_room()
        return True, limit - count - 1, oldest + window - now

    def _find(self, key: bytes) -> _Times:
        """The times of a key, which is the last in line from now on."""
        keys = self._keys
        found = keys.get(key)
        if found is None:
            found = keys[key] = _Times()
            if len(keys) > self._max_keys:
                self._forget()
        else:
            keys.move_to_end(key)
        self._latest_key, self._latest = key, found
        return found

    def _make_room(self) -> None:
        while self._count > self._max_times and len(self._keys) > 1:
            self._forget()

    def _forget(self) -> None:
        _, found = self._keys.popitem(last=False)
        self._count -= len(found.times)


# --- the same in shared memory ----------------------------------------------------------------------------------
#
# Everything is a word of 8 bytes; places are counted in words. A stripe has its own lock, sets and blocks.
#
#   stripe header   first of the free blocks, number of blocks ever used, the set whose turn it is to give up a key
#   set             16 names | 16 times of the last touch | 16 heads | 16 tails      (a key lives in one set only)
#   block           place of the next block | 15 times
#
# A head or a tail is one word, `place << 32 | how many`: how many times were taken out or put in so far, and where the
# last of them is or was. Each change becomes visible by one store of one word, and stores are ordered so that every
# state in between is sound: whoever is killed half-way loses at most some blocks.

_WAYS = 16
_SET = 4 * _WAYS
_LAST, _HEAD, _TAIL = _WAYS, 2 * _WAYS, 3 * _WAYS
_BLOCK = 16
_EDGE = _BLOCK - 1  # a place whose low bits are 0 is the first word of a block
_STRIPES = 8
_HEADER = 8  # words: a cache line
_FREE, _USED, _HAND = 0, 1, 2
_LOW = 0xFFFF_FFFF


class SharedWindows:
    """Windows of several processes over `memory`, which they share; one thread of each may call.

    `lock_file` is a descriptor whose first `STRIPES` bytes are taken as record locks. A key is known by 64 bits of a
    keyed hash that a client cannot compute; all processes must descend by fork from the one that made this object,
    so that they hash alike.
    """

    STRIPES = _STRIPES

    __slots__ = ("_blocks", "_blocks_per_stripe", "_floats", "_lock_file", "_places", "_salt", "_sets", "_words")

    def __init__(
        self, memory: memoryview[int], lock_file: int, max_keys: int = MAX_KEYS, max_blocks: int = MAX_BLOCKS
    ) -> None:
        self._words: memoryview[int] = memory.cast("q")
        self._floats: memoryview[float] = memory.cast("d")
        self._lock_file = lock_file
        self._salt = os.urandom(16)
        self._sets = max_keys // _WAYS // _STRIPES  # of one stripe
        self._blocks = _STRIPES * (_HEADER + self._sets * _SET)  # where they begin
        self._blocks_per_stripe = max_blocks // _STRIPES
        self._places: dict[bytes, tuple[int, int, int]] = {}  # where this process last saw a key

    @staticmethod
    def size(max_keys: int = MAX_KEYS, max_blocks: int = MAX_BLOCKS) -> int:
        """Bytes of memory that are needed, zero at first; only those that are used become real."""
        return 8 * (_STRIPES * _HEADER + max_keys * _SET // _WAYS + max_blocks * _BLOCK)

    def admit(self, key: bytes, limit: int, window: float, now: float) -> Admission:
        """Count one request of `key` at `now` (monotonic seconds) if `limit` per `window` seconds allows it."""
        words, floats = self._words, self._floats
        name, stripe, slot = self._places.get(key) or self._look_up(key)
        lockf(self._lock_file, LOCK_EX, 1, stripe)
        try:
            if words[slot] != name:
                slot = self._find(key, name, stripe)
            floats[slot + _LAST] = now
            head, tail = words[slot + _HEAD], words[slot + _TAIL]
            count = (tail - head) & _LOW
            oldest = now
            while count:
                spent, place = 0, (head >> 32) + 1
                if not place & _EDGE:
                    spent = place - _BLOCK
                    place = words[spent] + 1
                oldest = floats[place]
                if oldest + window > now:
                    break
                words[slot + _HEAD] = head = place << 32 | (head + 1) & _LOW
                count -= 1
                if spent:
                    self._release(stripe, spent)
            if count >= limit:
                return False, 0, self._time(head, count - limit) + window - now
            if count and floats[tail >> 32] > now:
                now = floats[tail >> 32]  # another process was faster to the lock with a later time
            place = (tail >> 32) + 1
            if not place & _EDGE:
                place = self._next_block(place - _BLOCK, stripe, slot) + 1
            floats[place] = now
            words[slot + _TAIL] = place << 32 | (tail + 1) & _LOW
            return True, limit - count - 1, (oldest if count else now) + window - now
        finally:
            lockf(self._lock_file, LOCK_UN, 1, stripe)

    def _look_up(self, key: bytes) -> tuple[int, int, int]:
        """The name and stripe of a key that this process has not seen for a while, with a slot that is a guess."""
        name = hash(self._salt + key) or 1
        return name, name % _STRIPES, _STRIPES * _HEADER

    def _find(self, key: bytes, name: int, stripe: int) -> int:
        """The slot of a key: where it is, or an empty one, or that of the key of its set that was idle the longest."""
        first = _STRIPES * _HEADER + (stripe * self._sets + name // _STRIPES % self._sets) * _SET
        names = self._words[first : first + _WAYS].tolist()
        if name in names:
            slot = first + names.index(name)
        else:
            if 0 in names:
                slot = first + names.index(0)
            else:
                touched = self._floats[first + _LAST : first + _LAST + _WAYS].tolist()
                slot = first + touched.index(min(touched))
                self._forget(stripe, slot)
            self._words[slot + _HEAD] = self._words[slot + _TAIL] = self._allocate(stripe, slot) << 32
            self._words[slot] = name
        if len(self._places) >= MAX_PLACES:
            self._places.clear()
        self._places[key] = name, stripe, slot
        return slot

    def _time(self, head: int, index: int) -> float:
        """The time of the request that stands `index` places behind the oldest."""
        place = head >> 32
        for _ in range(index + 1):
            place += 1
            if not place & _EDGE:
                place = self._words[place - _BLOCK] + 1
        return self._floats[place]

    def _forget(self, stripe: int, slot: int) -> None:
        words = self._words
        words[slot] = 0
        block, last = (words[slot + end] >> 32 & ~_EDGE for end in (_HEAD, _TAIL))
        while block != last:
            after = words[block]
            self._release(stripe, block)
            block = after
        self._release(stripe, last)

    def _release(self, stripe: int, block: int) -> None:
        self._words[block] = self._words[stripe * _HEADER + _FREE]
        self._words[stripe * _HEADER + _FREE] = block

    def _next_block(self, block: int, stripe: int, slot: int) -> int:
        """The block behind the last one of a slot. One may hang there already: its maker was killed before using it."""
        after = self._words[block]
        if not after:
            self._words[block] = after = self._allocate(stripe, slot)
        return after

    def _allocate(self, stripe: int, slot: int) -> int:
        """A block with nothing behind it; where none is left, keys other than that of `slot` are forgotten."""
        words, header = self._words, stripe * _HEADER
        while not words[header + _FREE]:
            used = words[header + _USED]
            if used < self._blocks_per_stripe:
                words[header + _USED] = used + 1
                return self._blocks + (stripe * self._blocks_per_stripe + used) * _BLOCK
            self._make_room(stripe, slot)
        block = words[header + _FREE]
        words[header + _FREE] = words[block]
        words[block] = 0
        return block

    def _make_room(self, stripe: int, keep: int) -> None:
        """Forget one key: of the next set in turn, the one that was idle the longest."""
        words, hand = self._words, stripe * _HEADER + _HAND
        for _ in range(self._sets):
            turn = words[hand]
            words[hand] = (turn + 1) % self._sets
            first = _STRIPES * _HEADER + (stripe * self._sets + turn) * _SET
            taken = [slot for slot in range(first, first + _WAYS) if words[slot] and slot != keep]
            if taken:
                self._forget(stripe, min(taken, key=lambda slot: self._floats[slot + _LAST]))
                return
        raise MemoryError(f"one key fills all {self._blocks_per_stripe} blocks of its stripe: lower its rate limit")
