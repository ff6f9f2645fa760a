"""What waits can be called away and resumed; a client's stream gives comments meanwhile, and loses no event."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from gw.document import Chunk
from gw.endpoints.event_stream import KEEP_ALIVE, EventStream
from gw.endpoints.late import Late
from gw.endpoints.patience import Patient, Quiet
from gw.errors import ClientGone, GatewayError, UpstreamError
from gw.message import Exchange, Response
from gw.stream import Stream
from tests.event_loops import run
from tests.fakes import chunk

__all__ = ["run"]
QUIET = 0.02  # seconds: it is to pass
LONG = 30.0  # seconds: nothing is silent for so long


# --- patience -------------------------------------------------------------------------------------------------------


def test_what_is_done_in_time_is_not_called_away(run: Any) -> None:
    async def main() -> None:
        async def work() -> str:
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)
            return "done"

        patient: Patient[Any] = Patient(Quiet(LONG))
        assert patient.start(work()) or await patient
        assert patient.result == "done"

    run(main)


def test_silence_calls_the_waiter_away_and_the_work_goes_on_where_it_was(run: Any) -> None:
    async def main() -> None:
        go = asyncio.Event()
        steps: list[str] = []

        async def work() -> str:
            steps.append("began")
            await go.wait()
            steps.append("went on")
            await asyncio.sleep(0)
            return "done"

        patient: Patient[Any] = Patient(Quiet(QUIET))
        assert not patient.start(work())
        assert not await patient
        assert not await patient
        assert steps == ["began"]
        go.set()
        await asyncio.sleep(0)  # it may come while nobody waits
        assert await patient
        assert (patient.result, steps) == ("done", ["began", "went on"])

    run(main)


def test_a_failure_is_raised_where_it_is_waited_for(run: Any) -> None:
    async def main() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        patient: Patient[Any] = Patient(Quiet(QUIET))
        assert not patient.start(future)
        assert not await patient
        future.set_exception(UpstreamError("broke"))
        with pytest.raises(UpstreamError, match="broke"):
            await patient
        assert not patient.is_waiting

    run(main)


def test_a_cancelled_waiter_cancels_the_work(run: Any) -> None:
    async def main() -> None:
        ends: list[BaseException] = []
        began = asyncio.Event()

        async def work() -> None:
            try:
                began.set()
                await asyncio.Event().wait()
            except BaseException as error:
                ends.append(error)
                raise

        async def waits() -> None:
            patient: Patient[Any] = Patient(Quiet(LONG))
            assert not patient.start(work())
            await patient

        task = asyncio.create_task(waits())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [type(error) for error in ends] == [asyncio.CancelledError]

    run(main)


def test_work_that_is_given_up_ends_its_own_way(run: Any) -> None:
    async def main() -> None:
        ends: list[str] = []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.001)
                ends.append("cleaned up")

        patient: Patient[Any] = Patient(Quiet(QUIET))
        assert not patient.start(work())
        assert not await patient
        await patient.give_up()
        assert ends == ["cleaned up"]
        assert not patient.is_waiting

    run(main)


def test_a_timeout_inside_the_work_is_the_works_own(run: Any) -> None:
    async def main() -> None:
        scope = asyncio.timeout(None)

        async def work() -> str:
            try:
                async with scope:
                    await asyncio.Event().wait()
            except TimeoutError:
                return "timed out"
            raise AssertionError

        patient: Patient[Any] = Patient(Quiet(QUIET))
        assert not patient.start(work())
        assert not await patient
        scope.reschedule(asyncio.get_running_loop().time())
        while not await patient:
            pass
        assert patient.result == "timed out"

    run(main)


def test_tasks_and_plain_yields_inside_the_work_are_waited_for(run: Any) -> None:
    async def main() -> None:
        async def child() -> int:
            await asyncio.sleep(0.001)
            return 1

        async def work() -> int:
            found = await asyncio.gather(child(), child(), asyncio.create_task(child()))
            await asyncio.sleep(0)
            return sum(found)

        patient: Patient[Any] = Patient(Quiet(LONG))
        assert patient.start(work()) or await patient
        assert patient.result == 3

    run(main)


def test_a_span_of_silence_is_more_than_nothing() -> None:
    with pytest.raises(ValueError, match="more than 0"):
        Quiet(0)


# --- the client's stream --------------------------------------------------------------------------------------------


class Gated(Stream):
    """A stream whose reads wait until they are let go."""

    def __init__(self, *reads: Sequence[dict[str, Any]]) -> None:
        self.go = asyncio.Event()
        self.is_closed = False
        self._reads = list(reads)

    async def read(self) -> Sequence[Chunk]:
        await self.go.wait()
        self.go.clear()
        return [Chunk(value=value) for value in self._reads.pop(0)] if self._reads else ()

    async def aclose(self) -> None:
        self.is_closed = True


def event_stream(stream: Stream, ends: list[BaseException | None]) -> EventStream:
    exchange = Exchange("id", "POST", "/", "", 0.0, 0.0, stream=True)
    return EventStream(
        stream, exchange, include_usage=False, extras=lambda _: b"", ended=ends.append, quiet=Quiet(QUIET)
    )


def test_comments_stand_between_events_and_lose_none(run: Any) -> None:
    async def main() -> None:
        stream = Gated([chunk({"content": "a"})], [chunk({"content": "b"})])
        ends: list[BaseException | None] = []
        out = event_stream(stream, ends)
        assert [await out.read() for _ in range(2)] == [KEEP_ALIVE, KEEP_ALIVE]
        stream.go.set()
        assert b'"a"' in await out.read()
        assert await out.read() == KEEP_ALIVE
        stream.go.set()
        assert b'"b"' in await out.read()
        stream.go.set()
        assert await out.read() == b"data: [DONE]\n\n"
        assert ends == [None]

    run(main)


def test_a_client_that_leaves_in_a_silence_closes_the_provider(run: Any) -> None:
    async def main() -> None:
        stream = Gated()
        ends: list[BaseException | None] = []
        out = event_stream(stream, ends)
        assert await out.read() == KEEP_ALIVE
        await out.aclose()
        assert stream.is_closed
        assert [type(end) for end in ends] == [ClientGone]

    run(main)


def test_a_client_that_leaves_right_behind_the_head_cancels_what_is_awaited(run: Any) -> None:
    async def main() -> None:
        ends: list[str] = []

        async def work() -> Response:
            try:
                await asyncio.Event().wait()
            finally:
                ends.append("ended")
            raise AssertionError

        patient: Patient[Any] = Patient(Quiet(QUIET))
        assert not patient.start(work())
        assert not await patient
        out = event_stream(Late(patient), [])
        assert await out.read() == KEEP_ALIVE
        await out.aclose()
        assert ends == ["ended"]

    run(main)


def test_a_late_answer_that_nobody_waits_for_any_more_is_closed(run: Any) -> None:
    async def main() -> None:
        stream = Gated()
        go = asyncio.Event()

        async def work() -> Response:
            await go.wait()
            return Response(stream)

        patient: Patient[Any] = Patient(Quiet(QUIET))
        assert not patient.start(work())
        assert not await patient
        go.set()
        assert await patient
        await Late(patient).aclose()
        assert stream.is_closed

    run(main)


def test_a_whole_answer_to_a_request_for_a_stream_is_a_clear_failure(run: Any) -> None:
    async def main() -> None:
        async def work() -> Response:
            return Response(b"{}")

        patient: Patient[Any] = Patient(Quiet(LONG))
        assert patient.start(work())
        with pytest.raises(GatewayError, match="send a stream"):
            await Late(patient).read()

    run(main)
