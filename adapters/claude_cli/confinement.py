"""What a request may touch: Claude's tools by an allow-list, folders inside the roots, and the folder's CONTEXT.md."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gw.errors import Forbidden, InvalidRequest
from gw.near import near

CONTEXT = "CONTEXT.md"
MAX_CONTEXT = 256 * 1024  # bytes; a model's context holds about four times that


def allowed_tools(chat: Mapping[str, Any], allowed: Sequence[str]) -> list[str]:
    """The tools that a request gets: those it names, all allowed ones where it names none, never others.

    Raises Forbidden (403 `forbidden_tool`) for a name that is not allowed.
    """
    wanted: list[str] = []
    for field in ("tools", "cli_tools", "allowed_tools"):
        for name in chat.get(field) or ():
            if name not in allowed:
                raise Forbidden(
                    f'tool "{name}" is not allowed here{near(name, allowed)} (allowed: {", ".join(allowed) or "none"})',
                    code="forbidden_tool",
                    param=field,
                )
            wanted.append(name)
    refused = chat.get("disallowed_tools") or ()
    return [name for name in dict.fromkeys(wanted or allowed) if name not in refused]


class Roots:
    """The folders in which a `working_directory` may lie, by their real paths."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = [Path(os.path.realpath(root.expanduser())) for root in roots]

    def resolve(self, folder: str) -> Path:
        """The real path of a folder, symbolic links followed.

        Raises Forbidden (403 `forbidden_path`) outside the roots, InvalidRequest where it is no folder.
        """
        if not os.path.isabs(folder) or "\0" in folder:
            raise InvalidRequest("`working_directory` is an absolute path", param="working_directory")
        path = Path(os.path.realpath(folder))
        if not self._holds(path):
            raise Forbidden(
                "`working_directory` lies outside the folders that may be worked in: name one inside `roots`",
                code="forbidden_path",
                param="working_directory",
            )
        if not path.is_dir():
            raise InvalidRequest("`working_directory` is not a folder", param="working_directory")
        return path

    def context(self, folder: Path) -> str | None:
        """The text of the folder's CONTEXT.md, cut where it is too long; None where there is none to be read.

        A link that leads out of the roots, a device or a pipe is none.
        """
        path = Path(os.path.realpath(folder / CONTEXT))
        if not self._holds(path):
            return None
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return None
            content = file.read(MAX_CONTEXT + 1)
        text = content[:MAX_CONTEXT].decode("utf-8", "replace").strip()
        if not text:
            return None
        cut = (
            f"\n\n[{CONTEXT} goes on; only its first {MAX_CONTEXT} bytes are here]"
            if len(content) > MAX_CONTEXT
            else ""
        )
        return f"Contents of {CONTEXT} in the working directory:\n\n{text}{cut}"

    def _holds(self, path: Path) -> bool:
        return any(path.is_relative_to(root) for root in self._roots)
