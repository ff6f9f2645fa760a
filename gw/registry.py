"""Names to classes: a built-in, somebody's entry point, `package.module:Name`, or `./file.py:Name`.

Short names are looked up in the built-in tables, then among what `register_custom_backend` was given, then among the
entry points of the groups `gw.middleware` and `gw.adapters`; so a plug-in cannot take a built-in's name.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gw.adapters import BUILT_IN as ADAPTERS_BUILT_IN
from gw.errors import ConfigError
from gw.middleware import BUILT_IN as MIDDLEWARE_BUILT_IN
from gw.near import near

_CUSTOM_BACKENDS: dict[str, Any] = {}
_CONTENT = "__gw_content__"  # the attribute of a file's module that holds what the file said
_FILE = r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)\Z"
_DOTTED = r"(?P<module>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_]\w*)\Z"


class Kind(NamedTuple):
    """One sort of component: what messages call it, its built-in table, its entry point group, what was registered."""

    noun: str
    built_in: Mapping[str, str]
    group: str
    registered: Mapping[str, Any]


MIDDLEWARE = Kind("middleware", MIDDLEWARE_BUILT_IN, "gw.middleware", {})
ADAPTER = Kind("adapter", ADAPTERS_BUILT_IN, "gw.adapters", _CUSTOM_BACKENDS)


def find(kind: Kind, name: str, folder: Path | None = None) -> Any:
    """The class (or function, or ready object) behind a name; a file's path starts at `folder`.

    Raises ConfigError with one problem, without the TOML path: the caller knows that.
    """
    if name in kind.built_in:
        module, _, attribute = kind.built_in[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    if name in kind.registered:
        return kind.registered[name]
    if in_file := re.match(_FILE, name):
        return _attribute(_load_file(in_file["file"], folder), in_file["name"], name)
    if in_module := re.match(_DOTTED, name):
        return _attribute(_load_module(in_module["module"], name), in_module["name"], name)
    for point in _entry_points(kind.group):
        if point.name == name:
            try:
                return point.load()
            except Exception as error:
                raise ConfigError(
                    [f'{kind.noun} "{name}" of {point.value} cannot be loaded: {_told(error)}']
                ) from error
    raise ConfigError([_unknown(kind, name)])


def names(kind: Kind) -> list[str]:
    """Every short name that is known now: built-ins, registered ones, entry points."""
    return [*kind.built_in, *kind.registered, *(point.name for point in _entry_points(kind.group))]


def _entry_points(group: str) -> Any:
    from importlib.metadata import entry_points  # reads every installed distribution: only for names of plug-ins

    return entry_points(group=group)


def _unknown(kind: Kind, name: str) -> str:
    known = names(kind)
    yours = '"package.module:Name" or "./file.py:Name" names one of your own'
    return f'unknown {kind.noun} "{name}"{near(name, known)} (known: {", ".join(sorted(known))}; {yours})'


def _attribute(module: Any, attribute: str, name: str) -> Any:
    try:
        return getattr(module, attribute)
    except AttributeError:
        public = [known for known in vars(module) if not known.startswith("_")]
        raise ConfigError([f'"{name}": the module has no {attribute}{near(attribute, public)}']) from None


def _load_module(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(error.name + ".")):
            problem = f'"{name}": there is no module {error.name}; install its package, or write "./file.py:Name"'
            raise ConfigError([problem]) from error
        raise ConfigError([f'"{name}" cannot be imported: {_told(error)}']) from error
    except Exception as error:  # anybody's module: the border where foreign exceptions become problems
        raise ConfigError([f'"{name}" cannot be imported: {_told(error)}']) from error


def _load_file(file: str, folder: Path | None) -> Any:
    path = ((folder or Path()) / Path(file).expanduser()).resolve()
    if not path.is_file():
        raise ConfigError([f"there is no file {path}; a path starts at the folder of the configuration"])
    # One module a file, under a name that no import statement can meet.
    module_name = f"gw_file_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ConfigError([f"{path} is not a Python file"])
    previous = sys.modules.get(module_name)
    try:
        content = path.read_bytes()
        if previous is not None and vars(previous).get(_CONTENT) == content:
            return previous  # a reload keeps what did not change
        module = importlib.util.module_from_spec(spec)
        setattr(module, _CONTENT, content)
        sys.modules[module_name] = module  # dataclasses and annotations look their module up
        # Not by the loader: it would take yesterday's byte code for a file that was changed within the same second.
        exec(compile(content, str(path), "exec", dont_inherit=True), vars(module))  # noqa: S102 (the operator's file)
    except Exception as error:  # anybody's file: the border where foreign exceptions become problems
        _put_back(module_name, previous)
        raise ConfigError([f"{path.name} cannot be loaded: {_told(error, path)}"]) from error
    return module


def _put_back(name: str, previous: Any) -> None:
    if previous is None:
        sys.modules.pop(name, None)
    else:
        sys.modules[name] = previous


def _told(error: BaseException, path: Path | None = None) -> str:
    """An exception with the file and line to look at: in the user's own file where it passed through that."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({Path(error.filename or '?').name}, line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    mine = [frame for frame in frames if path is not None and frame.filename == str(path)] or frames
    return f"{type(error).__name__}: {error} ({Path(mine[-1].filename).name}, line {mine[-1].lineno})"


def register_custom_backend(name: str, cls: Any) -> None:
    """Make a backend class usable as `adapter = "NAME"`. Raises ValueError for a name or a class that cannot be."""
    if name in ADAPTERS_BUILT_IN:
        raise ValueError(f'"{name}" is a built-in adapter; choose another name')
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"a backend's name has letters, digits, dots and dashes; found {name!r}")
    if not callable(getattr(cls, "chat_completion", None)):
        raise ValueError(f"{getattr(cls, '__name__', cls)} has no chat_completion(request, config)")
    _CUSTOM_BACKENDS[name] = cls


class DefaultBackendRegistry:
    """Document B's registry: what is registered here is known to every configuration of this process."""

    def register_custom_backend(self, name: str, cls: Any) -> None:
        """Make a backend class usable as `adapter = "NAME"`; see the function of the same name."""
        register_custom_backend(name, cls)
