"""Spearman's rank correlation, and how far two scorers agree by it."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from edits.tracing.plan import CLEAN, CORRUPTED
from edits.tracing.resampling import (
    Floats,
    Integers,
    checked_runs,
    interval,
    json_number,
    prompt_means,
    resample,
    weighted_means,
)


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho of `count` pairs with its 95 per cent interval over prompts; NaN as above."""

    rho: float
    low: float
    high: float
    count: int

    def document(self) -> dict[str, Any]:
        """As JSON, NaN as None."""
        numbers = {"rho": self.rho, "low": self.low, "high": self.high}
        return {
            **{name: json_number(value) for name, value in numbers.items()},
            "count": self.count,
        }


@dataclass(frozen=True)
class Agreement:
    """How alike two scorers order the sites' mean indirect effects, and those of single runs."""

    sites: Correlation
    runs: Correlation

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"sites": self.sites.document(), "runs": self.runs.document()}


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rank correlation; equal values share their average rank.

    NaN for fewer than two pairs and where one side is constant. Raises ValueError for unequal
    lengths and for NaN among the values.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"two rows of equal length are needed, not {first.shape}, {second.shape}")
    if np.isnan(first).any() or np.isnan(second).any():
        raise ValueError("values that are not a number have no rank")
    return _spearman(_levels(first), _levels(second), np.ones(len(first)))


def agreement(scores: ArrayLike, *, resamples: int = 2000, seed: int = 0) -> Agreement:
    """Spearman between two scorers; `scores` (prompts, seeds, draws, conditions, 2).

    Both correlations are of indirect effects, which take a prompt's own level out; the conditions
    stand as in `effects`, and only what both scorers have counts. Resamples of prompts with a
    constant side have no correlation and are left out of the interval.
    Raises ValueError for another shape and for infinite scores.
    """
    both = np.asarray(scores, dtype=np.float64)
    if both.ndim != 5 or both.shape[-1] != 2:
        raise ValueError(f"scores must be (prompts, seeds, draws, conditions, 2), not {both.shape}")
    names = [CLEAN, CORRUPTED, *(str(i) for i in range(2, both.shape[3]))]
    pair = np.stack([checked_runs(both[..., i], names) for i in range(2)], axis=-1)
    indirect = (pair - pair[:, :, 1:2])[:, :, 2:]
    indirect[np.isnan(indirect).any(axis=-1)] = np.nan
    counts = resample(len(pair), resamples, seed)
    return Agreement(_site_agreement(indirect, counts), _run_agreement(indirect, counts))


def _site_agreement(indirect: Floats, counts: Floats) -> Correlation:
    """`indirect` (prompts, runs, sites, 2)."""
    prompts, runs, sites, _ = indirect.shape
    means, _ = prompt_means(indirect.reshape(prompts, runs, sites * 2))

    def rho(row: Floats) -> float:
        pairs = row.reshape(sites, 2)
        pairs = pairs[~np.isnan(pairs).any(axis=-1)]
        return spearman(pairs[:, 0], pairs[:, 1])

    row = weighted_means(means, np.ones((1, prompts)))[0]
    values = np.array([rho(resampled) for resampled in weighted_means(means, counts)])
    several = int((~np.isnan(means)).any(axis=1).sum()) > 1
    return _correlation(rho(row), values, int((~np.isnan(row)).sum()) // 2, several)


def _run_agreement(indirect: Floats, counts: Floats) -> Correlation:
    """`indirect` (prompts, runs, sites, 2)."""
    there = ~np.isnan(indirect[..., 0])
    owners = np.nonzero(there)[0]
    first, second = _levels(indirect[there][:, 0]), _levels(indirect[there][:, 1])
    rho = _spearman(first, second, np.ones(len(owners)))
    values = np.array([_spearman(first, second, row[owners]) for row in counts])
    return _correlation(rho, values, len(owners), len(np.unique(owners)) > 1)


def _correlation(rho: float, resampled: Floats, count: int, several: bool) -> Correlation:
    low, high = math.nan, math.nan
    if several and not math.isnan(rho):
        low, high = (float(bound) for bound in interval(resampled))
    return Correlation(rho, low, high, count)


def _levels(values: Floats) -> Integers:
    """The place of each value among the distinct values, from 0."""
    return np.unique(values, return_inverse=True)[1].reshape(-1)


def _spearman(first: Integers, second: Integers, weights: Floats) -> float:
    """Spearman of pairs that stand `weights` times each, given by the levels of their values."""
    if not len(weights):
        return math.nan
    middle = (weights.sum() + 1) / 2
    x, y = (_ranks(levels, weights) - middle for levels in (first, second))
    spread = math.sqrt((weights * x * x).sum() * (weights * y * y).sum())
    if not spread:
        return math.nan
    return max(-1.0, min(1.0, float((weights * x * y).sum()) / spread))


def _ranks(levels: Integers, weights: Floats) -> Floats:
    copies = np.bincount(levels, weights)
    averages: Floats = (np.cumsum(copies) - (copies - 1) / 2)[levels]
    return averages
