"""One `[backends.NAME]`: what every backend may be told, checked, and the adapter's own options beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gw.backend import CAPABILITIES, Timeouts
from gw.backend_options import (
    COMMON,
    COMMON_NAMES,
    BackendOptions,
    is_sendable,
    without_user,
)
from gw.custom_backend import is_custom
from gw.environ import Environ
from gw.errors import ConfigError
from gw.near import near
from gw.options import check, dotted, make, options_of
from gw.registry import ADAPTER, find
from gw.secret import Secret

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]*\Z")  # one segment of a URL's path, as it is


@dataclass(frozen=True)
class BackendTable:
    """One checked backend, nothing opened. `factory` makes its adapter with `keywords`; None where there is none yet.

    `problem` says what keeps it from being asked, `table` is what the file says (to compare after a reload).
    """

    name: str
    options: BackendOptions
    factory: Any
    keywords: Mapping[str, Any] = field(repr=False)  # may hold a key, in a header
    keys: Sequence[Secret]
    capabilities: frozenset[str]
    timeouts: Timeouts
    problem: str | None
    variables: Sequence[str]  # that hold its key by custom
    table: Mapping[str, Any] = field(repr=False)  # may hold a key

    @property
    def path(self) -> str:
        """Its TOML path, for messages."""
        return dotted("backends", self.name)

    @property
    def own(self) -> dict[str, Any]:
        """What its table says beside the options that every backend has."""
        return {key: value for key, value in self.table.items() if key not in COMMON_NAMES}


@dataclass(eq=False, repr=False)
class Reader:
    """Reads backend tables; collects `problems` and `warnings`."""

    environ: Environ
    folder: Path | None
    services: frozenset[Any]
    timeout: float | None = None  # of every backend, from the environment
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def read(self, name: str, table: Mapping[str, Any]) -> BackendTable | None:
        """One backend; None where it is switched off or something is wrong with it."""
        path = dotted("backends", name)
        if not _NAME.match(name):
            self.problems.append(
                f"{path}: a backend's name is part of a URL: it begins with a letter or digit, "
                "and has letters, digits and . _ : @ - only"
            )
        if table.get("enabled") is False:
            return None
        factory, wrong = self._factory(table, path)
        common = {key: value for key, value in table.items() if key in COMMON_NAMES}
        keywords, problems = check(BackendOptions, common, path, folder=self.folder)
        wrong += problems
        options = None
        if not problems:
            options, problems = make(BackendOptions, keywords, {}, path)
            wrong += problems
        own, problems = self._own_options(factory, table, path)
        wrong += problems
        if options is not None and options.name not in (None, name):
            wrong.append(f'{path}.name: the table is called "{name}" already, found "{options.name}"; take one out')
        if options is not None:
            wrong += self._capabilities_problems(factory, options, path)
        self.problems += wrong
        if wrong or options is None:
            return None
        # Made once, without I/O and thrown away: an adapter may know by its host which variables hold its key.
        adapter, problems = (None, []) if factory is None else make(factory, own, {Environ: self.environ}, path)
        self.problems += problems
        keys, problem = self._keys(adapter, options, path)
        self._warn_of_idle_options(factory, options, path)
        return BackendTable(
            name=name,
            options=options,
            factory=factory,
            keywords=own,
            keys=keys,
            capabilities=_narrowed(factory, options),
            timeouts=options.deadlines(self.timeout),
            problem=problem,
            variables=tuple(getattr(adapter, "key_envs", ())),
            table=table,
        )

    def _factory(self, table: Mapping[str, Any], path: str) -> tuple[Any, list[str]]:
        name = table.get("adapter")
        if not isinstance(name, str):
            return None, []  # a missing or wrong one is told with the other common options
        try:
            factory = find(ADAPTER, name, self.folder)
        except ConfigError as error:
            return None, [f"{path}.adapter: {problem}" for problem in error.problems]
        if any(callable(getattr(factory, method, None)) for method in ("open", "answer", "chat_completion")):
            return factory, []
        return None, [
            f'{path}.adapter: "{name}" is no adapter: it has neither open(request) nor answer(request) '
            "nor chat_completion(request, config)"
        ]

    def _own_options(self, factory: Any, table: Mapping[str, Any], path: str) -> tuple[dict[str, Any], list[str]]:
        """The adapter's keywords: its own, and those of the common options that it asks for by name."""
        if factory is None:
            return {}, []
        if is_custom(factory) and not options_of(factory):
            return {}, []  # a class without keywords: `validate_config` judges its table
        wanted = {name for option in options_of(factory, self.services) for name in (option.name, *option.aliases)}
        own = {key: value for key, value in table.items() if key in wanted or key not in COMMON_NAMES}
        if "name" in wanted:
            own["name"] = dict(table).get("name", path.removeprefix("backends."))
        return check(factory, own, path, self.services, also=COMMON, folder=self.folder)

    def _capabilities_problems(self, factory: Any, options: BackendOptions, path: str) -> list[str]:
        able = _able(factory, options)
        return [
            f'{path}.capabilities: {options.adapter} has no "{name}"; it can only be narrowed: '
            f"{', '.join(sorted(able)) or 'nothing'}"
            for name in options.capabilities or ()
            if name not in able
        ]

    # --- keys ---------------------------------------------------------------------------------------------------

    def _keys(self, adapter: Any, options: BackendOptions, path: str) -> tuple[tuple[Secret, ...], str | None]:
        """The keys, and what is missing with its cure: never a reason not to start."""
        if options.api_key is not None:
            self._warn_of_inline_key(path)
            return (options.api_key,), None
        named = [*([options.api_key_env] if options.api_key_env else []), *options.api_key_envs]
        if named:
            found = {name: key for name in named if (key := self.environ.secret(name)) is not None}
            return tuple(found.values()), _unsendable(found) if found else f"no key, set {' or '.join(named)}"
        usual = _usual_variables(adapter, options)
        for name in usual:
            if (key := self.environ.secret(name)) is not None:
                return (key,), _unsendable({name: key})
        if usual:
            needs_key = getattr(adapter, "needs_key", True)
            return (), f"no key, set {' or '.join(usual)}" if needs_key else None
        # The usual key belongs to the provider's own host and is not shown to another.
        for name in getattr(type(adapter), "key_envs", ()):
            if self.environ.secret(name) is not None:
                where = without_user(options.base_url or "")
                self.warnings.append(
                    f'{path}: {name} is not sent to {where}; if it shall be, write api_key_env = "{name}"'
                )
        return (), None

    def _warn_of_idle_options(self, factory: Any, options: BackendOptions, path: str) -> None:
        """A queue without places is no queue: nobody shall believe otherwise."""
        idle = [name for name in ("queue_size", "queue_timeout") if getattr(options, name) is not None]
        if idle and factory is not None and options.max_concurrent is None:
            wanted = {option.name for option in options_of(factory)}
            if "max_concurrent" not in wanted:
                self.warnings.append(f"{path}: {', '.join(idle)}: no effect without max_concurrent")

    def _warn_of_inline_key(self, path: str) -> None:
        self.warnings.append(
            f"{path}.api_key: a key in the file is a key in every copy of it; "
            "put it into a variable and name that with api_key_env"
        )


