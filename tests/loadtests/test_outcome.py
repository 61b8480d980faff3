"""Figures of a run: latency from the intended moment, goodput of batches, drift, lateness."""

import pytest

from loadtests.outcome import Outcome, Record, Sample, percentile


def outcome(*samples: Sample, seconds: float = 100.0, settled: float = 0.0) -> Outcome:
    record = Record(samples=list(samples))
    return record.outcome(
        "steady", seconds=seconds, settled=settled, compared={}, told_apart=0, generator_cpu=0.01
    )


def drawn(at: float, *, late: float = 0.0, takes: float = 1.0) -> Sample:
    return Sample(at, at + late, at + late + takes, "drawn")


def test_a_request_that_is_sent_late_has_waited_too() -> None:
    found = outcome(*(drawn(at, late=0.5, takes=1.0) for at in range(20)))
    assert found.latency.p50 == 1500
    assert found.service.p50 == 1000
    assert found.lateness_p99_ms == 500


def test_only_images_have_a_latency_and_every_request_counts() -> None:
    found = outcome(
        drawn(1.0, takes=2.0),
        Sample(2.0, 2.0, 2.01, "refused"),
        Sample(3.0, 3.0, 90.0, "status 500"),
        Sample(4.0, 4.0, 90.0, "status 500"),
    )
    assert (found.requests, found.drawn, found.refused, found.failed) == (4, 1, 1, 2)
    assert found.failures == {"status 500": 2}
    assert found.latency.p99 == 2000


def test_goodput_of_batches_is_their_rate() -> None:
    """8 images end together every 5 s: 1.6/s, where a count of 32 in 15.01 s would say 2.1/s."""
    ends = [batch * 5.0 + image / 1000 for batch in range(4) for image in range(8)]
    found = outcome(*(Sample(0.0, 0.0, 10 + end, "drawn") for end in ends))
    assert found.goodput == pytest.approx(1.6, rel=0.02)


def test_goodput_counts_what_ends_while_the_load_lasts() -> None:
    steady = [Sample(at, at, at + 0.5, "drawn") for at in range(100)]
    drained = [Sample(99.0, 99.0, 100 + late / 100, "drawn") for late in range(1, 50)]
    assert outcome(*steady, *drained, settled=20.0).goodput == pytest.approx(1.0, rel=0.01)
    assert outcome(steady[0]).goodput == 0.0


def test_what_came_before_it_had_settled_has_no_latency() -> None:
    early = [drawn(at, takes=9.0) for at in range(10)]
    late = [drawn(at, takes=1.0) for at in range(10, 20)]
    assert outcome(*early, *late, settled=10.0).latency.p99 == 1000


def test_drift_compares_the_last_quarter_with_the_first() -> None:
    growing = [drawn(at, takes=1.0 + at / 100) for at in range(100)]
    assert outcome(*growing).drift == pytest.approx(1.97 / 1.23, rel=0.03)
    assert outcome(*(drawn(at) for at in range(100))).drift == 1.0
    assert outcome(drawn(1.0)).drift == 1.0


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.99, 0.0), ([3.0], 0.5, 3.0), (range(1, 101), 0.95, 95), (range(1, 101), 1.0, 100)],
)
def test_a_percentile_is_one_of_the_values(values, share: float, expected: float) -> None:
    assert percentile(list(values), share) == expected
