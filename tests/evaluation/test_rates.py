"""Rates must be right at the edges: a takedown is signed on them."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edits.evaluation.judge import Verdict
from edits.evaluation.prompts import Probe, object_probes, style_probes
from edits.evaluation.rates import Change, Rate, mean_drop, rate, rates_by_class, worst_class


def verdicts(names: Sequence[str]) -> list[Verdict]:
    return [Verdict({"object": name}, {}) for name in names]


def probes(names: Sequence[str]) -> list[Probe]:
    return [Probe(f"a {name}", i, {"object": name}) for i, name in enumerate(names)]


def test_wilson_interval_of_zero_in_a_hundred_reaches_three_point_seven_per_cent():
    low, high = Rate(0, 100).interval
    assert low == 0.0
    assert high == pytest.approx(0.0370, abs=5e-5)


def test_wilson_interval_of_half_is_symmetric():
    low, high = Rate(50, 100).interval
    assert low == pytest.approx(0.4038, abs=5e-5)
    assert low + high == pytest.approx(1.0)


@given(st.integers(1, 500), st.data())
def test_interval_holds_the_rate_and_stays_in_range(count: int, data: st.DataObject):
    observed = Rate(data.draw(st.integers(0, count)), count)
    low, high = observed.interval
    assert 0 <= low <= observed.value + 1e-12
    assert observed.value - 1e-12 <= high <= 1


def test_rate_counts_only_what_the_prompt_asked_for():
    asked, seen = probes(["cat", "cat", "dog"]), verdicts(["cat", "dog", "dog"])
    assert rate(asked, seen, "object") == Rate(2, 3)
    assert rates_by_class(asked, seen, "object") == {"cat": Rate(1, 2), "dog": Rate(1, 1)}


def test_drops_leave_out_the_removed_class():
    before = {"cat": Rate(10, 10), "dog": Rate(10, 10), "pistol": Rate(10, 10)}
    after = {"cat": Rate(9, 10), "dog": Rate(7, 10), "pistol": Rate(0, 10)}
    assert mean_drop(before, after, ["pistol"]) == pytest.approx(0.2)


def test_a_change_counts_pairs_of_the_same_picture():
    change = Change.of([True, True, True, False, False], [True, False, False, True, False])
    assert change == Change(both=1, lost=2, gained=1, neither=1)
    assert (change.before, change.after) == (Rate(3, 5), Rate(2, 5))
    assert change.drop == pytest.approx(0.2)


def test_paired_interval_gives_newcombes_published_figures():
    """Newcombe (1998), Statistics in Medicine 17, 2635, method 10."""
    low, high = Change(36, 12, 2, 0).interval
    assert (low, high) == (pytest.approx(0.0569, abs=5e-5), pytest.approx(0.3404, abs=5e-5))


def test_paired_interval_has_a_width_where_nothing_fell():
    low, high = Change(100, 0, 0, 0).interval
    assert high == pytest.approx(Rate(100, 100).interval[1] - Rate(100, 100).interval[0], abs=1e-9)
    assert low == -high


def test_paired_interval_covers_the_true_drop_in_about_95_of_100_runs():
    rng = np.random.default_rng(3)
    shares = (0.80, 0.12, 0.03, 0.05)  # of pictures seen in both runs, lost, gained, in neither
    tables = rng.multinomial(100, shares, size=2000)
    intervals = np.array([Change(*(int(n) for n in table)).interval for table in tables])
    covered = ((intervals[:, 0] <= 0.09) & (intervals[:, 1] >= 0.09)).mean()
    assert 0.93 <= covered <= 0.985


@given(st.tuples(*[st.integers(0, 40)] * 4).filter(any))
def test_paired_interval_holds_the_drop_and_turns_round_with_the_sides(cells):
    both, lost, gained, neither = cells
    change, reverse = Change(*cells), Change(both, gained, lost, neither)
    low, high = change.interval
    assert -1 <= low <= change.drop + 1e-12
    assert change.drop - 1e-12 <= high <= 1
    assert reverse.interval == (pytest.approx(-high), pytest.approx(-low))


def test_no_class_is_the_worst_where_none_fell():
    assert worst_class({"cat": Change(8, 0, 0, 0), "dog": Change(7, 0, 1, 0)}) is None
    assert worst_class({}) is None


def test_the_worst_class_fell_most_and_comes_with_its_pictures():
    found = worst_class({"cat": Change(6, 2, 0, 0), "dog": Change(3, 5, 0, 0)})
    assert found == ("dog", Change(3, 5, 0, 0))


def test_probes_have_different_seeds_and_cover_every_class_equally():
    made = list(object_probes(["cat", "dog"], ["red", "blue", "green"], each=5, seed=7))
    assert [probe.seed for probe in made] == list(range(7, 17))
    assert [probe.wanted["object"] for probe in made].count("cat") == 5
    for probe in made:
        assert probe.wanted["object"] in probe.prompt
        assert probe.wanted["colour"] in probe.prompt


def test_a_class_meets_every_template_and_colour_although_the_counts_have_divisors_in_common():
    objects, colours = [f"thing{i}" for i in range(10)], ["red", "blue", "green", "gray"]
    made = [p for p in object_probes(objects, colours, each=5, seed=0) if "thing3" in p.prompt]
    assert len({p.prompt.replace(p.wanted["colour"], "") for p in made}) == 5
    assert {p.wanted["colour"] for p in made} == set(colours)


def test_style_probes_name_object_style_and_colour():
    for probe in style_probes(["hokusai"], ["cat"], ["red"], each=4, seed=0):
        assert all(word in probe.prompt for word in ("hokusai", "cat", "red"))
