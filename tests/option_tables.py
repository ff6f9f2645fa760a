"""The README's option tables, made from gateway.toml, so that the two can never differ.

python -m tests.option_tables      writes them between the markers in README.md
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- options: made from gateway.toml by `python -m tests.option_tables` -->", "<!-- end of options -->"
_TABLE = re.compile(r"(?:# )?\[([a-z_.\"A-Z0-9-]+)\]\s*(?:#\s*(.*))?")
_OPTION = re.compile(r"(?:# +)?([a-z_]+) = (.*)")


def tables() -> str:
    """Markdown: a table for each table of gateway.toml, in its order."""
    lines: list[str] = []
    for line in (ROOT / "gateway.toml").read_text().splitlines():
        if found := _TABLE.fullmatch(line.strip()):
            about = f": {found[2]}" if found[2] else ""
            lines += ["", f"**`[{found[1]}]`**{about}", "", "| option | value | |", "|---|---|---|"]
        elif lines and (option := _OPTION.fullmatch(line.strip())):
            value, comment = _split(option[2])
            lines.append(f"| `{option[1]}` | `{_cell(value)}` | {_cell(comment)} |")
    return "\n".join(lines).strip()


def _split(text: str) -> tuple[str, str]:
    """A TOML value and the comment behind it; a `#` inside quotes belongs to the value."""
    quoted = False
    for position, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        elif character == "#" and not quoted:
            return text[:position].strip(), text[position + 1 :].strip()
    return text.strip(), ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def readme() -> str:
    """README.md with its option tables made anew."""
    text = (ROOT / "README.md").read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


if __name__ == "__main__":
    (ROOT / "README.md").write_text(readme())
