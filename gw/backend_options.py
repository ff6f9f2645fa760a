"""The options that every `[backends.NAME]` has, whatever its adapter."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from gw.backend import Price, Timeouts
from gw.errors import ConfigError
from gw.options import Alias, options_of
from gw.secret import Secret
from gw.upstream.head import RESERVED_HEADERS

_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")  # RFC 9110 5.1
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")  # RFC 9110 5.5, as latin-1


@dataclass(frozen=True, slots=True)
class TimeoutTable:
    """`timeouts`: seconds; what is not given keeps its default."""

    connect: float | None = None
    first_byte: float | None = None
    first_content: float | None = None
    idle: float | None = None
    total: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendOptions:
    """The options that every backend has, whatever its adapter. Times are seconds."""

    adapter: str
    name: Annotated[str | None, Alias("id")] = None  # where [[backends]] is a list
    enabled: bool = True
    description: str = ""
    model: str | None = None
    models: dict[str, str] = field(default_factory=dict)
    group: str | None = None
    weight: int = 1
    price: Price | None = None
    cost_per_request: float | None = None  # USD
    context_length: int | None = None  # tokens
    capabilities: list[Literal["functions", "cli_tools", "images", "stream"]] | None = None
    api_key_env: str | None = None
    api_key_envs: list[str] = field(default_factory=list)
    api_key: Secret | None = None
    base_url: str | None = None
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    timeout: float | None = None  # first_content and total in one
    timeouts: TimeoutTable = TimeoutTable()
    ca_file: Path | None = None
    proxy: str | None = None
    transport: Literal["own", "httpx"] = "own"
    on_loss: Literal["allow", "reject", "reroute"] = "allow"
    max_concurrent: int | None = None
    queue_size: Annotated[int | None, Alias("queueSize", "maxQueue")] = None
    queue_timeout: float | None = None

    def __post_init__(self) -> None:
        problems = [
            f"{name} is more than 0, found {value:g}"
            for name, value in self._must_be_positive()
            if value is not None and value <= 0
        ]
        problems += [
            f"{name} is 0 or more, found {value:g}"
            for name, value in self._must_not_be_negative()
            if value is not None and value < 0
        ]
        if self.api_key is not None and not is_sendable(self.api_key):
            problems.append("api_key holds characters that no header may have, such as the end of a line")
        for header, text in self.headers.items():
            if not _FIELD_NAME.match(header):
                problems.append(f"headers: {header!r} is not a header's name")
            elif header.lower() in RESERVED_HEADERS:
                problems.append(f"headers: {header} is the transport's own: take it out")
            elif not _FIELD_VALUE.match(text):
                problems.append(f"headers: the value of {header} holds characters that no header may have")
        for name, url in (("base_url", self.base_url), ("proxy", self.proxy)):
            if url is not None and not _is_url(url):
                problems.append(f'{name} is a URL that begins with http:// or https://, found "{without_user(url)}"')
        if problems:
            raise ConfigError(problems)

    def _must_be_positive(self) -> list[tuple[str, float | None]]:
        names = ("weight", "context_length", "max_concurrent", "queue_timeout", "timeout")
        found: list[tuple[str, float | None]] = [(name, getattr(self, name)) for name in names]
        return found + [(f"timeouts.{item.name}", getattr(self.timeouts, item.name)) for item in fields(self.timeouts)]

    def _must_not_be_negative(self) -> list[tuple[str, float | None]]:
        found = [("cost_per_request", self.cost_per_request), ("queue_size", self.queue_size)]
        prices = [] if self.price is None else fields(self.price)
        return found + [(f"price.{item.name}", getattr(self.price, item.name)) for item in prices]

    def deadlines(self, overall: float | None) -> Timeouts:
        """Each of the clocks: `overall` (an environment variable), `timeouts`, `timeout`, the default."""
        given = {item.name: getattr(self.timeouts, item.name) for item in fields(self.timeouts)}
        known = {name: value for name, value in given.items() if value is not None}
        if self.timeout is not None:
            known = {"first_content": self.timeout, "total": self.timeout} | known
        if overall is not None:
            known |= {"first_content": overall, "total": overall}
        return Timeouts(**known)


COMMON = tuple(option.name for option in options_of(BackendOptions))
COMMON_NAMES = frozenset(name for option in options_of(BackendOptions) for name in (option.name, *option.aliases))


def is_sendable(key: Secret) -> bool:
    """Whether a header can carry it."""
    return _FIELD_VALUE.match(key.reveal()) is not None


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def without_user(url: str) -> str:
    """A URL for a message: without what may be a password."""
    return re.sub(r"//[^/@]*@", "//***@", url)
