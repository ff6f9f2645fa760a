"""The nearest right name, as a hint behind an error: `; did you mean "gpt-4"?`."""

from __future__ import annotations

from collections.abc import Iterable


def near(name: str, names: Iterable[str]) -> str:
    """A hint that begins with a semicolon, or nothing where no name is near."""
    import difflib  # only where somebody has mistyped

    found = difflib.get_close_matches(name, list(names), 1, 0.6)
    return f'; did you mean "{found[0]}"?' if found else ""
