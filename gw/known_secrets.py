"""The keys that this gateway knows, taken out of any text that is about to be kept or shown."""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, quote_plus

from gw.errors import GatewayError, UpstreamError
from gw.secret import Secret

SHORTEST = 6  # characters; a shorter "key" is a word, and taking it out would spoil every text
HIDDEN = "***"
CREDENTIAL = re.compile(r"auth|key|token|secret|password|cookie|signature|credential", re.IGNORECASE)
"""Finds the names of header fields whose values are not shown."""


class KnownSecrets:
    """The configured keys in every form in which they travel: plain, JSON-escaped, URL-encoded, base64.

    Secrets shorter than 6 characters are left alone.
    """

    __slots__ = ("_needles",)

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        self.know(secrets)

    def know(self, secrets: Iterable[Secret]) -> None:
        """From now on these are the secrets; for whoever has this object, in any thread."""
        needles = {form for secret in secrets if len(value := secret.reveal()) >= SHORTEST for form in _forms(value)}
        self._needles = tuple(sorted(needles, key=len, reverse=True))  # a key that contains another goes first

    def are_in(self, text: str) -> bool:
        """Whether any known secret is in the text."""
        return any(needle in text for needle in self._needles)

    def scrub(self, text: str) -> str:
        """The text with each known secret replaced by `***`."""
        for needle in self._needles:
            if needle in text:
                text = text.replace(needle, HIDDEN)
        return text

    def body(self, error: GatewayError) -> dict[str, Any]:
        """The error as the client reads it, without secrets that a provider has put into its words.

        In errors of our own a client may read its own words again, whatever they are.
        """
        body = error.body()
        if isinstance(error, UpstreamError) and self._needles:
            for name, text in body["error"].items():
                if isinstance(text, str):
                    body["error"][name] = self.scrub(text)
        return body

    def __bool__(self) -> bool:
        return bool(self._needles)

    def __repr__(self) -> str:
        return "KnownSecrets(***)"


class ScrubbedFormatter(logging.Formatter):
    """Lines of the process's log, tracebacks too, without the secrets that it has been told of."""

    def __init__(self, format: str) -> None:
        super().__init__(format)
        self.secrets = KnownSecrets()

    def format(self, record: logging.LogRecord) -> str:
        """The line or lines of one record."""
        return self.secrets.scrub(super().format(record))


def _forms(value: str) -> set[str]:
    raw = value.encode("utf-8", "surrogatepass")
    forms = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    forms |= {quote(raw, safe=""), quote(raw), quote_plus(raw)}
    # Base64 of `user:KEY` or `Bearer KEY` shows the key at one of three offsets; the ends that mix with neighbours
    # are cut off.
    for offset in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(b"\0" * offset + raw).decode().rstrip("=")
            forms.add(text[(0, 2, 3)[offset] : len(text) - (1 if (offset + len(raw)) % 3 else 0)])
    return {form for form in forms if len(form) >= SHORTEST}
