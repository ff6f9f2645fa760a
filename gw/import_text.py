"""The text on both sides of an import: JSON as people write it in, gateway.toml with comments out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from gw.errors import ConfigError
from gw.importer import Imported, LeftOut, import_table, is_foreign
from gw.option_kinds import found

_COMMENT = re.compile(r'("(?:\\.|[^"\\\n])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRAILING_COMMA = re.compile(r'("(?:\\.|[^"\\\n])*")|,(?=\s*[}\]])')


def import_json(text: str, name: str = "the file") -> Imported:
    """Read JSON, comments tolerated, as one of the two documents' shapes. Raises ConfigError for anything else."""
    try:
        data = json.loads(_plain_json(text), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ConfigError([f"{name} is not JSON: {error}"]) from error
    if not isinstance(data, dict):
        raise ConfigError([f"{name}: expected a JSON object with backends, found {found(data)}"])
    if not is_foreign(data):
        keys = ", ".join(sorted(data)) or "none"
        raise ConfigError(
            [f"{name}: expected backends and routing, or backends, routingRules, cors and rateLimit; its keys: {keys}"]
        )
    return import_table(data)


def to_toml(table: Mapping[str, Any]) -> str:
    """The table as TOML text, with what was left out as comments in its place."""
    import tomli_w  # only `gw import` writes TOML

    lines = tomli_w.dumps(_marked(table)).splitlines()
    return "\n".join(_commented(line) for line in lines) + "\n"


# A private-use character that no configuration holds marks the lines that become comments.
_MARK = "\ue000"
_MARKED = re.compile(rf'(?P<indent>\s*)(?P<key>[\w-]+ = )?(?P<text>"{_MARK}.*{_MARK}"),?\Z')


def _marked(value: Any) -> Any:
    if isinstance(value, LeftOut):
        return f"{_MARK}{value}{_MARK}{value.reason}{_MARK}"
    if isinstance(value, Mapping):
        return {key: _marked(item) for key, item in value.items()}
    return [_marked(item) for item in value] if isinstance(value, list) else value


def _commented(line: str) -> str:
    match = _MARKED.match(line)
    if match is None:
        return line
    _, text, reason, _ = json.loads(match["text"]).split(_MARK)
    comma = "" if match["key"] else ","
    return f"{match['indent']}# {match['key'] or ''}{text}{comma}  # {reason}"


def _plain_json(text: str) -> str:
    """JSON without comments and trailing commas; lines and strings stay, so that errors name the right line."""
    text = _COMMENT.sub(lambda match: match[1] or re.sub(r"[^\n]", " ", match[0]), text.removeprefix("\ufeff"))
    return _TRAILING_COMMA.sub(lambda match: match[1] or " ", text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'the key "{twice}" occurs twice in one object')
    return table
