"""A configuration file to a table: gateway.toml, or either founding document's JSON through the importer."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gw import dotenv
from gw.errors import ConfigError


@dataclass(frozen=True)
class Files:
    """What a configuration is read from, as it was found: the file (None: there is none) and the `.env` beside it."""

    path: Path | None = None
    text: str = field(default="", repr=False)  # may hold a key
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Origin:
    """Where a configuration came from, so that it can be read again: a file, or a table that a program made.

    `folder` is where `.env` and relative paths are looked for; None is the file's own.
    """

    source: Files | Mapping[str, Any] = field(repr=False)  # may hold a key
    environ: Mapping[str, str] = field(repr=False)
    overrides: Mapping[str, Any]
    folder: Path | None


def look(path: Path | None, folder: Path) -> Files:
    """The files as they are now, `.env` from `folder`. Raises ConfigError where one cannot be read."""
    text = "" if path is None else read_text(path)
    return Files(path, text, dotenv.read(folder / ".env"))


class Source(NamedTuple):
    """A table in gateway.toml's shape, the file it came from (None: a mapping, or nothing), and what was repaired."""

    table: dict[str, Any]
    path: Path | None = None
    notes: Sequence[str] = ()


def load(source: Files | Mapping[str, Any]) -> Source:
    """A caller's table, or what its file says. Raises ConfigError."""
    if isinstance(source, Mapping):
        from gw.importer import import_table, is_foreign, without_left_out

        if is_foreign(source):
            imported = import_table(source)
            return Source(without_left_out(imported.table), None, imported.notes)
        return Source(_copy(source))
    path, text = source.path, source.text
    if path is None:
        return Source({})
    if path.suffix.lower() == ".json" or text.lstrip().startswith("{"):
        from gw.import_text import import_json  # only for the older gateways' JSON
        from gw.importer import without_left_out

        imported = import_json(text, str(path))
        return Source(without_left_out(imported.table), path, imported.notes)
    try:
        return Source(tomllib.loads(text), path)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path} is not TOML: {error}"]) from error
    except RecursionError as error:
        raise ConfigError([f"{path} is nested too deeply"]) from error


def read_text(path: Path) -> str:
    """A file as text. Raises ConfigError where there is none, or none that can be read."""
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError as error:
        raise ConfigError([f"there is no file {path}; name one with --config, or leave it out for defaults"]) from error
    except IsADirectoryError as error:
        raise ConfigError([f"{path} is a folder; name the file in it: {path / 'gateway.toml'}"]) from error
    except OSError as error:
        raise ConfigError([f"{path} cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path} is not UTF-8: byte {error.start} is wrong; save it as UTF-8"]) from error


def _copy(table: Mapping[str, Any]) -> dict[str, Any]:
    """Tables and lists anew, everything in them (a Secret, say) as it is."""
    return {key: _copied(value) for key, value in table.items()}


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _copy(value)
    return [_copied(item) for item in value] if isinstance(value, list) else value
