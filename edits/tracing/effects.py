"""Total, indirect and direct effects of causal tracing, with intervals over prompts.

The words are those of causal mediation analysis (Pearl 2001, "Direct and indirect effects"), as
Vig et al. 2020 ("Investigating gender bias in language models using causal mediation analysis")
put them to neurons, and Basu et al. 2024 ("Localizing and editing knowledge in text-to-image
generative models", causal tracing) to the layers of text-to-image models. The treatment is the
concept's words, intact or replaced by noise; the mediator is one site; the outcome is a score of
the picture. With `Y(words, mediator)`:

clean       Y(intact, as with intact words): nothing is touched
corrupted   Y(noise, as with noise): the concept's words are noise
restored    Y(noise, as with intact words): noise, and the site's clean output is put back

total       clean - corrupted: what the words bring in all
indirect    restored - corrupted: what comes back through this site alone (Pearl's natural
            indirect effect)
direct      clean - restored: what does not come back (Pearl's natural direct effect of the step
            from intact words to noise, with its sign turned)

So total = indirect + direct at every site, run by run. All effects are signed: Basu et al. define
the indirect effect by its absolute value, which counts a site that does harm as one that helps.
A window of cross-attention layers is traced the other way round: its run is a clean one in which
the window alone reads other words, and the direct effect, clean less that run, is the window's.

Sites are not disjoint parts of the total: two may carry the same knowledge, and then the sum of
their indirect effects is larger than the total.

Runs (noise draws and seeds) of one prompt are alike, prompts are not. So a prompt's runs are
averaged first, every prompt counts once, and intervals come from resampling whole prompts
(percentile bootstrap, 95 per cent). Percentile intervals are a little narrow for few prompts: at 12
they hold the true mean about 91 times in 100. One prompt says nothing about another, so its
interval is NaN, "no interval", and None in documents.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from edits.tracing.ranks import Agreement, Correlation, agreement, spearman
from edits.tracing.resampling import (
    Floats,
    checked_runs,
    interval,
    json_number,
    prompt_means,
    resample,
    weighted_means,
)

__all__ = [
    "Agreement",
    "Correlation",
    "Effects",
    "Estimate",
    "SiteEffect",
    "agreement",
    "difference",
    "effects",
    "ranked",
    "spearman",
]

_TINY = 1e-6  # of the scores' size: below it, a share would divide rounding by rounding


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts with its 95 per cent interval.

    `low` and `high` are NaN for fewer than two `prompts`, and `mean` too for none.
    """

    mean: float
    low: float
    high: float
    prompts: int
    runs: int

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval and zero lies outside it."""
        return self.low > 0 or self.high < 0

    def document(self) -> dict[str, Any]:
        """As JSON, NaN as None."""
        return {
            "mean": json_number(self.mean),
            "low": json_number(self.low),
            "high": json_number(self.high),
            "prompts": self.prompts,
            "runs": self.runs,
        }


@dataclass(frozen=True)
class SiteEffect:
    """What restoring one site brings back.

    `share` is the indirect effect as a part of the total effect of the same runs; it may lie
    outside 0 to 1, and is None where that total is zero but for rounding.
    """

    site: str
    indirect: Estimate
    direct: Estimate
    share: float | None

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "site": self.site,
            "indirect": self.indirect.document(),
            "direct": self.direct.document(),
            "share": None if self.share is None else json_number(self.share),
        }


@dataclass(frozen=True)
class Effects:
    """Mean scores of the clean and the corrupted run, their difference, and every site's part."""

    clean: Estimate
    corrupted: Estimate
    total: Estimate
    sites: tuple[SiteEffect, ...]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "clean": self.clean.document(),
            "corrupted": self.corrupted.document(),
            "total": self.total.document(),
            "sites": [site.document() for site in self.sites],
        }


def effects(
    scores: ArrayLike, conditions: Sequence[str], *, resamples: int = 2000, seed: int = 0
) -> Effects:
    """Effects of all sites; `scores` (prompts, seeds, draws, conditions), NaN where not run.

    `conditions` are "clean", "corrupted", then the sites. A site that only some prompts have is
    averaged over those. All sites are seen in the same resamples of prompts, so they are paired.
    Raises ValueError for scores and conditions that do not fit, and for infinite scores.
    """
    runs = checked_runs(scores, conditions)
    clean, corrupted = runs[..., :1], runs[..., 1:2]
    # Restoring everything is the clean run, so the first of the indirect effects is the total.
    indirect = np.where(np.isnan(clean), np.nan, runs - corrupted)
    direct = np.where(np.isnan(corrupted), np.nan, clean - runs)
    columns = np.concatenate([runs[..., :2], indirect, direct], axis=-1)
    counts = resample(len(runs), resamples, seed)
    found = _estimates(columns, counts)
    after = 2 + len(conditions)
    indirects, directs = found[2:after], found[after:]
    scale = max(abs(found[0].mean), abs(found[1].mean))
    sites = tuple(
        SiteEffect(name, through, past, _share(through, past, scale))
        for name, through, past in zip(conditions[2:], indirects[2:], directs[2:], strict=True)
    )
    return Effects(found[0], found[1], indirects[0], sites)


def difference(
    scores: ArrayLike,
    conditions: Sequence[str],
    a: str,
    b: str,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Indirect effect of `a` less that of `b`, paired run by run, over prompts that have both.

    The interval tells whether one site matters more than another, which two overlapping intervals
    of `effects` do not. Raises ValueError as `effects` does, and for an unknown site.
    """
    runs = checked_runs(scores, conditions)
    for name in (a, b):
        if name not in conditions:
            raise ValueError(f"no condition {name!r}; there are: {', '.join(conditions)}")
    first, second = (runs[..., list(conditions).index(name)] for name in (a, b))
    complete = ~np.isnan(runs[..., :2]).any(axis=-1)
    columns = np.where(complete, first - second, np.nan)[..., None]
    return _estimates(columns, resample(len(runs), resamples, seed))[0]


def ranked(
    effects: Effects, by: Literal["indirect", "direct"] = "indirect"
) -> tuple[SiteEffect, ...]:
    """The sites by mean effect, highest first; equal ones keep their order, NaN comes last."""

    def place(site: SiteEffect) -> float:
        mean = (site.indirect if by == "indirect" else site.direct).mean
        return math.inf if math.isnan(mean) else -mean

    return tuple(sorted(effects.sites, key=place))


def _estimates(columns: Floats, counts: Floats) -> list[Estimate]:
    """One estimate for each column of (prompts, runs, columns)."""
    means, runs = prompt_means(columns)
    prompts = np.count_nonzero(~np.isnan(means), axis=0)
    centre = weighted_means(means, np.ones((1, len(means))))[0]
    low, high = interval(weighted_means(means, counts))
    low[prompts < 2] = high[prompts < 2] = np.nan
    rows = zip(centre, low, high, prompts, runs, strict=True)
    return [Estimate(float(m), float(lo), float(hi), int(p), int(r)) for m, lo, hi, p, r in rows]


def _share(indirect: Estimate, direct: Estimate, scale: float) -> float | None:
    total = indirect.mean + direct.mean
    return indirect.mean / total if abs(total) > _TINY * scale else None
