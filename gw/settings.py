"""The tables of gateway.toml that belong to gw itself: `[server]` and `[sessions]`."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gw.errors import ConfigError
from gw.options import Size


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """`[server]`. Times are seconds; `port` 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 3456
    workers: int = 1
    log_level: Literal["debug", "info", "warn", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    http: Literal["auto", "h11"] = "auto"
    max_body: Size = 32 * 1024 * 1024
    shutdown_grace: float = 30.0

    def __post_init__(self) -> None:
        problems = []
        if not 0 <= self.port <= 65535:
            problems.append(f"port is 0 to 65535, found {self.port}")
        if self.workers < 1:
            problems.append(f"workers is the number of processes, 1 or more; found {self.workers}")
        if self.max_body < 1:
            problems.append("max_body is 1 byte or more")
        if self.shutdown_grace < 0:
            problems.append(f"shutdown_grace is in seconds, 0 or more; found {self.shutdown_grace:g}")
        if not self.host or any(character.isspace() for character in self.host):
            problems.append(f'host is an address or a name such as "127.0.0.1", found "{self.host}"')
        if (self.tls_cert is None) != (self.tls_key is None):
            missing = "tls_key" if self.tls_key is None else "tls_cert"
            problems.append(f"tls_cert and tls_key come together: {missing} is missing")
        if problems:
            raise ConfigError(problems)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own: 127.0.0.0/8, ::1, localhost."""
    if host.lower() in ("localhost", "localhost."):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """`[sessions]`: conversations that are continued by `session_id`."""

    enabled: bool = True
    ttl_hours: float = 24.0
    same_session: Literal["queue", "reject"] = "queue"

    def __post_init__(self) -> None:
        if self.ttl_hours <= 0:
            raise ConfigError([f"ttl_hours is more than 0, found {self.ttl_hours:g}"])
