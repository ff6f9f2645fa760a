"""A configuration file to a table: gateway.toml, or either founding document's JSON through the importer."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gw.errors import ConfigError
from gw.import_text import import_json
from gw.importer import import_table, is_foreign, without_left_out


@dataclass(frozen=True)
class Source:
    """A table in gateway.toml's shape, the file it came from (None: a mapping, or nothing), and what was repaired."""

    table: dict[str, Any]
    path: Path | None = None
    notes: list[str] = field(default_factory=list)


def load(source: str | Path | Mapping[str, Any] | None) -> Source:
    """Read what a caller names as its configuration; None is an empty one. Raises ConfigError."""
    if source is None:
        return Source({})
    if isinstance(source, Mapping):
        if is_foreign(source):
            imported = import_table(source)
            return Source(without_left_out(imported.table), None, imported.notes)
        return Source(_copy(source))
    path = Path(source).expanduser()
    text = read_text(path)
    if path.suffix.lower() == ".json" or text.lstrip().startswith("{"):
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
