"""Effects and intervals against loops that are too slow to use, and against what must hold."""

import json
import math
import time
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edits.tracing.effects import (
    Effects,
    Estimate,
    SiteEffect,
    difference,
    effects,
    ranked,
)

NAN = math.nan
CONDITIONS = ("clean", "corrupted", "a", "b", "c")


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def runs_of_one(rows: list[list[float]]) -> np.ndarray:
    """One row per prompt, one run each."""
    return np.array(rows, dtype=float)[:, None, None, :]


def plain(estimate: Estimate) -> tuple[float, ...]:
    return estimate.mean, estimate.low, estimate.high


def all_estimates(found: Effects) -> list[Estimate]:
    sites = [e for site in found.sites for e in (site.indirect, site.direct)]
    return [found.clean, found.corrupted, found.total, *sites]


def slow_bootstrap(values: list[list[float]], resamples: int, seed: int) -> tuple[float, ...]:
    """Mean and interval of a mean of prompt means; `values` are the runs of each prompt."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(values), size=(resamples, len(values)))
    prompt_means = []
    for runs in values:
        real = [run for run in runs if not math.isnan(run)]
        prompt_means.append(sum(real) / len(real) if real else NAN)
    means = []
    for row in picks:
        chosen = [prompt_means[i] for i in row if not math.isnan(prompt_means[i])]
        if chosen:
            means.append(sum(chosen) / len(chosen))
    real = [mean for mean in prompt_means if not math.isnan(mean)]
    return sum(real) / len(real), *np.percentile(means, [2.5, 97.5])


@st.composite
def tables(draw: st.DrawFn, least: int = 1) -> np.ndarray:
    """Scores of moderate size for CONDITIONS and `least` to 6 prompts, some sites with holes."""
    prompts = draw(st.integers(least, 6))
    seeds, draws = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    scores = drawn(draw(st.integers(0, 2**32 - 1)), prompts, seeds, draws, len(CONDITIONS)).round(3)
    for row, site in draw(st.sets(st.tuples(st.integers(0, 5), st.integers(2, 4)))):
        scores[row % prompts, :, :, site] = NAN
    return scores


def test_hand_computed_effects_of_two_prompts():
    scores = np.array(
        [
            [[[0.9, 0.1, 0.5, 0.1, 0.9], [0.7, 0.3, 0.5, 0.3, 0.7]]],
            [[[1.0, 0.0, 0.2, 0.0, 1.0], [1.0, 0.4, 0.2, 0.4, 1.0]]],
        ]
    )
    found = effects(scores, CONDITIONS)
    assert found.clean.mean == pytest.approx(0.9)
    assert found.corrupted.mean == pytest.approx(0.2)
    assert found.total.mean == pytest.approx(0.7)
    a, b, c = found.sites
    assert [site.site for site in found.sites] == ["a", "b", "c"]
    assert a.indirect.mean == pytest.approx(0.15)
    assert a.direct.mean == pytest.approx(0.55)
    assert a.share == pytest.approx(0.15 / 0.7)
    assert plain(b.indirect) == (0, 0, 0)
    assert b.share == 0
    assert plain(c.direct) == (0, 0, 0)
    assert c.share == 1
    assert (a.indirect.prompts, a.indirect.runs) == (2, 4)
    # Two prompts: a quarter of the resamples holds either one twice, so the bounds are the two.
    assert (a.indirect.low, a.indirect.high) == pytest.approx((0.0, 0.3))


def test_a_site_that_does_harm_has_a_negative_effect_and_share():
    found = effects(runs_of_one([[1, 0.5, 0.25], [1, 0.5, 0.0]]), CONDITIONS[:3])
    assert found.sites[0].indirect.mean == -0.375
    assert found.sites[0].direct.mean == 0.875
    assert found.sites[0].share == -0.75


@pytest.mark.parametrize("seed", [0, 7])
def test_estimates_equal_those_of_a_loop_over_the_same_resamples(seed: int):
    scores = drawn(1, 7, 2, 3, 5)
    scores[2, :, :, 3] = NAN
    scores[4, 1, 2, 4] = NAN
    found = effects(scores, CONDITIONS, resamples=300, seed=seed)
    clean, corrupted = scores[..., 0], scores[..., 1]
    wanted = [clean, corrupted, clean - corrupted]
    for i in (2, 3, 4):
        wanted += [scores[..., i] - corrupted, clean - scores[..., i]]
    for estimate, values in zip(all_estimates(found), wanted, strict=True):
        loop = slow_bootstrap(values.reshape(7, -1).tolist(), 300, seed)
        assert plain(estimate) == pytest.approx(loop, abs=1e-12)


def test_the_same_seed_gives_the_same_numbers_and_another_seed_other_intervals():
    scores = drawn(2, 9, 2, 2, 5)
    first = effects(scores, CONDITIONS, seed=3)
    assert first == effects(scores.copy(order="F"), list(CONDITIONS), seed=3)
    other = effects(scores, CONDITIONS, seed=4)
    assert other.total.mean == first.total.mean
    assert other.total.low != first.total.low


def test_a_site_has_the_same_numbers_whatever_other_sites_are_measured():
    scores = drawn(3, 9, 2, 2, 5)
    alone = effects(scores[..., [0, 1, 4]], ("clean", "corrupted", "c"))
    assert alone.sites[0] == effects(scores, CONDITIONS).sites[2]


def test_bounds_hold_the_mean_and_more_runs_of_a_prompt_do_not_count_as_prompts():
    scores = drawn(4, 8, 1, 1, 5)
    once = effects(scores, CONDITIONS)
    often = effects(np.tile(scores, (1, 4, 5, 1)), CONDITIONS)
    for few, many in zip(all_estimates(once), all_estimates(often), strict=True):
        assert plain(many) == pytest.approx(plain(few), abs=1e-12)
        assert few.low < few.mean < few.high
        assert (few.runs, many.runs) == (8, 160)


@given(tables())
def test_total_is_indirect_plus_direct_at_every_site(scores: np.ndarray):
    found = effects(scores, CONDITIONS, resamples=20)
    for i, site in enumerate(found.sites):
        there = ~np.isnan(scores[:, 0, 0, i + 2])
        if not there.any():
            assert math.isnan(site.indirect.mean)
            assert site.indirect.prompts == site.indirect.runs == 0
            assert site.share is None
            continue
        own = effects(scores[there], CONDITIONS, resamples=20).total.mean
        assert site.indirect.mean + site.direct.mean == pytest.approx(own, abs=1e-12)
        if abs(own) > 1e-3:
            assert site.share == pytest.approx(site.indirect.mean / own)


@given(tables(), st.floats(-50, 50))
def test_adding_a_constant_to_all_scores_changes_no_effect(scores: np.ndarray, constant: float):
    before = effects(scores, CONDITIONS, resamples=20)
    after = effects(scores + constant, CONDITIONS, resamples=20)
    for first, second in zip(all_estimates(before)[2:], all_estimates(after)[2:], strict=True):
        assert plain(second) == pytest.approx(plain(first), abs=1e-9, nan_ok=True)
    assert after.clean.mean == pytest.approx(before.clean.mean + constant)


@given(tables(), st.floats(0.01, 100))
def test_scaling_the_scores_scales_effects_and_keeps_shares(scores: np.ndarray, factor: float):
    before = effects(scores, CONDITIONS, resamples=20)
    after = effects(factor * scores, CONDITIONS, resamples=20)
    for first, second in zip(all_estimates(before), all_estimates(after), strict=True):
        scaled = tuple(factor * number for number in plain(first))
        assert plain(second) == pytest.approx(scaled, rel=1e-9, abs=1e-9 * factor, nan_ok=True)
    for one, two in zip(before.sites, after.sites, strict=True):
        assert (one.share is None) == (two.share is None)
        if one.share is not None and two.share is not None and abs(before.total.mean) > 1e-3:
            assert two.share == pytest.approx(one.share, rel=1e-6, abs=1e-9)


@given(tables(), st.randoms(use_true_random=False))
def test_the_order_of_prompts_changes_no_mean(scores: np.ndarray, random: Random):
    order = list(range(len(scores)))
    random.shuffle(order)
    before = all_estimates(effects(scores, CONDITIONS, resamples=20))
    after = all_estimates(effects(scores[order], CONDITIONS, resamples=20))
    for first, second in zip(before, after, strict=True):
        assert second.mean == pytest.approx(first.mean, abs=1e-12, nan_ok=True)
        assert (second.prompts, second.runs) == (first.prompts, first.runs)


@given(tables(least=2))
def test_a_site_equal_to_corrupted_has_no_effect_and_one_equal_to_clean_all(scores: np.ndarray):
    scores[..., 2], scores[..., 3] = scores[..., 1], scores[..., 0]
    found = effects(scores, CONDITIONS, resamples=50)
    nothing, everything = found.sites[0], found.sites[1]
    assert plain(nothing.indirect) == (0, 0, 0)
    assert nothing.direct == found.total
    assert plain(everything.direct) == (0, 0, 0)
    assert everything.indirect == found.total
    assert everything.share in (1, None)


def test_intervals_hold_the_true_mean_about_as_often_as_they_say():
    held, sets = 0, 500
    scores = drawn(5, sets, 12, 2, 1, 3) * 0.2
    scores[..., 2] += 0.3 + drawn(6, sets, 12, 1, 1) * 0.1
    for one, data in enumerate(scores):
        estimate = effects(data, CONDITIONS[:3], seed=one).sites[0].indirect
        held += estimate.low <= 0.3 <= estimate.high
    assert 0.88 <= held / sets <= 0.99


def test_one_prompt_gives_means_without_intervals():
    found = effects(drawn(7, 1, 3, 4, 5), CONDITIONS)
    for estimate in all_estimates(found):
        assert math.isfinite(estimate.mean)
        assert math.isnan(estimate.low)
        assert math.isnan(estimate.high)
        assert not estimate.excludes_zero
        assert (estimate.prompts, estimate.runs) == (1, 12)
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    assert document["total"]["low"] is None
    assert document["sites"][0]["indirect"]["mean"] == round(found.sites[0].indirect.mean, 6)


def test_a_site_of_some_prompts_is_averaged_over_those_and_shared_with_their_total():
    rows = [[1, 0, 0.5, NAN], [1, 0.2, 0.6, NAN], [0.6, 0.4, 0.5, 0.5]]
    some, one = effects(runs_of_one(rows), CONDITIONS[:4]).sites
    assert some.indirect.prompts == 3
    assert some.share == pytest.approx((0.5 + 0.4 + 0.1) / (1 + 0.8 + 0.2))
    assert one.indirect.mean == pytest.approx(0.1)
    assert one.share == pytest.approx(0.5)
    assert (one.indirect.prompts, one.indirect.runs) == (1, 1)
    assert math.isnan(one.indirect.low)


def test_a_run_without_its_clean_score_counts_for_no_effect_of_a_site():
    rows = [[1, 0, 0.5], [NAN, 0, 0.9], [1, 0, 0.7]]
    found = effects(runs_of_one(rows), CONDITIONS[:3])
    assert found.corrupted.prompts == 3
    assert found.clean.prompts == found.total.prompts == 2
    assert found.sites[0].indirect.mean == pytest.approx(0.6)
    assert found.sites[0].direct.mean == pytest.approx(0.4)


def test_there_is_no_share_of_a_total_that_is_zero_but_for_rounding():
    rows = [[0.3, 0.3, 0.4], [0.1 + 0.2, 0.3, 0.4]]
    assert effects(runs_of_one(rows), CONDITIONS[:3]).sites[0].share is None
    assert effects(runs_of_one([[0, 0, 0], [0, 0, 0]]), CONDITIONS[:3]).sites[0].share is None
    assert effects(runs_of_one([[0.31, 0.3, 0.305]]), CONDITIONS[:3]).sites[0].share == (
        pytest.approx(0.5)
    )


def test_three_hundred_sites_of_a_hundred_prompts_take_less_than_two_seconds():
    scores = drawn(8, 100, 2, 2, 302)
    scores[::9, :, :, 40] = NAN
    names = ["clean", "corrupted", *(f"site {i}" for i in range(300))]
    start = time.process_time()
    found = effects(scores, names, resamples=2000)
    assert time.process_time() - start < 2
    assert found.sites[38].indirect.prompts == 88


def test_a_difference_is_paired_and_so_narrower_than_its_sides():
    common = drawn(9, 30, 1, 1, 1)
    scores = common * np.array([1, 0, 1, 1, 0]) + drawn(10, 30, 1, 1, 5) * 0.05
    scores[..., 2] += 0.1
    found = effects(scores, CONDITIONS)
    gap = difference(scores, CONDITIONS, "a", "b")
    a, b = found.sites[0].indirect, found.sites[1].indirect
    assert gap.mean == pytest.approx(a.mean - b.mean)
    assert gap.low > 0
    assert a.low < b.high
    assert gap.high - gap.low < 0.2 * (a.high - a.low)
    swapped = difference(scores, CONDITIONS, "b", "a")
    assert plain(swapped) == pytest.approx((-gap.mean, -gap.high, -gap.low))


def test_a_difference_takes_only_prompts_that_have_both_sites():
    rows = [[1, 0, 0.5, NAN], [1, 0.2, 0.6, 0.5], [0.6, 0.4, NAN, 0.5], [1, 0, 0.5, 0.2]]
    gap = difference(runs_of_one(rows), CONDITIONS[:4], "a", "b")
    assert gap.mean == pytest.approx((0.1 + 0.3) / 2)
    assert (gap.prompts, gap.runs) == (2, 2)


def test_a_difference_of_an_unknown_site_names_the_known_ones():
    with pytest.raises(ValueError, match="'z'; there are: clean, corrupted, a"):
        difference(drawn(0, 2, 1, 1, 5), CONDITIONS, "a", "z")


def site(name: str, indirect: float, direct: float) -> SiteEffect:
    values = [Estimate(value, value, value, 1, 1) for value in (indirect, direct)]
    return SiteEffect(name, *values, None)  # type: ignore[arg-type]


def test_sites_rank_by_mean_and_equal_ones_keep_their_order():
    sites = (site("p", 0, 3), site("q", NAN, 1), site("r", 2, 1), site("s", 0, 2), site("t", -1, 9))
    blank = Estimate(0, 0, 0, 1, 1)
    found = Effects(blank, blank, blank, sites)
    assert "".join(s.site for s in ranked(found)) == "rpstq"
    assert "".join(s.site for s in ranked(found, by="direct")) == "tpsqr"


@pytest.mark.parametrize(
    ("shape", "conditions", "message"),
    [
        ((2, 1, 5), CONDITIONS, "must be"),
        ((2, 1, 1, 4), CONDITIONS, "4 columns of scores, 5 conditions"),
        ((2, 1, 1, 3), ("corrupted", "clean", "a"), "first conditions"),
        ((2, 1, 1, 4), ("clean", "corrupted", "a", "a"), "twice"),
        ((0, 1, 1, 5), CONDITIONS, "no scores"),
    ],
)
def test_scores_that_do_not_fit_are_refused(
    shape: tuple[int, ...], conditions: tuple[str, ...], message: str
):
    with pytest.raises(ValueError, match=message):
        effects(np.zeros(shape), conditions)


def test_infinite_scores_and_no_resamples_are_refused():
    scores = drawn(16, 2, 1, 1, 5)
    with pytest.raises(ValueError, match="at least one resample"):
        effects(scores, CONDITIONS, resamples=0)
    scores[0, 0, 0, 3] = math.inf
    with pytest.raises(ValueError, match="finite"):
        effects(scores, CONDITIONS)
