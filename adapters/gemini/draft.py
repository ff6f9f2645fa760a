"""What the parts of one Gemini request share while it is written: the model's abilities, its names, what was lost."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gw.message import Loss
from gw.models import Model

# What a model that nobody has listed can do: the rules of the newest family.
NEWEST = frozenset({"sampling", "thinking_level", "signatures", "multimodal_results", "schema_with_tools", "call_ids"})
_OPENAPI_ONLY = re.compile(r"gemini-1\.|gemini-pro(-vision)?$")  # before 2.0 only the OpenAPI subset of schemas


class Traits(NamedTuple):
    """What one model takes. The flags are those of `gw.models.FLAGS`."""

    kind: str  # pro | flash | lite: whose figures of thinking hold
    sampling: bool
    penalties: bool
    thinking_budget: bool
    thinking_level: bool
    signatures: bool
    multimodal_results: bool
    schema_with_tools: bool
    call_ids: bool
    json_schema: bool


def traits_of(name: str, model: Model | None) -> Traits:
    """The abilities of a model by its name and what the catalogue knows of it; newest rules where it knows nothing."""
    flags = NEWEST if model is None or not model.flags else model.flags
    plain = name.rpartition("/")[2]
    return Traits(
        kind="lite" if "lite" in plain else "pro" if "pro" in plain else "flash",
        sampling="sampling" in flags,
        penalties="penalties" in flags,
        thinking_budget="thinking_budget" in flags,
        thinking_level="thinking_level" in flags,
        signatures="signatures" in flags,
        multimodal_results="multimodal_results" in flags,
        schema_with_tools="schema_with_tools" in flags,
        # Gemini 3 takes ids that it did not give, so that every model that wants signatures gets them.
        call_ids="call_ids" in flags or "signatures" in flags,
        json_schema=_OPENAPI_ONLY.match(plain) is None,
    )


_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")
_FOREIGN = re.compile(r"[^a-zA-Z0-9_.:-]")


class Names:
    """Function names that Gemini takes for those that the client uses, and back; most are the same."""

    __slots__ = ("_back", "_there", "custom")

    def __init__(self) -> None:
        self._there: dict[str, str] = {}
        self._back: dict[str, str] = {}  # only those that differ
        self.custom: set[str] = set()  # the client's names of custom tools, whose input is one text

    def to_wire(self, name: str) -> str:
        """The name on the wire: itself if it begins with a letter or underscore and holds nothing foreign."""
        known = self._there.get(name)
        if known is not None:
            return known
        if _NAME.fullmatch(name) and name not in self._back:
            self._there[name] = name
            return name
        plain = "_" + _FOREIGN.sub("_", name)[:120]
        wire = plain
        while wire in self._back or wire in self._there:  # two names that became one
            wire = f"{plain}_{len(self._back)}"
        self._there[name] = wire
        self._back[wire] = name
        return wire

    def to_client(self, name: str) -> str:
        """The client's name for a name on the wire."""
        return self._back.get(name, name)


@dataclass(slots=True)
class Draft:
    """One request while it is written."""

    provider: str  # how messages call it: Gemini
    traits: Traits
    find_signature: Callable[[str], str | None]  # tool call id -> its thought signature, where one was kept
    takes_uri: Callable[[str], bool]  # whether the provider reads what this URL points at
    is_vertex: bool = False  # Vertex AI: metadata becomes labels, and some fields are unknown
    names: Names = field(default_factory=Names)
    losses: list[Loss] = field(default_factory=list)
    strict_schema: dict[str, Any] | None = None  # what the client wants kept and Gemini is not held to

    def drop(self, pointer: str, detail: str = "") -> None:
        """Tell that something is not sent."""
        self.losses.append(Loss(pointer, "dropped", detail))

    def change(self, pointer: str, detail: str = "") -> None:
        """Tell that something is sent as something else."""
        self.losses.append(Loss(pointer, "changed", detail))

    def emulate(self, pointer: str, detail: str = "") -> None:
        """Tell that something is brought about in another way."""
        self.losses.append(Loss(pointer, "emulated", detail))
