"""A client that waits in silence is sent comments, on event boundaries; what waits can be called away and resumed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import orjson
import pytest
import uvloop

from gw.document import Chunk
from gw.endpoints.event_stream import KEEP_ALIVE, EventStream
from gw.endpoints.late import Late
from gw.endpoints.patience import Patient, Quiet
from gw.errors import ClientGone, GatewayError, UpstreamError
from gw.message import Exchange, Response
from gw.stream import Stream
from tests.fakes import Asked, Script, answers, by_turns, chunk, chunks, completion, sse, streams
from tests.running import Running, running, settings

QUIET = 0.02  # seconds: it is to pass
LONG = 30.0  # seconds: nothing is silent for so long
T = TypeVar("T")


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    def run(main: Callable[[], Awaitable[T]]) -> T:
        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main())  # type: ignore[arg-type]

    return run


# --- patience ----------------------------------------------------------------------------------------------------


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


# --- the client's stream -----------------------------------------------------------------------------------------


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


# --- end to end --------------------------------------------------------------------------------------------------


@pytest.fixture
def gw() -> Iterator[Running]:
    with running() as gateway:
        yield gateway


def start(gw: Running, folder: Path, *scripts: Script, keep_alive: float = QUIET, **fallback: Any) -> str:
    backends = {
        name: {"adapter": "openai", "base_url": gw.add_provider(script).url + "/v1", "timeouts": {"first_content": 60}}
        for name, script in zip("ab", scripts, strict=False)
    }
    middleware = {"fallback": {"retries": 0, **fallback}}
    return gw.start(settings(folder, backends=backends, middleware=middleware), keep_alive=keep_alive)


CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}


def ask(url: str, **chat: Any) -> httpx.Response:
    return httpx.post(url + "/v1/chat/completions", json=CHAT | chat, trust_env=False, timeout=60)


class Held:
    """A script that begins when it is let go."""

    def __init__(self, script: Script) -> None:
        self.go = asyncio.Event()
        self._script = script

    async def __call__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        await self.go.wait()
        await self._script(asked, writer)


def read_on_from_the_first_comment(gw: Running, url: str, go: asyncio.Event) -> tuple[int, str]:
    """The status and the text of an answer whose provider is let go once a comment has been read."""

    async def let_go() -> None:
        go.set()

    with httpx.stream("POST", url + "/v1/chat/completions", json=CHAT, trust_env=False, timeout=60) as response:
        pieces = response.iter_text()
        text = next(pieces)
        assert text.startswith(COMMENT)
        gw.run(let_go())
        return response.status_code, text + "".join(pieces)


FINE = streams(sse(*chunks("Hello")))
BROKEN = answers(b'{"error": {"message": "boom"}}', status=500)
COMMENT = KEEP_ALIVE.decode()


def test_a_slow_first_token_gets_its_head_and_comments_first(gw: Running, tmp_path: Path) -> None:
    held = Held(FINE)
    status, text = read_on_from_the_first_comment(gw, start(gw, tmp_path, held), held.go)
    assert status == 200
    assert text.startswith(COMMENT)
    assert text.endswith("data: [DONE]\n\n")
    assert '"content":"Hello"' in text
    assert text.count("[DONE]") == 1


def test_fallback_still_works_behind_a_comment(gw: Running, tmp_path: Path) -> None:
    held = Held(BROKEN)
    _, text = read_on_from_the_first_comment(gw, start(gw, tmp_path, held, FINE), held.go)
    assert text.startswith(COMMENT)
    assert text.endswith("data: [DONE]\n\n")
    assert '"degraded":true' in text


def test_total_failure_behind_a_comment_is_an_error_event(gw: Running, tmp_path: Path) -> None:
    held = Held(BROKEN)
    status, text = read_on_from_the_first_comment(gw, start(gw, tmp_path, held), held.go)
    assert status == 200
    events = [event for event in text.split("\n\n") if event and not event.startswith(":")]
    assert len(events) == 1
    assert events[0].startswith('data: {"error":{"message":')
    assert "boom" in events[0]


def test_before_the_first_comment_a_failure_has_its_real_status(gw: Running, tmp_path: Path) -> None:
    response = ask(start(gw, tmp_path, BROKEN, keep_alive=LONG))
    assert response.status_code == 502


def test_an_answer_that_is_held_back_until_it_is_whole_gets_comments_meanwhile(gw: Running, tmp_path: Path) -> None:
    go = asyncio.Event()

    async def slow(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (sse(*chunks("Hel", "lo")[:2], done=False), sse(*chunks("Hel", "lo")[2:])):
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await go.wait()
        writer.write(b"0\r\n\r\n")

    _, text = read_on_from_the_first_comment(gw, start(gw, tmp_path, slow, commit="complete"), go)
    comments, _, events = text.rpartition(COMMENT)
    assert comments.replace(COMMENT, "") == ""
    assert events.endswith("data: [DONE]\n\n")
    assert "Hel" in events


def test_whole_answers_get_no_comments(gw: Running, tmp_path: Path) -> None:
    async def late(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(QUIET * 3)
        await answers(orjson.dumps(completion()))(asked, writer)

    response = ask(start(gw, tmp_path, late), stream=False)
    assert response.json()["choices"][0]["message"]["content"] == "Hello!"


def test_a_client_that_leaves_before_the_first_content_cancels_the_provider(gw: Running, tmp_path: Path) -> None:
    async def silent(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    url = start(gw, tmp_path, by_turns(silent))
    with httpx.stream("POST", url + "/v1/chat/completions", json=CHAT, trust_env=False, timeout=60) as response:
        assert next(response.iter_text()).startswith(COMMENT)
    gw.run(asyncio.wait_for(gw.providers[0].hung_up.wait(), 20))
    assert gw.providers[0].hangups == 1
