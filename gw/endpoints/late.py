"""An answer that is still awaited after its head went out: a stream that begins when it comes."""

from __future__ import annotations

from collections.abc import Sequence

from gw.document import Chunk
from gw.endpoints.patience import Patient
from gw.errors import GatewayError
from gw.message import Response
from gw.stream import Stream


class Late(Stream):
    """A stream over a Response that has not come yet. What would have been its error status breaks the stream."""

    __slots__ = ("_stream", "_work")

    def __init__(self, work: Patient[Response]) -> None:
        self._work = work
        self._stream: Stream | None = None

    async def read(self) -> Sequence[Chunk]:
        if self._stream is None:
            await self._work.patiently()
            content = self._work.result.content
            if not isinstance(content, Stream):
                raise GatewayError("a middleware answered a request for a stream with a whole answer: send a stream")
            self._stream = content
        return await self._stream.read()

    async def aclose(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()
        elif self._work.is_waiting:
            await self._work.give_up()
        elif hasattr(self._work, "result"):  # it came when nobody waited for it any more
            await self._work.result.aclose()
