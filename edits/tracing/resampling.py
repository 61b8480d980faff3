"""Means over prompts, and resamples of whole prompts: the arithmetic under all intervals."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edits.tracing.plan import CLEAN, CORRUPTED

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

_QUANTILES = (0.025, 0.975)


def checked_runs(scores: ArrayLike, conditions: Sequence[str]) -> Floats:
    """Scores (prompts, seeds, draws, conditions) as (prompts, runs, conditions).

    Raises ValueError for another shape, other conditions, no scores, and infinite scores.
    """
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 4:
        raise ValueError(f"scores must be (prompts, seeds, draws, conditions), not {array.shape}")
    if list(conditions[:2]) != [CLEAN, CORRUPTED]:
        raise ValueError(f"the first conditions must be clean, corrupted, not {conditions[:2]}")
    if len(set(conditions)) != len(conditions):
        raise ValueError("a condition stands twice")
    if array.shape[-1] != len(conditions):
        raise ValueError(f"{array.shape[-1]} columns of scores, {len(conditions)} conditions")
    if 0 in array.shape:
        raise ValueError(f"no scores: {array.shape}")
    if np.isinf(array).any():
        raise ValueError("scores must be finite, or NaN where a run does not exist")
    return array.reshape(len(array), -1, len(conditions))


def resample(prompts: int, resamples: int, seed: int) -> Floats:
    """How often each prompt stands in each resample, (resamples, prompts).

    Raises ValueError for fewer than one resample.
    """
    if resamples < 1:
        raise ValueError(f"at least one resample is needed, not {resamples}")
    picks = np.random.default_rng(seed).integers(0, prompts, size=(resamples, prompts))
    cells = picks + prompts * np.arange(resamples)[:, None]
    counts = np.bincount(cells.reshape(-1), minlength=resamples * prompts)
    return counts.reshape(resamples, prompts).astype(np.float64)


def prompt_means(columns: Floats) -> tuple[Floats, Integers]:
    """Means of (prompts, runs, columns) over each prompt's own runs, and runs by column."""
    there = ~np.isnan(columns)
    runs = there.sum(axis=1)
    sums = np.where(there, columns, 0.0).sum(axis=1)
    return np.where(runs, sums / np.maximum(runs, 1), np.nan), runs.sum(axis=0)


def weighted_means(means: Floats, counts: Floats) -> Floats:
    """Means of (prompts, columns) over the prompts of each resample, (resamples, columns)."""
    there = ~np.isnan(means)
    sums = _product(counts, np.where(there, means, 0.0))
    if there.all():
        complete: Floats = sums / counts.sum(axis=1, keepdims=True)
        return complete
    prompts = _product(counts, there.astype(np.float64))
    return np.where(prompts > 0, sums / np.maximum(prompts, 1), np.nan)


def _product(counts: Floats, values: Floats) -> Floats:
    # Not `@`: its last digits depend on the machine, its threads and a column's neighbours.
    product = np.zeros((len(counts), values.shape[1]))
    for column, row in zip(counts.T, values, strict=True):
        product += column[:, None] * row
    return product


def interval(resampled: Floats) -> tuple[Floats, Floats]:
    """Bounds over the first axis; resamples without a value are left out."""
    empty = np.isnan(resampled).all(axis=0)
    bounds = np.nanquantile(np.where(empty, 0.0, resampled), _QUANTILES, axis=0)
    low, high = np.where(empty, np.nan, bounds)
    return low, high


def json_number(value: float) -> float | None:
    """The value to six places, None for NaN."""
    return None if math.isnan(value) else round(value, 6)
