"""One gateway as one process or several: sockets, workers, signals, and the block that is printed at the start.

With `workers = 1` the process serves itself. With more, a supervisor makes the sockets (SO_REUSEPORT on Linux, one
shared socket elsewhere) and the shared memory, forks the workers, and replaces one that dies: its socket stays open
meanwhile, so that nobody is refused. SIGTERM and SIGINT drain; the second one ends at once. SIGHUP reads the
configuration again, and then every worker takes the new one or none does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable

from gw.banner import announce
from gw.config import Config, again, look_again
from gw.config_file import Files
from gw.errors import ConfigError
from gw.known_secrets import ScrubbedFormatter
from gw.line import Line
from gw.listening import cannot_listen, listening_sockets
from gw.reload import Terminal, export, held_to, set_level, tell_refused, tell_reloaded
from gw.shared import ForkShared, LocalShared
from gw.worker import run_worker

logger = logging.getLogger("gw.supervisor")

RESTART_PAUSE = 1.0  # seconds between two starts of the same worker: a fault at start must not burn a core
MAX_DESCRIPTORS = 65_536  # two for each connection, and room
PREPARING = 60.0  # seconds that the workers may take to get a new configuration ready
_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def serve(config: Config) -> int:
    """Serve until told to stop. Returns the exit status: 0 after a clean drain."""
    _set_up_logging(config)
    _raise_descriptor_limit()
    try:
        sockets = listening_sockets(config.server.host, config.server.port, config.server.workers)
    except OSError as error:
        print(cannot_listen(config, error), file=sys.stderr)
        return 1
    try:
        if config.server.workers == 1:
            return run_worker(config, LocalShared(), sockets[0])
        return _Supervisor(config, sockets).run()
    finally:
        for sock in sockets:
            sock.close()
        _let_go_of_output()


def _let_go_of_output() -> None:
    """Write what is left; where nobody reads any more (the terminal is closed), that is no failure of ours."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _set_up_logging(config: Config) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ScrubbedFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler])
    set_level(config)


