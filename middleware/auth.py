"""Who may use the gateway: holders of a key; without any key, programs on this machine, but no web page.

Keys are kept as SHA-256 digests and compared as bytes, all of them, in constant time. Where no key is configured the
gateway is open on loopback, and a page in a browser could try to drive it: by a name that it makes resolve to
127.0.0.1 (DNS rebinding), or by requests that need no permission. So Host must then name loopback, and Origin must be
the gateway's own or one that cors allows.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Literal, NamedTuple

from gw.environ import Environ
from gw.errors import AuthenticationError, ConfigError, Forbidden
from gw.message import Headers, Principal, Request, Response
from gw.pipeline import ALL, Handler
from gw.secret import Secret
from gw.sliding_window import MAX_LIMIT


@dataclass(frozen=True, slots=True)
class Rate:
    """A key's own limit: `max` requests in `window` seconds."""

    max: int
    window: float = 60

    def __post_init__(self) -> None:
        if not 1 <= self.max <= MAX_LIMIT or not 0 < self.window < math.inf:
            raise ValueError(f"rate: max is from 1 to {MAX_LIMIT:,} requests, window is more than 0 seconds")


@dataclass(frozen=True, slots=True)
class Key:
    """One `[middleware.auth.keys.NAME]`: where its token is, and what it may use. None is everything.

    `token_env` names the variable; `token` is the token itself, which then lies in the file. The key is valid to the
    end of the day `expires` (UTC), or to that moment where it is one.
    """

    token_env: str | None = None
    token: Secret | None = None
    backends: list[str] | None = None
    models: list[str] | None = None
    expires: date | None = None
    rate: Rate | None = None


