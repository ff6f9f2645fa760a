"""Who goes on with a stream that broke: the same model elsewhere, whoever is listed, at last the same backend again."""

from __future__ import annotations

from collections.abc import Collection

from gw.backend import Backends
from gw.breaker import Breaker
from gw.continuation import Next, with_prefix
from gw.document import Document
from gw.errors import ClientGone, GatewayError
from gw.estimate import account, total_usage
from gw.message import Candidate, Response
from gw.outcome import is_client_gone
from gw.stream import Stream
from gw.walk import Walk

CONTINUES = "gw.continues"  # the attribute of an exchange whose stream broke and goes on elsewhere


class Successor:
    """Asks on for one stream, each backend once, and remembers who answered last. A `gw.continuation.AskOn`."""

    __slots__ = ("_asked", "_backends", "_breaker", "_failed", "_listed", "_walk")

    def __init__(
        self,
        walk: Walk,
        answering: Candidate,
        *,
        breaker: Breaker,
        backends: Backends,
        listed: Collection[str],
    ) -> None:
        """`listed` are the backends that go on from a prefix, whatever their model."""
        self._asked: set[str] = set()
        self._backends = backends
        self._breaker = breaker
        self._failed = answering
        self._listed = listed
        self._walk = walk

    async def __call__(self, text: str, error: GatewayError) -> Next:
        """Somebody who goes on from `text`. Raises `error` where nobody can."""
        walk, breaker, failed = self._walk, self._breaker, self._failed
        exchange = walk.request.exchange
        exchange.attributes[CONTINUES] = True
        attempt = walk.judged = exchange.attempt
        if attempt is not None and is_client_gone(attempt.error):
            attempt.error = error  # its stream was closed for what came of it: nobody has hung up
        account(exchange, self._backends)
        spent = total_usage(exchange)
        breaker.failed(failed.backend, error, is_last=walk.is_last_awake(failed.backend))
        for candidate in self._able():
            if not walk.has_time(candidate.backend):
                continue
            self._asked.add(candidate.backend.name)
            admission = breaker.admit(candidate.backend)
            if admission in ("open", "busy"):
                continue
            try:
                response = await self._ask(candidate, text)
            except GatewayError as later:
                breaker.failed(candidate.backend, later, is_last=walk.is_last_awake(candidate.backend))
                if isinstance(later, ClientGone):
                    raise
                continue
            finally:
                if admission == "probe":
                    breaker.release(candidate.backend)
            if isinstance(response.content, Stream):
                exchange.degraded = exchange.degraded or candidate.backend is not failed.backend
                self._failed = candidate
                return Next(response.content, failed.backend.name, candidate.backend.name, spent)
        raise error

    def _able(self) -> list[Candidate]:
        failed = self._failed
        able = [
            candidate
            for candidate in self._walk.candidates
            if candidate.backend is not failed.backend
            and (candidate.model == failed.model or candidate.backend.name in self._listed)
        ]
        return [candidate for candidate in (*able, failed) if candidate.backend.name not in self._asked]

    async def _ask(self, candidate: Candidate, text: str) -> Response:
        attempt = self._walk.attempt(candidate)
        assert attempt.document is not None, "the body is read before fallback"
        attempt.document = Document(value=with_prefix(attempt.document.peek(), text))
        return await self._walk.call_next(attempt)
