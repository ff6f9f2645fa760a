"""What no single component can see: the order of the pipeline, names of backends, who may reach the gateway, keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import Any

from gw.near import near
from gw.options import dotted
from gw.pipeline import is_head_only, side
from gw.registry import MIDDLEWARE, find
from gw.settings import ServerOptions, SessionOptions


def order_problems(pipeline: Sequence[tuple[str, Any]], written: Sequence[str]) -> list[str]:
    """What is wrong with the order of (name, class), outermost first. `written` has all names, the broken ones too."""
    names = [name for name, _ in pipeline]
    problems = []
    for needed, why in (
        ("route", "nothing would choose a backend"),
        ("translate", "nothing would reach a provider"),
    ):
        if needed not in written:
            problems.append(f'pipeline: "{needed}" is missing: {why}; put it in, and do not switch it off')
    order = [name for name in names if name in ("route", "fallback", "translate")]
    if order != sorted(order, key=("route", "fallback", "translate").index):
        problems.append(
            f"pipeline: {', '.join(order)} stand in the wrong order: route chooses, fallback tries again, "
            "translate asks"
        )
    return problems + _head_only_problems(pipeline) + _side_problems(pipeline)


def _head_only_problems(pipeline: Sequence[tuple[str, Any]]) -> list[str]:
    last = max((index for index, (_, layer) in enumerate(pipeline) if is_head_only(layer)), default=-1)
    problems = []
    for name, layer in pipeline[: last + 1]:
        if not is_head_only(layer):
            after = pipeline[last][0]
            problems.append(
                f'pipeline: "{name}" stands before "{after}", which decides on the head alone, and would find no body '
                f'there; put "{name}" behind "{after}", or, if it needs no body, give its class head_only = True'
            )
    return problems


def _side_problems(pipeline: Sequence[tuple[str, Any]]) -> list[str]:
    names = [name for name, _ in pipeline]
    if "translate" not in names:
        return []
    border = names.index("translate")
    problems = []
    for index, (name, layer) in enumerate(pipeline):
        where = side(layer)
        if where not in ("call", "wire"):
            problems.append(f'pipeline: "{name}" has side = "{where}"; a side is "call" or "wire"')
        elif where == "wire" and index < border:
            problems.append(f'pipeline: "{name}" works on the provider\'s wire: put it behind "translate"')
        elif where == "call" and index > border:
            problems.append(
                f'pipeline: "{name}" works on the client\'s request: put it before "translate", '
                'or, if it is made for the provider\'s wire, give its class side = "wire"'
            )
    return problems


def unknown_backends(middleware: Mapping[str, Any], names: Collection[str]) -> list[str]:
    """Names in the lists of `fallback`, in `route.default_backend`, rules and keys that no backend has."""
    problems = []
    for path, name in _references(middleware):
        if name not in names:
            problems.append(
                f'{path}: no backend is called "{name}"{near(name, names)} (there are: {", ".join(names)}); '
                "configure it under [backends], or take the name out"
            )
    return problems


def _references(middleware: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(TOML path, name) wherever a backend is referred to; wrong types are told where the options are checked."""
    found: list[tuple[str, object]] = []
    route = _enabled(middleware, "route")
    if "default_backend" in route:
        found.append(("middleware.route.default_backend", route["default_backend"]))
    for index, rule in enumerate(_list(route.get("rules"))):
        if isinstance(rule, Mapping):
            path = f"middleware.route.rules[{index}]"
            found.append((f"{path}.backend", rule.get("backend")))
            found += _each(f"{path}.backends", rule.get("backends"))
    for option in ("chain", "continues"):
        found += _each(f"middleware.fallback.{option}", _enabled(middleware, "fallback").get(option))
    of = _enabled(middleware, "fallback").get("after_content_of")
    found += [("middleware.fallback.after_content_of", name) for name in of] if isinstance(of, Mapping) else []
    for name, key in _named_keys(_enabled(middleware, "auth")):
        found += _each(dotted("middleware.auth.keys", name) + ".backends", key.get("backends"))
    return [(path, name) for path, name in found if isinstance(name, str)]


