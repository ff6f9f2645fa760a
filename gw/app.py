"""The gateway assembled: one handler per operation, composed once from the list in gateway.toml.

    server -> App.handle -> [cors] -> errors are rendered -> auth -> rate_limit -> the body is read and checked
           -> route -> fallback -> log -> translate -> wire-side middleware -> transport -> provider

The bracketed order is that of the default `pipeline`; whatever the list says is what runs. Errors travel up as
exceptions and become an answer at one place, just inside `cors`. The body is read behind the last middleware that
decides on the head alone. Every exchange is ended once: metrics, the access line, and each middleware with `ended`.
"""

from __future__ import annotations

import logging
import math
import time
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from gw.adapter import WireHandler
from gw.attempt import close_open
from gw.endpoints.chat import KEEP_ALIVE, ChatCompletions
from gw.errors import ClientGone, GatewayError, InvalidRequest, NotFound, Unavailable
from gw.explain import explain
from gw.known_secrets import KnownSecrets
from gw.message import Attempt, Exchange, NotThere, Request, Response
from gw.near import near
from gw.outcome import status_of
from gw.paths import (
    MODEL_OPERATIONS,
    OPERATIONS,
    ROUTE,
    UNKNOWN,
    find_page,
    known_paths,
)
from gw.pipeline import Handler, MiddlewareError, compose, guarded, is_head_only, operations, side
from gw.server import Reply

if TYPE_CHECKING:
    from gw.endpoints.status import StatusPages

logger = logging.getLogger("gw.app")


