"""TLS to providers: certificates and host names are always checked, against the system's authorities and one's own."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterable

Stamp = tuple[int, int, int]  # of a file: its number, size and time of change


class Contexts:
    """The TLS settings by extra CA file, each made once and kept. `get` and `load` may be called in any thread."""

    __slots__ = ("_by_file", "_lock", "_stamps")

    def __init__(self) -> None:
        self._by_file: dict[str | None, ssl.SSLContext] = {}
        self._stamps: dict[str, Stamp | None] = {}
        self._lock = threading.Lock()

    def renewed(self) -> Contexts:
        """Others, with those of these that were made of files which have not changed since."""
        renewed = Contexts()
        for file, context in self._by_file.copy().items():
            if file is None or self._stamps[file] == stamp(file) is not None:
                renewed._by_file[file] = context
                if file is not None:
                    renewed._stamps[file] = self._stamps[file]
        return renewed

    def known(self) -> set[str | None]:
        """The files whose contexts are made; None stands for the system's authorities alone."""
        return set(self._by_file)

    def get(self, ca_file: str | None) -> ssl.SSLContext:
        """The context for a backend. Raises OSError (ssl.SSLError is one) where its CA file cannot be used."""
        context = self._by_file.get(ca_file)
        if context is None:
            with self._lock:
                context = self._by_file.get(ca_file) or self._make(ca_file)
        return context

    def load(self, ca_files: Iterable[str | None]) -> None:
        """Make the contexts of these files, so that no request waits for that. Raises OSError as `get` does."""
        for ca_file in ca_files:
            self.get(ca_file)

    def _make(self, ca_file: str | None) -> ssl.SSLContext:
        if ca_file is not None:
            self._stamps[ca_file] = stamp(ca_file)  # before: what changes meanwhile is read once more
        context = self._by_file[ca_file] = make_context(ca_file, ["http/1.1"])
        return context


def make_context(ca_file: str | None, protocols: list[str]) -> ssl.SSLContext:
    """The system's authorities, those of `ca_file` added, and ALPN. Raises OSError for a file that cannot be used."""
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    context.set_alpn_protocols(protocols)
    return context


def stamp(file: str) -> Stamp | None:
    """What is another one once the file has changed; None where it cannot be looked at."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
