"""The simulated server against what queueing theory says of it."""

from statistics import mean

import pytest

from benchmarks.ideal_batching import interpolated, latencies

STEPS = 20


def test_times_between_measured_rows_lie_on_a_line() -> None:
    step_ms = interpolated([(8, 40.0), (2, 10.0)])
    assert [step_ms(rows) for rows in (2, 5, 8)] == [10.0, 25.0, 40.0]
    with pytest.raises(ValueError, match="16 rows was not measured"):
        step_ms(16)


def test_where_a_step_costs_the_same_for_all_nobody_waits_more_than_one_step() -> None:
    found = latencies(lambda _rows: 10.0, rate=2.0, steps=STEPS, max_batch=64, n=2_000, seed=0)
    assert len(found) == 2_000
    assert min(found) >= 10.0 * STEPS - 1e-6
    assert max(found) <= 10.0 * (STEPS + 1) + 1e-6


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_where_a_step_costs_in_proportion_it_is_processor_sharing(load: float) -> None:
    """Mean time in an M/G/1 queue with processor sharing: that of the work over 1 - load."""
    alone = 2 * STEPS  # ms: a step of two rows takes 2
    found = latencies(
        float,
        rate=1e3 * load / alone,
        steps=STEPS,
        max_batch=10_000,
        n=40_000,
        seed=1,
    )
    assert mean(found) == pytest.approx(alone / (1 - load), rel=0.12)


def test_what_finds_no_room_waits() -> None:
    found = latencies(lambda _rows: 10.0, rate=1e6, steps=STEPS, max_batch=1, n=5, seed=0)
    assert found == pytest.approx([200.0 * i for i in range(1, 6)], abs=0.1)