class App:
    """`handle` answers one request. Made of the pipeline's (name, middleware) pairs, outermost first."""

    def __init__(
        self,
        layers: Sequence[tuple[str, Any]],
        pages: StatusPages,
        transport: WireHandler,
        recorders: Sequence[Callable[[Exchange], None]] = (),
        secrets: KnownSecrets | None = None,
        *,
        keep_alive: float = KEEP_ALIVE,
    ) -> None:
        """`keep_alive` are the seconds of silence after which a stream gets a comment."""
        self._secrets = secrets or KnownSecrets()
        self._layers = [(name, layer if _is_ours(layer) else _guarded(name, layer)) for name, layer in layers]
        self._pages = pages
        self._chat = ChatCompletions(keep_alive=keep_alive, secrets=self._secrets)
        # Who is told of an exchange that has ended, with the attribute without which it is none of their business.
        self._records = [
            *((None, recorder) for recorder in recorders),
            *((getattr(layer, "ended_with", None), layer.ended) for _, layer in layers if hasattr(layer, "ended")),
        ]
        self._settle = [layer.settle for _, layer in layers if getattr(layer, "settle", None) is not None]
        self._terminal = self._seam(transport)
        self._handlers = {operation: self._compose(operation) for operation in OPERATIONS}
        self.is_stopping: Callable[[], bool] = bool  # whether what is in flight is being broken off; the server knows

    # --- composing, once ----------------------------------------------------------------------------------------

    def _seam(self, transport: WireHandler) -> Handler:
        """`translate` around the wire side around the transport."""
        names = [name for name, _ in self._layers]
        if "translate" not in names:
            raise ValueError("the pipeline has no translate: nothing would ever reach a backend")
        wire = compose([layer for _, layer in self._layers if side(layer) == "wire"], transport)
        return compose([self._layers[names.index("translate")][1]], wire)

    def _compose(self, operation: str) -> Handler:
        named = [
            (name, layer)
            for name, layer in self._layers
            if name != "translate" and side(layer) == "call" and _is_for(layer, operation) and not _is_idle(layer)
        ]
        outer = [name for name, _ in named].index("cors") + 1 if "cors" in dict(named) else 0
        layers = [layer for _, layer in named]
        if operation in MODEL_OPERATIONS:
            last = max((index for index, layer in enumerate(layers) if is_head_only(layer)), default=-1)
            inner = self._reading(compose(layers[last + 1 :], self._terminal))
            layers = layers[: max(outer, last + 1)]
        elif operation == ROUTE:
            inner = self._reading(self._explain)
        else:
            inner = self._page
        handler = compose(layers[outer:], inner)
        return compose(layers[:outer], self._rendering(handler)) if outer else handler

    def _reading(self, inner: Handler) -> Handler:
        decode, at_once, answer = self._chat.decode, self._chat.decode_at_once, self._chat.answer

        async def read_on(request: Request, is_read: bool) -> Response:
            if not is_read:
                await decode(request)
            return await (answer(request, inner) if request.exchange.stream else inner(request))

        def read_body(request: Request) -> Awaitable[Response]:
            is_read = at_once(request)
            return inner(request) if is_read and not request.exchange.stream else read_on(request, is_read)

        return read_body

    def _rendering(self, inner: Handler) -> Handler:
        async def render_errors(request: Request) -> Response:
            try:
                return await inner(request)
            except Exception as error:
                return self._rendered(request, error)

        return render_errors

    def _rendered(self, request: Request, error: Exception) -> Response:
        request.exchange.error = error
        if not isinstance(error, GatewayError):
            # The root of the request: a fault of ours, or of somebody's middleware, is told and logged here.
            logger.error("request %s failed in the gateway", request.id, exc_info=error)
            error = GatewayError(_what_failed(error))
        return error_response(error, self._secrets)

    # --- answering -----------------------------------------------------------------------------------------------

    async def handle(self, request: Request) -> Reply:
        """Answer one request. CancelledError passes through, recorded as the client's leaving."""
        _, operation, methods, request.parameters = find_page(request.path)
        exchange = request.exchange
        request.operation = exchange.operation = operation
        try:
            try:
                response = await self._handlers[operation if request.method in methods else UNKNOWN](request)
            except Exception as error:
                response = self._rendered(request, error)
            exchange.status = response.status
            timing = ""
            if exchange.attempts:
                timing = f"Server-Timing: {server_timing(exchange, time.monotonic())}\r\n"
                response.headers.pop("Server-Timing", None)
            reply = self._chat.encode(exchange, response, self._end, timing)
        except BaseException as error:  # a hang-up, or what cannot be written as JSON
            exchange.status = status_of(error) or ClientGone.status
            waiting = self._end(exchange, error)
            if waiting is not None:
                await waiting
            raise
        if reply is None:
            reply = Reply(response.status, response.headers.items(), response.content, "", timing)  # type: ignore[arg-type]
        if isinstance(reply.body, bytes):
            waiting = self._end(exchange, exchange.error)
            if waiting is not None:
                await waiting
        return reply

    def refused(self, client: str, error: GatewayError, request_id: str) -> None:
        """Record what the server refused by itself: it never became a request, and has its row all the same."""
        now = time.monotonic()
        exchange = Exchange(
            id=request_id, method="", path="", client=client, started=now, timestamp=time.time(), operation=UNKNOWN
        )
        exchange.status, exchange.error, exchange.ended = error.status, error, now
        self._record(exchange)

    def _end(self, exchange: Exchange, error: BaseException | None) -> Awaitable[None] | None:
        """Record an exchange that is over. What is to be awaited before its last bytes go out, if anything."""
        for attempt in exchange.attempts:
            if attempt.open is not None:
                return self._closed(exchange, error)
        exchange.ended = time.monotonic()
        if error is not None:
            if isinstance(error, ClientGone | CancelledError) and self.is_stopping():
                # It is not the client that left: the grace is over, and what is left is broken off.
                error = Unavailable("the gateway was stopped before the answer had ended", code="stopped")
                exchange.status = error.status
            elif isinstance(error, ClientGone):
                exchange.status = ClientGone.status
            exchange.error = error
        if exchange.first_content is None and exchange.attempts:
            exchange.first_content = exchange.attempts[-1].first_content
        self._record(exchange)
        return self._settled(exchange) if self._settle else None

    async def _closed(self, exchange: Exchange, error: BaseException | None) -> None:
        try:
            await close_open(exchange, error)
        finally:
            waiting = self._end(exchange, error)
        if waiting is not None:
            await waiting

    async def _settled(self, exchange: Exchange) -> None:
        for settle in self._settle:
            await settle(exchange)

    def _record(self, exchange: Exchange) -> None:
        attributes = exchange.attributes
        for mark, record in self._records:
            if mark is None or mark in attributes:
                try:
                    record(exchange)
                except Exception:
                    logger.exception("request %s could not be recorded", exchange.id)
        if exchange.error is not None or len(exchange.attempts) > 1:
            _let_frames_go(exchange)

    async def _explain(self, request: Request) -> Response:
        route = dict(self._layers)["route"]
        page = explain(await route.enter(request), route.router, self._pages.backends, self._secrets)
        return Response(orjson.dumps(page), headers={"Content-Type": "application/json"})

    async def _page(self, request: Request) -> Response:
        page = find_page(request.path)
        if page.operation == UNKNOWN:
            hint = near(request.path, known_paths())
            raise NotFound(f"nothing is served at {request.path!r}{hint}", code="not_found")
        if request.method not in page.methods:
            allow = ", ".join([*page.methods, "OPTIONS"])
            if request.method == "OPTIONS":
                return Response(status=204, headers={"Allow": allow})
            raise InvalidRequest(
                f"{request.path} takes {' and '.join(page.methods)}, not {request.method[:20]}",
                status=405,
                code="method_not_allowed",
                headers={"Allow": allow},
            )
        handler: Callable[[Request], Awaitable[Response]] = getattr(self._pages, page.name)
        return await handler(request)


