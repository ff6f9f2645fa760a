"""What models can do and what they cost: data with a date and a source, overridable, never code.

`models.json` beside this file is read on first use. A name is found as it is written, then without what hosts and
vendors put around it (`anthropic/`, `@20250929`, `-20250929`, `-latest`, `:free`); a later member of a listed family
gets its nearest relative's flags, but neither its price nor its limits: those are not guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from gw.backend import Price
from gw.message import Usage

# What a flag says of a model. Those of Claude and Gemini that adapters ask for; `[models]` may use any of them.
FLAGS: Mapping[str, str] = {
    "sampling": "takes temperature, top_p and top_k",
    "penalties": "takes frequency_penalty and presence_penalty",
    "adaptive_thinking": "thinks as much as an effort says",
    "budget_thinking": "thinks as much as a budget of tokens says",
    "always_thinks": "cannot be told not to think",
    "xhigh_effort": "knows the effort xhigh",
    "forced_tool": "can be made to call a tool",
    "prefill": "continues a last assistant message",
    "mid_system": "takes system messages inside the conversation",
    "structured": "takes a JSON schema for its answer",
    "vertex_structured": "takes a JSON schema for its answer on Vertex AI too",
    "thinking_budget": "Gemini: takes thinkingBudget",
    "thinking_level": "Gemini: takes thinkingLevel",
    "signatures": "Gemini: wants its thought signatures back",
    "multimodal_results": "Gemini: takes media inside a function response",
    "schema_with_tools": "Gemini: takes a response schema beside functions",
    "call_ids": "Gemini: names its function calls and wants the ids back",
}

_PRICES = ("input", "output", "cache_read", "cache_write")


@dataclass(slots=True, frozen=True)
class LongPrice(Price):
    """A price that changes for the whole request where its prompt is longer than `above` tokens."""

    above: int = 0
    long: Price = Price()  # noqa: RUF009 (frozen)

    def of(self, usage: Usage) -> float:
        """What these tokens cost, in USD."""
        if usage.prompt > self.above:
            return self.long.of(usage)
        return Price.of(self, usage)


class Model(NamedTuple):
    """What is known of one model. None is unknown."""

    name: str  # as it stands in the data, or as it was asked for where only its family is known
    vendor: str = ""
    flags: frozenset[str] = frozenset()
    price: Price | None = None
    context: int | None = None  # tokens of prompt and answer
    max_output: int | None = None  # tokens
    source: str = ""  # where the price comes from
    date: str = ""  # when it was read, ISO 8601

    def has(self, flag: str) -> bool:
        """Whether a flag of `FLAGS` holds."""
        return flag in self.flags

    def changed(self, changes: Mapping[str, Any]) -> Model:
        """A copy with the keys of one `[models."NAME"]`; raises ValueError with a line for each that is wrong.

        Keys: input, output, cache_read, cache_write, long, context, max_output, flags (a list, in place of all), and
        each flag by its name (true or false).
        """
        return self._replace(**_fields(changes, self))


def _fields(changes: Mapping[str, Any], former: Model) -> dict[str, Any]:
    """What the keys of one `[models."NAME"]` make of a model's fields."""
    flags = set(former.flags)
    prices: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in changes.items():
        if key in _PRICES or key == "long":
            prices[key] = value
        elif key in ("context", "max_output"):
            if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
                problems.append(f"{key}: a number of tokens, not {value!r}")
            fields[key] = value
        elif key == "flags":
            given = value if isinstance(value, list) else [value]
            flags = {flag for flag in FLAGS if flag in given}
            problems += [
                f"flags: {flag!r} is unknown, there are {', '.join(FLAGS)}" for flag in given if flag not in [*FLAGS]
            ]
        elif key in FLAGS:
            if not isinstance(value, bool):
                problems.append(f"{key}: true or false, not {value!r}")
            (flags.add if value else flags.discard)(key)
        else:
            known = [*_PRICES, "long", "context", "max_output", "flags", *FLAGS]
            problems.append(f"{key}: unknown, a model has {', '.join(known)}")
    problems += _price_problems(prices)
    if problems:
        raise ValueError("\n".join(problems))
    if prices:
        fields["price"] = _price(prices, former.price)
        fields["source"] = fields["date"] = ""
    return {"flags": frozenset(flags), **fields}


