"""One gateway as one process or several: sockets, workers, signals, and the block that is printed at the start.

With `workers = 1` the process serves itself. With more, a supervisor makes the sockets (SO_REUSEPORT on Linux, one
shared socket elsewhere) and the shared memory, forks the workers, and replaces one that dies: its socket stays open
meanwhile, so that nobody is refused. SIGTERM and SIGINT drain; the second one ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable

import uvloop

from gw.banner import banner
from gw.config import Config, build
from gw.errors import ConfigError
from gw.gateway import GatewayServer
from gw.shared import ForkShared, LocalShared, Shared

logger = logging.getLogger("gw.supervisor")

RESTART_PAUSE = 1.0  # seconds between two starts of the same worker: a fault at start must not burn a core
MAX_DESCRIPTORS = 65_536  # two for each connection, and room
ABANDONED = 3  # exit status of a worker that was told twice to stop


def serve(config: Config) -> int:
    """Serve until told to stop. Returns the exit status: 0 after a clean drain."""
    _set_up_logging(config)
    _raise_descriptor_limit()
    try:
        sockets = listening_sockets(config.server.host, config.server.port, config.server.workers)
    except OSError as error:
        print(_cannot_listen(config, error), file=sys.stderr)
        return 1
    port = sockets[0].getsockname()[1]
    try:
        if config.server.workers == 1:
            return _run_worker(config, LocalShared(), sockets[0], _announce)
        return _Supervisor(config, sockets, port).run()
    finally:
        for sock in sockets:
            sock.close()


def _announce(server: GatewayServer) -> None:
    print(banner(server.config, server.backends, server.port), flush=True)


def listening_sockets(host: str, port: int, workers: int) -> list[socket.socket]:
    """One bound socket per worker, all on one port. OSError where the port is taken (by another gw too)."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    spread = workers > 1 and sys.platform == "linux"
    if spread and port:
        # With SO_REUSEPORT two gateways could share a port unnoticed: a plain bind tells whether it is free.
        _bound(family, address, reuse_port=False).close()
    first = _bound(family, address, reuse_port=spread)
    if not spread:
        return [first] * workers
    return [first, *(_bound(family, first.getsockname(), reuse_port=True) for _ in range(workers - 1))]


def _bound(family: int, address: tuple[object, ...], *, reuse_port: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _cannot_listen(config: Config, error: OSError) -> str:
    where = f"{config.server.host}:{config.server.port}"
    if error.errno == errno.EADDRINUSE:
        return f"gw: {where} is taken: stop what listens there, or choose another port with --port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"gw: {where} is not allowed for this user: choose a port above 1023 with --port"
    return f"gw: cannot listen on {where}: {error.strerror or error}; check server.host and server.port"


def _set_up_logging(config: Config) -> None:
    logging.basicConfig(
        level=getattr(logging, "WARNING" if config.server.log_level == "warn" else config.server.log_level.upper()),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )


def _settle_garbage() -> None:
    """What was made at the start stays: it need not be searched for cycles again, and the rest less often.

    With the defaults the collector took 6 % of the loop's time under load.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def _raise_descriptor_limit() -> None:
    """As many descriptors as the system allows: the usual 1,024 are fewer than the connections that gw takes."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(most, MAX_DESCRIPTORS) if most != resource.RLIM_INFINITY else MAX_DESCRIPTORS
    with contextlib.suppress(ValueError, OSError):  # macOS refuses more than its own limit: the old one stays
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _run_worker(
    config: Config,
    shared: Shared,
    sock: socket.socket,
    started: Callable[[GatewayServer], None],
    lifeline: int | None = None,
) -> int:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_work(config, shared, sock, started, lifeline))


