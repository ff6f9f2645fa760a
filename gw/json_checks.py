"""Small checks of one JSON value each: they pass in silence or refuse with the field, the cause and the cure."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NoReturn

import orjson

Check = Callable[[Any], None]  # raises Misfit


class Misfit(Exception):
    """A value that is not what its place wants: `problem` completes "`messages[2].content` ...".

    Where it stands is put together on the way out, from the inside, so that what fits never has its place written.
    """

    def __init__(self, problem: str, place: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.place = place  # within what is checked, such as ".name"

    def stands_at(self, step: str) -> None:
        """What was checked stands at `step` of something larger: ".function", "[2]"."""
        self.place = step + self.place


def refuse(wanted: str, value: object, place: str = "") -> NoReturn:
    """Misfit: what is checked must be `wanted`, with what was found instead."""
    raise Misfit(f"must be {wanted}, not {describe(value)}", place)


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

    def check(value: Any) -> None:
        if type(value) is not str or not value:
            refuse("a non-empty string", value)
        if len(value) > most:
            refuse(f"a string of at most {most:,} characters", value)

    return check


def plain_text(most: int) -> Check:
    """A name: a non-empty string without control characters, of at most `most` characters."""
    check_text = text(most)

    def check(value: Any) -> None:
        if type(value) is not str or not 0 < len(value) <= most:
            check_text(value)
        if not value.isprintable():
            refuse("a string without control characters", value)

    return check


def check_string(value: Any) -> None:
    """A string, which may be empty."""
    if type(value) is not str:
        refuse("a string", value)


def check_boolean(value: Any) -> None:
    """true or false."""
    if value is not True and value is not False:
        refuse("true or false", value)


def check_object(value: Any) -> None:
    """An object, whatever is in it."""
    if type(value) is not dict:
        refuse("an object", value)


def number(least: float, most: float) -> Check:
    """A number from `least` to `most`; true and false are none."""

    def check(value: Any) -> None:
        if (type(value) is not float and type(value) is not int) or not least <= value <= most:
            refuse(f"a number from {least:g} to {most:g}", value)

    return check


def integer(least: int | None = None, most: int | None = None) -> Check:
    """A whole number. One beyond 64 bits is taken too, though orjson reads it as a float."""
    bounds = "" if least is None else f" of at least {least:,}" if most is None else f" from {least:,} to {most:,}"

    def check(value: Any) -> None:
        is_whole = type(value) is int or (type(value) is float and abs(value) >= 2**63 and value.is_integer())
        if not is_whole or (least is not None and value < least) or (most is not None and value > most):
            refuse(f"a whole number{bounds}", value)

    return check


def one_of(*allowed: str) -> Check:
    """One of a few words."""
    words: Collection[str] = frozenset(allowed)
    wanted = "one of " + ", ".join(allowed)

    def check(value: Any) -> None:
        if type(value) is not str or value not in words:
            refuse(wanted, value)

    return check


def listed(check_item: Check, most: int, what: str, least: int = 0) -> Check:
    """An array of at most `most` items, each of which passes `check_item`."""

    def check(value: Any) -> None:
        if type(value) is not list or len(value) < least:
            refuse(f"a {'non-empty ' if least else ''}list of {what}", value)
        check_count(len(value), most, what)
        check_each(value, check_item)

    return check


def check_each(items: list[Any], check_item: Check) -> None:
    """Every item of an array."""
    index = 0
    try:
        for index, item in enumerate(items):  # noqa: B007 (read where one does not fit)
            check_item(item)
    except Misfit as misfit:
        misfit.stands_at(f"[{index}]")
        raise


def check_count(count: int, most: int, what: str) -> None:
    """No more of something than one request may hold."""
    if count > most:
        raise Misfit(f"holds {count:,} {what}: at most {most:,} in one request")


def fields(required: dict[str, Check], optional: dict[str, Check] | None = None) -> Check:
    """An object whose known fields are right; unknown ones pass, and an optional one may be null."""
    needed, rest = tuple(required.items()), tuple((optional or {}).items())

    def check(value: Any) -> None:
        if type(value) is not dict:
            refuse("an object", value)
        name = ""
        try:
            for name, check_field in needed:
                if name not in value:
                    raise Misfit("is missing")
                check_field(value[name])
            for name, check_field in rest:
                found = value.get(name)
                if found is not None:
                    check_field(found)
        except Misfit as misfit:
            misfit.stands_at(f".{name}")
            raise

    return check
