"""Means over pictures with bootstrap intervals: of one side, and of paired differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
_SEED = 0
_QUANTILES = (0.025, 0.975)
_CELLS = 2**22  # of one block of resamples: 32 MiB of indices

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Mean:
    """A mean over `count` pictures with a 95 per cent interval; one picture has none."""

    value: float
    low: float | None
    high: float | None
    count: int

    def document(self) -> dict[str, Any]:
        """As JSON."""
        bounds = [None if b is None else round(b, 4) for b in (self.low, self.high)]
        return {"mean": round(self.value, 4), "low": bounds[0], "high": bounds[1], "n": self.count}


@dataclass(frozen=True)
class MeanChange:
    """The mean before, the mean after, and the mean of after - before over the same pictures."""

    before: Mean
    after: Mean
    difference: Mean

    @classmethod
    def of(cls, before: Sequence[float], after: Sequence[float]) -> "MeanChange":
        """Raises ValueError if the two sides differ in length or are empty."""
        old, new = np.asarray(before, np.float64), np.asarray(after, np.float64)
        if old.shape != new.shape:
            raise ValueError(f"{len(old)} scores before and {len(new)} after")
        return cls(mean_of(old), mean_of(new), mean_of(new - old))

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "before": self.before.document(),
            "after": self.after.document(),
            "difference": self.difference.document(),
        }


def mean_of(values: Floats) -> Mean:
    """The mean of values (n,) with the percentile bootstrap of `RESAMPLES` resamples.

    The resamples are the same on every call with as many values. Raises ValueError for none.
    """
    if not len(values):
        raise ValueError("no values have no mean")
    if len(values) == 1:
        return Mean(float(values[0]), None, None, 1)
    rng = np.random.default_rng(_SEED)
    block = max(1, _CELLS // len(values))
    means = np.concatenate(
        [
            values[
                rng.integers(len(values), size=(min(block, RESAMPLES - done), len(values)))
            ].mean(1)
            for done in range(0, RESAMPLES, block)
        ]
    )
    low, high = np.quantile(means, _QUANTILES)
    return Mean(float(values.mean()), float(low), float(high), len(values))
