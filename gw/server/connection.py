"""One client's connection: its requests one after the other, each in a task of its own, each with one answer."""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import cast

from gw.errors import ClientGone, GatewayError, InvalidRequest
from gw.message import Body, Request
from gw.outcome import is_being_cancelled
from gw.server.body import NO_BODY, Counted, Framing, IncomingBody, WholeBody
from gw.server.halfclose import watch
from gw.server.head import any_head, check_partial
from gw.server.response import LAST_CHUNK, Reply, error_reply, reply_head
from gw.server.state import State, too_busy
from gw.server.wire import Wire
from gw.stream import ByteStream

log = logging.getLogger("gw.server")

_BLANK = b"\r\n\r\n"  # ends a head
_AHEAD = 64 * 1024  # bytes behind the current request that are read before their turn
_BODILESS = (204, 304)  # RFC 9110 6.4.1


class Connection(Wire):
    """Bytes in, answers out, strictly in order. Small while idle: h11 is asked for per request, and only if needed."""

    __slots__ = ("_buffer", "_incoming", "_scanned", "task")

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self._buffer = b""  # bytes of a request that has not begun
        self._scanned = 0  # how much of it holds no end of a head
        self._incoming: IncomingBody | None = None
        self.task: asyncio.Task[None] | None = None

    # --- called by the event loop -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        refusal = self._state.enter(self, self.address)
        if refusal is not None:
            self._refuse(refusal, self._state.new_id())
        else:
            self.wait("idle", self._state.limits.idle_timeout)

    def data_received(self, data: bytes) -> None:
        if self.task is None:
            if self.is_closing:
                self.discard(len(data))
            else:
                self._buffer = self._buffer + data if self._buffer else data
                self._begin()
        elif self._incoming is not None and not self._incoming.is_complete:
            self._incoming.arrived(data)
        else:
            self._buffer += data
            self._hold()

    def eof_received(self) -> bool:
        self.has_ended = True
        self._transport.flush()  # the loop closes what it knows of, and would leave out what is held back
        if self.task is None or not self._transport.can_write_eof():  # TLS knows no half-closed connection
            return False
        if self._incoming is not None:
            self._incoming.cut_short()
        watch(self, self._transport, self._loop)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self.stop_waiting()
        if self._incoming is not None:
            self._incoming.fail(ClientGone("the client hung up"))
        if self.stage == "over":
            self.resume_writing()
        elif self.task is not None:
            # Not at once: a task that is cancelled before its first step never runs, and nobody would record it.
            self._loop.call_soon(self.task.cancel)
        self._state.leave(self, self.address)

    # --- called by the server -----------------------------------------------------------------------------------

    def expire(self) -> None:
        """The deadline has passed."""
        waiting = self._waiting
        self.stop_waiting()
        if waiting == "head":
            seconds = self._state.limits.head_timeout
            error = InvalidRequest(
                f"the head of the request did not come within {seconds:g} s", status=408, code="request_timeout"
            )
            self._refuse(error, self._state.new_id())
        elif waiting == "body" and self._incoming is not None:
            self._incoming.expire()
        elif waiting == "idle":
            self.close()
        elif waiting == "linger":
            self._transport.abort()
        else:
            self.abort()

    def drain(self) -> None:
        """Close now where no request is on its way; each answer from now on is the last."""
        if self.task is None and not self._buffer and not self.is_closing:
            self.close()

    # --- a request comes in -------------------------------------------------------------------------------------

    def _begin(self) -> None:
        buffer = self._buffer
        end = buffer.find(_BLANK, self._scanned)  # one that dribbles in is not read from its start
        if end < 0:
            self._wait_for_head()
            return
        self._scanned = 0
        end += len(_BLANK)
        head, rest = buffer[:end], buffer[end:]
        state = self._state
        try:
            plain = state.plain_heads.read(head) if state.plain_heads is not None else None
            method, path, query, headers, length, is_old, framing, request_id = plain or any_head(head, state.limits)
            if framing is None and length <= len(rest):
                if length < len(rest) or self._is_paused:
                    self.body_ended(rest[length:])
                    rest = rest[:length]
                else:
                    self._buffer = b""
                body: Body = WholeBody(rest) if rest else NO_BODY
            else:
                reader: Framing = Counted(length)
                if framing is not None:
                    from gw.server.read_by_h11 import ReadByH11  # h11 is here by now

                    reader = ReadByH11(framing, length, len(head), state.limits)
                body = self._body_of(reader, rest)
        except GatewayError as error:
            self._refuse(error, state.new_id(), without_body=head.startswith(b"HEAD "))
            return
        if not request_id:
            request_id = state.new_id()
        if state.in_flight >= state.limits.max_in_flight:
            self._refuse(too_busy("requests are in flight", "overloaded"), request_id, without_body=method == "HEAD")
            return
        state.in_flight += 1
        self.is_old = is_old
        self.stage = "none"
        self._waiting = ""
        self.deadline = inf
        request = Request(method, path, query, headers, self.address, request_id, body)
        self.task = self._loop.create_task(self._exchange(request))

    def _wait_for_head(self) -> None:
        buffer, limits = self._buffer, self._state.limits
        try:
            check_partial(buffer, self._scanned, limits)
        except GatewayError as error:
            self._refuse(error, self._state.new_id(), without_body=buffer.startswith(b"HEAD "))
            return
        if self.has_ended:
            self.close()
            return
        self._scanned = max(0, len(buffer) - 3)
        if self._waiting != "head":
            self.wait("head", limits.head_timeout)
        self.resume()

    def _body_of(self, framing: Framing, begin: bytes) -> Body:
        """A body that is not all here, or not plain to see; what comes behind it goes back into the buffer."""
        self._buffer = b""
        body = self._incoming = IncomingBody(self, framing, self._state.limits)
        if begin:
            body.arrived(begin)
        body.settle()
        if self.has_ended:
            body.cut_short()
        if not body.is_complete:
            self.resume()
        return body

    def body_ended(self, surplus: bytes) -> None:
        """The body is complete; `surplus` belongs to the next request."""
        self._buffer = surplus
        if surplus or self._is_paused:
            self._hold()

    def _hold(self) -> None:
        """The next request waits its turn; a little of it here, so that a hang-up is seen, the rest in the kernel."""
        if len(self._buffer) > _AHEAD:
            self.pause()
        else:
            self.resume()

    def _refuse(self, error: GatewayError, request_id: str, *, without_body: bool = False) -> None:
        """Answer what never reaches the handler. It is the last answer: bytes behind it get none."""
        reply = error_reply(error)
        body = cast(bytes, reply.body)
        head = reply_head(reply, request_id, len(body), keep_alive=False)
        self._transport.write(head if without_body else head + body)
        if self._state.refused is not None:
            self._state.refused(self.address, error, request_id)
        self._buffer = b""
        self._incoming = None
        self.linger()

    # --- its answer goes out ------------------------------------------------------------------------------------

    async def _exchange(self, request: Request) -> None:
        """Answer one request. Whatever happens, the client gets one answer or a broken connection, never silence."""
        keep: bool | None = None
        try:
            try:
                reply = await self._state.handler(request)
                body = reply.body
            except asyncio.CancelledError as error:
                if self.is_lost or is_being_cancelled():
                    raise
                reply, body = _failed(request, error)
            except Exception as error:
                reply, body = _failed(request, error)
            if isinstance(body, bytes):
                keep = self._write_whole(request, reply, body)
            else:
                keep = await self._write_stream(request, reply, body)
            if self.writable is not None:
                await self.writable
        except Exception:
            log.exception("request %s: the answer could not be written", request.id)
        finally:
            self.task = None
            state = self._state
            state.in_flight -= 1
            if state.draining:
                state.settle()
            if not self.is_lost:
                if keep is None:
                    self.abort()
                elif keep:
                    self._next()
                else:
                    self._finish()

    def _write_whole(self, request: Request, reply: Reply, body: bytes) -> bool:
        """Write an answer in one go. Returns whether the connection can be kept."""
        keep = self._can_keep()
        length = None if reply.status in _BODILESS else len(body)
        try:
            head = reply_head(reply, request.id, length, keep_alive=keep)
        except (ValueError, TypeError) as error:  # TypeError: what is no text at all
            reply, body = _failed(request, error)
            length = len(body)
            head = reply_head(reply, request.id, length, keep_alive=keep)
        self.stage = "over"
        if not self.is_lost:
            self._transport.write(head, b"" if length is None or request.method == "HEAD" else body)
        return keep

    async def _write_stream(self, request: Request, reply: Reply, stream: ByteStream) -> bool | None:
        """Write a stream as it comes, and close it. None: the connection has to be broken.

        A stream that fails before its first bytes is an error like any other; later its end must not look complete.
        """
        try:
            try:
                return await self._pump(request, reply, stream)
            finally:
                has_begun, self.stage = self.stage == "stream", "over"
                await stream.aclose()
        except Exception as error:
            if not has_begun:
                return self._write_whole(request, *_failed(request, error))
            if isinstance(error, GatewayError):
                log.info("request %s: its stream broke: %s", request.id, error.message)
            else:
                log.error("request %s: its stream failed", request.id, exc_info=error)
            # Chunks that came are delivered, the last one is missing. HTTP/1.0 has only a reset to tell it by.
            return None if self.is_old else False

    async def _pump(self, request: Request, reply: Reply, stream: ByteStream) -> bool:
        is_bodiless = request.method == "HEAD" or reply.status in _BODILESS
        write = self.send if self.is_old else self._send_chunk
        data = b"" if is_bodiless else await stream.read()
        keep = self._can_keep()
        chunked = not self.is_old and reply.status not in _BODILESS
        head = reply_head(reply, request.id, None, keep_alive=keep, chunked=chunked)
        self.stage = "stream"
        self.send(head)
        if is_bodiless:
            return keep
        if (pass_on_to := getattr(stream, "pass_on_to", None)) is not None:
            pass_on_to(self.send if self.is_old else self._send_chunk_at_once, self)
        while data:
            write(data)
            if self.writable is not None:
                data = b""  # whoever reads slowly has it once, in the transport's buffer
                await self.writable
            data = await stream.read()
        if not self.is_old:
            self.send(LAST_CHUNK)
        return keep

    def _send_chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def _send_chunk_at_once(self, data: bytes) -> None:
        # Events that come one by one seldom share a turn of the loop: to wait for its end would cost a third more.
        if not self.is_lost:
            self._transport.write_at_once(b"%x\r\n%b\r\n" % (len(data), data))

    def _can_keep(self) -> bool:
        """Whether another request may come behind the answer that is about to go out."""
        if self._incoming is not None:
            try:
                self._incoming.settle()
            except GatewayError:
                return False
            if not self._incoming.keep_alive:
                return False
        return not self._state.draining and not (self.has_ended and not self._buffer)

    # --- between and after requests -----------------------------------------------------------------------------

    def _next(self) -> None:
        self._incoming = None
        if self._buffer:
            self._begin()
        elif self._state.draining or self.has_ended:
            self.close()
        else:
            if self._is_paused:
                self.resume()
            self.wait("idle", self._state.limits.idle_timeout)

    def _finish(self) -> None:
        """The last answer is out."""
        is_read = (self._incoming is None or self._incoming.is_complete) and not self._buffer
        self._buffer = b""
        self._incoming = None
        if is_read or self.has_ended:
            self.close()
        else:
            self.linger()


def _failed(request: Request, error: BaseException) -> tuple[Reply, bytes]:
    """The answer to a request whose handler raised."""
    if not isinstance(error, GatewayError):
        log.error("request %s: the handler failed", request.id, exc_info=error)
        error = GatewayError(f"internal error: the gateway's log has it under request {request.id}")
    reply = error_reply(error)
    return reply, cast(bytes, reply.body)
