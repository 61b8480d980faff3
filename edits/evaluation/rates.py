"""How often the judge sees what a prompt asked for, with Wilson intervals."""

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
        return (max(0.0, middle - half), min(1.0, middle + half))

    def document(self) -> dict[str, Any]:
        """The rate as JSON."""
        low, high = self.interval
        return {
            "rate": round(self.value, 4),
            "n": self.count,
            "low": round(low, 4),
            "high": round(high, 4),
        }

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} %"


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


def worst_drop(
    before: Mapping[str, Rate], after: Mapping[str, Rate], without: Iterable[str]
) -> tuple[float, str]:
    """The largest fall of one class, and its name."""
    drops = ((before[n].value - after[n].value, n) for n in before if n not in set(without))
    return max(drops, default=(0.0, ""))


def _only(
    probes: Sequence[Probe], verdicts: Sequence[Verdict], keep: Callable[[Probe], bool]
) -> tuple[list[Probe], list[Verdict]]:
    pairs = [(p, v) for p, v in zip(probes, verdicts, strict=True) if keep(p)]
    return [p for p, _ in pairs], [v for _, v in pairs]
