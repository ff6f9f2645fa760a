"""What may stand in `model`: names of backends, the keys of their mappings, and plain names that a rule looks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gw.backend import Backend, Backends
from gw.plan import AUTO
from gw.rules import Rule


def served(backend: Backend, model: str) -> str | None:
    """The provider's name for a model; None where this backend does not serve it, or has to be told one."""
    if model == AUTO or model == backend.name:
        return backend.default_model()
    return backend.upstream_model(model)


class ModelNames:
    """The names of one configuration; a program may add backends until the first request."""

    def __init__(self, backends: Backends, rules: Iterable[Rule]) -> None:
        self._backends = backends
        self._of_rules = [name for rule in rules if (name := _plain_name(rule)) is not None]

    def listed(self) -> list[str]:
        """Every name that can be chosen here."""
        names: dict[str, None] = {}
        for backend in self._enabled():
            if backend.default_model() is not None:
                names[backend.name] = None
            names.update(dict.fromkeys(backend.models))
        return list(names | dict.fromkeys(self._of_rules))

    def is_written(self, model: str) -> bool:
        """Whether somebody has written just this name into a mapping or a rule."""
        return model in self._of_rules or any(model in backend.models for backend in self._enabled())

    def is_bare(self, model: str) -> bool:
        """Whether it is the name of a backend that has no model of its own, and nothing else."""
        backend = self._backends.get(model)
        if backend is None or not backend.enabled or backend.default_model() is not None:
            return False
        return not self.is_written(model)

    def is_served(self, model: str) -> bool:
        """Whether anybody has it who does not answer for everything."""
        return any(not backend.explicit_only and served(backend, model) is not None for backend in self._enabled())

    def _enabled(self) -> Sequence[Backend]:
        return [backend for backend in self._backends if backend.enabled]


def _plain_name(rule: Rule) -> str | None:
    word, _, value = rule.text.partition(":")
    is_plain = word.strip() == "model" and not set("*?[ ") & set(value.strip())
    return value.strip() if is_plain else None
