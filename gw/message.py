"""What travels through the pipeline: a request, its answer, and the record of the exchange that outlives both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from gw.document import Completion, Document
from gw.secret import Secret
from gw.stream import Stream

if TYPE_CHECKING:
    from gw.backend import Backend

T = TypeVar("T")


class Headers:
    """The fields of one message: looked up without regard to case, kept in the order in which they came.

    `pairs` are (lower-case name, value) as bytes, as h11 gives them.
    """

    __slots__ = ("pairs",)

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.pairs: Sequence[tuple[bytes, bytes]] = pairs if isinstance(pairs, list) else list(pairs)

    def get(self, name: str, default: str = "") -> str:
        """The first value of a field, or `default`. Bytes are read as latin-1, as RFC 9110 5.5 advises."""
        wanted = name.lower().encode("latin-1")
        for key, value in self.pairs:
            if key == wanted:
                return value.decode("latin-1")
        return default

    def get_all(self, name: str) -> list[str]:
        """Every value of a field, in order."""
        wanted = name.lower().encode("latin-1")
        return [value.decode("latin-1") for key, value in self.pairs if key == wanted]

    def about(self, question: Callable[[Headers], T]) -> T:
        """`question(headers)`, which for a head that comes again is remembered: it must depend on nothing else, and
        not on Content-Length."""
        return question(self)

    def may_name(self, part: bytes) -> bool:
        """Whether a field's name may have `part` (lower case) in it; False is certain, and quickly told."""
        return any(part in name for name, _ in self.pairs)

    def __contains__(self, name: str) -> bool:
        wanted = name.lower().encode("latin-1")
        return any(key == wanted for key, _ in self.pairs)

    def __repr__(self) -> str:
        return f"<Headers {[name.decode('latin-1') for name, _ in self.pairs]}>"  # values may be secret


class Body(Protocol):
    """The body of a request as the server offers it."""

    async def read(self) -> bytes:
        """The whole body. Raises InvalidRequest (413, 408, 400 for bad framing); may be called again."""


@dataclass(slots=True, frozen=True)
class Principal:
    """Who asks: the name of a key and what it may use. None of a field means everything."""

    name: str
    backends: frozenset[str] | None = None
    models: frozenset[str] | None = None
    rate: tuple[int, float] | None = None  # requests, seconds


ANONYMOUS = Principal("anonymous")
_NO_PARAMETERS: Mapping[str, str] = {}


@dataclass(slots=True, frozen=True)
class Candidate:
    """A backend that may answer, with the model to ask it for and the name that the client shall read."""

    backend: Backend
    model: str
    answers_as: str
    reason: str = ""  # why it stands where it stands, for `gw explain`
    explicit: bool = False  # named by the client: used, or the call fails
    key: Secret | None = None  # which of the backend's keys to use; filled in for each attempt


class Loss(NamedTuple):
    """Something of a request that the provider's wire cannot carry."""

    pointer: str  # JSON pointer into the canonical request: /messages/2/name
    kind: str  # dropped | changed | emulated
    detail: str = ""


