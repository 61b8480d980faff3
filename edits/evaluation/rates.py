"""How often the judge sees what counts: rates with Wilson's intervals, changes with Newcombe's."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edits.evaluation.judge import Verdict
from edits.evaluation.prompts import Probe

_Z = 1.959964  # two-sided 95 per cent


@dataclass(frozen=True)
class Rate:
    """`hits` of `count`."""

    hits: int
    count: int

    @property
    def value(self) -> float:
        """The share, 0 for no pictures."""
        return self.hits / self.count if self.count else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 per cent interval."""
        if not self.count:
            return (0.0, 1.0)
        n, p, z = self.count, self.value, _Z
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        # Rounding must not leave a bound a hair inside of what was seen.
        return (min(p, max(0.0, middle - half)), max(p, min(1.0, middle + half)))

    def document(self) -> dict[str, Any]:
        """The rate as JSON."""
        low, high = self.interval
        return {
            "hits": self.hits,
            "n": self.count,
            "rate": round(self.value, 5),
            "low": round(low, 5),
            "high": round(high, 5),
        }

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} %"


@dataclass(frozen=True)
class Change:
    """The same pictures before and after an edit: on how many the class was seen in both runs,
    before only (`lost`), after only (`gained`) and in neither.
    """

    both: int
    lost: int
    gained: int
    neither: int

    @classmethod
    def of(cls, before: Sequence[bool], after: Sequence[bool]) -> "Change":
        """Count pairs. Raises ValueError if the two sides differ in length."""
        pairs = list(zip(before, after, strict=True))
        return cls(*(pairs.count((old, new)) for old in (True, False) for new in (True, False)))

    @property
    def count(self) -> int:
        """Pictures on each side."""
        return self.both + self.lost + self.gained + self.neither

    @property
    def before(self) -> Rate:
        """How often the class was seen before the edit."""
        return Rate(self.both + self.lost, self.count)

    @property
    def after(self) -> Rate:
        """How often the class was seen after the edit."""
        return Rate(self.both + self.gained, self.count)

    @property
    def drop(self) -> float:
        """before - after, as a share."""
        return (self.lost - self.gained) / self.count if self.count else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 per cent interval of `drop`: Newcombe (1998), paired proportions, his method 10.

        It squares the distances of Wilson's bounds and corrects for the pairs' correlation, so it
        has a width also where nothing fell.
        """
        if not self.count:
            return (-1.0, 1.0)
        p, q = self.before.value, self.after.value
        (p_low, p_high), (q_low, q_high) = self.before.interval, self.after.interval
        correlation = self._correlation()
        below = _distance(p - p_low, q_high - q, correlation)
        above = _distance(p_high - p, q - q_low, correlation)
        return (max(-1.0, self.drop - below), min(1.0, self.drop + above))

    def _correlation(self) -> float:
        """Phi of the two-by-two table, a positive one with Newcombe's continuity correction."""
        margins = (
            (self.both + self.lost)
            * (self.gained + self.neither)
            * (self.both + self.gained)
            * (self.lost + self.neither)
        )
        if not margins:
            return 0.0
        cross = float(self.both * self.neither - self.lost * self.gained)
        if cross > 0:
            cross = max(cross - self.count / 2, 0.0)
        return cross / math.sqrt(margins)

    def document(self) -> dict[str, Any]:
        """Both rates and the drop as JSON."""
        low, high = self.interval
        return {
            "before": self.before.document(),
            "after": self.after.document(),
            "drop": {
                "value": round(self.drop, 5),
                "low": round(low, 5),
                "high": round(high, 5),
            },
        }


def rate(probes: Sequence[Probe], verdicts: Sequence[Verdict], attribute: str) -> Rate:
    """Share of pictures in which `attribute` is what the prompt asked for."""
    hits = sum(
        verdict.classes[attribute] == probe.wanted[attribute]
        for probe, verdict in zip(probes, verdicts, strict=True)
    )
    return Rate(hits, len(probes))


def rates_by_class(
    probes: Sequence[Probe], verdicts: Sequence[Verdict], attribute: str
) -> dict[str, Rate]:
    """`rate` for each wanted class of `attribute` apart."""
    return {
        name: rate(*_only(probes, verdicts, lambda p, n=name: p.wanted[attribute] == n), attribute)  # type: ignore[misc]
        for name in dict.fromkeys(probe.wanted[attribute] for probe in probes)
    }


def mean_drop(
    before: Mapping[str, Rate], after: Mapping[str, Rate], without: Iterable[str]
) -> float:
    """Mean over the classes of (before - after), the classes in `without` left out."""
    names = [name for name in before if name not in set(without)]
    return sum(before[n].value - after[n].value for n in names) / len(names) if names else 0.0


def worst_class(changes: Mapping[str, Change]) -> tuple[str, Change] | None:
    """The class that fell most, by rate and then by pictures; None if no class fell."""
    fallen = [(c.drop, c.lost, name) for name, c in changes.items() if c.drop > 0]
    if not fallen:
        return None
    name = max(fallen)[2]
    return name, changes[name]


def _distance(one: float, other: float, correlation: float) -> float:
    squared = one * one - 2 * correlation * one * other + other * other
    return math.sqrt(max(0.0, squared))


def _only(
    probes: Sequence[Probe], verdicts: Sequence[Verdict], keep: Callable[[Probe], bool]
) -> tuple[list[Probe], list[Verdict]]:
    pairs = [(p, v) for p, v in zip(probes, verdicts, strict=True) if keep(p)]
    return [p for p, _ in pairs], [v for _, v in pairs]
