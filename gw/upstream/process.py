"""A child process that speaks over its pipes: always drained, bounded, and ended together with all that it started."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

from gw.errors import UpstreamConnectionError
from gw.upstream.descendants import LISTED, MARK, Table, descendants

logger = logging.getLogger("gw.upstream")

GRACE = 2.0  # seconds between TERM and KILL
HELD = 256 * 1024  # bytes of output that wait unread before the child is made to wait
ERRORS = 8 * 1024  # bytes of stderr kept, the newest
ROUNDS = 100  # looks for descendants: a killed one may be starting another meanwhile
LINGER = 0.2  # seconds in which what a dead child has written still arrives


class Process:
    """One running child. Whoever holds it ends it with `end`, once."""

    def __init__(
        self, transport: asyncio.SubprocessTransport, pipes: _Pipes, mark: str, listed: Callable[[bytes], Table]
    ) -> None:
        self._transport = transport
        self._pipes = pipes
        self._mark = mark
        self._listed = listed
        self.pid = transport.get_pid()

    @classmethod
    async def spawn(
        cls,
        argv: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        listed: Callable[[bytes], Table] = LISTED,
    ) -> Process:
        """Start a program in a session of its own with exactly this environment, and a mark in it.

        `listed` tells all processes of this machine and which have the mark.
        Raises UpstreamConnectionError where it cannot be started.
        """
        mark = os.urandom(16).hex()
        try:
            transport, pipes = await asyncio.get_running_loop().subprocess_exec(
                _Pipes, *argv, cwd=cwd, env={**environment, MARK: mark}, start_new_session=True
            )
        except (OSError, ValueError) as error:
            raise UpstreamConnectionError(f"{Path(argv[0]).name} cannot be started: {error}") from error
        return cls(transport, pipes, mark, listed)

    @property
    def is_alive(self) -> bool:
        """Whether it has not exited yet."""
        return not self._pipes.exited.is_set()

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._transport.get_returncode()

    def when_exited(self, call: Callable[[], object]) -> None:
        """Call once it has exited, whoever's will it was; at once where it has."""
        if self.is_alive:
            self._pipes.told.append(call)
        else:
            call()

    @property
    def errors(self) -> bytes:
        """The newest of what it wrote to stderr."""
        return bytes(self._pipes.errors)

    def write(self, data: bytes) -> None:
        """Queue bytes for its stdin. One that has died gets nothing: reading tells."""
        pipe = cast("asyncio.WriteTransport | None", self._transport.get_pipe_transport(0))
        if pipe is not None and not pipe.is_closing():
            pipe.write(data)

    def close_stdin(self) -> None:
        """Tell it that nothing more comes."""
        pipe = self._transport.get_pipe_transport(0)
        if pipe is not None:
            pipe.close()

    async def read(self) -> bytes:
        """What it has written to stdout since the last call; b"" is the end. One reader at a time."""
        return await self._pipes.read()

    async def end(self, patience: float = 0.0) -> None:
        """Let it go: closed stdin and `patience` seconds, then TERM, then KILL, it and all its descendants. Reaped."""
        self._pipes.discard()
        known = await self.descendants()  # while their parents can still be named
        self.close_stdin()
        if not (patience and await self._has_exited(patience)):
            self._signal(signal.SIGTERM)
            if not await self._has_exited(GRACE):
                known |= await self._kill_descendants(known)
                self._signal(signal.SIGKILL)
                await self._pipes.exited.wait()
        await self._kill_descendants(known)
        self._transport.close()

    async def descendants(self, known: Mapping[int, str] | None = None) -> dict[int, str]:
        """What it has started and still runs, by number, with the moment of its start; `known` was found before."""
        try:
            look = partial(descendants, self.pid, self._mark, known or {}, self._listed)
            return await asyncio.to_thread(look, is_alive=self.is_alive)
        except OSError as error:
            logger.error("what process %d has started is not known: %s", self.pid, error)
            return {}

    async def _has_exited(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._pipes.exited.wait()
        return not self.is_alive

    async def _kill_descendants(self, known: Mapping[int, str]) -> dict[int, str]:
        """Kill them until there are none: those that were found."""
        found = dict(known)
        for _ in range(ROUNDS):
            left = await self.descendants(found)
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if not left:
                return found
            found |= left
            await asyncio.sleep(0.005)
        logger.error("what process %d has started cannot be ended: %s", self.pid, list(left))
        return found

    def _signal(self, number: signal.Signals) -> None:
        # Its pid is also that of its group, and is nobody else's before it has been waited for.
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)


class _Pipes(asyncio.SubprocessProtocol):
    """What comes out of a child, collected as it comes."""

    def __init__(self) -> None:
        self.exited = asyncio.Event()
        self.told: list[Callable[[], object]] = []  # ... of that
        self.errors = bytearray()
        self._output = bytearray()
        self._arrived = asyncio.Event()
        self._has_ended = False
        self._is_paused = False
        self._is_discarding = False
        self._transport: asyncio.SubprocessTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        content = cast(bytes, data)
        if fd == 2:
            self.errors += content[-ERRORS:]
            del self.errors[:-ERRORS]
        elif fd == 1 and not self._is_discarding:
            self._output += content
            self._arrived.set()
            if len(self._output) > HELD:
                self._pause()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:
            self._finish()

    def process_exited(self) -> None:
        self.exited.set()
        for call in self.told:
            call()
        # Something that it started may hold the pipe open for ever.
        asyncio.get_running_loop().call_later(LINGER, self._stop_lingering)

    async def read(self) -> bytes:
        while not self._output and not self._has_ended:
            self._arrived.clear()
            await self._arrived.wait()
        data, self._output = bytes(self._output), bytearray()
        self._resume()
        return data

    def discard(self) -> None:
        """Nobody reads any more; the child must not be stuck for that."""
        self._is_discarding = True
        self._output.clear()
        self._resume()

    def _stop_lingering(self) -> None:
        if self._is_paused:  # there is more in the pipe than was asked for so far
            asyncio.get_running_loop().call_later(LINGER, self._stop_lingering)
        else:
            self._finish()

    def _finish(self) -> None:
        self._has_ended = True
        self._arrived.set()

    def _pause(self) -> None:
        pipe = self._stdout()
        if pipe is not None and not self._is_paused:
            self._is_paused = True
            pipe.pause_reading()

    def _resume(self) -> None:
        pipe = self._stdout()
        if pipe is not None and self._is_paused:
            self._is_paused = False
            if not pipe.is_closing():
                pipe.resume_reading()

    def _stdout(self) -> asyncio.ReadTransport | None:
        if self._transport is None:
            return None
        return cast("asyncio.ReadTransport | None", self._transport.get_pipe_transport(1))