def _price_problems(prices: Mapping[str, Any], path: str = "") -> list[str]:
    problems = []
    for name, value in prices.items():
        if name == "long" and not path:
            is_table = isinstance(value, dict) and isinstance(value.get("above"), int)
            tier = {key: price for key, price in value.items() if key != "above"} if is_table else {}
            problems += _price_problems(tier, "long.")
            if not is_table:
                problems.append(f"long: a table with above, input and output, not {value!r}")
        elif name not in _PRICES:
            problems.append(f"{path}{name}: unknown, a price has {', '.join(_PRICES)}")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            problems.append(f"{path}{name}: USD per million tokens, not {value!r}")
    return problems


def _price(prices: dict[str, Any], former: Price | None) -> Price:
    long = prices.pop("long", None)
    if former is not None:
        kept: dict[str, float | None] = {"input": former.input, "output": former.output}
        if "input" not in prices:  # cached tokens cost a share of input: with a new input the old shares are stale
            kept |= {"cache_read": former.cache_read, "cache_write": former.cache_write}
        prices = {name: value for name, value in kept.items() if value is not None} | prices
    if long is None:
        return Price(**_numbers(prices))
    tier = Price(**_numbers({name: value for name, value in long.items() if name != "above"}))
    return LongPrice(**_numbers(prices), above=long["above"], long=tier)


def _numbers(prices: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in prices.items()}


_DECORATION = re.compile(r"@.*|-(?:20\d{6}|20\d\d-\d\d-\d\d|latest|default|v\d+)$")


def _plain(name: str) -> str:
    """A name without vendor path, date and tag; versions with dashes, as Anthropic writes them."""
    plain = name.lower().rpartition("/")[2].partition(":")[0]
    while (shorter := _DECORATION.sub("", plain)) != plain:
        plain = shorter
    return plain.replace(".", "-")


class Catalogue:
    """Models by name. Immutable; `changed` makes another."""

    __slots__ = ("_by_name", "_found", "_plain")

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._by_name = dict(models)
        self._plain: dict[str, Model] = {}
        for model in models.values():
            self._plain.setdefault(_plain(model.name), model)
        self._found: dict[str, Model | None] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Model]:
        return iter(self._by_name.values())

    def find(self, name: str) -> Model | None:
        """What is known of a model by any of its names; None where not even its family is listed.

        A tag (`:free`, `:thinking`) makes the price unknown; a mere relative has flags and nothing else.
        """
        if name not in self._found:
            if len(self._found) > 1000:  # names come from clients
                self._found.clear()
            self._found[name] = self._search(name)
        return self._found[name]

    def _search(self, name: str) -> Model | None:
        exact = self._by_name.get(name)
        if exact is not None:
            return exact
        plain = _plain(name)
        model = self._by_name.get(plain) or self._plain.get(plain)
        if model is not None:
            return model._replace(price=None) if ":" in name else model
        relative = self._relative(plain)
        return None if relative is None else Model(name=name, vendor=relative.vendor, flags=relative.flags)

    def _relative(self, plain: str) -> Model | None:
        wanted = plain.split("-")
        nearest, shared = None, 0
        for other, model in self._plain.items():
            steps = other.split("-")
            same = 0
            while same < min(len(steps), len(wanted)) and steps[same] == wanted[same]:
                same += 1
            if same > shared:
                nearest, shared = model, same
        return nearest

    def changed(self, tables: Mapping[str, Mapping[str, Any]]) -> Catalogue:
        """With `[models."NAME"]` tables laid over it. Raises ValueError with every wrong key: `models."NAME": ...`."""
        models, problems = dict(self._by_name), []
        for name, table in tables.items():
            known = self.find(name) or Model(name=name)
            try:
                models[name] = known._replace(name=name).changed(table)
            except ValueError as error:
                problems += [f'models."{name}".{problem}' for problem in str(error).splitlines()]
        if problems:
            raise ValueError("\n".join(problems))
        return Catalogue(models)


def read(text: bytes) -> Catalogue:
    """The catalogue in a file of the shape of `models.json`."""
    data = orjson.loads(text)
    models: dict[str, Model] = {}
    stranger = Model(name="")
    for vendor, table in data["vendors"].items():
        sourced = {"source": table["source"], "date": data["date"]}
        for name, row in table["models"].items():
            fields = _fields(row, stranger)
            if "price" in fields:
                fields |= sourced
            models[name] = Model(name=name, vendor=vendor, **fields)
    return Catalogue(models)


@cache
def catalogue() -> Catalogue:
    """The models that come with gw."""
    # JSON, though every other file of gw's is TOML: that takes a hundred times as long to read, and this is 22 KB.
    return read(Path(__file__).with_name("models.json").read_bytes())
