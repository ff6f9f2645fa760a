"""The JSON configuration of two older gateways turned into gateway.toml's shape, repaired where it could not stand.

They are `backends.json` of anthropic-headless-api (camelCase, `routing`), `config.json` of chromagent-gateway
(`modelMapping`, `routingRules`), and fragments of both: one backend, a routing table, pool sizes. Every repair is told,
and what is left out stays in the text as a comment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from gw.errors import ConfigError
from gw.near import near
from gw.option_kinds import found

_POOL_KEYS = frozenset({"maxConcurrent", "queueSize", "maxQueue"})
_A_KEYS = frozenset({"routing"})
_B_KEYS = frozenset({"defaultBackend", "routingRules", "cors", "rateLimit", "port", "host"})
_PROVIDERS = {"openrouter": "openrouter", "google": "gemini", "anthropic": "anthropic", "openai": "openai"}
_DEFAULT_CLI = "claude-cli-default"
_VERTEX_HOST = re.compile(r"(?:(?P<location>[a-z0-9-]+)-)?aiplatform\.googleapis\.com\Z")


class LeftOut(str):
    """TOML text that `to_toml` writes as a comment and that `without_left_out` drops."""

    __slots__ = ("reason",)
    reason: str

    def __new__(cls, text: str, reason: str) -> LeftOut:
        made = super().__new__(cls, text)
        made.reason = reason
        return made


@dataclass
class Imported:
    """A table in gateway.toml's shape, and what its reader should know, a sentence each."""

    table: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def is_foreign(data: Mapping[str, Any]) -> bool:
    """Whether a table has the shape of one of the two documents' JSON, or of a fragment of one."""
    if data.keys() & {"pipeline", "middleware", "server", "sessions", "adapter"}:
        return False
    entries = data.get("backends")
    if isinstance(entries, list) and all(isinstance(entry, Mapping) for entry in entries):
        return not any("adapter" in entry for entry in entries)
    return "backends" not in data and bool(data.keys() & (_A_KEYS | _B_KEYS | _POOL_KEYS | {"type"}))


def import_table(data: Mapping[str, Any]) -> Imported:
    """Turn a parsed configuration of either document into gateway.toml's shape. Raises ConfigError."""
    return _Import(data).run()


def without_left_out(value: Any) -> Any:
    """The table as a program wants it: without what stands in the text as a comment."""
    if isinstance(value, dict):
        return {key: without_left_out(item) for key, item in value.items() if not isinstance(item, LeftOut)}
    if isinstance(value, list):
        return [without_left_out(item) for item in value if not isinstance(item, LeftOut)]
    return value


