"""Bootstrap intervals of mean scores."""

import numpy as np
import pytest

from edits.evaluation.means import MeanChange, mean_of


def test_the_interval_is_that_of_the_normal_law_for_many_values():
    values = np.random.default_rng(0).normal(0.8, 0.05, size=400)
    found = mean_of(values)
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_the_interval_does_not_depend_on_how_resamples_are_cut_into_blocks(monkeypatch):
    values = np.random.default_rng(1).random(50)
    whole = mean_of(values)
    monkeypatch.setattr("edits.evaluation.means._CELLS", 50 * 7)
    assert mean_of(values) == whole


def test_a_change_is_of_pairs_so_a_common_shift_has_no_width():
    before = list(np.random.default_rng(2).random(30))
    change = MeanChange.of(before, [x - 0.25 for x in before])
    assert change.difference.value == pytest.approx(-0.25)
    assert change.difference.low == pytest.approx(-0.25)
    assert change.difference.high == pytest.approx(-0.25)
    assert change.before.high - change.before.low > 0.1


def test_one_picture_has_a_mean_and_no_interval():
    assert mean_of(np.array([0.5])).document() == {"mean": 0.5, "low": None, "high": None, "n": 1}


def test_no_pictures_are_refused():
    with pytest.raises(ValueError, match="no values"):
        mean_of(np.array([]))
    with pytest.raises(ValueError, match="2 scores before and 1 after"):
        MeanChange.of([0.1, 0.2], [0.1])
