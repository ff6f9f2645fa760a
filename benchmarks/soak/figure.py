"""What a soak finds out: a figure beside its target, and whether it was held."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `is_count`: it counts what must not happen, so it holds on any machine, however slow."""

    soak: str  # R1 to R23
    what: str
    found: str
    target: str
    is_held: bool | None  # None: it cannot be measured here, and `found` says why
    is_count: bool = False


def count(soak: str, what: str, found: int, most: int = 0, *, out_of: int | None = None) -> Figure:
    """So many things happened that must not: at most `most` of them."""
    text = f"{found}" if out_of is None else f"{found} of {out_of}"
    return Figure(soak, what, text, f"<= {most}" if most else "0", found <= most, is_count=True)


def equal(soak: str, what: str, found: float, wanted: float) -> Figure:
    """Two books that must agree."""
    return Figure(
        soak, what, f"{found:.10g}", f"{wanted:.10g}", abs(found - wanted) <= 1e-9 * max(1.0, abs(wanted)), True
    )


def below(soak: str, what: str, found: float, most: float, unit: str) -> Figure:
    """A measurement: true of this machine at this moment."""
    return Figure(soak, what, f"{found:.3g} {unit}", f"<= {most:g} {unit}", found <= most)


def yes(soak: str, what: str, is_so: bool, found: str = "") -> Figure:
    """Something that must be so."""
    return Figure(soak, what, found or ("yes" if is_so else "no"), "yes", is_so, is_count=True)


def unmeasured(soak: str, what: str, why: str) -> Figure:
    """What cannot be found out on this machine."""
    return Figure(soak, what, why, "", None)


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which `share` of them lie; 0 without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def worst(runs: list[list[Figure]]) -> list[Figure]:
    """Of several runs of one soak, for each line the run in which it came out worst: not held before held."""
    found: dict[tuple[str, str], Figure] = {}
    for figure in (figure for run in runs for figure in run):
        key = figure.soak, figure.what
        known = found.get(key)
        if known is None or _badness(figure) > _badness(known):
            found[key] = figure
    return list(found.values())


def _badness(figure: Figure) -> tuple[bool, float]:
    try:
        size = float(figure.found.split()[0])
    except (ValueError, IndexError):
        size = 0.0
    return figure.is_held is False, size
