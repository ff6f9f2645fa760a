"""Small checks of one JSON value each: they pass in silence or refuse with the field, the cause and the cure."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NoReturn

import orjson

from gw.errors import InvalidRequest

Check = Callable[[str, Any], None]  # (where the value stands, the value)


def refuse(param: str, wanted: str, value: object) -> NoReturn:
    """InvalidRequest: `param` must be `wanted`, with what was found instead."""
    raise InvalidRequest(f"`{param}` must be {wanted}, not {describe(value)}", param=param)


def describe(value: object) -> str:
    """A JSON value in a few words: the value itself where it is short, else its kind."""
    if isinstance(value, list):
        return "an array" if value else "an empty array"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, str):
        return orjson.dumps(value).decode() if len(value) <= 40 else f"a string of {len(value):,} characters"
    if isinstance(value, (bool, int, float, type(None))):
        return orjson.dumps(value).decode() if value.__class__ is not int or abs(value) < 2**63 else "a huge number"
    return f"a {type(value).__name__}"


def text(most: int = 4096) -> Check:
    """A string that is not empty, of at most `most` characters."""

    def check(param: str, value: Any) -> None:
        if not isinstance(value, str) or not value:
            refuse(param, "a non-empty string", value)
        if len(value) > most:
            refuse(param, f"a string of at most {most:,} characters", value)

    return check


def plain_text(most: int) -> Check:
    """A name: a non-empty string without control characters, of at most `most` characters."""
    check_text = text(most)

    def check(param: str, value: Any) -> None:
        check_text(param, value)
        if not value.isprintable():
            refuse(param, "a string without control characters", value)

    return check


def check_string(param: str, value: Any) -> None:
    """A string, which may be empty."""
    if not isinstance(value, str):
        refuse(param, "a string", value)


def check_boolean(param: str, value: Any) -> None:
    """true or false."""
    if value is not True and value is not False:
        refuse(param, "true or false", value)


def check_object(param: str, value: Any) -> None:
    """An object, whatever is in it."""
    if not isinstance(value, dict):
        refuse(param, "an object", value)


def number(least: float, most: float) -> Check:
    """A number from `least` to `most`; true and false are none."""

    def check(param: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            refuse(param, f"a number from {least:g} to {most:g}", value)

    return check


def integer(least: int | None = None, most: int | None = None) -> Check:
    """A whole number. One beyond 64 bits is taken too, though orjson reads it as a float."""
    bounds = "" if least is None else f" of at least {least:,}" if most is None else f" from {least:,} to {most:,}"

    def check(param: str, value: Any) -> None:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not is_whole and isinstance(value, float):
            is_whole = abs(value) >= 2**63 and value.is_integer()
        if not is_whole or (least is not None and value < least) or (most is not None and value > most):
            refuse(param, f"a whole number{bounds}", value)

    return check


def one_of(*allowed: str) -> Check:
    """One of a few words."""
    words: Collection[str] = frozenset(allowed)
    wanted = "one of " + ", ".join(allowed)

    def check(param: str, value: Any) -> None:
        if not isinstance(value, str) or value not in words:
            refuse(param, wanted, value)

    return check


def listed(check_item: Check, most: int, what: str, least: int = 0) -> Check:
    """An array of at most `most` items, each of which passes `check_item`."""

    def check(param: str, value: Any) -> None:
        if not isinstance(value, list) or len(value) < least:
            refuse(param, f"a {'non-empty ' if least else ''}list of {what}", value)
        check_count(param, len(value), most, what)
        for index, item in enumerate(value):
            check_item(f"{param}[{index}]", item)

    return check


def check_count(param: str, count: int, most: int, what: str) -> None:
    """No more of something than one request may hold."""
    if count > most:
        raise InvalidRequest(f"`{param}` holds {count:,} {what}: at most {most:,} in one request", param=param)


def fields(required: dict[str, Check], optional: dict[str, Check] | None = None) -> Check:
    """An object whose known fields are right; unknown ones pass, and an optional one may be null."""
    rest = optional or {}

    def check(param: str, value: Any) -> None:
        if not isinstance(value, dict):
            refuse(param, "an object", value)
        for name, check_field in required.items():
            if name not in value:
                raise InvalidRequest(f"`{param}.{name}` is missing", param=f"{param}.{name}")
            check_field(f"{param}.{name}", value[name])
        for name, check_field in rest.items():
            found = value.get(name)
            if found is not None:
                check_field(f"{param}.{name}", found)

    return check