async def _work(
    config: Config, shared: Shared, sock: socket.socket, started: Callable[[GatewayServer], None], lifeline: int | None
) -> int:
    """One worker's life: start, serve, drain at the first signal, give up at the second.

    `lifeline` is a pipe that the supervisor holds open: its end is the supervisor's, and so the worker's.
    """
    loop = asyncio.get_running_loop()
    stop, abandon = asyncio.Event(), asyncio.Event()

    def stop_or_abandon() -> None:
        (abandon if stop.is_set() else stop).set()

    def supervisor_gone(lifeline: int) -> None:
        loop.remove_reader(lifeline)
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, stop_or_abandon)
    if lifeline is None:
        loop.add_signal_handler(signal.SIGINT, stop_or_abandon)
    else:
        loop.add_reader(lifeline, supervisor_gone, lifeline)
    server = GatewayServer(config, shared=shared)
    try:
        await server.start(sock=sock)
    except ConfigError as error:
        print("\n".join(f"gw: {problem}" for problem in error.problems), file=sys.stderr)
        return 1
    _settle_garbage()
    started(server)
    await stop.wait()
    closing = asyncio.ensure_future(server.close())
    giving_up = asyncio.ensure_future(abandon.wait())
    await asyncio.wait({closing, giving_up}, return_when=asyncio.FIRST_COMPLETED)
    giving_up.cancel()
    if not closing.done():
        # Told twice: what is in flight is dropped, what was recorded is still written.
        await server.close(grace=0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        return ABANDONED
    await closing
    return 0


class _Supervisor:
    """The parent of several workers: it serves nothing itself."""

    def __init__(self, config: Config, sockets: list[socket.socket], port: int) -> None:
        self._config = config
        self._sockets = sockets
        self._port = port
        self._shared = ForkShared(workers=config.server.workers)
        self._workers: dict[int, int] = {}  # process id -> slot
        self._started_at = [0.0] * config.server.workers
        self._lifeline = os.pipe()
        self._signals = 0
        self._failed_at_start = False

    def run(self) -> int:
        signal.signal(signal.SIGTERM, self._told)
        signal.signal(signal.SIGINT, self._told)
        ready_read, ready_write = os.pipe()
        for slot in range(self._config.server.workers):
            self._fork(slot, ready_write)
        os.close(ready_write)
        if len(_read_exactly(ready_read, self._config.server.workers)) == self._config.server.workers:
            print(banner(self._config, build(self._config).backends, self._port), flush=True)
        else:
            self._failed_at_start = True  # the worker said why
            self._told(signal.SIGTERM, None)
        os.close(ready_read)
        status = self._watch()
        return 1 if self._failed_at_start else status

    def _told(self, number: int, frame: object) -> None:
        self._signals += 1
        for sock in self._sockets:
            sock.close()  # held open here, they would take connections that nobody reads
        for process in list(self._workers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)

    def _fork(self, slot: int, ready: int | None = None) -> None:
        # Signals wait until the child has its own handlers: a SIGTERM in between would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        self._started_at[slot] = time.monotonic()
        process = os.fork()
        if process:
            self._workers[process] = slot
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
            return
        status = 1
        try:
            # Ctrl-C goes to the whole group of processes: a worker hears of it through the supervisor alone.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._shared.enter(slot)
            lifeline, supervisors_end = self._lifeline
            os.close(supervisors_end)
            for other in set(self._sockets) - {self._sockets[slot]}:
                other.close()
            status = _run_worker(
                self._config, self._shared, self._sockets[slot], lambda _: self._child_ready(ready), lifeline
            )
        except BaseException:
            logger.exception("worker %d failed", slot)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    @staticmethod
    def _child_ready(ready: int | None) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
        if ready is not None:
            os.write(ready, b".")
            os.close(ready)

    def _watch(self) -> int:
        """Wait for workers; replace those that die unasked. Returns the worst status of those that were told."""
        worst = 0
        while self._workers:
            process, raw = os.waitpid(-1, 0)
            slot = self._workers.pop(process, None)
            if slot is None:
                continue
            self._shared.clear(slot)
            status = os.waitstatus_to_exitcode(raw)
            if self._signals:
                worst = max(worst, abs(status))
                continue
            logger.error("worker %d (process %d) died with status %d: it is replaced", slot, process, status)
            pause = RESTART_PAUSE - (time.monotonic() - self._started_at[slot])
            if pause > 0:
                time.sleep(pause)
            if not self._signals:
                self._fork(slot)
        return worst


def _read_exactly(descriptor: int, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := os.read(descriptor, count - len(data))):
        data += more
    return data
