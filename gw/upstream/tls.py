"""TLS to providers: certificates and host names are always checked, against the system's authorities and one's own."""

from __future__ import annotations

import ssl


class Contexts:
    """The TLS settings by extra CA file, each made on first use and kept."""

    __slots__ = ("_by_file",)

    def __init__(self) -> None:
        self._by_file: dict[str | None, ssl.SSLContext] = {}

    def get(self, ca_file: str | None) -> ssl.SSLContext:
        """The context for a backend. Raises OSError (ssl.SSLError is one) where its CA file cannot be used."""
        context = self._by_file.get(ca_file)
        if context is None:
            context = self._by_file[ca_file] = make_context(ca_file, ["http/1.1"])
        return context


def make_context(ca_file: str | None, protocols: list[str]) -> ssl.SSLContext:
    """The system's authorities, those of `ca_file` added, and ALPN. Raises OSError for a file that cannot be used."""
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    context.set_alpn_protocols(protocols)
    return context