def _unsendable(keys: Mapping[str, Secret]) -> str | None:
    wrong = [name for name, key in keys.items() if not is_sendable(key)]
    return f"{', '.join(wrong)}: no header can hold such a key: set it in one line" if wrong else None


def _usual_variables(adapter: Any, options: BackendOptions) -> Sequence[str]:
    """The variables that hold an adapter's key where none is named; none for a host that is not the provider's."""
    variables: Sequence[str] = getattr(adapter, "key_envs", ())
    if "key_envs" in getattr(adapter, "__dict__", ()):
        return variables  # it has looked at its host itself
    home = None if adapter is None else home_of(type(adapter))
    if options.base_url is None or home is None:
        return variables
    return variables if urlsplit(options.base_url).hostname == urlsplit(home).hostname else ()


def home_of(factory: Any) -> str | None:
    """The URL of the provider's own host, where the adapter has one."""
    home = getattr(factory, "default_base_url", None)
    if home is None:
        home = {option.name: option.default for option in options_of(factory)}.get("base_url")
    return home if isinstance(home, str) else None


def _able(factory: Any, options: BackendOptions) -> frozenset[str]:
    """What the adapter can do at all; all of it where it does not say."""
    return frozenset(getattr(factory, "capabilities", None) or CAPABILITIES[:1] + CAPABILITIES[2:])


def _narrowed(factory: Any, options: BackendOptions) -> frozenset[str]:
    able = _able(factory, options)
    return able if options.capabilities is None else able & frozenset(options.capabilities)


def tables(backends: object, problems: list[str]) -> dict[str, Mapping[str, Any]]:
    """`[backends.NAME]` tables, or a `[[backends]]` list with names in it, by name."""
    if isinstance(backends, Mapping):
        entries = list(backends.items())
    elif isinstance(backends, list):
        entries = []
        for index, entry in enumerate(backends):
            name = (entry.get("name") or entry.get("id")) if isinstance(entry, Mapping) else None
            if not isinstance(name, str):
                problems.append(f"backends[{index}]: expected a table with a name")
            elif name in dict(entries):
                problems.append(f'backends[{index}]: the name "{name}" is taken by an earlier one{near(name, ())}')
            else:
                entries.append((name, entry))
    else:
        problems.append("backends: expected tables such as [backends.openai]")
        return {}
    found = {}
    for name, entry in entries:
        if isinstance(entry, Mapping):
            found[name] = entry
        else:
            problems.append(f"{dotted('backends', name)}: expected a table with an adapter, as [backends.{name}]")
    return found
