"""What the table of a Claude CLI backend may say, checked: every problem names its option and the cure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gw.adapters.claude_cli.turn import Clocks
from gw.backend_options import TimeoutTable
from gw.environ import Environ
from gw.errors import ConfigError

_TOOL = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_OURS = frozenset({"-p", "--print", "--input-format", "--output-format", "--tools", "--resume", "--session-id"})


def check_tools(names: Sequence[str]) -> None:
    """Raise ConfigError for what is not the name of a tool: it would be read as a rule or a flag."""
    wrong = [name for name in names if not _TOOL.match(name)]
    if wrong:
        raise ConfigError([f'allowed_tools: {name!r} is not the name of a tool such as "Read"' for name in wrong])


def check_counts(**counts: int) -> None:
    """Raise ConfigError for a number of processes below 0."""
    problems = [f"{name} is 0 or more, found {count}" for name, count in counts.items() if count < 0]
    if problems:
        raise ConfigError(problems)


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise ConfigError for arguments that would take the conversation out of our hands."""
    taken = [argument for argument in arguments if argument.partition("=")[0] in _OURS]
    if taken:
        raise ConfigError([f"arguments: {', '.join(taken)} is set by gw; take it out"])


def check_what_it_has_not(api_key_envs: Sequence[str] | None, connect: float | None, transport: str) -> None:
    """Raise ConfigError for what other backends have and a program of its own cannot be told."""
    problems = []
    if api_key_envs:
        problems.append(
            "api_key_envs: a process has one key: name one with api_key_env, and make a backend for each further key "
            "(members of one `group` take turns)"
        )
    if connect is not None:
        problems.append("timeouts.connect: the program makes its own connections; take it out")
    if transport != "own":
        problems.append("transport: the program makes its own connections; take it out (`proxy` and `ca_file` work)")
    if problems:
        raise ConfigError(problems)


def clocks_of(timeout: float, timeouts: TimeoutTable, environ: Environ) -> Clocks:
    """The clocks of a turn: GATEWAY_TIMEOUT (ms) goes before `timeouts.total`, that before `timeout`.

    A variable that is no number is told by whoever reads the configuration.
    A stream has no clock for its first content where none is given: tools may work for minutes before it.
    """
    overall = environ.get("GATEWAY_TIMEOUT")
    turn = int(overall) / 1000 if overall and overall.isdigit() else timeouts.total or timeout
    return Clocks(turn, timeouts.first_content, timeouts.idle)
