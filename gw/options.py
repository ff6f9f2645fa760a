"""A component's options are its constructor's keywords, checked against TOML with every problem at once.

A parameter is an option when some TOML value could fill it: bool, int, float, str, lists, tables, `T | None`, Literal,
dataclasses (tables of their own), Path, Size, Secret, date. Any other parameter (a clock, the `Backends`) is filled in
by gw where it has such a thing, and keeps its default where not.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from gw.errors import ConfigError
from gw.near import near
from gw.option_kinds import Alias, Size, can_come_from_toml, describe, dotted, without_none
from gw.option_values import Values

__all__ = ["Alias", "Option", "Size", "check", "dotted", "make", "options_of", "parameters"]

_REQUIRED: Any = inspect.Parameter.empty


class Option(NamedTuple):
    """One keyword of a constructor: its annotation, and `inspect.Parameter.empty` where it has no default."""

    name: str
    kind: Any
    default: Any
    aliases: tuple[str, ...] = ()

    @property
    def is_required(self) -> bool:
        """Whether it must be given."""
        return self.default is _REQUIRED

    def is_service(self, services: Collection[Any]) -> bool:
        """Whether gw fills it in, so that it may not be written in the file."""
        return without_none(self.kind) in services or not can_come_from_toml(self.kind)


def is_plain(factory: object) -> bool:
    """Whether it is used as it is: a middleware written as a function, or an object that somebody made already."""
    if inspect.iscoroutinefunction(factory) or not (inspect.isclass(factory) or inspect.isroutine(factory)):
        return True
    # What takes a request is no constructor: somebody forgot the `async`, which `gw.pipeline.mistakes` tells.
    return inspect.isfunction(factory) and next(iter(inspect.signature(factory).parameters), "") == "request"


def parameters(factory: Callable[..., Any]) -> list[Option]:
    """The keywords of a constructor, services included, in the order in which it names them.

    Raises ConfigError where its annotations cannot be read: a name that is imported for type checkers only.
    """
    return [] if is_plain(factory) else _parameters(factory)


@lru_cache(256)  # a component is looked at several times, and evaluating annotations is most of the work
def _parameters(factory: Callable[..., Any]) -> list[Option]:
    if inspect.isclass(factory) and factory.__init__ is object.__init__ and factory.__new__ is object.__new__:
        return []  # inspect reads object's own signature from a text, with a tokenizer that takes 4 ms to load
    try:
        signature = inspect.signature(factory)
        # A class without an __init__ of its own has object's: the hints of a dataclass are those of its fields.
        source = factory.__init__ if inspect.isclass(factory) and not is_dataclass(factory) else factory
        hints = get_type_hints(source, include_extras=True)
    except (NameError, TypeError, ValueError) as error:
        name = getattr(factory, "__qualname__", repr(factory))
        raise ConfigError(
            [f"the annotations of {name} cannot be read: {error}; what they name must be imported at run time too"]
        ) from error
    found = []
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        kind, aliases = _without_aliases(hints.get(parameter.name, Any))
        found.append(Option(parameter.name, kind, parameter.default, aliases))
    return found


def options_of(factory: Callable[..., Any], services: Collection[Any] = ()) -> list[Option]:
    """The keywords that may be written in TOML."""
    return [option for option in parameters(factory) if not option.is_service(services)]


def check(
    factory: Callable[..., Any],
    table: Mapping[str, Any],
    path: str,
    services: Collection[Any] = (),
    *,
    also: Collection[str] = (),
    folder: Path | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Read a TOML table as the keywords of `factory`: (keywords, problems). Nothing is called but nested dataclasses.

    `services` are the types that gw fills in (`make` does it), `also` names keys of the table that somebody else
    reads, `folder` is what relative paths start from.
    """
    try:
        every = parameters(factory)
    except ConfigError as error:
        return {}, [f"{path}: {problem}" for problem in error.problems]
    problems: list[str] = []
    keywords: dict[str, Any] = {}
    values = Values(folder, lambda kind, nested, where: _nested(kind, nested, where, services, folder))
    options = [option for option in every if not option.is_service(services)]
    names = {name: option for option in options for name in (option.name, *option.aliases)}
    for key, value in table.items():
        option = names.get(key)
        if option is None:
            if key in also:
                continue
            if _takes_anything(factory):
                keywords[key] = value
                continue
            problems.append(_unknown(key, path, names, options, every, also))
        elif option.name in keywords:
            problems.append(f"{dotted(path, key)}: the same option as {option.name}, which is given too; keep one")
        else:
            keywords[option.name] = values.read(option.kind, value, dotted(path, key))
    for option in options:
        if option.is_required and option.name not in keywords and option.name not in also:
            problems.append(f"{dotted(path, option.name)}: missing; expected {describe(option.kind)}")
    return keywords, problems + values.problems


def make(
    factory: Callable[..., Any], keywords: Mapping[str, Any], services: Mapping[Any, object], path: str
) -> tuple[Any, list[str]]:
    """Call a constructor with checked keywords and the services it asks for: (object or None, problems)."""
    if is_plain(factory):
        return factory, []
    name = getattr(factory, "__qualname__", repr(factory))
    filled = dict(keywords)
    problems = []
    for parameter in parameters(factory):
        kind = without_none(parameter.kind)
        if parameter.name in filled:
            continue
        if kind in services:
            filled[parameter.name] = services[kind]
        elif parameter.is_required:
            wanted = getattr(kind, "__name__", str(kind))
            problems.append(f"{path}: {name} needs `{parameter.name}` ({wanted}), which gw does not have here")
    if problems:
        return None, problems
    try:
        return factory(**filled), []
    except ConfigError as error:
        return None, [f"{path}: {problem}" for problem in error.problems]
    except ValueError as error:
        return None, [f"{path}: {error}"]
    except Exception as error:  # anybody's constructor: the border where foreign exceptions become problems
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}, line {last.lineno}"
        return None, [f"{path}: {name} could not be made: {type(error).__name__}: {error} ({where})"]


def _nested(
    kind: Any, table: Mapping[str, Any], path: str, services: Collection[Any], folder: Path | None
) -> tuple[Any, list[str]]:
    keywords, problems = check(kind, table, path, services, folder=folder)
    return (None, problems) if problems else make(kind, keywords, {}, path)


def _without_aliases(kind: Any) -> tuple[Any, tuple[str, ...]]:
    """An annotation, and the other names that it carries by `Annotated[..., Alias(...)]`."""
    if get_origin(kind) is not Annotated:
        return kind, ()
    inner, *extras = get_args(kind)
    names = tuple(name for extra in extras if isinstance(extra, Alias) for name in extra.names)
    rest = [extra for extra in extras if not isinstance(extra, Alias)]
    for extra in rest:
        inner = Annotated[inner, extra]
    return inner, names


def _takes_anything(factory: Callable[..., Any]) -> bool:
    if is_plain(factory):
        return False
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(factory).parameters.values())


def _unknown(
    key: str,
    path: str,
    names: Mapping[str, Option],
    options: Collection[Option],
    every: Collection[Option],
    also: Collection[str],
) -> str:
    where = dotted(path, key)
    if any(option.name == key for option in every):
        return f"{where}: filled in by gw, not an option; take it out"
    allowed = sorted({option.name for option in options} | set(also))
    listed = ", ".join(allowed) if allowed else "none: it takes no options"
    return f"{where}: unknown option{near(key, [*names, *also])} (allowed: {listed})"
