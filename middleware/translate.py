"""The seam at the end of the chain: the candidate's backend is asked, and its answer becomes canonical.

For a backend with an adapter it opens a codec, sends the codec's wire request down the wire side of the pipeline, and
feeds the provider's bytes back through the codec. A backend that answers by itself is simply asked. Either way a
stream is read ahead to its first content here and nowhere else, so that whatever fails before it is an ordinary
failure to the layers above. Each try is recorded in the exchange.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gw.adapter import Adapter, Codec, Provider, WholeBody, WireBody, WireHandler, WireRequest, WireResponse
from gw.attempt import MALFORMED, AnswerStream, TriedStream, end_attempt, not_understood
from gw.backend import IN_FLIGHT, Backend
from gw.document import Completion
from gw.errors import UpstreamError
from gw.losses import judge, told
from gw.message import Attempt, Candidate, Request, Response
from gw.places import Places
from gw.provider_limits import heed
from gw.secret import Secret
from gw.stream import Stream, begun

MAX_ERROR_BODY = 256 * 1024  # what is read of an error answer; providers' own are a few kilobytes


class Translate:
    """Last of the canonical side. `call_next` leads to the wire side and the provider."""

    side = "call"

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock

    async def __call__(self, request: Request, call_next: WireHandler) -> Response:
        candidate = request.candidate
        backend, clock = candidate.backend, self._clock
        adapter, provider = backend.adapter, backend.provider
        prepare = getattr(adapter, "prepare", None)
        attempt = Attempt(backend.name, candidate.model, clock())
        request.exchange.attempts.append(attempt)
        if backend.places is not None:
            await _enter(backend.places, attempt, clock)
        backend.health.held[IN_FLIGHT] += 1
        wire: WireRequest | None = None
        has_fresh_key = False
        try:
            if provider is not None:
                return await self._asked(provider, request, attempt)
            assert adapter is not None, f"backend {backend.name} has neither adapter nor provider"
            while True:  # one frame: hardly any request comes back here
                ready = _with_next_key(request) if candidate.key is None and backend.keys else request
                if prepare is not None:
                    ready = await prepare(ready)
                key = ready.candidates[0].key
                try:
                    codec = adapter.open(ready)
                    wire = codec.wire
                    attempt.summary, attempt.losses = codec.summary, codec.losses
                    if codec.losses:
                        judge(backend, codec.losses)
                    wire.backend, wire.request_id, wire.timeouts = backend.name, request.id, backend.timeouts
                    reply = await call_next(wire)
                    attempt.status = reply.status
                    heed(backend, reply.headers, key)
                    body = reply.body
                    if isinstance(body, WholeBody) and not wire.stream:
                        content: Completion | AnswerStream = _read(backend, codec, reply, body.content)
                    else:
                        content = await self._received(backend, codec, reply, attempt)
                except UpstreamError as error:
                    backend.judge_key(key, error)
                    # A token may be revoked before it expires: one fresh one is asked for, once.
                    if has_fresh_key or attempt.ended is not None or not _forgets(adapter, key, error):
                        raise
                    has_fresh_key = True
                else:
                    if not wire.stream:
                        end_attempt(attempt, backend, clock, None)
                    return Response(content, 200, told(codec.losses) if codec.losses else None, codec.summary)
        except BaseException as error:
            end_attempt(attempt, backend, clock, error, wire)
            raise

    async def _asked(self, provider: Provider, request: Request, attempt: Attempt) -> Response:
        """The answer of a backend that answers by itself."""
        backend = request.candidate.backend
        response = await provider.answer(request)
        attempt.summary = response.summary
        content = response.content
        if isinstance(content, Stream):
            response.content = TriedStream(await begun(content), attempt, backend, self._clock)
            attempt.first_content = self._clock()
        else:
            end_attempt(attempt, backend, self._clock, None)
        return response

    async def _received(
        self, backend: Backend, codec: Codec, reply: WireResponse, attempt: Attempt
    ) -> Completion | AnswerStream:
        """The answer of which something is still to come, up to its first content or to its end."""
        body = reply.body
        has_failed = not 200 <= reply.status < 300
        if codec.wire.stream and not has_failed:
            content = AnswerStream(backend, codec, body, attempt, self._clock)
            await content.begin()  # what its first events say of the key counts, too
            return content
        whole = body.content if isinstance(body, WholeBody) else await _read_whole(body, failed=has_failed)
        return _read(backend, codec, reply, whole)


def _read(backend: Backend, codec: Codec, reply: WireResponse, whole: bytes) -> Completion:
    """A whole answer, understood. Raises what it says went wrong."""
    try:
        if not 200 <= reply.status < 300:
            raise codec.fail(reply.status, reply.headers, whole)
        return codec.complete(whole)
    except MALFORMED as error:
        raise not_understood(backend, error) from error


def _with_next_key(request: Request) -> Request:
    """The request with the key whose turn it is."""
    first, *others = request.candidates
    ready = request.copy()
    # By its class: `replace` costs twice as much.
    key = first.backend.next_key()
    keyed = Candidate(first.backend, first.model, first.answers_as, first.reason, first.explicit, key)
    ready.candidates = (keyed, *others)
    return ready


def _forgets(adapter: Adapter, key: Secret | None, error: UpstreamError) -> bool:
    """Whether the adapter has put away a key that was refused, because it can fetch another."""
    forget = getattr(adapter, "refused_key", None)
    if forget is None or error.fault != "dead_key":
        return False
    forget(key)
    return True


async def _enter(places: Places, attempt: Attempt, clock: Callable[[], float]) -> None:
    try:
        attempt.queue_wait = await places.enter()
    except BaseException as error:
        attempt.ended, attempt.error = clock(), error
        raise


async def _read_whole(body: WireBody, *, failed: bool) -> bytes:
    pieces: list[bytes] = []
    size = 0
    try:
        while data := await body.read():
            pieces.append(data)
            size += len(data)
            if failed and size > MAX_ERROR_BODY:
                break
    finally:
        await body.aclose()
    return b"".join(pieces)
