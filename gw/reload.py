"""What a reload means: which settings wait for a restart, what is told, and what the process's surroundings are shown.

Settings of the listening sockets and of the processes cannot change while they are there; each is told by name.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gw.config import Config
from gw.config_checks import key_problems
from gw.errors import ConfigError
from gw.known_secrets import ScrubbedFormatter
from gw.settings import ServerOptions

logger = logging.getLogger("gw.reload")

FIXED = ("host", "port", "workers", "http", "max_body")


def held_to(former: Config, config: Config) -> tuple[Config, list[str]]:
    """A configuration with the server's settings that are in force, and what of its own waits for a restart.

    Raises ConfigError where that cannot stand: a gateway that others reach must not lose its last key, whatever the
    new file says of its address.
    """
    old, new = former.server, config.server
    waiting = [
        f"server.{name}: {getattr(old, name)} stays until a restart; the file says {getattr(new, name)}"
        for name in FIXED
        if getattr(old, name) != getattr(new, name)
    ]
    fixed = {name: getattr(old, name) for name in FIXED}
    if (old.tls_cert is None) != (new.tls_cert is None):
        waiting.append(f"server.tls_cert: http{'s' if old.tls_cert else ''} is spoken until a restart")
        fixed |= {"tls_cert": old.tls_cert, "tls_key": old.tls_key}
    server: ServerOptions = replace(new, **fixed)
    auth = config.middleware.get("auth")
    problems = key_problems(server, auth.table if auth is not None else None, config.environ)
    if problems:
        raise ConfigError(problems)
    return replace(config, server=server), waiting


def export(config: Config, former: Config | None = None) -> None:
    """Show the variables of `.env` to libraries and child programs, and no more those that only `former` had.

    The process's own variables go before.
    """
    own = config.origin.environ
    for name in former.dotenv if former is not None else ():
        if name not in own and name not in config.dotenv:
            os.environ.pop(name, None)
    os.environ.update({name: value for name, value in config.dotenv.items() if name not in own})


def set_level(config: Config) -> None:
    """Have the process's log say as much as the configuration wants, and none of its keys."""
    level = config.server.log_level
    root = logging.getLogger()
    root.setLevel("WARNING" if level == "warn" else level.upper())
    for handler in root.handlers:
        if isinstance(handler.formatter, ScrubbedFormatter):
            handler.formatter.secrets.know(config.secrets)


# --- what is told -----------------------------------------------------------------------------------------------


def refusal(problems: Sequence[str]) -> str:
    """One line for /health."""
    first, *others = problems
    more = f" (and {len(others)} more)" if others else ""
    return f"the last reload was refused, the configuration before it is in force: {first}{more}"


def tell_refused(problems: Sequence[str]) -> None:
    """Write down why nothing has changed."""
    count = len(problems)
    lines = "".join(f"\n  {problem}" for problem in problems)
    logger.error("reload refused, nothing has changed: %d problem%s%s", count, "s" if count > 1 else "", lines)


def tell_reloaded(former: Config, config: Config, waiting: Sequence[str]) -> None:
    """Write down what is another one now, and what waits for a restart."""
    logger.info("reloaded %s: %s", config.path or "the defaults", ", ".join(changes(former, config)) or "nothing new")
    for warning in config.warnings:
        logger.warning("%s", warning)
    for setting in waiting:
        logger.warning("%s", setting)


def changes(former: Config, config: Config) -> list[str]:
    """By name, what differs: values are not shown, they may be keys."""
    found = []
    if former.pipeline != config.pipeline:
        found.append(f"pipeline {' -> '.join(config.pipeline)}")
    found += _changed("middleware", former.middleware, config.middleware)
    found += _changed("backend", *(_backends(each) for each in (former, config)))
    tables = (("server", former.server, config.server), ("sessions", former.sessions, config.sessions))
    found += [name for name, old, new in tables if old != new]
    return found + (["models"] if former.models != config.models else [])


def _backends(config: Config) -> dict[str, object]:
    """By name, what makes a backend another one: its table, its keys, and the class, which is new with its file."""
    return {table.name: (table.table, table.keys, table.factory) for table in config.backends}


def _changed(noun: str, former: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    names = [*former, *(name for name in new if name not in former)]
    words = {
        name: "gone" if name not in new else "new" if name not in former else "changed"
        for name in names
        if former.get(name) != new.get(name)
    }
    return [f"{noun} {name} {word}" for name, word in words.items()]


class Terminal:
    """Where the process was started from, if that is a terminal: its SIGHUP means that it is gone, not a reload."""

    def __init__(self) -> None:
        self._descriptor = next((number for number in (0, 1, 2) if _is_terminal(number)), None)

    @property
    def is_gone(self) -> bool:
        """Whether there was one at the start, and there is none now."""
        return self._descriptor is not None and not _is_terminal(self._descriptor)


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False