class Auth:
    """Asks for a key as soon as one is configured; its text is the same for a missing, a wrong and an expired one.

    `mode`: "auto" is open while there is no key (the configuration then binds to loopback only), "always" wants at
    least one, "off" asks for nothing and checks nothing. Health checks pass without a key, marked `gw.public` in the
    exchange's attributes: they are then to show the bare status. Raises ConfigError with every problem at once.
    """

    head_only = True
    operations = ALL

    def __init__(
        self,
        *,
        mode: Literal["auto", "always", "off"] = "auto",
        token_env: str = "API_AUTH_TOKEN",  # noqa: S107 (a variable's name)
        keys: dict[str, Key] = {},  # noqa: B006 (only read)
        environ: Environ,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.mode = mode
        self._clock = clock
        self._keys, problems = _collect(keys, token_env, environ)
        if mode == "always" and not self._keys and not problems:
            problems.append(
                f'mode = "always", and there is no key: set {token_env}, or add [middleware.auth.keys.NAME]'
            )
        if mode == "off" and self._keys:
            problems.append(
                f'mode = "off" would leave {", ".join(key.principal.name for key in self._keys)} unused: '
                f'remove the keys (unset {token_env}), or set mode = "auto"'
            )
        if problems:
            raise ConfigError(problems)

    @property
    def is_open(self) -> bool:
        """Whether anybody who can connect is served: no key is configured."""
        return not self._keys

    def __call__(self, request: Request, call_next: Handler, /) -> Awaitable[Response]:
        if not self._keys:
            if self.mode != "off" and (suspect := request.headers.about(_suspect)) is not None:
                _refuse(suspect, request)
            return call_next(request)
        principal = self._identify(request)
        if principal is None:
            if request.operation != "health":
                raise AuthenticationError(
                    "missing or unknown API key: send `Authorization: Bearer KEY` with a key of this gateway",
                    headers={"WWW-Authenticate": "Bearer"},
                )
            request.exchange.attributes["gw.public"] = True
            return call_next(request)
        request.exchange.principal = principal
        return call_next(request.replace(principal=principal))

    def _identify(self, request: Request) -> Principal | None:
        digest = request.headers.about(_digest)
        found: _Known | None = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found.principal if found is not None and self._clock() < found.expires else None


class _Known(NamedTuple):
    digest: bytes
    principal: Principal
    expires: float  # Unix seconds


def _collect(keys: dict[str, Key], token_env: str, environ: Environ) -> tuple[list[_Known], list[str]]:
    """Every key that was configured, and what is wrong with the others."""
    known: dict[bytes, _Known] = {}
    problems: list[str] = []
    everything = environ.secret(token_env)
    if everything is not None:
        known[everything.digest()] = _Known(everything.digest(), Principal("default"), math.inf)
    for name, key in keys.items():
        path = f"keys.{name}"
        if name in ("anonymous", "default"):
            problems.append(f"{path}: this name is taken; call the key something else")
        if (key.token_env is None) == (key.token is None):
            problems.append(f"{path}: set token_env, the name of the variable that holds its token")
            continue
        secret = environ.secret(key.token_env) if key.token_env is not None else key.token
        if not secret:
            problems.append(f"{path} has no token: set {key.token_env or 'token_env'}")
        elif secret.digest() in known:
            problems.append(f"{path} has the same token as {known[secret.digest()].principal.name}: make another")
        else:
            known[secret.digest()] = _Known(secret.digest(), _principal(name, key), _end(key.expires))
    return list(known.values()), problems


def _principal(name: str, key: Key) -> Principal:
    return Principal(
        name,
        backends=None if key.backends is None else frozenset(key.backends),
        models=None if key.models is None else frozenset(key.models),
        rate=None if key.rate is None else (key.rate.max, float(key.rate.window)),
    )


def _end(expires: date | None) -> float:
    """The Unix second in which a key ceases to be valid."""
    if expires is None:
        return math.inf
    if isinstance(expires, datetime):
        return (expires if expires.tzinfo else expires.replace(tzinfo=UTC)).timestamp()
    return (datetime(expires.year, expires.month, expires.day, tzinfo=UTC) + timedelta(days=1)).timestamp()


_KEY_FIELDS = frozenset((b"authorization", b"x-api-key", b"api-key"))


def _digest(headers: Headers) -> bytes:
    return hashlib.sha256(_token(headers)).digest()


def _token(headers: Headers) -> bytes:
    """The key that was sent, empty where none was: a bearer token (RFC 6750), else Anthropic's or Azure's header.

    A field that is there twice names nobody: a proxy in front may have looked at the other one.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers.pairs:
        if name in _KEY_FIELDS:
            if name in found:
                return b""
            found[name] = value
    bearer = found.get(b"authorization", b"")
    if bearer[:7].lower() == b"bearer ":
        return bearer[7:].strip()
    return (found.get(b"x-api-key") or found.get(b"api-key") or b"").strip()


# --- local safety -----------------------------------------------------------------------------------------------


def _refuse(suspect: Literal["host", "origin"], request: Request) -> None:
    """Refuse what a web page could make a browser send. Raises Forbidden (`forbidden_origin`)."""
    if suspect == "host":
        raise Forbidden(
            "the Host header names no loopback address: a gateway without a key is called as 127.0.0.1 or localhost; "
            "set API_AUTH_TOKEN to serve other names",
            code="forbidden_origin",
        )
    if not request.exchange.attributes.get("gw.origin_allowed"):
        raise Forbidden(
            "a web page of another origin asks: name its origin in [middleware.cors] origins to let it",
            code="forbidden_origin",
        )


def _suspect(headers: Headers) -> Literal["host", "origin"] | None:
    """Which field speaks for a web page, if any does."""
    host = origin = site = b""
    for name, value in headers.pairs:
        if name == b"host":
            host = value
        elif name == b"origin":
            origin = value
        elif name == b"sec-fetch-site":
            site = value
    # Without Host it is HTTP/1.0, which no browser speaks.
    if host and not _is_loopback(host):
        return "host"
    # A browser always tells the origin of a request that can change something, and the site of every other.
    is_foreign = (origin and not _is_same(origin, host)) or site.strip().lower() == b"cross-site"
    return "origin" if is_foreign else None


@lru_cache(256)
def _is_loopback(host: bytes) -> bool:
    """Whether a Host header names this machine: localhost, a name below it (RFC 6761), 127.0.0.0/8 or [::1]."""
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = match[1].lower().decode("ascii")
    try:
        if name.startswith("["):
            address = IPv6Address(name[1:-1])
            return address.is_loopback or (address.ipv4_mapped is not None and address.ipv4_mapped.is_loopback)
        return IPv4Address(name).is_loopback
    except ValueError:
        name = name.removesuffix(".")
        return name == "localhost" or name.endswith(".localhost")


_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{0,5})?")


def _is_same(origin: bytes, host: bytes) -> bool:
    """Whether an origin is the gateway's own: its scheme aside, the very text of Host."""
    scheme, separator, place = origin.partition(b"://")
    return bool(separator) and scheme in (b"http", b"https") and place.lower() == host.lower()
