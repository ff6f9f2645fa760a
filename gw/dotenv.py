""".env files: `NAME=value` lines as shells and other programs read them, without expansion of anything."""

from __future__ import annotations

import re
from pathlib import Path

from gw.errors import ConfigError

_LINE = r"(?s)(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_.]*)\s*=\s*(?P<value>.*)\Z"
_QUOTED = r"""(?s)(?P<quote>["'])(?P<inner>(?:\\.|(?!(?P=quote)).)*)(?P=quote)\s*(?:#.*)?\Z"""
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$"}


def parse(text: str, name: str = ".env") -> dict[str, str]:
    """The variables of a .env file; a later line wins. Raises ConfigError with every line that is none.

    A value may be bare (up to ` #`), in single quotes (taken as it is) or in double quotes (`\\n`, `\\"` and the like).
    """
    variables: dict[str, str] = {}
    problems = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = re.match(_LINE, line)
        if match is None:
            # The line itself may hold a secret and is not shown.
            problems.append(f"{name}, line {number}: expected NAME=value")
            continue
        variables[match["name"]] = _value(match["value"])
    if problems:
        raise ConfigError(problems)
    return variables


def read(path: Path) -> dict[str, str]:
    """The variables of the file; none where there is no such file. Raises ConfigError where it cannot be read."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError([f"{path} cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path} is not UTF-8 (byte {error.start})"]) from error


def _value(written: str) -> str:
    quoted = re.match(_QUOTED, written)
    if quoted is None:
        return re.split(r"\s#", written if not written.startswith("#") else "", maxsplit=1)[0].strip()
    if quoted["quote"] == "'":
        return quoted["inner"]
    return re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[0]), quoted["inner"])
