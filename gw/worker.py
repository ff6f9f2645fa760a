"""One process that serves: start, answer, take another configuration when told to, drain, end."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import uvloop

from gw.banner import announce, banner
from gw.config import Config, again
from gw.config_file import Files
from gw.errors import ConfigError
from gw.gateway import GatewayServer
from gw.generation import Generation
from gw.line import Line
from gw.reload import Terminal, export, set_level, tell_refused, tell_reloaded
from gw.shared import Shared

logger = logging.getLogger("gw.worker")

ABANDONED = 3  # exit status of a worker that was told twice to stop
LONGEST = 256 * 1024 * 1024  # bytes of a message from the supervisor: a configuration file is in one


def run_worker(config: Config, shared: Shared, sock: socket.socket, line: Line | None = None) -> int:
    """Serve on `sock` until told to stop; the exit status. `line` leads to the supervisor, where there is one."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_work(config, shared, sock, line))


async def _work(config: Config, shared: Shared, sock: socket.socket, line: Line | None) -> int:
    """One worker's life: start, serve, drain at the first signal, give up at the second."""
    loop = asyncio.get_running_loop()
    terminal = Terminal()
    stop, abandon, reload = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def stop_or_abandon() -> None:
        (abandon if stop.is_set() else stop).set()

    loop.add_signal_handler(signal.SIGTERM, stop_or_abandon)
    if line is None:
        loop.add_signal_handler(signal.SIGINT, stop_or_abandon)
    # Under a supervisor that alone decides: a handler that does nothing, for a child program would inherit "ignored".
    loop.add_signal_handler(signal.SIGHUP, reload.set if line is None else _nothing)
    server = GatewayServer(config, shared=shared)
    try:
        await server.start(sock=sock)
    except ConfigError as error:
        print("\n".join(f"gw: {problem}" for problem in error.problems), file=sys.stderr)
        return 1
    settle_garbage()
    share_the_interpreter()
    first = banner(server.config, server.backends, server.port)
    if line is None:
        announce(first)
        told = asyncio.create_task(_heed_signals(server, terminal, reload, stop))
    else:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD})
        told = asyncio.create_task(_heed_supervisor(server, line, first, stop))
    await stop.wait()
    told.cancel()
    await asyncio.gather(told, return_exceptions=True)
    return await _drain(server, abandon)


async def _drain(server: GatewayServer, abandon: asyncio.Event) -> int:
    closing = asyncio.ensure_future(server.close())
    giving_up = asyncio.ensure_future(abandon.wait())
    await asyncio.wait({closing, giving_up}, return_when=asyncio.FIRST_COMPLETED)
    giving_up.cancel()
    if closing.done():
        await closing
        return 0
    # Told twice: what is in flight is dropped, what was recorded is still written.
    await server.close(grace=0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    return ABANDONED


def settle_garbage() -> None:
    """What was made at the start stays: it need not be searched for cycles again, and the rest less often.

    With the defaults the collector took 6 % of the loop's time under load.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def share_the_interpreter() -> None:
    """The log's thread waits for a busy event loop 1 ms at a time, not 5: a transaction takes several such waits.

    With the default, three of seven runs of soak R10 on a loaded machine lost rows of more than 20 ms (36 at most); so
    none of seven did.
    """
    sys.setswitchinterval(0.001)


def _nothing() -> None:
    pass


# --- another configuration --------------------------------------------------------------------------------------


async def _heed_signals(server: GatewayServer, terminal: Terminal, reload: asyncio.Event, stop: asyncio.Event) -> None:
    """Reload on SIGHUP, one after the other; drain where it means that the terminal was closed."""
    while True:
        await reload.wait()
        reload.clear()
        if terminal.is_gone:
            stop.set()
            return
        try:
            await _reload(server)
        except Exception:  # the root of this task
            logger.exception("the reload failed")


async def _reload(server: GatewayServer) -> None:
    former = server.config
    try:
        generation = await _prepared(server, None)
    except ConfigError as error:
        server.refuse(error.problems)
        tell_refused(error.problems)
        return
    server.take_over(generation)
    set_level(server.config)
    tell_reloaded(former, server.config, generation.waiting)


async def _heed_supervisor(server: GatewayServer, line: Line, first: str, stop: asyncio.Event) -> None:
    """Do what the supervisor says, whose end is the worker's too."""
    reader, writer = await asyncio.open_connection(sock=line.socket, limit=LONGEST)
    say: Callable[[dict[str, object]], None] = lambda message: writer.write(orjson.dumps(message) + b"\n")  # noqa: E731
    prepared: tuple[int, Generation] | None = None
    try:
        say({"is": "started", "banner": first})
        while text := await reader.readline():
            message: dict[str, Any] = orjson.loads(text)
            if message["do"] == "take over":
                if prepared is not None and prepared[0] == message["number"]:
                    server.take_over(prepared[1])
                    set_level(server.config)
                    prepared = None
                continue
            if prepared is not None:
                export(server.config, prepared[1].config)
                await server.abandon(prepared[1])
                prepared = None
            if message["do"] == "stay":
                server.refuse(message["problems"])
                continue
            number = message["number"]
            try:
                prepared = number, await _prepared(server, _files(message["files"]))
                say({"is": "prepared", "number": number})
            except ConfigError as error:
                say({"is": "refused", "number": number, "problems": error.problems})
    except Exception:  # the root of this task
        logger.exception("the supervisor was not understood: this worker ends, another takes its place")
    finally:
        stop.set()
        if prepared is not None:
            await server.abandon(prepared[1])
        writer.close()


async def _prepared(server: GatewayServer, files: Files | None) -> Generation:
    """The next configuration, made and opened. Raises ConfigError, and then everything is as before."""
    former = server.config
    try:
        config = await asyncio.to_thread(again, former, files)  # not on the loop: it takes 20 ms and more
        export(config, former)
        try:
            return await server.prepare(config)
        except BaseException:
            export(former, config)
            raise
    except ConfigError:
        raise
    except Exception as error:  # anybody's component may fail at opening what it needs
        logger.exception("the new configuration could not be put to work")
        raise ConfigError([f"it could not be put to work: {type(error).__name__}: {error}"]) from error


def _files(found: dict[str, Any]) -> Files:
    return Files(None if found["path"] is None else Path(found["path"]), found["text"], found["variables"])