class _Import:
    """One import: reads `data` key by key, so that whatever nobody knows is told."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = dict(data)
        self._notes: list[str] = []
        self._problems: list[str] = []
        self._backends: dict[str, dict[str, Any]] = {}
        self._server: dict[str, Any] = {}
        self._middleware: dict[str, dict[str, Any]] = {}
        self._is_a = bool(data.keys() & _A_KEYS)
        self._is_b = bool(data.keys() & _B_KEYS)

    def run(self) -> Imported:
        """The whole table. Raises ConfigError where a value cannot be understood."""
        data = self._data
        for key in ("port", "host"):
            if key in data:
                self._server[key] = data.pop(key)
        timeout = self._seconds(data.pop("timeout", None), "timeout") if self._is_whole() else None
        for entry, path in self._entries():
            self._entry(entry, path)
        for backend in self._backends.values():
            if timeout is not None:
                backend.setdefault("timeout", timeout)
        self._routing(self._table(data.pop("routing", None), "routing"))
        self._cors(self._table(data.pop("cors", None), "cors"))
        self._rate_limit(self._table(data.pop("rateLimit", None), "rateLimit"))
        for key in data:
            self._notes.append(f"{key}: not known here, left out")
        if self._problems:
            raise ConfigError(self._problems)
        parts = {"server": self._server, "middleware": self._middleware, "backends": self._backends}
        return Imported({name: part for name, part in parts.items() if part}, self._notes)

    # --- the backends -------------------------------------------------------------------------------------------

    def _is_whole(self) -> bool:
        """Whether this is a whole file and no fragment that is a backend itself."""
        return "backends" in self._data or not (self._data.keys() & (_POOL_KEYS | {"type"}))

    def _entries(self) -> list[tuple[dict[str, Any], str]]:
        if self._is_whole():
            entries = self._data.pop("backends", [])
            return [(dict(entry), f"backends[{index}]") for index, entry in enumerate(entries)]
        entry, self._data = self._data, {}
        if "type" not in entry:
            entry = {"name": _DEFAULT_CLI, "type": "claude-cli", **entry}
            self._notes.append(
                f'pool sizes without a backend: read as those of "{_DEFAULT_CLI}"; rename it as you need'
            )
        return [(entry, "the backend")]

    def _entry(self, entry: dict[str, Any], path: str) -> None:
        name = entry.pop("name", None) or entry.pop("id", None)
        entry.pop("id", None)
        if not isinstance(name, str) or not name:
            self._problems.append(f"{path}: a backend needs a name (or id), a string")
            return
        if name in self._backends:
            self._problems.append(f'{path}: the name "{name}" is taken by an earlier backend; rename one')
            return
        backend: dict[str, Any] = {"adapter": self._adapter(entry, f"{path} ({name})")}
        self._backends[name] = backend
        for key, value in entry.items():
            self._field(backend, key, value, f"{path}.{key}")
        if backend["adapter"].startswith("vertex-"):
            self._vertex(backend, name)

    def _adapter(self, entry: dict[str, Any], path: str) -> str:
        kind, provider = entry.pop("type", None), entry.pop("provider", None)
        if kind == "api":
            self._is_a = True
            if provider not in _PROVIDERS:
                hint = near(str(provider), _PROVIDERS)
                allowed = ", ".join(sorted(_PROVIDERS))
                self._problems.append(f"{path}: provider is one of {allowed}, found {found(provider)}{hint}")
                return "openai"
            return _PROVIDERS[provider]
        if not isinstance(kind, str) or not kind:
            self._problems.append(f"{path}: a backend needs a type, a string")
            return "openai"
        if kind == "claude-cli":
            self._is_a = True
            return kind
        self._is_b = True
        if kind == "vertex-gemini":
            host = urlsplit(str(entry.get("baseUrl", ""))).hostname or ""
            return kind if _VERTEX_HOST.match(host) else "gemini"
        if kind not in ("vertex-anthropic", "ollama", *_PROVIDERS.values()):
            self._notes.append(
                f'{path}: the type "{kind}" is one of your own: register its class, or write adapter = "./file.py:Name"'
            )
        return kind

    def _field(self, backend: dict[str, Any], key: str, value: Any, path: str) -> None:
        if key in _SAME:
            backend[_SAME[key]] = value
        elif key == "enabled":
            if value is not True:
                backend["enabled"] = value
        elif key == "additionalHeaders":
            if value:
                backend["headers"] = value
        elif key == "timeout":
            backend["timeout"] = self._seconds(value, path)
        elif key == "apiKey":
            backend["api_key"] = value
            self._notes.append(
                f"{path}: the key stands in the file as it is; put it into a variable and name that with api_key_env"
            )
        elif key == "supportsTools":
            self._supports_tools(backend, value, path)
        else:
            self._notes.append(f"{path}: not known here, left out")

    def _supports_tools(self, backend: dict[str, Any], value: Any, path: str) -> None:
        """There it means Claude's own tools, which nothing but the CLI has."""
        is_cli = backend["adapter"] == "claude-cli"
        if is_cli and value is False:
            backend["capabilities"] = ["images", "stream"]
        elif not is_cli and value is True:
            self._notes.append(
                f"{path}: only the Claude CLI has these tools; function calling needs no switch; left out"
            )

    def _vertex(self, backend: dict[str, Any], name: str) -> None:
        """The location comes from the host; its key is a bearer token."""
        host = urlsplit(str(backend.get("base_url", ""))).hostname or ""
        match = _VERTEX_HOST.match(host)
        if match is not None:
            backend.pop("base_url")
            backend.setdefault("location", match["location"] or "global")
        backend.setdefault("location", "global")
        if "api_key" in backend:
            self._notes.append(
                f"backends.{name}: Vertex takes no API keys: yours is sent as a bearer token, which lives an hour; "
                'use credentials = "service-account.json" in its place'
            )
        if "project" not in backend:
            backend["project"] = "your-project-id"
            self._notes.append(f"backends.{name}: no projectId; write your project's id in its place")

    # --- the middleware -----------------------------------------------------------------------------------------

    def _routing(self, routing: dict[str, Any]) -> None:
        data = self._data
        route: dict[str, Any] = {}
        default = routing.pop("defaultBackend", data.pop("defaultBackend", None))
        if default is not None:
            route["default_backend"] = self._known(default, "defaultBackend")
        if "preferCheapest" in routing:
            route["prefer_cheapest"] = routing.pop("preferCheapest")
        if self._is_a:
            route["unknown_model"] = "route"
        if self._is_b:
            route["balance"] = "all"
        rules = [
            self._rule(rule, index)
            for index, rule in enumerate(self._list(data.pop("routingRules", None), "routingRules"))
        ]
        if rules:
            route["rules"] = rules
        if route:
            self._middleware["route"] = route
        chain = [
            self._known(name, "fallbackChain")
            for name in self._list(routing.pop("fallbackChain", None), "fallbackChain")
        ]
        if chain:
            self._middleware["fallback"] = {"chain": chain}
        for key in routing:
            self._notes.append(f"routing.{key}: not known here, left out")

    def _rule(self, rule: Any, index: int) -> Any:
        path = f"routingRules[{index}]"
        if not isinstance(rule, Mapping) or not isinstance(rule.get("condition"), str):
            self._problems.append(f"{path}: expected a condition and a backendId")
            return {}
        made = {"when": rule["condition"], "backend": rule.get("backendId")}
        target = self._known(made["backend"], path)
        if isinstance(target, LeftOut):
            text = ", ".join(f"{key} = {json.dumps(value)}" for key, value in made.items())
            return LeftOut(f"{{ {text} }}", target.reason)
        return made

    def _known(self, name: Any, where: str) -> Any:
        """The name of a backend, or the same left out where no backend has it."""
        if not isinstance(name, str):
            self._problems.append(f"{where}: expected a backend's name, found {found(name)}")
            return ""
        if name in self._backends or name == "echo":
            return name
        self._notes.append(
            f'{where}: no backend is called "{name}"{near(name, self._backends)}; left out (in TOML a comment keeps it)'
        )
        return LeftOut(json.dumps(name, ensure_ascii=False), "no backend has this name")

    def _cors(self, cors: dict[str, Any]) -> None:
        if not cors:
            return
        origin = cors.pop("origin", None)
        if origin is False or origin is None:
            return
        origins = ["*"] if origin is True else [origin] if isinstance(origin, str) else list(origin)
        credentials = cors.pop("credentials", False)
        if "*" in origins and credentials:
            credentials = False
            self._notes.append(
                'cors: browsers refuse origin "*" with credentials; credentials is false now; '
                "to have it true, list the origins in middleware.cors.origins"
            )
        self._middleware["cors"] = {"origins": origins, "credentials": credentials}
        for key in cors:
            self._notes.append(f"cors.{key}: not known here, left out")

    def _rate_limit(self, limit: dict[str, Any]) -> None:
        if not limit:
            return
        window = self._seconds(limit.pop("windowMs", 900_000), "rateLimit.windowMs")
        self._middleware["rate_limit"] = {"max": limit.pop("max", 100), "window": window}
        for key in limit:
            self._notes.append(f"rateLimit.{key}: not known here, left out")

    # --- values -------------------------------------------------------------------------------------------------

    def _seconds(self, value: Any, path: str) -> float | int | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            self._problems.append(f"{path}: expected milliseconds, found {found(value)}")
            return None
        seconds = value / 1000
        return int(seconds) if seconds == int(seconds) else seconds

    def _table(self, value: Any, path: str) -> dict[str, Any]:
        if value is None or isinstance(value, Mapping):
            return dict(value or {})
        self._problems.append(f"{path}: expected an object, found {found(value)}")
        return {}

    def _list(self, value: Any, path: str) -> list[Any]:
        if value is None or isinstance(value, list):
            return value or []
        self._problems.append(f"{path}: expected a list, found {found(value)}")
        return []


_SAME: dict[str, str] = {
    "model": "model",
    "modelMapping": "models",
    "baseUrl": "base_url",
    "authTokenEnv": "api_key_env",
    "costPerRequest": "cost_per_request",
    "description": "description",
    "configDir": "config_dir",
    "maxConcurrent": "max_concurrent",
    "queueSize": "queue_size",
    "maxQueue": "queue_size",
    "projectId": "project",
    "location": "location",
}
