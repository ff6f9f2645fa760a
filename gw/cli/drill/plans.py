"""The user's configuration as it is drilled: the same pipeline, with a provider on 127.0.0.1 behind every backend.

What differs from the file, and why, is told in words by `Plan.changes`; nothing else does.
"""

from __future__ import annotations

import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gw.adapters.faulty import Fault, Faulty
from gw.adapters.faulty.acts import RETRY_AFTER
from gw.adapters.faulty.faults import Dialect
from gw.assembly import ECHO, Component, Config
from gw.backend import Timeouts
from gw.backend_table import BackendTable
from gw.breaker import Breaker
from gw.custom_backend import is_custom
from gw.environ import Environ
from gw.errors import ConfigError
from gw.middleware.auth import Auth
from gw.middleware.fallback import Fallback
from gw.middleware.log import Log
from gw.middleware.rate_limit import RateLimit
from gw.options import options_of
from gw.retry import Share
from gw.secret import Secret

TIMEOUTS = Timeouts(connect=1.0, first_content=0.4, idle=0.4, total=0.6)
BACKOFF = 0.02  # seconds
COOLING = 0.01  # of the breaker's cool-downs
LOG = "drill.db"
_NO_LIMIT = 1_000  # far more than any fault has requests


@dataclass(frozen=True)
class Plan:
    """A configuration that can be drilled, what of the user's it changes, and the key that its gateway wants.

    `retries` are those of its fallback, which obeys a Retry-After of up to `retry_after_max` seconds; without fallback
    there are none, and they are missed.
    """

    config: Config
    changes: tuple[str, ...]
    token: str
    retries: int = 0
    retry_after_max: float = 0.0
    has_fallback: bool = False
    has_log: bool = False
    routes_around_filters: bool = False
    uses_httpx: bool = False

    def may_give_up(self, fault: Fault) -> bool:
        """Whether the user wants no second try after such a failure."""
        is_long = "limited" in fault.acts and self.retry_after_max < RETRY_AFTER
        return self.has_fallback and (self.retries == 0 or is_long)

    def may_hide(self, fault: Fault) -> bool:
        """Whether the user wants somebody else asked for what this one's provider refuses."""
        return self.routes_around_filters and fault.acts == ("content_filter",)

    def gateway(self, dialect: Dialect, folder: Path, only: str | None = None, times: float = 1.0) -> Config:
        """One gateway's configuration: providers of this dialect, its log in `folder`, all backends but `only` out.

        `times` lengthens every timeout.
        """
        backends = tuple(_faulty(table, dialect, only, times) for table in self.config.backends)
        middleware = dict(self.config.middleware)
        for name, component in middleware.items():
            if component.factory is Log:
                middleware[name] = _with(component, path=str(folder / LOG))
        return replace(self.config, backends=backends, middleware=middleware)

    def keys(self, backend: str) -> int:
        """How many keys a backend has in the drill."""
        return next(len(table.keys) or 1 for table in self.config.backends if table.name == backend)

    def roomier(self, backend: str, others: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the others that may have more context than this one, by what the file says."""
        lengths = {table.name: table.options.context_length for table in self.config.backends}
        own = lengths[backend] or 0
        return tuple(name for name in others if (lengths[name] or own + 1) > own)


def plan(config: Config) -> Plan:
    """How a configuration is drilled. Raises ConfigError where it has no backend that could fail."""
    if all(table.name == ECHO and table.options.adapter == ECHO for table in config.backends):
        raise ConfigError(
            ["backends: there is none but echo, which never fails: write [backends.NAME] and drill again"]
        )
    changes = [
        "every backend asks a provider on 127.0.0.1 in place of its own, with a key of the drill's",
        f"timeouts are {TIMEOUTS.first_content:g} s to the first content, {TIMEOUTS.idle:g} s of silence, "
        f"{TIMEOUTS.total:g} s for whole answers",
        "each fault has a gateway of its own, on a free port, without TLS, with one worker",
    ]
    token = secrets.token_urlsafe(24)
    environ = config.environ
    auth = next((one for one in config.middleware.values() if one.factory is Auth), None)
    if auth is not None and auth.keywords.get("mode") != "off":
        environ = Environ({**environ, _token_variable(auth): token})
    middleware, found = _layers(config, changes)
    if any(table.options.proxy or table.options.transport == "httpx" for table in config.backends):
        found["uses_httpx"] = True
        changes.append("no certificate authorities are read: nothing is asked over https")
    here: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": 0,
        "workers": 1,
        "log_level": "error",
        "tls_cert": None,
        "tls_key": None,
    }
    drilled = replace(config, server=replace(config.server, **here), middleware=middleware, environ=environ)
    return Plan(drilled, tuple(changes), token, **found)


def _layers(config: Config, changes: list[str]) -> tuple[dict[str, Component], dict[str, Any]]:
    """The middleware as it is drilled, and what a Plan has to know of it; tells what it changes."""
    middleware = dict(config.middleware)
    found: dict[str, Any] = {}
    for name, component in config.middleware.items():
        if component.factory is Fallback:
            given = {option.name: option.default for option in options_of(Fallback)} | dict(component.keywords)
            middleware[name], told = _fallback(component, given)
            changes += told
            found |= {"has_fallback": True, "retries": given["retries"], "retry_after_max": given["retry_after_max"]}
            found["routes_around_filters"] = given["content_filter"] == "fallback"
        elif component.factory is RateLimit:
            middleware[name] = _with(component, max=_NO_LIMIT)
            changes.append(f"{component.path} lets everything through")
        elif component.factory is Log:
            found["has_log"] = True
            changes.append(f"{component.path} writes to a scratch file")
        elif not getattr(component.factory, "__module__", "").startswith("gw."):
            changes.append(f"{component.path} is your own and runs as it is")
    return middleware, found


def _fallback(component: Component, given: Mapping[str, Any]) -> tuple[Component, list[str]]:
    """Shorter pauses, and a retry budget that is not used up by the one request that there is."""
    breaker = given["breaker"] or Breaker()
    budget = given["retry_budget"] or Share()
    shorter: dict[str, Any] = {
        "backoff": min(given["backoff"], BACKOFF),
        "breaker": replace(breaker, cooldown=breaker.cooldown * COOLING, cooldown_max=breaker.cooldown_max * COOLING),
    }
    told = [f"{component.path}: backoff is {shorter['backoff']:g} s, cool-downs are a hundredth of yours"]
    if budget.at_least < given["retries"]:
        shorter["retry_budget"] = replace(budget, at_least=given["retries"])
        told.append(
            f"{component.path}.retry_budget.at_least is {given['retries']}, not {budget.at_least}: "
            "a share of one request is no retry at all"
        )
    return _with(component, **shorter), told


def stand_ins(file: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Keys of the gateway's own for those that its file names and that are not here: nobody will use them."""
    try:
        table = {} if file is None else tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # what is wrong with it is told by whoever reads it next
    middleware = table.get("middleware")
    auth = middleware.get("auth", {}) if isinstance(middleware, Mapping) else {}
    if not isinstance(auth, Mapping) or auth.get("mode") == "off" or auth.get("enabled") is False:
        return {}
    keys = auth.get("keys")
    tables = [{"token_env": "API_AUTH_TOKEN"} | dict(auth), *(keys.values() if isinstance(keys, Mapping) else ())]
    names = [one.get("token_env") for one in tables if isinstance(one, Mapping)]
    return {
        name: secrets.token_urlsafe(24) for name in names if isinstance(name, str) and not environ.get(name, "").strip()
    }


def _token_variable(component: Component) -> str:
    defaults = {option.name: option.default for option in options_of(Auth)}
    return str(component.keywords.get("token_env", defaults["token_env"]))


def _with(component: Component, **keywords: Any) -> Component:
    return replace(component, keywords={**component.keywords, **keywords})


def _lengthened(timeouts: Timeouts, times: float) -> Timeouts:
    known = {name: seconds for name, seconds in asdict(timeouts).items() if seconds is not None}
    return replace(timeouts, **{name: seconds * times for name, seconds in known.items()})


def _faulty(table: BackendTable, dialect: Dialect, only: str | None, times: float) -> BackendTable:
    """The backend with another provider behind it; its own adapter, keys and address are not so much as made."""
    options = table.options
    transport = "httpx" if options.proxy else options.transport
    model = options.model
    if model is None and not options.models and (hasattr(table.factory, "answer") or is_custom(table.factory)):
        model = table.name  # what answers by itself needs no model's name to be chosen; its stand-in does
    own: Mapping[str, Any] = {"speaks": dialect, "plays": ["fine"]}
    return replace(
        table,
        options=replace(
            options, base_url=None, model=model, proxy=None, ca_file=None, transport=transport, api_key=None, headers={}
        ),
        factory=Faulty,
        keywords=own,
        keys=tuple(Secret(f"drill-key-{number}") for number in range(len(table.keys) or 1)),
        timeouts=_lengthened(TIMEOUTS, times),
        problem=None if only in (None, table.name) else "left out, to see what becomes of the others",
        table={"adapter": "faulty"},
    )
