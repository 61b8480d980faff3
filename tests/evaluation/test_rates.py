"""Rates must be right at the edges: a takedown is signed on them."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edits.evaluation.judge import Verdict
from edits.evaluation.prompts import Probe, object_probes, style_probes
from edits.evaluation.rates import Rate, mean_drop, rate, rates_by_class, worst_drop


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
    assert worst_drop(before, after, ["pistol"]) == (pytest.approx(0.3), "dog")


def test_probes_have_different_seeds_and_cover_every_class_equally():
    made = list(object_probes(["cat", "dog"], ["red", "blue", "green"], each=5, seed=7))
    assert [probe.seed for probe in made] == list(range(7, 17))
    assert [probe.wanted["object"] for probe in made].count("cat") == 5
    for probe in made:
        assert probe.wanted["object"] in probe.prompt
        assert probe.wanted["colour"] in probe.prompt


def test_style_probes_name_object_style_and_colour():
    for probe in style_probes(["hokusai"], ["cat"], ["red"], each=4, seed=0):
        assert all(word in probe.prompt for word in ("hokusai", "cat", "red"))
