"""A checked configuration, and the objects that it is made into: middleware and backends, without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

from gw.backend import Backend, Backends
from gw.backend_table import BackendTable
from gw.config_file import Origin
from gw.custom_backend import BackendConfig, CustomBackend, is_custom
from gw.environ import Environ
from gw.errors import ConfigError
from gw.known_secrets import CREDENTIAL, KnownSecrets
from gw.option_kinds import without_none
from gw.options import dotted, make, parameters
from gw.pipeline import mistakes
from gw.places import QUEUE_SIZE, QUEUE_TIMEOUT, Places
from gw.secret import Secret
from gw.settings import ServerOptions, SessionOptions
from gw.shared import LocalShared, Shared
from gw.variables import known_variables

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


@dataclass(frozen=True, eq=False)
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
    origin: Origin
    warnings: tuple[str, ...] = ()
    may_quote: bool = True  # False: nothing of prompts and answers is to be kept, nor told in a line on stdout

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
        if key == "headers" and isinstance(value, Mapping):
            texts = [str(text) for name, text in value.items() if CREDENTIAL.search(name)]
            found += [Secret(text.split(" ", 1)[-1].strip()) for text in texts]  # without a scheme: `Bearer KEY`
        elif isinstance(value, Mapping):
            found += _secrets_in(value, environ)
        elif key in ("token", "api_key"):
            found.append(value if isinstance(value, Secret) else Secret(str(value)))
        elif key.endswith(("_env", "_envs")):
            names = value if isinstance(value, list) else [value]
            found += [secret for name in names if (secret := environ.secret(name)) is not None]
    return found


class LivingBackends(Backends):
    """The backends of the newest configuration, and those of older ones that are still answering: to look names up.

    It is what middleware that is kept over a reload gets for `Backends`.
    """

    __slots__ = ()

    def become(self, *generations: Backends) -> None:
        """Have the backends of these, where names meet those of the last one."""
        self._by_name = {backend.name: backend for backends in generations for backend in backends}


class Built(NamedTuple):
    """What a Config is made into: (name, middleware) outermost first, and the backends; with what, for a reload."""

    middleware: list[tuple[str, Any]]
    backends: Backends
    config: Config
    services: Mapping[Any, object]


def build(config: Config, services: Mapping[Any, object] | None = None, former: Built | None = None) -> Built:
    """Make the backends and the middleware of a checked configuration, without I/O. Raises ConfigError.

    `services` are more things that a constructor may ask for, by type; see SERVICES for those that are there anyway.
    Of `former` stays what is the same: backends whose table did not change, and middleware that holds something open.
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
    kept = {} if former is None else _same_backends(former, config, given)
    backends = Backends([kept.get(table.name) or _backend(table, given, problems) for table in config.backends])
    given[Backends] = backends
    living = given.get(LivingBackends)
    if isinstance(living, LivingBackends) and not living:
        living.become(backends)
    for_holders = given if living is None else {**given, Backends: living}
    layers = []
    for name in config.pipeline:
        component = config.middleware[name]
        its = for_holders if is_holder(component.factory) else given
        layer = None if former is None else _same_layer(former, component, its)
        if layer is None:
            layer, wrong = make(component.factory, component.keywords, its, component.path)
            is_as_written = layer is component.factory
            problems += wrong or [f"{component.path}: {each}" for each in mistakes(layer, as_written=is_as_written)]
        layers.append((name, layer))
    if problems:
        raise ConfigError(problems)
    return Built(layers, backends, config, {**for_holders})


# --- what stays as it is over a reload --------------------------------------------------------------------------


def is_holder(factory: Any) -> bool:
    """Whether what it makes holds something open: a file, a process, a connection."""
    return hasattr(factory if isinstance(factory, type) else type(factory), "__aenter__")


def _same_layer(former: Built, component: Component, services: Mapping[Any, object]) -> Any:
    """The former middleware of that name, where it holds something open and would be made just the same."""
    if not is_holder(component.factory) or former.config.middleware.get(component.name) != component:
        return None
    if not _gets_the_same(component.factory, former.services, services):
        return None
    return dict(former.middleware).get(component.name)


def _gets_the_same(factory: Any, former: Mapping[Any, object], services: Mapping[Any, object]) -> bool:
    kinds = [without_none(option.kind) for option in parameters(factory)]
    return all(former[kind] == services[kind] for kind in kinds if kind in services and kind in former)


def _same_backends(former: Built, config: Config, services: Mapping[Any, object]) -> dict[str, Backend]:
    """The former backends, with all that is known of them and all that they hold, that were ready and stay the same."""
    if former.config.models != config.models or _changed_variables(former.config, config):
        return {}
    before = {table.name: table for table in former.config.backends}
    return {
        table.name: former.backends[table.name]
        for table in config.backends
        if before.get(table.name) == table
        and former.backends[table.name].problem is None  # else what was missing may be there now
        and _secrets_in(table.table, config.environ) == _secrets_in(table.table, former.config.environ)
    }


def _changed_variables(former: Config, config: Config) -> set[str]:
    """Variables of the environment that have changed, but for those of which it is known whom they concern.

    An adapter may read any variable (PATH, GOOGLE_APPLICATION_CREDENTIALS); keys are compared for each backend.
    """
    before, now = former.environ, config.environ
    changed = {name for name in {*before, *now} if before.get(name) != now.get(name)}
    return changed - known_variables() - _named_variables(former) - _named_variables(config)


def _named_variables(config: Config) -> set[str]:
    """The variables that hold somebody's key by name or by custom."""
    tables = [backend.table for backend in config.backends] + [layer.table for layer in config.middleware.values()]
    found = {AUTH_TOKEN, *(name for table in tables for name in _variables_in(table))}
    return found.union(*(backend.variables for backend in config.backends))


def _variables_in(table: Mapping[str, Any]) -> list[str]:
    """What the `..._env` keys of a table name."""
    found: list[str] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            found += _variables_in(value)
        elif key.endswith(("_env", "_envs")):
            found += [name for name in (value if isinstance(value, list) else [value]) if isinstance(name, str)]
    return found


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
            shared=cast(Shared, services[Shared]),
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
