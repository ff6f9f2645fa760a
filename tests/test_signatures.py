"""The store of signed blocks: bounded, forgetful by age, and separate for each scope."""

from __future__ import annotations

from gw.signatures import MemorySignatures
from tests.fakes import FakeClock

BLOCKS = [{"type": "thinking", "thinking": "Hm.", "signature": "S"}]


def test_what_was_kept_is_found_under_each_of_its_ids_as_a_fresh_copy() -> None:
    store = MemorySignatures()
    store.keep("a", ["1", "2"], BLOCKS)
    found = store.find("a", "1")
    found.append("changed")
    assert store.find("a", "1") == store.find("a", "2") == BLOCKS


def test_scopes_do_not_read_each_other() -> None:
    store = MemorySignatures()
    store.keep("a", ["1"], BLOCKS)
    assert store.find("b", "1") is None


def test_a_later_value_replaces_the_earlier_one() -> None:
    store = MemorySignatures()
    store.keep("a", ["1"], BLOCKS)
    store.keep("a", ["1"], "other")
    assert store.find("a", "1") == "other"
    assert (len(store), store.held) == (1, len('"other"'))


def test_blocks_are_forgotten_after_their_time() -> None:
    clock = FakeClock()
    store = MemorySignatures(ttl=10, clock=clock)
    store.keep("a", ["1"], BLOCKS)
    clock.now += 9.9
    assert store.find("a", "1") == BLOCKS
    clock.now += 0.1
    assert store.find("a", "1") is None
    assert (len(store), store.held) == (0, 0)


def test_old_blocks_leave_when_new_ones_come() -> None:
    clock = FakeClock()
    store = MemorySignatures(ttl=10, clock=clock)
    store.keep("a", ["1", "2"], BLOCKS)
    clock.now += 11
    store.keep("a", ["3"], BLOCKS)
    assert len(store) == 1


def test_the_store_is_bounded_in_entries_and_in_bytes() -> None:
    store = MemorySignatures(limit=2)
    store.keep("a", ["1", "2", "3"], BLOCKS)
    assert (store.find("a", "1"), store.find("a", "3")) == (None, BLOCKS)
    store = MemorySignatures(capacity=100)
    store.keep("a", ["1"], "x" * 60)
    store.keep("a", ["2"], "y" * 60)
    assert (store.find("a", "1"), store.find("a", "2")) == (None, "y" * 60)
    store.keep("a", ["3"], "z" * 200)
    assert (len(store), store.held) == (0, 0)
