"""The environment as one injected value: variables of the process over those of `.env`, never printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gw.secret import Secret


class Environ(Mapping[str, str]):
    """Environment variables by name. Components ask for it by annotation, so that tests can give them another."""

    __slots__ = ("_variables",)

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self._variables = dict(variables or {})

    def __getitem__(self, name: str) -> str:
        return self._variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def secret(self, name: str) -> Secret | None:
        """The variable as a Secret without surrounding blanks; None where it is unset or blank."""
        value = self._variables.get(name, "").strip()
        return Secret(value) if value else None

    def __repr__(self) -> str:
        return f"<Environ of {len(self)} variables>"  # values may be secret
