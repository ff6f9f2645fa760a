"""A checked configuration, and the objects that it is made into: middleware and backends, without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gw.backend import Backend, Backends
from gw.backend_table import BackendTable
from gw.custom_backend import BackendConfig, CustomBackend, is_custom
from gw.environ import Environ
from gw.errors import ConfigError
from gw.known_secrets import KnownSecrets
from gw.options import dotted, make
from gw.places import QUEUE_SIZE, QUEUE_TIMEOUT, Places
from gw.secret import Secret
from gw.settings import ServerOptions, SessionOptions
from gw.shared import LocalShared, Shared

ECHO = "echo"
AUTH_TOKEN = "API_AUTH_TOKEN"  # noqa: S105 (a variable's name)
SERVICES: frozenset[Any] = frozenset({Backends, ServerOptions, SessionOptions, Environ, Shared, KnownSecrets})
"""What a component may ask for by annotation: `build` gives these and whatever its caller adds."""


@dataclass(frozen=True)
class Component:
    """One middleware of the pipeline, checked and not yet made. `factory` makes it with `keywords` and services."""

    name: str
    factory: Any
    keywords: Mapping[str, Any] = field(repr=False)
    table: Mapping[str, Any] = field(repr=False)  # may hold a key

    @property
    def path(self) -> str:
        """Its TOML path, for messages."""
        return dotted("middleware", self.name)


@dataclass(frozen=True)
class Config:
    """A configuration that can stand. `folder` is what relative paths start from, `warnings` are for the operator."""

    path: Path | None
    folder: Path
    server: ServerOptions
    sessions: SessionOptions
    pipeline: tuple[str, ...]
    middleware: Mapping[str, Component]
    backends: tuple[BackendTable, ...]
    models: Mapping[str, Mapping[str, Any]]  # what is laid over the models that come with gw
    environ: Environ  # with the variables of `.env`, which stand in `dotenv` alone too
    dotenv: Mapping[str, str] = field(repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Every key that is known here, the backends' and the clients', to be kept out of texts."""
        found = [key for backend in self.backends for key in backend.keys]
        tables = [backend.table for backend in self.backends] + [layer.table for layer in self.middleware.values()]
        for table in tables:
            found += _secrets_in(table, self.environ)
        token = self.environ.secret(AUTH_TOKEN)
        return tuple(dict.fromkeys(found if token is None else [*found, token]))


def _secrets_in(table: Mapping[str, Any], environ: Environ) -> list[Secret]:
    """What a table holds under `token` or `api_key`, and in the variables that its `..._env` keys name."""
    found: list[Secret] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            found += _secrets_in(value, environ)
        elif key in ("token", "api_key"):
            found.append(value if isinstance(value, Secret) else Secret(str(value)))
        elif key.endswith(("_env", "_envs")):
            names = value if isinstance(value, list) else [value]
            found += [secret for name in names if (secret := environ.secret(name)) is not None]
    return found


@dataclass(frozen=True)
class Built:
    """What a Config is made into: (name, middleware) outermost first, and the backends."""

    middleware: list[tuple[str, Any]]
    backends: Backends


def build(config: Config, services: Mapping[Any, object] | None = None) -> Built:
    """Make the backends and the middleware of a checked configuration, without I/O. Raises ConfigError.

    `services` are more things that a constructor may ask for, by type; see SERVICES for those that are there anyway.
    """
    problems: list[str] = []
    given: dict[Any, object] = {
        ServerOptions: config.server,
        SessionOptions: config.sessions,
        Environ: config.environ,
        KnownSecrets: KnownSecrets(config.secrets),
        **(services or {}),
    }
    if Shared not in given:
        given[Shared] = LocalShared()
    backends = Backends([_backend(table, given, problems) for table in config.backends])
    given[Backends] = backends
    layers = []
    for name in config.pipeline:
        component = config.middleware[name]
        layer, wrong = make(component.factory, component.keywords, given, component.path)
        problems += wrong
        layers.append((name, layer))
    if problems:
        raise ConfigError(problems)
    return Built(layers, backends)


def _backend(table: BackendTable, services: Mapping[Any, object], problems: list[str]) -> Backend:
    options = table.options
    backend = Backend(
        name=table.name,
        kind=options.adapter,
        model=options.model,
        models=options.models,
        capabilities=table.capabilities,
        group=options.group,
        price=options.price,
        cost_per_request=options.cost_per_request,
        context_length=options.context_length,
        keys=table.keys,
        timeouts=table.timeouts,
        weight=options.weight,
        on_loss=options.on_loss,
        explicit_only=table.name == ECHO and options.adapter == ECHO,
        problem=table.problem,
        description=options.description,
    )
    if options.max_concurrent is not None and "max_concurrent" not in table.keywords:  # a pool has places of its own
        backend.places = Places(
            backend,
            limit=options.max_concurrent,
            queue=QUEUE_SIZE if options.queue_size is None else options.queue_size,
            timeout=QUEUE_TIMEOUT if options.queue_timeout is None else options.queue_timeout,
        )
    if table.factory is None:
        return backend
    if is_custom(table.factory):
        _wrap_custom(backend, table, services, problems)
        return backend
    made, wrong = make(table.factory, table.keywords, services, table.path)
    problems += wrong
    if hasattr(made, "answer"):
        backend.provider = made
    else:
        backend.adapter = made
    # An adapter may know better than its key whether it can be asked: no credentials, no program.
    backend.problem = backend.problem or getattr(made, "problem", None)
    return backend


def _wrap_custom(backend: Backend, table: BackendTable, services: Mapping[Any, object], problems: list[str]) -> None:
    made, wrong = make(table.factory, table.keywords, services, table.path)
    problems += wrong
    if wrong:
        return
    options = table.options
    config = BackendConfig(
        id=table.name,
        type=str(getattr(made, "type", options.adapter)),
        api_key=table.keys[0] if table.keys else None,
        base_url=options.base_url,
        models=options.models,
        headers=options.headers,
        timeouts=table.timeouts,
        options=table.own,
    )
    provider = CustomBackend(made, config)
    try:
        problems += [f"{table.path}: {problem}" for problem in provider.problems()]
        backend.capabilities &= provider.capabilities
    except Exception as error:  # anybody's methods: the border where foreign exceptions become problems
        problems.append(
            f"{table.path}: {options.adapter} cannot be asked what it can do: {type(error).__name__}: {error}"
        )
    backend.provider = provider
