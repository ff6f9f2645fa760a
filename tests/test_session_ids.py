"""The ids of sessions: in the order of their time, and none given out twice, not even by a forked process."""

from __future__ import annotations

import os
import uuid

from gw.session_ids import new_id
from tests.exchanges import NOW


def test_a_forked_process_gives_out_other_ids_than_its_parent() -> None:
    new_id(0.0)  # there are random bytes in stock
    theirs, ours = os.pipe()
    child = os.fork()
    if not child:
        os.write(ours, " ".join(new_id(0.0) for _ in range(400)).encode())
        os._exit(0)
    os.close(ours)
    with open(theirs) as pipe:
        told = pipe.read().split()
    assert os.waitpid(child, 0)[1] == 0
    assert len(told) == 400
    assert {new_id(0.0) for _ in range(400)}.isdisjoint(told)


def test_the_id_of_a_session_is_its_time_and_74_random_bits() -> None:
    ids = [new_id(1_800_000_000.5) for _ in range(1000)]
    read = [uuid.UUID(one) for one in ids]
    assert [str(one) for one in read] == ids
    assert {(one.version, one.variant) for one in read} == {(7, uuid.RFC_4122)}
    assert {one.int >> 80 for one in read} == {1_800_000_000_500}
    random = (0xFFF << 64) | (2**62 - 1)
    seen = [one.int & random for one in read]
    assert len(set(seen)) == len(seen)
    always, ever = seen[0], 0
    for bits in seen:
        always, ever = always & bits, ever | bits
    assert (always, ever) == (0, random)  # each of the 74 is set in some and not in others


def test_new_sessions_are_in_the_order_of_their_time() -> None:
    ids = [new_id(NOW + n / 1000) for n in range(100)]
    assert sorted(ids) == ids
    assert len({new_id(NOW) for _ in range(100)}) == 100
    for id in map(uuid.UUID, ids):
        assert (id.version, id.variant) == (7, uuid.RFC_4122)
