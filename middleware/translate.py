"""The seam at the end of the chain: the candidate's backend is asked, and its answer becomes canonical.

For a backend with an adapter it opens a codec, sends the codec's wire request down the wire side of the pipeline, and
feeds the provider's bytes back through the codec. A backend that answers by itself is simply asked. Either way a
stream is read ahead to its first content here and nowhere else, so that whatever fails before it is an ordinary
failure to the layers above. Each try is recorded in the exchange.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from gw.adapter import Codec, WireBody, WireHandler, WireRequest, WireResponse
from gw.backend import Backend
from gw.document import Chunk, Completion
from gw.errors import ClientGone, InvalidRequest, Unavailable, UpstreamError, UpstreamProtocolError
from gw.message import Attempt, Candidate, Loss, Request, Response, Summary
from gw.places import Places
from gw.provider_limits import heed
from gw.stream import Stream, begun

logger = logging.getLogger("gw.translate")

MAX_ERROR_BODY = 256 * 1024  # what is read of an error answer; providers' own are a few kilobytes
_MALFORMED = (KeyError, IndexError, TypeError, AttributeError, ValueError)


class Translate:
    """Last of the canonical side. `call_next` leads to the wire side and the provider."""

    side = "call"

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock

    async def __call__(self, request: Request, call_next: WireHandler) -> Response:
        candidate = request.candidate
        attempt = Attempt(candidate.backend.name, candidate.model, self._clock())
        request.exchange.attempts.append(attempt)
        if candidate.backend.places is not None:
            await _enter(candidate.backend.places, attempt, self._clock)
        trial = _Trial(candidate.backend, attempt, self._clock)
        try:
            if candidate.backend.provider is not None:
                response = await candidate.backend.provider.answer(request)
                attempt.summary = response.summary
            else:
                response = await self._exchange(request, candidate, attempt, call_next)
            content = response.content
            if isinstance(content, Stream):
                response.content = _AttemptStream(await begun(content), trial)
                attempt.first_content = self._clock()
                if isinstance(content, _CodecStream):
                    content.commit()
            else:
                trial.end(None)
            return response
        except BaseException as error:
            trial.end(error)
            raise

    async def _exchange(
        self, request: Request, candidate: Candidate, attempt: Attempt, call_next: WireHandler
    ) -> Response:
        adapter = candidate.backend.adapter
        assert adapter is not None, f"backend {candidate.backend.name} has neither adapter nor provider"
        prepare = getattr(adapter, "prepare", None)
        forget = getattr(adapter, "refused_key", None)
        for is_last in (forget is None, True):
            ready = request
            if candidate.key is None and candidate.backend.keys:
                ready = request.replace(candidates=(candidate._replace(key=candidate.backend.next_key()),))
            if prepare is not None:
                ready = await prepare(ready)
            try:
                return await self._send(ready, adapter.open(ready), attempt, call_next)
            except UpstreamError as error:
                candidate.backend.judge_key(ready.candidate.key, error)
                # A token may be revoked before it expires: one fresh one is asked for, once.
                if is_last or error.fault != "dead_key" or forget is None:
                    raise
                forget(ready.candidate.key)
        raise AssertionError("unreachable")

    async def _send(self, request: Request, codec: Codec, attempt: Attempt, call_next: WireHandler) -> Response:
        backend = request.candidate.backend
        attempt.summary, attempt.losses = codec.summary, codec.losses
        _judge_losses(backend, codec.losses)
        wire = codec.wire
        wire.backend, wire.request_id, wire.timeouts = backend.name, request.id, backend.timeouts
        reply = await call_next(wire)
        attempt.status = reply.status
        heed(backend, reply.headers)
        if wire.stream and 200 <= reply.status < 300:
            response = Response(_CodecStream(backend, codec, reply.body), summary=codec.summary)
        else:
            response = Response(await _read_whole(wire, backend, codec, reply), summary=codec.summary)
        if codec.losses:
            response.headers["X-Gateway-Dropped"] = _pointers(codec.losses, "dropped")
            response.headers["X-Gateway-Changed"] = _pointers(codec.losses, "changed", "emulated")
            response.headers = {name: value for name, value in response.headers.items() if value}
        return response


async def _enter(places: Places, attempt: Attempt, clock: Callable[[], float]) -> None:
    try:
        attempt.queue_wait = await places.enter()
    except BaseException as error:
        attempt.ended, attempt.error = clock(), error
        raise


async def _read_whole(wire: WireRequest, backend: Backend, codec: Codec, reply: WireResponse) -> Completion:
    failed = not 200 <= reply.status < 300
    content = bytearray()
    try:
        while data := await reply.body.read():
            content += data
            if failed and len(content) > MAX_ERROR_BODY:
                break
    finally:
        await reply.body.aclose()
    try:
        if failed:
            raise codec.fail(reply.status, reply.headers, bytes(content))
        return codec.complete(bytes(content))
    except _MALFORMED as error:
        raise _not_understood(backend, error) from error


def _not_understood(backend: Backend, error: Exception) -> UpstreamProtocolError:
    logger.warning("backend %s sent what its adapter does not understand", backend.name, exc_info=error)
    return UpstreamProtocolError(f'backend "{backend.name}" sent an answer that is not what its API says')


def _judge_losses(backend: Backend, losses: Sequence[Loss]) -> None:
    if not losses or backend.on_loss == "allow":
        return
    first = losses[0]
    message = f'backend "{backend.name}" cannot carry {first.pointer} ({first.kind}): {first.detail or "not supported"}'
    if backend.on_loss == "reroute":
        raise Unavailable(message, status=400, type="invalid_request_error", code="unsupported_parameter")
    raise InvalidRequest(message, code="unsupported_parameter", param=first.pointer)


def _pointers(losses: Sequence[Loss], *kinds: str) -> str:
    """JSON pointers for a header: at most 2 KB, then a count. Field names are the client's, so they
    are written in visible ASCII only."""
    pointers = [
        loss.pointer.encode("ascii", "backslashreplace").decode().replace(",", "%2C").replace(" ", "%20")
        for loss in losses
        if loss.kind in kinds
    ]
    text = ", ".join("".join(c if " " <= c <= "~" else "?" for c in pointer) for pointer in pointers)
    return text if len(text) <= 2048 else f"{len(pointers)} fields"


class _Trial:
    """One attempt's bookkeeping: in flight from its start to its one end."""

    __slots__ = ("_attempt", "_backend", "_clock", "_ended")

    def __init__(self, backend: Backend, attempt: Attempt, clock: Callable[[], float]) -> None:
        self._backend = backend
        self._attempt = attempt
        self._clock = clock
        self._ended = False
        backend.health.in_flight += 1

    def end(self, error: BaseException | None) -> None:
        if self._ended:
            return
        self._ended = True
        self._backend.health.in_flight -= 1
        if self._backend.places is not None:
            self._backend.places.leave()
        self._attempt.ended = self._clock()
        self._attempt.error = error
        _price(self._backend, self._attempt)


