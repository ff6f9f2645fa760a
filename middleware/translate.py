"""The seam at the end of the chain: the candidate's backend is asked, and its answer becomes canonical.

For a backend with an adapter it opens a codec, sends the codec's wire request down the wire side of the pipeline, and
feeds the provider's bytes back through the codec. A backend that answers by itself is simply asked. Either way a
stream is read ahead to its first content here and nowhere else, so that whatever fails before it is an ordinary
failure to the layers above. Each try is recorded in the exchange.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gw.adapter import Codec, WholeBody, WireBody, WireHandler
from gw.backend import Backend
from gw.document import Completion
from gw.errors import UpstreamError
from gw.losses import judge, told
from gw.message import Attempt, Candidate, Request, Response
from gw.places import Places
from gw.provider_limits import heed
from gw.secret import Secret
from gw.stream import Stream, begun
from gw.trial import MALFORMED, AnswerStream, Trial, TriedStream, not_understood

MAX_ERROR_BODY = 256 * 1024  # what is read of an error answer; providers' own are a few kilobytes


class Translate:
    """Last of the canonical side. `call_next` leads to the wire side and the provider."""

    side = "call"

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock

    async def __call__(self, request: Request, call_next: WireHandler) -> Response:
        candidate = request.candidate
        backend = candidate.backend
        attempt = Attempt(backend.name, candidate.model, self._clock())
        request.exchange.attempts.append(attempt)
        if backend.places is not None:
            await _enter(backend.places, attempt, self._clock)
        trial = Trial(backend, attempt, self._clock)
        try:
            if backend.provider is None:
                response = await self._exchange(request, candidate, trial, call_next)
            else:
                response = await backend.provider.answer(request)
                attempt.summary = response.summary
            content = response.content
            if not isinstance(content, Stream):
                trial.end(None)
            elif not isinstance(content, AnswerStream):
                response.content = TriedStream(await begun(content), trial)
                trial.has_content()
            return response
        except BaseException as error:
            trial.end(error)
            raise

    async def _exchange(self, request: Request, candidate: Candidate, trial: Trial, call_next: WireHandler) -> Response:
        backend = candidate.backend
        adapter = backend.adapter
        assert adapter is not None, f"backend {backend.name} has neither adapter nor provider"
        prepare = getattr(adapter, "prepare", None)
        forget = getattr(adapter, "refused_key", None)
        for is_last in (forget is None, True):
            ready = request
            if candidate.key is None and backend.keys:
                ready = request.replace(candidates=(_with_key(candidate, backend.next_key()),))
            if prepare is not None:
                ready = await prepare(ready)
            try:
                codec = adapter.open(ready)
                wire = trial.wire = codec.wire
                _note(request, backend, codec, trial.attempt)
                reply = await call_next(wire)
                trial.attempt.status = reply.status
                heed(backend, reply.headers, ready.candidate.key)
                content: Completion | AnswerStream
                if wire.stream and 200 <= reply.status < 300:
                    content = AnswerStream(backend, codec, reply.body, trial)
                    await content.begin()  # what its first events say of the key counts, too
                else:
                    failed = not 200 <= reply.status < 300
                    body = reply.body
                    whole = body.content if isinstance(body, WholeBody) else await _read_whole(body, failed=failed)
                    try:
                        if failed:
                            raise codec.fail(reply.status, reply.headers, whole)
                        content = codec.complete(whole)
                    except MALFORMED as error:
                        raise not_understood(backend, error) from error
                return Response(content, 200, told(codec.losses) if codec.losses else None, codec.summary)
            except UpstreamError as error:
                backend.judge_key(ready.candidate.key, error)
                # A token may be revoked before it expires: one fresh one is asked for, once.
                if is_last or trial.is_over or error.fault != "dead_key" or forget is None:
                    raise
                forget(ready.candidate.key)
        raise AssertionError("unreachable")


def _with_key(candidate: Candidate, key: Secret | None) -> Candidate:
    backend, model, answers_as, reason, explicit, _ = candidate
    return Candidate(backend, model, answers_as, reason, explicit, key)


def _note(request: Request, backend: Backend, codec: Codec, attempt: Attempt) -> None:
    """Tell the attempt what its codec knows, and the wire request whose it is. Raises for what must not be lost."""
    attempt.summary, attempt.losses = codec.summary, codec.losses
    if codec.losses:
        judge(backend, codec.losses)
    wire = codec.wire
    wire.backend, wire.request_id, wire.timeouts = backend.name, request.id, backend.timeouts


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
