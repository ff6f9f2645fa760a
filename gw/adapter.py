"""The adapter protocol: pure translation between the canonical form and one provider's wire, without I/O.

An `Adapter` is made once per backend from its options. For each attempt it opens a `Codec`, which knows the request,
holds what must be sent, and turns the provider's bytes back into OpenAI's objects. No sockets, no clocks: so every
provider is tested with recorded bytes, cut anywhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from gw.backend import Timeouts
from gw.document import Chunk, Completion
from gw.errors import UpstreamConnectionError, UpstreamError
from gw.message import Headers, Loss, Request, Response, Summary


@dataclass(slots=True, eq=False)
class WireRequest:
    """One HTTP request to a provider, ready to be sent. `headers` are final but for Host and Content-Length."""

    method: str
    url: str  # absolute; never holds a secret
    headers: list[tuple[str, str]]
    content: bytes
    stream: bool  # whether the answer is to be read piece by piece
    backend: str  # the backend's name, for whoever stands on this side of `translate`
    request_id: str = ""
    timeouts: Timeouts = Timeouts()  # noqa: RUF009 (frozen)
    is_sent: bool = False  # set by the transport when its bytes are on their way: from then on it may be billed


class WireBody(Protocol):
    """The body of a provider's answer, pulled. Its holder closes it."""

    async def read(self) -> bytes:
        """What has arrived, at least one byte; b"" is the complete end.

        Raises UpstreamConnectionError or UpstreamProtocolError where it broke, UpstreamTimeout where it fell silent.
        """

    def commit(self) -> None:
        """Content has been seen, and more of it is about to be read: `idle` counts from now."""

    async def aclose(self) -> None:
        """Free the connection: kept for reuse if the end was read and nothing trails, else closed. Never raises."""


class WholeBody:
    """A WireBody of which everything is here: nothing is waited for, and no connection is held.

    Whoever meets one may take `content`, what is left to be read, instead of reading it.
    """

    __slots__ = ("_backend", "_is_closed", "content")

    def __init__(self, content: bytes, backend: str) -> None:
        self.content = content
        self._backend = backend
        self._is_closed = False  # before it was read

    async def read(self) -> bytes:
        """All of it, then b"". Raises UpstreamConnectionError where it was closed before it was read."""
        if self._is_closed:
            raise UpstreamConnectionError(f'the answer of backend "{self._backend}" was closed by its reader')
        content, self.content = self.content, b""
        return content

    def commit(self) -> None:
        """Nothing has to come any more."""

    async def aclose(self) -> None:
        """What was not read is dropped."""
        self._is_closed = self._is_closed or bool(self.content)
        self.content = b""


@dataclass(slots=True, eq=False)
class WireResponse:
    """A provider's answer: its head has arrived, its body is pulled."""

    status: int
    headers: Headers
    body: WireBody


WireHandler = Callable[[WireRequest], Awaitable[WireResponse]]
WireMiddleware = Callable[[WireRequest, WireHandler], Awaitable[WireResponse]]


class Codec(Protocol):
    """One exchange with one provider: bytes in, values out."""

    wire: WireRequest
    losses: Sequence[Loss]  # filled while the request is encoded
    summary: Summary  # filled while the answer is read

    @property
    def is_done(self) -> bool:
        """Whether the stream has said its last word ([DONE], message_stop, ...): `finish` may be called at once."""

    def complete(self, content: bytes, /) -> Completion:
        """The whole answer of a request that did not ask for a stream.

        Raises UpstreamError where a 200 carries an error, UpstreamProtocolError where it is no answer at all.
        """

    def feed(self, data: bytes, /) -> Sequence[Chunk]:
        """The chunks that are complete with this piece of a stream.

        Raises UpstreamError for an error event inside the stream, UpstreamProtocolError for garbage.
        """

    def finish(self) -> Sequence[Chunk]:
        """The stream's bytes have ended: the last chunks, or UpstreamProtocolError where it was cut short."""

    def fail(self, status: int, headers: Headers, content: bytes, /) -> UpstreamError:
        """The failure that an answer with an error status means, with the provider's own message kept."""


@runtime_checkable
class Adapter(Protocol):
    """One provider's dialect with one backend's settings. Its constructor's keywords are its options in TOML."""

    def open(self, request: Request, /) -> Codec:
        """Translate a request for `request.candidate`. Raises InvalidRequest for what the provider cannot do."""


@runtime_checkable
class Provider(Protocol):
    """A backend that answers by itself, without an HTTP wire of ours: echo, a process pool, anybody's own."""

    async def answer(self, request: Request, /) -> Response:
        """A Response whose content is a Completion, or a Stream where `request.is_stream`. Raises GatewayError."""
