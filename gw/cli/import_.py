"""`gw import`: backends.json or config.json as gateway.toml on stdout, what was repaired on stderr."""

from __future__ import annotations

import sys
from pathlib import Path

from gw.config_file import read_text
from gw.errors import ConfigError
from gw.import_text import import_json, to_toml


def import_file(name: str) -> int:
    """Import one file, or standard input for `-`. Raises ConfigError where it cannot be understood."""
    if name == "-":
        try:
            text = sys.stdin.buffer.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ConfigError([f"standard input is not UTF-8: byte {error.start} is wrong"]) from error
    else:
        text = read_text(Path(name))
    imported = import_json(text, "standard input" if name == "-" else name)
    sys.stdout.write(to_toml(imported.table))
    for note in imported.notes:
        print(f"note: {note}", file=sys.stderr)
    return 0