@dataclass(slots=True)
class Usage:
    """Tokens of one answer. `prompt` includes cached and cache-written ones, `completion` includes reasoning."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    cache_written: int = 0
    reasoning: int = 0
    source: str = "reported"  # reported | estimated

    @property
    def total(self) -> int:
        return self.prompt + self.completion


@dataclass(slots=True)
class Summary:
    """What is known of an answer beside its content. The codec fills it while it reads; complete at the end."""

    model: str | None = None  # the provider's own name for what answered
    upstream_id: str | None = None
    finish_reason: str | None = None
    native_finish_reason: str | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    cost_source: str | None = None  # reported | priced | estimated
    output_characters: int = 0  # what was seen of text, to estimate from where no usage came


class OpenAnswer(Protocol):
    """A stream that a backend answers with and that has not ended: it holds a place and a connection."""

    def end(self, error: BaseException | None, /) -> None:
        """Write down how it ended; only the first time counts."""

    async def aclose(self) -> None:
        """Free what it holds."""


@dataclass(slots=True, eq=False)
class Attempt:
    """One try at one backend."""

    backend: str
    model: str
    started: float  # monotonic seconds
    ended: float | None = None
    first_content: float | None = None
    status: int | None = None  # what the provider said
    error: BaseException | None = None
    summary: Summary = field(default_factory=Summary)
    losses: Sequence[Loss] = ()
    queue_wait: float | None = None  # seconds
    is_sent: bool = True  # whether the provider may have seen it
    open: OpenAnswer | None = field(default=None, repr=False)  # what it answers with, until that has ended


@dataclass(slots=True, eq=False)
class Exchange:
    """The record of one request from its head to its end: what the log, the metrics and the access line read.

    Layers fill in what they learn; nobody decides anything by it. Every exchange, a refused one too, is ended once:
    each middleware that has an `ended(exchange)` method is called, in the order of the list.
    """

    id: str
    method: str
    path: str
    client: str
    started: float  # monotonic seconds
    timestamp: float  # Unix seconds
    operation: str = ""
    principal: Principal = ANONYMOUS
    request: Document | None = None
    model: str | None = None  # what the client asked for
    stream: bool = False
    session_id: str | None = None
    attempts: list[Attempt] = field(default_factory=list)
    degraded: bool = False
    status: int = 0  # what the client got
    error: BaseException | None = None
    first_content: float | None = None
    ended: float | None = None
    # Raw chunks, pieces of text that came one after the other as one, or the one raw completion:
    response: list[bytes] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)  # OpenTelemetry names; ours begin with gw.

    @property
    def attempt(self) -> Attempt | None:
        """The attempt that answered, or the last that tried."""
        return self.attempts[-1] if self.attempts else None


class NotThere(LookupError):
    """A middleware asked for what its place in the pipeline cannot have; the message says where to move it."""


class Request:
    """One request, in canonical form once its body is read. A value: `replace` makes the changed copy.

    `head_only` middleware sees `document` as None. Behind the step that reads the body, `chat` is the request as
    OpenAI's chat object; changing it in place is allowed and is what the provider will get.
    """

    __slots__ = (
        "body",
        "candidates",
        "client",
        "document",
        "exchange",
        "headers",
        "id",
        "method",
        "operation",
        "parameters",
        "path",
        "principal",
        "query",
    )

    def __init__(
        self,
        method: str,
        path: str,
        query: str = "",
        headers: Headers | None = None,
        client: str = "",
        id: str = "",
        body: Body | None = None,
    ) -> None:
        self.method = method
        self.path = path  # as sent, percent-encoding kept, without the query
        self.query = query
        self.headers = headers if headers is not None else Headers()
        self.client = client  # IP address of the socket
        self.id = id
        self.body = body
        self.operation = ""  # "chat", "models", "health", ...; set by the endpoint
        self.parameters = _NO_PARAMETERS  # from the path: {"backend": "openrouter-glm"}
        self.principal = ANONYMOUS
        self.document: Document | None = None
        self.candidates: Sequence[Candidate] = ()  # best first; the first is the one to ask
        # By position, here and where the server makes a Request: to name the arguments of a class costs half as much
        # again, since a dictionary is made of them.
        self.exchange = Exchange(id, method, path, client, time.monotonic(), time.time())

    @property
    def chat(self) -> dict[str, Any]:
        """The chat request, yours to change in place. NotThere before its body is read."""
        if self.document is None:
            raise NotThere(
                f"request {self.id} has no body yet: this middleware is head_only or stands before the last one that "
                "is; move it behind rate_limit in `pipeline`"
            )
        return self.document.data

    @property
    def is_stream(self) -> bool:
        """Whether the client asked for a stream."""
        return self.exchange.stream

    @property
    def candidate(self) -> Candidate:
        """The backend to ask now. NotThere where nobody chose one."""
        if not self.candidates:
            raise NotThere(f"request {self.id} has no candidate: put `route` before `translate` in `pipeline`")
        return self.candidates[0]

    def replace(self, **changes: Any) -> Request:
        """A copy with some fields changed; the exchange's record is shared."""
        copy = self.copy()
        for name, value in changes.items():
            setattr(copy, name, value)
        return copy

    def copy(self) -> Request:
        """The same request, to be changed without the other; the exchange's record is shared."""
        copy = Request.__new__(Request)
        # Written out: a loop over the slots costs three times as much, and every request is copied several times.
        copy.body = self.body
        copy.candidates = self.candidates
        copy.client = self.client
        copy.document = self.document
        copy.exchange = self.exchange
        copy.headers = self.headers
        copy.id = self.id
        copy.method = self.method
        copy.operation = self.operation
        copy.parameters = self.parameters
        copy.path = self.path
        copy.principal = self.principal
        copy.query = self.query
        return copy

    def __repr__(self) -> str:
        return f"<Request {self.id} {self.method} {self.path} {self.operation or 'unrouted'}>"


class Response:
    """One answer: a status, headers, and content that is bytes, a whole completion or a stream of chunks.

    Whoever holds one returns it or closes it (`aclose`).
    """

    __slots__ = ("content", "headers", "status", "summary")

    def __init__(
        self,
        content: bytes | Completion | Stream = b"",
        status: int = 200,
        headers: dict[str, str] | None = None,
        summary: Summary | None = None,
    ) -> None:
        self.status = status
        self.headers: dict[str, str] = headers if headers is not None else {}
        self.content = content
        self.summary = summary if summary is not None else Summary()

    async def aclose(self) -> None:
        """Free what a stream holds. Harmless for everything else."""
        if isinstance(self.content, Stream):
            await self.content.aclose()

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.content!r}>"
