"""What is written in a turn goes out at its end, in order, and before anything else that is asked of the transport."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gw.burst import Burst, Gathering


class Memory(asyncio.Transport):
    """A transport in memory that notes what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.did: list[bytes | str] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed, "written to when it was closed"
        self.did.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True
        self.did.append("close")

    def abort(self) -> None:
        self.is_closed = True
        self.did.append("abort")

    def write_eof(self) -> None:
        self.did.append("write_eof")

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return 7


def in_a_loop(check: Callable[[Burst], None]) -> None:
    """Run a check within one turn of a loop, and one more turn behind it."""

    async def main() -> None:
        check(Burst())
        await asyncio.sleep(0)

    asyncio.run(main())


def test_all_writes_of_a_turn_go_out_at_its_end_in_the_order_of_their_first() -> None:
    order: list[str] = []

    class Named(Memory):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def write(self, data: bytes | bytearray | memoryview) -> None:
            super().write(data)
            order.append(self.name)

    first, second = Named("first"), Named("second")

    async def main() -> None:
        burst = Burst()
        one, other = Gathering(first, burst), Gathering(second, burst)
        for turn in range(2):
            one.write(b"a")
            other.write(b"b")
            one.write(b"c")
            assert len(order) == 2 * turn
            await asyncio.sleep(0)

    asyncio.run(main())
    assert order == ["first", "second"] * 2
    assert (first.did, second.did) == ([b"ac"] * 2, [b"b"] * 2)


@pytest.mark.parametrize("act", ["close", "abort", "write_eof"])
def test_what_was_written_goes_before_the_end(act: str) -> None:
    memory = Memory()

    def check(burst: Burst) -> None:
        transport = Gathering(memory, burst)
        transport.write(b"answer")
        getattr(transport, act)()
        assert memory.did == [b"answer", act]

    in_a_loop(check)
    assert memory.did == [b"answer", act]


def test_more_than_64_kb_are_not_held_back_and_stay_behind_what_is() -> None:
    memory = Memory()

    def check(burst: Burst) -> None:
        transport = Gathering(memory, burst)
        transport.write(b"head")
        transport.write(b"x" * 65_536)
        assert memory.did == [b"head", b"x" * 65_536]

    in_a_loop(check)
    assert len(memory.did) == 2


@pytest.mark.parametrize(("size", "writes"), [(0, 1), (9, 1), (65_531, 1), (65_532, 3), (70_000, 3)])
def test_what_is_written_in_two_parts_goes_out_as_one_unless_it_is_large(size: int, writes: int) -> None:
    memory = Memory()

    def check(burst: Burst) -> None:
        transport = Gathering(memory, burst)
        transport.write(b"a")
        transport.write(b"head", b"x" * size)

    in_a_loop(check)
    assert b"".join(each for each in memory.did if isinstance(each, bytes)) == b"ahead" + b"x" * size
    assert len(memory.did) == writes


def test_the_size_of_what_is_unsent_is_what_the_system_has_not_taken() -> None:
    memory = Memory()

    def check(burst: Burst) -> None:
        transport = Gathering(memory, burst)
        transport.write(b"answer")
        assert transport.get_write_buffer_size() == 7
        assert memory.did == [b"answer"]

    in_a_loop(check)


def test_nothing_is_written_to_a_connection_that_went_away_meanwhile() -> None:
    memory = Memory()

    def check(burst: Burst) -> None:
        Gathering(memory, burst).write(b"answer")
        memory.close()

    in_a_loop(check)
    assert memory.did == ["close"]


def test_what_is_written_at_once_waits_for_no_turn_unless_something_waits_before_it() -> None:
    memory = Memory()

    def check(burst: Burst) -> None:
        transport = Gathering(memory, burst)
        transport.write_at_once(b"a")
        assert memory.did == [b"a"]
        transport.write(b"b")
        transport.write_at_once(b"c")
        assert memory.did == [b"a"]

    in_a_loop(check)
    assert memory.did == [b"a", b"bc"]
    memory.close()
    in_a_loop(lambda burst: Gathering(memory, burst).write_at_once(b"d"))
    assert memory.did == [b"a", b"bc", "close"]
