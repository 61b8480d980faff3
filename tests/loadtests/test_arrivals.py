"""Arrivals of an open loop are a Poisson process of the rate that was asked for."""

import itertools
import statistics
from random import Random

import pytest

from loadtests.arrivals import poisson


def moments(rate_at, *, peak: float, seconds: float, seed: int = 1) -> list[float]:
    return list(poisson(rate_at, peak=peak, seconds=seconds, random=Random(seed)))


def test_a_constant_rate_gives_exponential_gaps() -> None:
    found = moments(lambda _at: 5.0, peak=5.0, seconds=4000)
    gaps = [later - earlier for earlier, later in itertools.pairwise(found)]
    assert len(found) == pytest.approx(20_000, abs=5 * 20_000**0.5)
    assert statistics.mean(gaps) == pytest.approx(0.2, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(0.2, rel=0.03)  # not a metronome
    longer = sum(gap > 0.4 for gap in gaps) / len(gaps)
    assert longer == pytest.approx(2.718281828**-2, rel=0.05)


def test_a_varying_rate_is_followed_exactly_where_it_changes() -> None:
    found = moments(lambda at: 12.0 if 200 <= at < 400 else 2.0, peak=12.0, seconds=600)
    before, during, after = (
        sum(start <= at < start + 200 for at in found) for start in (0, 200, 400)
    )
    assert before == pytest.approx(400, abs=100)
    assert during == pytest.approx(2400, abs=250)
    assert after == pytest.approx(400, abs=100)


def test_a_seed_gives_the_same_arrivals_and_another_one_others() -> None:
    first = moments(lambda _at: 1.0, peak=1.0, seconds=50)
    assert first == moments(lambda _at: 1.0, peak=1.0, seconds=50)
    assert first != moments(lambda _at: 1.0, peak=1.0, seconds=50, seed=2)
    assert first == sorted(first)
    assert 0 < first[0] < first[-1] < 50
