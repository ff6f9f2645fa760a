"""The environment variables that gw knows, each with the key of gateway.toml that it sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# GATEWAY_RATE_LIMIT_MAX and _WINDOW_MS: one of the two alone takes the other from here, never from another pair.
_OTHER_WINDOW = 900.0
_OTHER_MAX = 100
_MINUTE = 60.0


Setting = tuple[tuple[str, ...], Any, str]
"""A key of gateway.toml as a path, its value, and the variable that sets it. ("timeout",) is of every backend."""


def settings(variables: Mapping[str, str], folder: Path) -> tuple[list[Setting], list[str]]:
    """What one layer of variables sets, weaker ones first, and what is wrong with them.

    `folder` is what a relative DATABASE_PATH starts from: where the process runs.
    """
    found: list[Setting] = []
    problems: list[str] = []
    for name, path, reader in _VARIABLES:
        text = variables.get(name, "").strip()
        if not text:
            continue
        try:
            value = reader(text)
        except ValueError as error:
            problems.append(f'{name}: expected {error}, found "{text[:60]}"')
            continue
        found.append((path, str(folder / value) if isinstance(value, Path) else value, name))
    _pair_up(found)
    return found, problems


def _pair_up(found: list[Setting]) -> None:
    """A rate limit is a pair: what sets one half sets the other, so that two pairs never mix."""
    maximum, window = ("middleware", "rate_limit", "max"), ("middleware", "rate_limit", "window")
    own = {path: (value, name) for path, value, name in found if name.startswith("GATEWAY_RATE_LIMIT")}
    short = [name for path, _, name in found if name == "RATE_LIMIT_MAX"]
    if own:
        name = next(iter(own.values()))[1]
        pair = (own.get(maximum, (_OTHER_MAX, name)), own.get(window, (_OTHER_WINDOW, name)))
        found[:] = [setting for setting in found if setting[0] not in (maximum, window)]
        found += [(maximum, *pair[0]), (window, *pair[1])]
    elif short:
        found.append((window, _MINUTE, short[0]))


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise ValueError("a port number, 0 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError("a whole number, 1 or more")
    return int(text)


def _bool(text: str) -> bool:
    word = text.lower()
    if word in ("true", "1", "yes", "on"):
        return True
    if word in ("false", "0", "no", "off"):
        return False
    raise ValueError("true or false")


def _milliseconds(text: str) -> float:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError("milliseconds, 1 or more")
    return int(text) / 1000


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


_VARIABLES: tuple[tuple[str, tuple[str, ...], Callable[[str], Any]], ...] = (
    ("PORT", ("server", "port"), _port),
    ("GATEWAY_PORT", ("server", "port"), _port),  # after PORT: it wins
    ("HOST", ("server", "host"), str),
    ("GATEWAY_HOST", ("server", "host"), str),
    ("LOG_LEVEL", ("server", "log_level"), str.lower),
    ("DATABASE_PATH", ("middleware", "log", "path"), Path),
    ("ENABLE_SQLITE_LOGGING", ("middleware", "log", "enabled"), _bool),
    ("RATE_LIMIT_ENABLED", ("middleware", "rate_limit", "enabled"), _bool),
    ("RATE_LIMIT_MAX", ("middleware", "rate_limit", "max"), _count),
    ("GATEWAY_RATE_LIMIT_MAX", ("middleware", "rate_limit", "max"), _count),
    ("GATEWAY_RATE_LIMIT_WINDOW_MS", ("middleware", "rate_limit", "window"), _milliseconds),
    ("GATEWAY_CORS_ORIGIN", ("middleware", "cors", "origins"), _names),
    ("GATEWAY_CORS_CREDENTIALS", ("middleware", "cors", "credentials"), _bool),
    ("GATEWAY_TIMEOUT", ("timeout",), _milliseconds),
)


def known_variables() -> set[str]:
    """The names of all of them."""
    return {name for name, _, _ in _VARIABLES}
