"""gateway.toml to checked values and then to objects: everything wrong is told at once, before anything is opened.

    read(source, environ=...) -> Config      checked; components found, their options read; nothing opened
    build(config, services)   -> Built       the middleware and the backends made, without I/O

A setting comes from a flag, else from an environment variable, else from `.env` beside the file, else from the file,
else from the default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gw.assembly import ECHO, SERVICES, Built, Component, Config, build
from gw.backend_table import BackendTable, Reader, tables
from gw.certificates import certificate_problems
from gw.config_checks import (
    expired_keys,
    idle_key_problems,
    idle_sessions,
    key_problems,
    order_problems,
    unknown_backends,
)
from gw.config_file import Files, Origin, Source, load, look
from gw.environ import Environ
from gw.errors import ConfigError
from gw.models import catalogue
from gw.near import near
from gw.options import check, dotted, make, parameters
from gw.registry import MIDDLEWARE, find, names
from gw.settings import ServerOptions, SessionOptions
from gw.variables import settings

__all__ = ["DEFAULT_PIPELINE", "Built", "Component", "Config", "again", "build", "look_again", "read"]

DEFAULT_PIPELINE = ("cors", "auth", "rate_limit", "route", "fallback", "log", "translate")
_TOP_LEVEL = ("pipeline", "server", "middleware", "sessions", "backends", "models")


def read(
    source: str | Path | Files | Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> Config:
    """Read and check a configuration. Raises ConfigError with everything that is wrong with it.

    `source` is a file (TOML, or either founding document's JSON), a table of the same shape, or None for defaults; or
    Files that somebody else has looked at. `overrides` are flags by their TOML path: `{"server.port": 8080}`. Relative
    paths and `.env` are looked for in `folder`, which is the file's own if not given; a table has no `.env`.
    """
    if not isinstance(source, Files | Mapping):
        path = None if source is None else Path(source).expanduser()
        source = look(path, _folder(path, folder))
    path, variables = (None, {}) if isinstance(source, Mapping) else (source.path, source.variables)
    origin = Origin(source, dict(environ), dict(overrides or {}), folder)
    return _Reading(load(source), origin, (variables, environ), _folder(path, folder).absolute()).run()


def look_again(config: Config) -> Files:
    """The files of a configuration as they are now; a gateway.toml that was not there yet counts too.

    Raises ConfigError where one cannot be read, or where the configuration was a table that a program made.
    """
    origin = config.origin
    if isinstance(origin.source, Mapping):
        raise ConfigError(["this configuration is a program's table, not a file: give `reload` the new one"])
    path = origin.source.path
    if path is None and origin.folder is not None and (origin.folder / "gateway.toml").is_file():
        path = origin.folder / "gateway.toml"
    return look(path, _folder(path, origin.folder))


def again(config: Config, files: Files | None = None) -> Config:
    """A configuration read once more, with the same flags and environment. Raises ConfigError.

    `files` are what another process has found; None looks at them now.
    """
    origin = config.origin
    found = look_again(config) if files is None else files
    return read(found, environ=origin.environ, overrides=origin.overrides, folder=origin.folder)


def _folder(path: Path | None, folder: Path | None) -> Path:
    return folder if folder is not None else path.parent if path is not None else Path()


@dataclass(eq=False, repr=False)
class _Reading:
    """One reading of one file: collects what is wrong, and carries on."""

    source: Source
    origin: Origin
    layers: tuple[Mapping[str, str], Mapping[str, str]]  # `.env`, then the process: the later one wins
    folder: Path
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    timeout: float | None = None
    _set_by: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        every = {**self.layers[0], **self.layers[1]}
        self.environ = Environ({name: value for name, value in every.items() if value.strip()})  # blank is none

    def run(self) -> Config:
        table = self.source.table
        self.warnings += self.source.notes
        self._warn_of_inline_keys(table)
        self._overlay(table, self.origin.overrides)
        for key in table:
            if key not in _TOP_LEVEL:
                allowed = ", ".join(sorted(_TOP_LEVEL))
                self.problems.append(f"{dotted('', key)}: unknown table{near(key, _TOP_LEVEL)} (allowed: {allowed})")
        server = self._own(ServerOptions, table, "server")
        sessions = self._own(SessionOptions, table, "sessions")
        models = self._models(self._table(table, "models"))
        backends, every_name = self._backends(table)
        middleware = self._table(table, "middleware")
        pipeline = self._pipeline(table, middleware)
        components = {name: found for name in pipeline if (found := self._component(name, middleware.get(name, {})))}
        self._spare_middleware(middleware, table)
        standing = [(name, components[name].factory) for name in pipeline if name in components]
        self.problems += order_problems(standing, pipeline)
        self.problems += unknown_backends(middleware, every_name)
        running = [(name, components[name].factory if name in components else None) for name in pipeline]
        self.problems += idle_key_problems(running, middleware, self.environ)
        auth, log = components.get("auth"), components.get("log")
        if auth is not None:
            self.warnings += expired_keys(auth.keywords, datetime.now(UTC).date())
        if "sessions" in table and (log is not None or "log" not in pipeline):
            self.warnings += idle_sessions(sessions, None if log is None else log.keywords)
        self.problems += key_problems(server, middleware.get("auth", {}) if auth else None, self.environ)
        config = Config(
            path=self.source.path,
            folder=self.folder,
            server=server,
            sessions=sessions,
            pipeline=tuple(name for name in pipeline if name in components),
            middleware=components,
            backends=backends,
            models=models,
            environ=self.environ,
            dotenv=self.layers[0],
            origin=self.origin,
            warnings=tuple(self.warnings),
            may_quote=not _keeps_less(middleware),
        )
        self._try(config)
        if self.problems:
            raise ConfigError([self._with_variable(problem) for problem in dict.fromkeys(self.problems)])
        return config

    # --- where values come from ---------------------------------------------------------------------------------

    def _overlay(self, table: dict[str, Any], overrides: Mapping[str, Any]) -> None:
        for layer in self.layers:
            found, wrong = settings(layer, Path.cwd())
            self.problems += wrong
            for path, value, variable in found:
                if path == ("timeout",):
                    self.timeout = value
                else:
                    self._put(table, path, value, variable)
        for dotted_path, value in overrides.items():
            self._put(table, tuple(dotted_path.split(".")), value, "the command line")

    def _put(self, table: dict[str, Any], path: Sequence[str], value: Any, origin: str) -> None:
        *parents, last = path
        for parent in parents:
            inner = table.setdefault(parent, {})
            if not isinstance(inner, dict):
                return  # told where the table is read
            table = inner
        table[last] = value
        self._set_by[".".join(path)] = origin

    def _with_variable(self, problem: str) -> str:
        path = problem.partition(": ")[0]
        origin = self._set_by.get(path)
        return f"{problem} (set by {origin})" if origin else problem

    def _table(self, table: Mapping[str, Any], key: str) -> dict[str, Any]:
        value = table.get(key, {})
        if isinstance(value, dict):
            return value
        self.problems.append(f"{key}: expected a table, [{key}]")
        return {}

    def _own(self, kind: Any, table: Mapping[str, Any], path: str) -> Any:
        """A table of gw's own as its dataclass; the defaults where something is wrong with it."""
        keywords, wrong = check(kind, self._table(table, path), path, folder=self.folder)
        made, more = (None, []) if wrong else make(kind, keywords, {}, path)
        self.problems += wrong + more
        return kind() if made is None else made

    def _models(self, tables: dict[str, Any]) -> dict[str, Any]:
        """`[models."NAME"]`: what the operator knows better than the models that come with gw."""
        right = {name: table for name, table in tables.items() if isinstance(table, dict)}
        self.problems += [f"{dotted('models', name)}: expected a table" for name in tables if name not in right]
        if right:
            try:
                catalogue().changed(right)
            except ValueError as error:
                self.problems += str(error).splitlines()
        return right

    def _warn_of_inline_keys(self, table: Mapping[str, Any]) -> None:
        path = self.source.path
        if path is None or not _has_inline_key(table):
            return
        try:
            mode = path.stat().st_mode & 0o077
        except OSError:
            return
        if mode:
            self.warnings.append(f"{path} holds a key and others can read it: chmod 600 {path}")

    # --- components ---------------------------------------------------------------------------------------------

    def _pipeline(self, table: Mapping[str, Any], middleware: Mapping[str, Any]) -> list[str]:
        """The names that run, outermost first."""
        pipeline = table.get("pipeline", list(DEFAULT_PIPELINE))
        if not isinstance(pipeline, list | tuple) or not all(isinstance(name, str) for name in pipeline):
            self.problems.append(f"pipeline: expected a list of names such as {list(DEFAULT_PIPELINE)}")
            return list(DEFAULT_PIPELINE)
        for name in dict.fromkeys(name for name in pipeline if pipeline.count(name) > 1):
            self.problems.append(f'pipeline: "{name}" stands in it {pipeline.count(name)} times; a name runs once')
        return [name for name in dict.fromkeys(pipeline) if not _is_off(middleware.get(name))]

    def _component(self, name: str, table: object) -> Component | None:
        path = dotted("middleware", name)
        if not isinstance(table, Mapping):
            self.problems.append(f"{path}: expected a table, [{path}]")
            return None
        use = table.get("use", name)
        if not isinstance(use, str):
            self.problems.append(f'{path}.use: expected a name such as "./audit.py:Audit"')
            return None
        if "enabled" in table and not isinstance(table["enabled"], bool):
            self.problems.append(f"{path}.enabled: expected true or false")
        try:
            factory = find(MIDDLEWARE, use, self.folder)
            self._must_be_middleware(factory, use)
        except ConfigError as error:
            where = f"{path}.use" if "use" in table else "pipeline"
            self.problems += [f"{where}: {problem}" for problem in error.problems]
            return None
        keywords, wrong = check(factory, table, path, SERVICES, also=("enabled", "use"), folder=self.folder)
        self.problems += wrong
        return None if wrong else Component(name, factory, keywords, table)

    @staticmethod
    def _must_be_middleware(factory: Any, use: str) -> None:
        if not callable(factory) or (isinstance(factory, type) and "__call__" not in dir(factory)):
            raise ConfigError([f'"{use}" is not middleware: it needs async def __call__(self, request, call_next)'])

    def _spare_middleware(self, middleware: Mapping[str, Any], table: Mapping[str, Any]) -> None:
        """Tables of middleware that does not run: a slip of the pen, or somebody who forgot the pipeline."""
        pipeline = table.get("pipeline", DEFAULT_PIPELINE)
        for name, options in middleware.items():
            if name in pipeline or _is_off(options):
                continue
            path = dotted("middleware", name)
            if (isinstance(options, Mapping) and "use" in options) or name in names(MIDDLEWARE):
                self.warnings.append(f'{path} does not run: "{name}" is not in pipeline')
                self._component(name, options)
            else:
                hint = near(name, [*names(MIDDLEWARE), *pipeline])
                self.problems.append(f'{path}: no middleware is called "{name}"{hint}; one of your own needs `use`')

    def _backends(self, table: Mapping[str, Any]) -> tuple[tuple[BackendTable, ...], list[str]]:
        """The backends that are switched on and right, echo last; and every name that may be referred to."""
        reader = Reader(self.environ, self.folder, SERVICES, self.timeout)
        written = tables(table.get("backends", {}), reader.problems)
        if ECHO not in written:
            written = {**written, ECHO: {"adapter": ECHO}}
        found = [backend for name, entry in written.items() if (backend := reader.read(name, entry)) is not None]
        self.problems += reader.problems
        self.warnings += reader.warnings
        return tuple(found), list(written)

    def _try(self, config: Config) -> None:
        """Make everything once and throw it away: constructors have the last word on their options, and no I/O."""
        mine = {name for problem in self.problems for name in config.pipeline if dotted("middleware", name) in problem}
        ready = {
            name: component
            for name, component in config.middleware.items()
            if name not in mine and _is_served(component.factory)
        }
        trial = Config(**{**vars(config), "pipeline": tuple(ready), "middleware": ready})
        try:
            build(trial)
        except ConfigError as error:
            self.problems += error.problems
        self.problems += certificate_problems(config.server, config.backends)


def _is_served(factory: Any) -> bool:
    """Whether everything that a constructor must have is there without its caller's services."""
    return not any(
        option.is_required and option.is_service(SERVICES) and option.kind not in SERVICES
        for option in parameters(factory)
    )


def _is_off(table: object) -> bool:
    return isinstance(table, Mapping) and table.get("enabled") is False


def _keeps_less(middleware: Mapping[str, Any]) -> bool:
    """Whether a log is to keep less than everything: that is meant for the lines on stdout, too, without its rows."""
    tables = [(name, table) for name, table in middleware.items() if isinstance(table, Mapping)]
    return any(table.get("content", "full") != "full" for name, table in tables if table.get("use", name) == "log")


def _has_inline_key(table: Mapping[str, Any]) -> bool:
    backends = table.get("backends")
    entries = backends.values() if isinstance(backends, Mapping) else backends if isinstance(backends, list) else ()
    return any(isinstance(entry, Mapping) and "api_key" in entry for entry in entries)
