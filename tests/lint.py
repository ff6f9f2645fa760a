"""A middleware that asserts the contract: put one outside and one inside of whatever is under test."""

from __future__ import annotations

from collections.abc import Sequence

from gw.document import Chunk, Completion
from gw.message import Request, Response
from gw.pipeline import Handler
from gw.stream import Stream


class LintedStream(Stream):
    """Asserts: at least one chunk a read until the end, nothing after the end, closed or read to its end."""

    def __init__(self, stream: Stream, lint: Lint) -> None:
        self._stream = stream
        self._lint = lint
        self._over = False
        lint.open_streams += 1

    async def read(self) -> Sequence[Chunk]:
        assert not self._over, f"{self._lint.name}: a stream was read after its end"
        try:
            chunks = await self._stream.read()
        except BaseException:
            self._end()
            raise
        assert isinstance(chunks, Sequence), f"{self._lint.name}: read() gave {type(chunks).__name__}"
        assert all(isinstance(chunk, Chunk) for chunk in chunks), f"{self._lint.name}: not all are chunks"
        if not chunks:
            self._end()
        return chunks

    async def aclose(self) -> None:
        self._end()
        await self._stream.aclose()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._lint.open_streams -= 1


class Lint:
    """Counts calls and open streams; asserts that what goes in and comes out has the right shape."""

    def __init__(self, name: str = "lint", *, head_only: bool = False) -> None:
        self.name = name
        self.head_only = head_only
        self.calls = 0
        self.open_streams = 0

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        assert isinstance(request, Request), f"{self.name}: got {type(request).__name__} instead of a Request"
        if not self.head_only:
            assert request.document is not None, f"{self.name}: the body was not read"
        self.calls += 1
        response = await call_next(request)
        assert isinstance(response, Response), f"{self.name}: got {type(response).__name__} instead of a Response"
        assert 200 <= response.status <= 599, f"{self.name}: status {response.status}"
        assert isinstance(response.content, bytes | Completion | Stream), f"{self.name}: {response.content!r}"
        assert all(
            isinstance(key, str) and isinstance(value, str) and "\n" not in value
            for key, value in response.headers.items()
        ), f"{self.name}: headers {response.headers!r}"
        if isinstance(response.content, Stream):
            response.content = LintedStream(response.content, self)
        return response

    def assert_clean(self) -> None:
        """Every stream that passed was read to its end or closed."""
        assert self.open_streams == 0, f"{self.name}: {self.open_streams} streams were neither finished nor closed"