def _each(path: str, entries: object) -> list[tuple[str, object]]:
    names = [entry.get("backend") if isinstance(entry, Mapping) else entry for entry in _list(entries)]
    return [(f"{path}[{index}]", name) for index, name in enumerate(names)]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _enabled(middleware: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = _table(middleware, name)
    return {} if table.get("enabled") is False else table


def _table(middleware: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = middleware.get(name)
    return table if isinstance(table, Mapping) else {}


def key_problems(server: ServerOptions, auth: object, variables: Mapping[str, str]) -> list[str]:
    """Whether others could use the gateway, and its keys, without one. `auth` is its table, None where it is off."""
    has_key = isinstance(auth, Mapping) and auth.get("mode") != "off" and bool(_keys(auth, variables))
    if server.is_loopback or has_key:
        return []
    return [
        f"server.host: {server.host} can be reached from other machines, and no key protects it; set API_AUTH_TOKEN "
        '(see [middleware.auth]), or bind to this machine alone with host = "127.0.0.1"'
    ]


def idle_key_problems(
    pipeline: Sequence[tuple[str, Any]], middleware: Mapping[str, Any], variables: Mapping[str, str]
) -> list[str]:
    """Keys that nobody would ask for, and rates that nobody would enforce: whoever set them believes otherwise.

    `pipeline` are (name, class) as they run, None for a class that could not be read.
    """
    auth = next((place for place, layer in enumerate(pipeline) if _is(layer, "auth")), None)
    if auth is None:
        return _without_auth(_table(middleware, "auth"), variables)
    if any(_is(layer, "rate_limit") for layer in pipeline[auth:]):
        return []
    name = pipeline[auth][0]
    return [
        f"{dotted(dotted('middleware', name) + '.keys', key)}.rate: nothing would enforce it, as "
        f'"rate_limit" does not run behind "{name}": put it there and switch it on, or take the rate out'
        for key, options in _named_keys(_table(middleware, name))
        if "rate" in options
    ]


def idle_sessions(sessions: SessionOptions, log: Mapping[str, Any] | None) -> list[str]:
    """A warning where sessions are asked for and nothing is kept of them. `log` are its options; None is off."""
    content = "full" if log is None else log.get("content", "full")
    if not sessions.enabled or (log is not None and content == "full"):
        return []
    why = '"log" does not run' if log is None else f'middleware.log.content is "{content}"'
    return [f'sessions: no effect, as {why}: they go on by what a log with content = "full" keeps']


def expired_keys(auth: Mapping[str, Any], today: date) -> list[str]:
    """A warning for each key of `auth`, by its options, that is no longer taken."""
    return [
        f"{dotted('middleware.auth.keys', name)}: expired after {key.expires}, nobody is let in with it"
        for name, key in auth.get("keys", {}).items()
        if isinstance(getattr(key, "expires", None), date) and key.expires < today
    ]


def _without_auth(auth: Mapping[str, Any], variables: Mapping[str, str]) -> list[str]:
    keys = _keys(auth, variables)
    if not keys:
        return []
    path, cure = "pipeline", 'put "auth" into it'
    if auth.get("enabled") is False:
        path, cure = "middleware.auth.enabled", "switch it on"
    away = "; ".join(f"unset {key}" if key in variables else f"remove {key}" for key in keys)
    return [f'{path}: nobody would ask for {", ".join(keys)}, as "auth" does not run: {cure}, or {away}']


def _is(layer: tuple[str, Any], name: str) -> bool:
    """Whether this is the middleware of that name, one in its place, or one that is made from it."""
    return layer[0] == name or (isinstance(layer[1], type) and issubclass(layer[1], find(MIDDLEWARE, name)))


def _keys(auth: Mapping[str, Any], variables: Mapping[str, str]) -> list[str]:
    """Where the keys are that a table of `auth` has for clients: variables and names."""
    everything = auth.get("token_env", "API_AUTH_TOKEN")
    found = [everything] if _is_set(everything, variables) else []
    for name, key in _named_keys(auth):
        if key.get("token") or _is_set(key.get("token_env"), variables):
            found.append(f"keys.{name}")
    return found


def _is_set(variable: object, variables: Mapping[str, str]) -> bool:
    return isinstance(variable, str) and variable in variables


def _named_keys(auth: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    keys = auth.get("keys")
    entries = keys.items() if isinstance(keys, Mapping) else ()
    return [(name, key) for name, key in entries if isinstance(key, Mapping)]
