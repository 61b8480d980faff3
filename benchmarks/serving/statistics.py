"""Medians with their spread, ratios of paired repeats, and growth over time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Spread", "growth", "percentile", "ratios"]


@dataclass(frozen=True, slots=True)
class Spread:
    """Repeats of one measurement."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a spread needs one value at least")

    @property
    def median(self) -> float:
        """The middle value, or the mean of the two in the middle."""
        return float(np.median(self.values))

    @property
    def low(self) -> float:
        """The smallest value."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest value."""
        return max(self.values)

    def document(self) -> dict[str, Any]:
        """Median, extremes, and every value in the order of the repeats."""
        return {
            "median": self.median,
            "low": self.low,
            "high": self.high,
            "n": len(self.values),
            "values": list(self.values),
        }


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lies, between two of them interpolated."""
    return float(np.quantile(np.asarray(values, dtype=np.float64), share))


def ratios(numerators: Spread, denominators: Spread) -> Spread:
    """Repeat by repeat: both sides of a repeat were measured one right after the other."""
    pairs = zip(numerators.values, denominators.values, strict=True)
    return Spread(tuple(above / below for above, below in pairs))


@dataclass(frozen=True, slots=True)
class Growth:
    """How much a series grew, as shares of its beginning; 0.02 is 2 %."""

    by_slope: float  # least squares line over the whole series
    by_quartiles: float  # median of the last quarter against that of the first

    @property
    def worst(self) -> float:
        """The larger of both: neither a late jump nor a slow creep hides behind the other."""
        return max(self.by_slope, self.by_quartiles)


def growth(times: Sequence[float], values: Sequence[float]) -> Growth:
    """Growth of `values`, sampled at `times`. Raises ValueError for fewer than 4 samples."""
    if len(values) < 4:
        raise ValueError(f"growth needs 4 samples at least, not {len(values)}")
    at, series = np.asarray(times, np.float64), np.asarray(values, np.float64)
    slope, start = np.polyfit(at - at[0], series, 1)
    quarter = len(series) // 4
    first, last = np.median(series[:quarter]), np.median(series[-quarter:])
    return Growth(float(slope * (at[-1] - at[0]) / start), float(last / first - 1))
