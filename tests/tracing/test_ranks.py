"""Spearman by hand, by scipy and by a loop over resamples."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edits.tracing.effects import agreement, spearman

NAN = math.nan


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_spearman_of_hand_ranked_values():
    assert spearman([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]) == pytest.approx(0.8)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, spreads 4.5 and 5.
    assert spearman([1, 7, 7, 9], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert spearman([3, 1, 2], [30, 10, 20]) == 1
    assert spearman([3, 1, 2], [-30, -10, -20]) == -1


def test_spearman_has_no_value_for_a_constant_side_or_fewer_than_two_pairs():
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))
    assert math.isnan(spearman([1], [1]))
    assert math.isnan(spearman([], []))


@pytest.mark.parametrize("pair", [([1, 2], [1]), ([1, NAN], [1, 2]), ([[1, 2]], [[1, 2]])])
def test_spearman_refuses_what_has_no_ranks(pair: tuple[list[float], list[float]]):
    with pytest.raises(ValueError, match=r"equal length|not a number"):
        spearman(*pair)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=30))
def test_spearman_equals_scipy(pairs: list[tuple[int, int]]):
    stats = pytest.importorskip("scipy.stats")
    a, b = ([pair[i] for pair in pairs] for i in range(2))
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(spearman(a, b))
    else:
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)


def test_agreement_of_a_scorer_with_itself_is_one_and_with_its_opposite_minus_one():
    scores = drawn(11, 6, 2, 2, 9)
    same = agreement(np.stack([scores, 3 * scores + 1], axis=-1))
    for found in (same.sites, same.runs):
        assert (found.rho, found.low, found.high) == pytest.approx((1, 1, 1))
    assert (same.sites.count, same.runs.count) == (7, 6 * 4 * 7)
    assert agreement(np.stack([scores, -scores], axis=-1)).runs.rho == pytest.approx(-1)


def test_agreement_equals_that_of_a_loop_that_repeats_the_prompts_of_each_resample():
    scores = drawn(12, 6, 2, 2, 8, 2)
    scores[..., 1] = (scores[..., 0] + scores[..., 1]).round(1)
    scores[3, :, :, 5] = NAN
    found = agreement(scores, resamples=100, seed=5)
    indirect = (scores - scores[:, :, :, 1:2])[:, :, :, 2:].reshape(6, 4, 6, 2)
    sites, runs = [], []
    every = np.arange(6)[None]
    for picks in [*every, *np.random.default_rng(5).integers(0, 6, size=(100, 6))]:
        chosen = indirect[picks]
        means = np.nanmean(chosen, axis=(0, 1))
        sites.append(spearman(means[:, 0], means[:, 1]))
        single = chosen.reshape(-1, 2)
        single = single[~np.isnan(single).any(axis=1)]
        runs.append(spearman(single[:, 0], single[:, 1]))
    for correlation, values in ((found.sites, sites), (found.runs, runs)):
        wanted = (values[0], *np.percentile(values[1:], [2.5, 97.5]))
        assert (correlation.rho, correlation.low, correlation.high) == pytest.approx(wanted)
    assert found.runs.count == 6 * 4 * 6 - 4


def test_agreement_of_unrelated_scorers_is_near_nothing_and_its_interval_says_so():
    found = agreement(drawn(13, 40, 1, 2, 42, 2))
    assert abs(found.runs.rho) < 0.1
    assert found.runs.low < 0 < found.runs.high or abs(found.runs.rho) < 0.05


def test_agreement_of_one_prompt_or_of_a_constant_scorer_has_no_interval():
    one = agreement(drawn(14, 1, 2, 2, 6, 2))
    assert math.isfinite(one.runs.rho)
    assert math.isnan(one.runs.low)
    assert math.isnan(one.sites.high)
    constant = drawn(15, 5, 1, 1, 6, 2)
    constant[..., 1] = 0.5
    found = agreement(constant)
    assert math.isnan(found.sites.rho)
    assert found.document()["sites"] == {"rho": None, "low": None, "high": None, "count": 4}


@pytest.mark.parametrize("shape", [(2, 1, 1, 5), (2, 1, 1, 5, 3)])
def test_agreement_refuses_scores_of_other_than_two_scorers(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"conditions, 2"):
        agreement(np.zeros(shape))