def _price(backend: Backend, attempt: Attempt) -> None:
    summary: Summary = attempt.summary
    if summary.cost_usd is None and (attempt.error is None or summary.usage is not None):
        priced = backend.cost_of(summary.usage, attempt.model)
        if priced is not None:
            summary.cost_usd, summary.cost_source = priced


class _CodecStream(Stream):
    """A provider's bytes, read through its codec."""

    __slots__ = ("_backend", "_body", "_codec", "_done", "_has_begun")

    def __init__(self, backend: Backend, codec: Codec, body: WireBody) -> None:
        self._backend = backend
        self._codec = codec
        self._body = body
        self._done = False
        self._has_begun = False

    async def read(self) -> Sequence[Chunk]:
        if self._has_begun:
            self._body.commit()  # `idle` counts from here on, and no keep-alive of the provider resets it
        while not self._done:
            # Whoever has said its last word is not waited for, even if it keeps its connection open.
            data = b"" if self._codec.is_done else await self._body.read()
            try:
                if data:
                    chunks = self._codec.feed(data)
                else:
                    self._done = True
                    chunks = self._codec.finish()
            except _MALFORMED as error:
                raise _not_understood(self._backend, error) from error
            if self._done:
                await self._body.aclose()
            if chunks:
                return chunks
        return ()

    def commit(self) -> None:
        self._has_begun = True
        self._body.commit()

    async def aclose(self) -> None:
        self._done = True
        await self._body.aclose()


class _AttemptStream(Stream):
    """A stream that has begun, ending its attempt when it ends."""

    __slots__ = ("_stream", "_trial")

    def __init__(self, stream: Stream, trial: _Trial) -> None:
        self._stream = stream
        self._trial = trial

    async def read(self) -> Sequence[Chunk]:
        try:
            chunks = await self._stream.read()
        except BaseException as error:
            self._trial.end(error)
            await self._stream.aclose()
            raise
        if not chunks:
            self._trial.end(None)
        return chunks

    async def aclose(self) -> None:
        self._trial.end(ClientGone("the client hung up"))
        await self._stream.aclose()
