"""One turn of a Claude process as a stream: its lines go in, chunks come out, and the process is let go at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from gw.adapters.claude_cli.failures import Failures
from gw.adapters.claude_cli.lines import TurnReader, usage_object
from gw.adapters.claude_cli.pool import Worker
from gw.document import Chunk, Completion
from gw.errors import GatewayError
from gw.message import Summary
from gw.stream import Stream

End = Literal["well", "failed", "left"]  # left: by the client, before its end
Ended = Callable[[End], None]  # told once


class Clocks(NamedTuple):
    """Seconds. `turn` rules every turn from the moment it has its place, the others streams, where they are given."""

    turn: float
    first_content: float | None = None
    idle: float | None = None  # without content, once there was some


class Turn(Stream):
    """Reads a worker until its result. `ended(how)` is called exactly once, and takes the worker back."""

    def __init__(
        self,
        worker: Worker,
        reader: TurnReader,
        batches: Sequence[bytes],
        *,
        failures: Failures,
        clocks: Clocks,
        began: float,
        ended: Ended,
    ) -> None:
        """`began` is when its place was taken, by the loop's clock."""
        self._worker = worker
        self._reader = reader
        self._batches = list(batches)
        self._failures = failures
        self._clocks = clocks
        self._began = began
        self._clock = asyncio.get_running_loop().time
        self._heard = began  # when content came last
        self._ended: Ended | None = ended
        self._has_begun = False  # chunks were passed on
        self._broken: GatewayError | None = None
        worker.process.write(self._batches.pop(0))

    @property
    def summary(self) -> Summary:
        """What is known of the answer; complete at its end."""
        return self._reader.summary

    async def read(self) -> Sequence[Chunk]:
        while True:
            if chunks := self._reader.taken():
                self._has_begun = True
                return chunks
            if self._broken is not None:
                raise self._broken
            if self._ended is None:
                return ()
            try:
                await self._go_on()
            except BaseException as error:
                self._end("left" if isinstance(error, asyncio.CancelledError) else "failed")
                if not self._has_begun or not isinstance(error, GatewayError):
                    raise  # nothing was passed on: another one may answer
                self._broken = error  # what came just before it is passed on first

    async def whole(self, head: dict[str, Any]) -> Completion:
        """Read to the end: the whole answer. `head` is the id, created and model."""
        while await self.read():
            pass
        reader, summary = self._reader, self._reader.summary
        message: dict[str, Any] = {"role": "assistant", "content": "".join(reader.text), "refusal": None}
        if reader.reasoning:
            message["reasoning_content"] = "".join(reader.reasoning)
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": summary.finish_reason,
            "native_finish_reason": summary.native_finish_reason,
        }
        completion = {**head, "object": "chat.completion", "choices": [choice]}
        if summary.usage is not None:
            completion["usage"] = usage_object(summary.usage)
        return Completion(value=completion)

    async def aclose(self) -> None:
        self._end("left")

    async def _go_on(self) -> None:
        process, reader = self._worker.process, self._reader
        deadline, missed = self._deadline()
        try:
            async with asyncio.timeout_at(deadline):
                data = await process.read()
        except TimeoutError:
            raise self._failures.timeout(missed) from None
        if not data:
            raise self._failures.of_exit(process.status, process.errors, reader.garbage)
        self._worker.has_started()
        before, said = reader.steps_done, reader.summary.output_characters
        reader.feed(data)
        if reader.summary.output_characters > said:
            self._heard = self._clock()
        for reply in reader.replies:
            process.write(reply)
        reader.replies.clear()
        for _ in range(reader.steps_done - before):
            process.write(self._batches.pop(0))
        if reader.is_complete:
            self._worker.cost = reader.cost
            self._end("well")

    def _deadline(self) -> tuple[float, str]:
        """Until when something must come, and what is said where it does not."""
        turn, first, idle = self._clocks
        found = [(self._began + turn, f"no whole answer within {turn:g} s")]
        if self._reader.summary.output_characters:
            if idle is not None:
                found.append((self._heard + idle, f"silent for {idle:g} s in the middle of its answer"))
        elif first is not None:
            found.append((self._began + first, f"no first content within {first:g} s"))
        return min(found)

    def _end(self, how: End) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(how)