def server_timing(exchange: Exchange, now: float) -> str:
    """Milliseconds up to the head of the answer: in all, and of them waiting for providers (W3C Server-Timing)."""
    waited = 0.0
    for attempt in exchange.attempts:
        waited += (attempt.first_content or attempt.ended or now) - attempt.started
    return "total;dur=%.2f, upstream;dur=%.2f" % ((now - exchange.started) * 1000, waited * 1000)  # noqa: UP031 (a fifth faster)


def _let_frames_go(exchange: Exchange) -> None:
    """Part what failed from the frames that it came through: they hold the exchange, which holds it.

    Only the collector would free both, the request's body with them; it cost a refused request a sixth of its time.
    Anything but a GatewayError may still be on its way to somebody who logs where it came from.
    """
    holders: list[Exchange | Attempt] = [exchange, *exchange.attempts]
    for holder in holders:
        error = holder.error
        if isinstance(error, CancelledError):
            holder.error = CancelledError()  # the one that came goes on through frames yet
        elif isinstance(error, GatewayError):
            told: list[BaseException] = [error]
            for each in told:  # it grows meanwhile
                each.__traceback__ = None
                told += [why for why in (each.__cause__, each.__context__) if why is not None and why not in told]


def _is_ours(layer: Any) -> bool:
    module = layer.__module__ if hasattr(layer, "__qualname__") else type(layer).__module__
    return str(module).startswith("gw.")


def _guarded(name: str, layer: Any) -> Any:
    """The guard, with what the middleware says of itself carried over."""
    guard = guarded(name, layer) if side(layer) == "call" else layer
    for attribute in ("head_only", "side", "operations", "ended", "settle"):
        if hasattr(layer, attribute):
            setattr(guard, attribute, getattr(layer, attribute))
    return guard


def _is_idle(layer: Any) -> bool:
    """Whether it says of itself that its options leave it nothing to do: it is left out of the chain."""
    return bool(getattr(layer, "is_idle", False))


def _is_for(layer: Any, operation: str) -> bool:
    named = operations(layer)
    return operation in MODEL_OPERATIONS if named is None else "*" in named or operation in named


def _what_failed(error: Exception) -> str:
    if isinstance(error, MiddlewareError | NotThere):
        return str(error)
    return "the gateway failed; the log has the reason under this request's id"


def error_response(error: GatewayError, secrets: KnownSecrets) -> Response:
    """OpenAI's error object with its status, `Retry-After` and whatever headers the layers gave it."""
    headers = {"Content-Type": "application/json", **error.headers}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return Response(orjson.dumps(secrets.body(error)), status=error.status, headers=headers)
