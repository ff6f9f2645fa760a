"""One turn of a Claude process as a stream: its lines go in, chunks come out, and the process is let go at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from gw.adapters.claude_cli.failures import Failures
from gw.adapters.claude_cli.lines import TurnReader, usage_object
from gw.adapters.claude_cli.pool import Worker
from gw.document import Chunk, Completion
from gw.message import Summary
from gw.stream import Stream

Ended = Callable[[bool], None]  # told once how it ended: whether it was well


class Turn(Stream):
    """Reads a worker until its result. `ended(is_well)` is called exactly once, and takes the worker back."""

    def __init__(
        self,
        worker: Worker,
        reader: TurnReader,
        batches: Sequence[bytes],
        *,
        failures: Failures,
        timeout: float,
        ended: Ended,
    ) -> None:
        self._worker = worker
        self._reader = reader
        self._batches = list(batches)
        self._failures = failures
        self._timeout = timeout
        self._deadline = asyncio.get_running_loop().time() + timeout
        self._ended: Ended | None = ended
        worker.process.write(self._batches.pop(0))

    @property
    def summary(self) -> Summary:
        """What is known of the answer; complete at its end."""
        return self._reader.summary

    async def read(self) -> Sequence[Chunk]:
        while True:
            if chunks := self._reader.taken():
                return chunks
            if self._ended is None:
                return ()
            try:
                await self._go_on()
            except BaseException:
                self._end(False)
                raise

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
        self._end(False)

    async def _go_on(self) -> None:
        process, reader = self._worker.process, self._reader
        try:
            async with asyncio.timeout_at(self._deadline):
                data = await process.read()
        except TimeoutError:
            raise self._failures.timeout(f"no whole answer within {self._timeout:g} s") from None
        if not data:
            raise self._failures.of_exit(process.status, process.errors, reader.garbage)
        self._worker.has_started.set()
        before = reader.steps_done
        reader.feed(data)
        for reply in reader.replies:
            process.write(reply)
        reader.replies.clear()
        for _ in range(reader.steps_done - before):
            process.write(self._batches.pop(0))
        if reader.is_complete:
            self._worker.cost = reader.cost
            self._end(True)

    def _end(self, is_well: bool) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(is_well)
