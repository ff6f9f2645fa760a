"""The processes of one backend: spares that are started before anybody asks, and warm ones that know a conversation."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from gw.adapters.claude_cli.program import OLDEST, Program, is_too_old
from gw.adapters.claude_cli.prompt import control
from gw.adapters.claude_cli.starts import Starts
from gw.errors import GatewayError, Unavailable
from gw.upstream.process import Process

logger = logging.getLogger("gw.claude_cli")

SPARE_AGE = 600.0  # seconds after which an unused spare is replaced
WARM_AGE = 300.0  # seconds in which the next turn of a conversation is likely to come
MAX_ASLEEP = 256  # transcripts kept; a conversation without one is told again from the gateway's log
MAX_TURNS = 30  # of one process: its memory grows by about two megabytes a turn
PATIENCE = 1.0  # seconds for a process that is done to leave by itself; it takes about 0.1
START = 30.0  # seconds for a process to start
PAUSE = 5.0  # seconds after a spare that could not be started


class Asleep(NamedTuple):
    """A conversation whose process has ended, and that another one can go on with."""

    session: str
    cost: float  # USD it has reported so far


@dataclass(eq=False)
class Worker:
    """One process, and what it is good for."""

    process: Process
    argv: Sequence[str]
    cwd: Path
    since: float  # monotonic seconds: when it was started, or did its last turn
    own_folder: Path | None = None  # made for it, and removed with it
    has_started: Callable[[], None] = lambda: None  # to be told when it has written something
    turns: int = 0
    cost: float = 0.0  # USD it has reported so far
    session: str | None = None  # the id of its transcript, where it keeps one


class Pool:
    """Starts, keeps and ends the processes of one backend."""

    def __init__(
        self, program: Program, *, min_idle: int, max_warm: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._program = program
        self._min_idle = min_idle
        self._max_warm = max_warm
        self._clock = clock
        self._spares: deque[Worker] = deque()
        self._warm: OrderedDict[bytes, Worker] = OrderedDict()  # by what they know; the longest idle first
        self._asleep: OrderedDict[bytes, Asleep] = OrderedDict()
        self._wanted = asyncio.Event()
        self._probed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self.problem: str | None = None  # why the program cannot be used; known soon after the start
        self._scratch: Path | None = None
        self._starts: Starts
        self._is_closed = False

    async def open(self, starts: Starts) -> None:
        """Begin to keep spares. `starts` says how many processes may be starting at once. `close` must follow."""
        self._starts = starts
        self._scratch = Path(tempfile.mkdtemp(prefix="gw-claude-"))
        for name in ("empty", "tmp"):
            (self._scratch / name).mkdir()
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """End every process. Harmless where nothing was opened."""
        self._is_closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        for worker in [*self._spares, *self._warm.values()]:
            self.dismiss(worker, patience=0.0)
        for asleep in self._asleep.values():
            await asyncio.to_thread(self._program.forget, asleep.session)
        self._spares.clear()
        self._warm.clear()
        self._asleep.clear()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    # --- for one turn -----------------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Raise Unavailable where the program cannot be used; waits until that is known."""
        await self._probed.wait()
        if self.problem is not None:
            raise Unavailable(self.problem)

    async def checkout(self, argv: Sequence[str], cwd: Path | None) -> Worker:
        """A process that nobody has used: a spare where one fits, else a new one.

        Without `cwd` it works in an empty folder. Raises UpstreamConnectionError where it cannot be started.
        """
        if cwd is None and argv == self._program.chat():
            while self._spares:
                worker = self._spares.popleft()
                if worker.process.is_alive:
                    return worker
                self.dismiss(worker)
        return await self._start(argv, cwd)

    @property
    def keeps_warm(self) -> bool:
        """Whether a process has any use after its turn."""
        return self._max_warm > 0 and not self._is_closed

    def warm(self, knowledge: bytes) -> Worker | None:
        """The process that had the conversation so far, if it still lives; it is the caller's now."""
        worker = self._warm.pop(knowledge, None)
        if worker is not None and not worker.process.is_alive:
            self._send_to_sleep(knowledge, worker)
            return None
        return worker

    def asleep(self, knowledge: bytes) -> Asleep | None:
        """The transcript of the conversation so far, to be resumed; it is the caller's now."""
        return self._asleep.pop(knowledge, None)

    def keep_warm(self, worker: Worker, knowledge: bytes) -> None:
        """Keep a process whose turn ended well for the next turn of the same conversation, if there is room."""
        if self._is_closed:
            self.dismiss(worker)
            return
        worker.turns += 1
        worker.since = self._clock()
        previous = self._warm.pop(knowledge, None)
        if previous is not None:
            self.dismiss(previous, PATIENCE)
        if worker.turns >= MAX_TURNS or not self._max_warm or not worker.process.is_alive:
            self._send_to_sleep(knowledge, worker)
            return
        self._warm[knowledge] = worker
        worker.process.when_exited(self._wanted.set)  # what it has started must not outlive it
        while len(self._warm) > self._max_warm:
            self._send_to_sleep(*self._warm.popitem(last=False))
        self._wanted.set()

    def _send_to_sleep(self, knowledge: bytes, worker: Worker) -> None:
        """End a process that did well; what it knows can be resumed where it has kept it."""
        if worker.session is not None:
            self.put_to_sleep(knowledge, Asleep(worker.session, worker.cost))
        self.dismiss(worker, PATIENCE, forgets=False)

    def put_to_sleep(self, knowledge: bytes, asleep: Asleep) -> None:
        """Keep a transcript for the next turn of its conversation; the oldest go where there are too many."""
        previous = self._asleep.pop(knowledge, None)
        self._asleep[knowledge] = asleep
        gone = [previous] if previous is not None else []
        while len(self._asleep) > MAX_ASLEEP:
            gone.append(self._asleep.popitem(last=False)[1])
        for one in gone:
            self.own(asyncio.to_thread(self._program.forget, one.session))

    def dismiss(self, worker: Worker, patience: float = 0.0, *, forgets: bool = True) -> None:
        """End a process, all that it started, its folder and its transcript; a spare is replaced."""
        worker.has_started()
        self._wanted.set()
        self.own(self._end(worker, patience, forgets))

    def own(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside; it is waited for at the end."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self, worker: Worker, patience: float, forgets: bool) -> None:
        try:
            await worker.process.end(patience)
        except Exception:  # the root of this task
            logger.exception("process %d could not be ended", worker.process.pid)
        if worker.session is not None and forgets:
            await asyncio.to_thread(self._program.forget, worker.session)
        if worker.own_folder is not None:
            await asyncio.to_thread(shutil.rmtree, worker.own_folder, True)

    # --- starting ---------------------------------------------------------------------------------------------------

    async def _start(self, argv: Sequence[str], cwd: Path | None) -> Worker:
        assert self._scratch is not None, "the pool is not open"
        has_started = await self._starts.begin()
        own: Path | None = None
        try:
            if cwd is None:
                # With tools it may write: nobody shall find what another one left.
                own = None if argv == self._program.chat() else Path(tempfile.mkdtemp(dir=self._scratch))
                cwd = own or self._scratch / "empty"
            environment = self._program.environment(self._scratch / "tmp")
            process = await Process.spawn(argv, cwd=cwd, environment=environment)
        except BaseException:
            has_started()
            if own is not None:
                own.rmdir()
            raise
        return Worker(process, argv, cwd, self._clock(), own, has_started)

    # --- spares -----------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """See to it that there are as many spares as there should be, one after the other, none too old."""
        try:
            self.problem = await self._probe()
        except GatewayError as error:
            self.problem = error.message
        self._probed.set()
        while self.problem is None:
            self._retire()
            pause = SPARE_AGE
            if self._warm:
                pause = min(pause, WARM_AGE)
            if len(self._spares) < self._min_idle:
                try:
                    await self._add_spare()
                    continue
                except GatewayError as error:
                    logger.warning("no spare process: %s", error.message)
                    pause = PAUSE
            self._wanted.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wanted.wait()

    def _retire(self) -> None:
        now = self._clock()
        for worker in [w for w in self._spares if now - w.since > SPARE_AGE or not w.process.is_alive]:
            self._spares.remove(worker)
            self.dismiss(worker)
        for knowledge in [k for k, w in self._warm.items() if now - w.since > WARM_AGE or not w.process.is_alive]:
            self._send_to_sleep(knowledge, self._warm.pop(knowledge))

    async def _add_spare(self) -> None:
        """One more spare. It counts when it has started: until then whoever asks is served sooner by a new one."""
        worker = await self._start(self._program.chat(), None)
        try:
            # Any question makes it say that it is there, and leaves what it will be told open.
            worker.process.write(control("gw-ready", {"subtype": "get_binary_version"}))
            await self._hear(worker)
        except BaseException:
            self.dismiss(worker)
            raise
        self._spares.append(worker)
        worker.process.when_exited(self._wanted.set)

    async def _hear(self, worker: Worker) -> None:
        said = b""
        try:
            async with asyncio.timeout(START):
                while b"\n" not in said:
                    data = await worker.process.read()
                    if not data:
                        raise Unavailable(f"a spare process ended at its start: {worker.process.errors[:300]!r}")
                    said += data
        except TimeoutError:
            raise Unavailable(f"a spare process said nothing for {START:g} s") from None
        worker.has_started()

    async def _probe(self) -> str | None:
        """What is wrong with the program: it does not run, or it is too old to be confined."""
        assert self._scratch is not None
        environment = self._program.environment(self._scratch / "tmp")
        process = await Process.spawn([self._program.path, "--version"], cwd=self._scratch, environment=environment)
        said = b""
        try:
            async with asyncio.timeout(START):
                while len(said) < 4096 and (data := await process.read()):
                    said += data
        except TimeoutError:
            return f"{self._program.path} --version said nothing for {START:g} s: set command"
        finally:
            await process.end()
        version = said.decode("utf-8", "replace").strip()
        if is_too_old(version):
            wanted = ".".join(map(str, OLDEST))
            return f"{self._program.path} --version says {version[:100]!r}; {wanted} or newer is needed: update it"
        return None


def knowledge_of(*parts: object) -> bytes:
    """What a process must know to go on with a conversation, as a key."""
    import hashlib  # loads OpenSSL: only where a process is kept

    return hashlib.sha256(orjson.dumps(parts, default=str)).digest()
