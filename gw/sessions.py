"""Conversations that go on by `session_id`, on any backend: rebuilt from the request log, one turn at a time.

Every chat that was answered can be continued, so a session costs nothing until it is. It belongs to the key that began
it, and goes to the backend and the folder where it was.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from gw.document import Document
from gw.errors import GatewayError, InvalidRequest, NotFound, Unavailable
from gw.message import Candidate, Exchange, Request
from gw.request_log import CannotWrite
from gw.session_ids import new_id

if TYPE_CHECKING:
    from gw.request_log.conversations import Conversations, Listed, Past
    from gw.settings import SessionOptions
    from gw.shared import Rows, Shared

BACKEND = "gw.session.backend"  # the attribute of an exchange that says where its session was answered last
HELD = "gw.session.held"  # ... that its session is its own until it ends
STRIPES = 4096  # of the sessions that other workers may be busy with; two that meet wait for each other
PATIENCE = 0.2  # seconds in which the log takes a turn that has ended
LOOK = 0.02  # seconds between two looks at what another worker is busy with


class History(Protocol):
    """The request log, as far as sessions need it."""

    @property
    def conversations(self) -> Conversations | None:
        """What it has kept; None where it does not keep whole conversations."""

    async def flush(self) -> None:
        """Wait until everything that has ended is written."""


@dataclass(eq=False, repr=False)
class _Turnstile:
    """Who is in a session, and who waits for it."""

    users: int = 0
    running: int = 0  # turns that have not ended; the last one of the others waits for the log
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Sessions:
    """`[sessions]`. Without a log (`attach`) no session can be continued, and none is begun."""

    def __init__(self, options: SessionOptions, shared: Shared, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._history: History | None = None
        self._kept: Conversations | None = None
        self._options = options
        self._shared = shared
        self._wall_clock = wall_clock
        self._turnstiles: dict[tuple[str, str], _Turnstile] = {}
        self._stripes: Rows | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_enabled(self) -> bool:
        """Whether answers carry a `session_id` that works."""
        return self._kept is not None

    def attach(self, history: History) -> None:
        """Read what has been said from here."""
        if self._options.enabled:
            self._history, self._kept = history, history.conversations

    async def __aenter__(self) -> Sessions:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- a turn -----------------------------------------------------------------------------------------------------

    def begin(self, request: Request) -> bool:
        """Give an exchange that names no session a new one. False where it names one: it has to `enter`."""
        exchange = request.exchange
        if self._kept is None or request.document is None:
            return True
        if exchange.session_id is None:
            exchange.session_id = new_id(exchange.timestamp)
            return True
        return request.document.peek().get("session_id") is None  # else it is that of a try before this one

    async def enter(self, request: Request) -> Request:
        """The request with all that its session has said before it; a new session where it names none.

        Raises NotFound (`session_not_found`) for one that is not this key's, InvalidRequest (409 `session_busy`) where
        another turn of it is under way and `same_session` is "reject". `ended` must follow.
        """
        exchange = request.exchange
        if self.begin(request) or exchange.session_id is None:
            return request
        await self._hold(exchange)
        return self._told(request, await self._past(exchange.session_id, request.principal.name))

    async def seen(self, request: Request) -> Request:
        """The request as `enter` would make it, for an explanation: nothing is begun, and nobody waits.

        Raises NotFound (`session_not_found`) for a session that is not this key's.
        """
        session_id = request.exchange.session_id
        if not self.is_enabled or request.document is None or session_id is None:
            return request
        return self._told(request, await self._past(session_id, request.principal.name))

    @staticmethod
    def _told(request: Request, past: Past) -> Request:
        """The request with all that its session has said before it, at the place where it was."""
        assert request.document is not None
        request.exchange.attributes[BACKEND] = past.backend
        chat = dict(request.document.peek())
        chat.pop("session_id", None)
        messages = chat["messages"]
        if not past.is_within(messages):
            chat["messages"] = [*past.messages, *messages]
        if past.model and not chat.get("model"):
            chat["model"] = past.model
        if past.working_directory and not chat.get("working_directory"):
            chat["working_directory"] = past.working_directory
        return request.replace(document=Document(value=chat))

    def ended(self, exchange: Exchange) -> None:
        """Let the next turn of the session in, once the log has this one."""
        key = exchange.attributes.pop(HELD, None)
        if key is not None:
            self._give_back(key)

    @staticmethod
    def prefer(
        request: Request, candidates: Sequence[Candidate], decide: Callable[[Request], Sequence[Candidate]]
    ) -> Sequence[Candidate]:
        """The candidates with the session's own backend first, unless the client named another one.

        `decide` tells the candidates for a request that names a backend; where that one cannot answer any more, the
        others do.
        """
        name = request.exchange.attributes.get(BACKEND)
        if name is None or not candidates or candidates[0].explicit or candidates[0].backend.name == name:
            return candidates
        mine = next((candidate for candidate in candidates if candidate.backend.name == name), None)
        if mine is not None:  # with the model that a rule asks it for
            mine = replace(mine, answers_as=request.exchange.model or mine.model)
        else:
            try:
                mine = decide(request.replace(parameters={"backend": name}))[0]
            except GatewayError:
                return candidates
        others = [replace(c, answers_as=c.model) for c in candidates if c.backend is not mine.backend]
        return [replace(mine, explicit=False, reason="the session's own backend"), *others]

    async def _past(self, session_id: str, key: str) -> Past:
        """What it has said. The log may still have its last turn in hand, here or in another worker."""
        conversations = self._conversations()
        for waits in (self._flushed, self._others_have_written, None):
            past: Past | None = await self._asked(lambda: conversations.past(session_id, key))
            if past is not None and past.updated >= self._oldest():
                return past
            if past is not None or waits is None:
                break
            await waits()
        raise not_found(session_id)

    async def _flushed(self) -> None:
        if self._history is not None:
            await self._history.flush()

    async def _others_have_written(self) -> None:
        if len(self._rows().rows) > 1:
            await asyncio.sleep(PATIENCE)

    # --- one at a time ----------------------------------------------------------------------------------------------

    async def _hold(self, exchange: Exchange) -> None:
        key = (exchange.principal.name, str(exchange.session_id))
        if exchange.attributes.get(HELD) == key:
            return  # a middleware before `route` has called on a second time: it is the same turn
        await self._take(key)
        exchange.attributes[HELD] = key

    async def _take(self, key: tuple[str, str]) -> None:
        """Have a session for oneself; `_give_back` must follow."""
        turnstile = self._turnstiles.setdefault(key, _Turnstile())
        if turnstile.running and self._options.same_session == "reject":
            raise busy(key[1])
        turnstile.users += 1
        turnstile.running += 1
        try:
            await turnstile.lock.acquire()
            try:
                await self._hold_stripe(key)
            except BaseException:
                turnstile.lock.release()
                raise
        except BaseException:
            turnstile.running -= 1
            self._leave(key, turnstile)
            raise

    def _give_back(self, key: tuple[str, str]) -> None:
        """Let the next one in, once the log has what was said."""
        self._turnstiles[key].running -= 1
        task = asyncio.get_running_loop().create_task(self._release(key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hold_stripe(self, key: tuple[str, str]) -> None:
        """The same among the workers, where there are several."""
        rows = self._rows()
        if len(rows.rows) == 1:
            return
        stripe = _stripe_of(key)
        patience = PATIENCE / LOOK
        while True:
            with rows.lock():
                # Within one worker the turnstile decides; two sessions of it may share a stripe.
                if rows.own[stripe] or not rows.total(stripe):
                    rows.own[stripe] += 1
                    return
            patience -= 1
            if self._options.same_session == "reject" and patience < 0:
                raise busy(key[1])
            await asyncio.sleep(LOOK)

    def _rows(self) -> Rows:
        if self._stripes is None:
            self._stripes = self._shared.gauges("sessions", STRIPES)
        return self._stripes

    async def _release(self, key: tuple[str, str]) -> None:
        try:
            await self._flushed()
        finally:
            if self._stripes is not None and len(self._stripes.rows) > 1:
                self._stripes.own[_stripe_of(key)] -= 1
            turnstile = self._turnstiles[key]
            turnstile.lock.release()
            self._leave(key, turnstile)

    def _leave(self, key: tuple[str, str], turnstile: _Turnstile) -> None:
        turnstile.users -= 1
        if not turnstile.users:
            del self._turnstiles[key]

    # --- their owners -----------------------------------------------------------------------------------------------

    async def listed(self, key: str) -> list[dict[str, Any]]:
        """The sessions of a key that can be continued, the newest first."""
        if not self.is_enabled:
            return []
        conversations, oldest = self._conversations(), self._oldest()
        return [_shown(one) for one in await self._asked(lambda: conversations.listed(key, oldest))]

    async def shown(self, session_id: str, key: str) -> dict[str, Any]:
        """One of them with its messages. Raises NotFound."""
        if not self.is_enabled:
            raise not_found(session_id)
        past = await self._past(session_id, key)
        return {
            "id": session_id,
            "object": "session",
            "backend": past.backend,
            "updated": past.updated // 1000,
            "messages": past.messages,
        }

    async def forget(self, session_id: str, key: str) -> dict[str, Any]:
        """Delete what one of them said, for good: in its turn, as what is still being said would outlive it.

        Raises NotFound, and InvalidRequest as `enter` does.
        """
        if not self.is_enabled:
            raise not_found(session_id)
        conversations = self._conversations()
        await self._take((key, session_id))
        try:
            for waits in (self._flushed, self._others_have_written, None):
                if await self._asked(lambda: conversations.forget(session_id, key)):
                    return {"id": session_id, "object": "session.deleted", "deleted": True}
                if waits is not None:
                    await waits()
        finally:
            self._give_back((key, session_id))
        raise not_found(session_id)

    def _oldest(self) -> float:
        return (self._wall_clock() - self._options.ttl_hours * 3600) * 1000

    def _conversations(self) -> Conversations:
        assert self._kept is not None, "sessions are not enabled"
        return self._kept

    @staticmethod
    async def _asked(read: Callable[[], Any]) -> Any:
        try:
            reading: Awaitable[Any] = asyncio.to_thread(read)
            return await reading
        except CannotWrite as error:
            raise Unavailable(f"sessions cannot be read just now: {error}") from error


def not_found(session_id: str) -> NotFound:
    """404, the same for one that never was, one that is over and one of another key."""
    return NotFound(
        f"session {session_id} does not exist: leave session_id out to begin one",
        code="session_not_found",
        param="session_id",
    )


def busy(session_id: str) -> InvalidRequest:
    """409: one turn at a time."""
    return InvalidRequest(
        f"session {session_id} is still answering: wait for its answer",
        status=409,
        code="session_busy",
        param="session_id",
    )


def _stripe_of(key: tuple[str, str]) -> int:
    return zlib.crc32("\n".join(key).encode()) % STRIPES


def _shown(session: Listed) -> dict[str, Any]:
    return {
        "id": session.id,
        "object": "session",
        "created": session.created // 1000,
        "updated": session.updated // 1000,
        "turns": session.turns,
        "backend": session.backend,
        "model": session.model,
    }