def _raise_descriptor_limit() -> None:
    """As many descriptors as the system allows: the usual 1,024 are fewer than the connections that gw takes."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(most, MAX_DESCRIPTORS) if most != resource.RLIM_INFINITY else MAX_DESCRIPTORS
    with contextlib.suppress(ValueError, OSError):  # macOS refuses more than its own limit: the old one stays
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


class _Worker:
    """One child: where it stands, how it is spoken to, and how far it is."""

    def __init__(self, slot: int, process: int, line: Line) -> None:
        self.slot = slot
        self.process = process
        self.line = line
        self.has_started = False


class _Reload:
    """A configuration on its way into all workers: `waiting` are those that have not got it ready yet."""

    def __init__(self, number: int, config: Config, told: list[str], waiting: Iterable[_Worker]) -> None:
        self.number = number
        self.config = config
        self.told = told
        self.waiting = set(waiting)
        self.until = time.monotonic() + PREPARING


class _Supervisor:
    """The parent of several workers: it serves nothing itself."""

    def __init__(self, config: Config, sockets: list[socket.socket]) -> None:
        self._config = config
        self._sockets = sockets
        self._terminal = Terminal()
        self._shared = ForkShared(workers=config.server.workers)
        self._workers: dict[int, _Worker] = {}  # by process id
        self._due: dict[int, float] = {}  # when a slot's next worker may be started (monotonic seconds)
        self._started_at = [0.0] * config.server.workers
        self._signals, self._wake = os.pipe()
        self._is_stopping = False
        self._is_announced = False
        self._failed_at_start = False
        self._worst = 0  # status of those that were told to stop
        self._reload: _Reload | None = None
        self._reloads = 0
        self._is_asked_again = False

    def run(self) -> int:
        for end in (self._signals, self._wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in _HANDLED:
            signal.signal(number, lambda *_: None)  # its number is read from the pipe, where nothing else is under way
        for slot in range(self._config.server.workers):
            self._fork(slot)
        while self._workers or self._due:
            self._turn()
        return 1 if self._failed_at_start else self._worst

    def _turn(self) -> None:
        """Wait for whatever comes next, and see to it."""
        lines = {worker.line.fileno(): worker for worker in self._workers.values() if not worker.line.is_over}
        readable, _, _ = select.select([self._signals, *lines], [], [], self._patience())
        for descriptor in readable:
            if descriptor != self._signals:
                self._hear(lines[descriptor])
        # Behind the lines: that of a worker which has died is closed here, and what it said last is heard before.
        if self._signals in readable:
            for number in os.read(self._signals, 4096):
                self._told(number)
        now = time.monotonic()
        if self._reload is not None and now >= self._reload.until:
            self._give_up([f"{len(self._reload.waiting)} of the workers did not get ready in {PREPARING:g} s"])
        for slot in [slot for slot, moment in self._due.items() if moment <= now]:
            del self._due[slot]
            self._fork(slot)

    def _patience(self) -> float | None:
        moments = [*self._due.values(), *([self._reload.until] if self._reload is not None else [])]
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _told(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop()
        elif number == signal.SIGHUP:
            self._look_again()
        elif number == signal.SIGCHLD:
            self._reap()

    def _stop(self) -> None:
        self._is_stopping = True
        self._due.clear()
        for sock in self._sockets:
            sock.close()  # held open here, they would take connections that nobody reads
        for process in list(self._workers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)

    # --- workers -------------------------------------------------------------------------------------------------

    def _fork(self, slot: int) -> None:
        # Signals wait until the child has its own handlers: a SIGTERM in between would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        self._started_at[slot] = time.monotonic()
        ours, theirs = Line.pair()
        process = os.fork()
        if process:
            theirs.close()
            self._workers[process] = _Worker(slot, process, ours)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
            return
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for end in (self._signals, self._wake):
                os.close(end)
            for line in (ours, *(worker.line for worker in self._workers.values())):
                line.close()
            # Ctrl-C goes to the whole group of processes: a worker hears of it through the supervisor alone.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._shared.enter(slot)
            for other in set(self._sockets) - {self._sockets[slot]}:
                other.close()
            status = run_worker(self._config, self._shared, self._sockets[slot], theirs)
        except BaseException:
            logger.exception("worker %d failed", slot)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _reap(self) -> None:
        """See who has died; a worker that died unasked is replaced."""
        while self._workers:
            process, raw = os.waitpid(-1, os.WNOHANG)
            if not process:
                return
            worker = self._workers.pop(process, None)
            if worker is None:
                continue
            worker.line.close()
            self._shared.clear(worker.slot)
            status = os.waitstatus_to_exitcode(raw)
            if not self._is_announced and not self._is_stopping:
                self._failed_at_start = True  # the worker said why
                self._stop()
            if self._is_stopping:
                self._worst = max(self._worst, abs(status))
                continue
            self._replace(worker, status)

    def _replace(self, worker: _Worker, status: int) -> None:
        logger.error("worker %d (process %d) died with status %d: it is replaced", worker.slot, worker.process, status)
        self._due[worker.slot] = max(time.monotonic(), self._started_at[worker.slot] + RESTART_PAUSE)
        if self._reload is not None and worker in self._reload.waiting:
            self._give_up([f"worker {worker.slot} died while it made the new configuration"])

    def _hear(self, worker: _Worker) -> None:
        for said in worker.line.receive():
            if said["is"] == "started":
                worker.has_started = True
                if not self._is_announced and all(other.has_started for other in self._workers.values()):
                    self._is_announced = True
                    announce(said["banner"])
            elif self._reload is not None and said["number"] == self._reload.number:
                self._hear_of_reload(worker, said.get("problems"))

    # --- another configuration -----------------------------------------------------------------------------------

    def _look_again(self) -> None:
        """Read the configuration; where it is right, have every worker make it."""
        if self._terminal.is_gone:
            self._stop()
        if self._is_stopping or not self._is_announced:
            return
        if self._reload is not None:
            self._is_asked_again = True
            return
        try:
            files = look_again(self._config)
            config, told = held_to(self._config, again(self._config, files))
        except ConfigError as error:
            tell_refused(error.problems)
            self._say_refused(error.problems)
            return
        except Exception as error:
            logger.exception("the configuration could not be read again")
            self._say_refused([f"it could not be read: {type(error).__name__}"])
            return
        self._reloads += 1
        self._reload = _Reload(self._reloads, config, told, self._workers.values())
        for worker in list(self._reload.waiting):
            self._say(worker, {"do": "prepare", "number": self._reloads, "files": _as_json(files)})

    def _hear_of_reload(self, worker: _Worker, problems: list[str] | None) -> None:
        reload = self._reload
        assert reload is not None, "only an answer to the reload under way comes here"
        if problems is not None:
            self._give_up(problems)
            return
        reload.waiting.discard(worker)
        if not reload.waiting:
            former, self._config, self._reload = self._config, reload.config, None
            export(reload.config, former)
            for other in self._workers.values():
                self._say(other, {"do": "take over", "number": reload.number})
            set_level(self._config)
            tell_reloaded(former, self._config, reload.told)
            self._next_reload()

    def _give_up(self, problems: list[str]) -> None:
        """None takes it."""
        self._reload = None
        tell_refused(problems)
        self._say_refused(problems)
        self._next_reload()

    def _say_refused(self, problems: list[str]) -> None:
        for worker in self._workers.values():
            self._say(worker, {"do": "stay", "problems": problems})

    def _next_reload(self) -> None:
        if self._is_asked_again:
            self._is_asked_again = False
            self._look_again()

    @staticmethod
    def _say(worker: _Worker, message: dict[str, object]) -> None:
        with contextlib.suppress(OSError):  # it is dead or hangs: its end, or the deadline, tells
            worker.line.send(message)


def _as_json(files: Files) -> dict[str, object]:
    path = None if files.path is None else str(files.path)
    return {"path": path, "text": files.text, "variables": dict(files.variables)}
