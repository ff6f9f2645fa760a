"""Routing rules as one writes them: `model: claude-*`, `has_tools: true`, `has_images: true`, joined by `and`.

Also understood: `stream: true`, `key: NAME` (the caller's key, a glob), `header NAME: GLOB`, `tokens: > N`
(estimated prompt tokens; `<`, `>=` and `<=` too). A rule is parsed once, at load; a condition that nobody knows is an
error there, with the nearest right word.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from fnmatch import translate
from typing import NamedTuple

from gw.message import Headers
from gw.near import near


class Facts(NamedTuple):
    """What a rule may look at."""

    model: str
    has_tools: bool
    has_images: bool
    stream: bool
    key: str
    tokens: int
    headers: Headers


HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.1
_COMPARISONS = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le}
_WORDS = ("model", "has_tools", "has_images", "stream", "key", "tokens", "header NAME")


class Condition(NamedTuple):
    """One condition as it was written, and what beside the model, the key and the flags it looks at."""

    text: str
    holds: Callable[[Facts], bool]
    header: str | None = None  # its value
    bound: int | None = None  # whether there are more tokens than this


class Rule(NamedTuple):
    """A parsed condition with the text it was written as."""

    text: str
    conditions: tuple[Condition, ...]

    def matches(self, facts: Facts) -> bool:
        """Whether every condition holds."""
        return self.failing(facts) is None

    def failing(self, facts: Facts) -> str | None:
        """The first condition that does not hold; None where all do."""
        for condition in self.conditions:
            if not condition.holds(facts):
                return condition.text
        return None


def parse_rule(text: str) -> Rule:
    """`model: claude-* and has_tools: true` -> Rule. ValueError with the cure for what cannot be read."""
    return Rule(text, tuple(_condition(part.strip()) for part in re.split(r"\s+and\s+", text.strip())))


def _condition(text: str) -> Condition:
    word, colon, value = (part.strip() for part in text.partition(":"))
    if not colon or not value:
        raise ValueError(f'cannot read the condition "{text}": write `name: value`, such as `model: claude-*`')
    glob = re.compile(translate(value)).match
    if word in ("model", "key"):
        if len(value.split()) > 1:
            raise ValueError(f'"{word}" takes one name or glob, found "{value}"; join conditions with `and`')
        return Condition(text, lambda facts: glob(getattr(facts, word)) is not None)
    if word in ("has_tools", "has_images", "stream"):
        if value not in ("true", "false"):
            raise ValueError(f'"{word}" is true or false, found "{value}"')
        wanted = value == "true"
        return Condition(text, lambda facts: getattr(facts, word) is wanted)
    if word == "tokens":
        return _comparison(text, value)
    if word.startswith("header ") and len(word.split()) == 2:
        name = word.split()[1]
        if not HEADER_NAME.fullmatch(name):
            raise ValueError(f'"{name}" is not a header\'s name')

        def holds(facts: Facts) -> bool:
            value = facts.headers.get(name)
            return glob(value) is not None and (value != "" or name in facts.headers)

        return Condition(text, holds, header=name)
    raise ValueError(f'unknown condition "{word}"{near(word, _WORDS)} (known: {", ".join(_WORDS)})')


def _comparison(text: str, value: str) -> Condition:
    found = re.fullmatch(r"(>=|<=|>|<)\s*(\d+)", value, re.ASCII)
    if found is None:
        raise ValueError(f'"tokens" takes a comparison such as `tokens: > 100000`, found "{value}"')
    compare, number = _COMPARISONS[found[1]], int(found[2])
    bound = number if found[1] in (">", "<=") else number - 1
    return Condition(text, lambda facts: bool(compare(facts.tokens, number)), bound=bound)
