"""What makes the exit code 1: each bound is a breach of its own, and holds when met exactly."""

from dataclasses import replace

import pytest

from loadtests.outcome import Latency, Outcome
from loadtests.thresholds import THRESHOLDS, Baseline, Thresholds

BASELINE = Baseline(unloaded_ms=100.0, saturation=10.0)
LIMITS = Thresholds(
    min_images=10,
    min_compared=2,
    min_compared_each=1,
    min_told_apart=1,
    min_refused=1,
    max_refused=0.5,
    max_lateness_p99_ms=20.0,
    max_generator_cpu=0.25,
    max_p95=1.5,
    min_goodput=0.95,
    max_drift=1.25,
    min_activations=3,
)
GOOD = Outcome(
    profile="steady",
    seconds=10.0,
    offered=2.0,
    requests=20,
    drawn=10,
    refused=10,
    failures={},
    goodput=9.5,
    latency=Latency(100.0, 150.0, 900.0),
    service=Latency(100.0, 150.0, 900.0),
    lateness_p99_ms=20.0,
    drift=1.25,
    compared={"sha256:ab": 1, "sha256:cd": 1},
    told_apart=1,
    revisions=1,
    activations=3,
    activation_p95_ms=9.0,
    generator_cpu=0.25,
)


def test_bounds_hold_when_met_exactly() -> None:
    assert list(LIMITS.breaches(GOOD, BASELINE)) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"drawn": 9}, "9 images"),
        ({"compared": {"sha256:ab": 1}}, "1 images were drawn again, 2"),
        (
            {"compared": {"sha256:ab": 2, "sha256:cd": 0}},
            "0 images were drawn again under sha256:cd",
        ),
        ({"told_apart": 0}, "0 images differ from those of another digest"),
        ({"refused": 0}, "queue was not full"),
        ({"refused": 11}, "met a full queue"),
        ({"activations": 2}, "activations"),
        ({"failures": {"status 500": 1}}, "status 500"),
        ({"lateness_p99_ms": 20.1}, "late"),
        ({"generator_cpu": 0.26}, "of a core"),
        ({"latency": Latency(100.0, 150.1, 900.0)}, "1.50 times"),
        ({"goodput": 9.4}, "94.0% of saturation"),
        ({"drift": 1.26}, "p95 grew"),
    ],
)
def test_each_bound_is_a_breach_of_its_own(change: dict[str, object], word: str) -> None:
    (breach,) = LIMITS.breaches(replace(GOOD, **change), BASELINE)
    assert word in breach


def test_a_bound_without_its_baseline_is_a_breach() -> None:
    assert len(list(LIMITS.breaches(GOOD, Baseline()))) == 2


def test_the_figures_of_the_objectives_are_the_thresholds() -> None:
    assert set(THRESHOLDS) == {
        *("unloaded", "saturation", "steady", "overload", "swap", "spike", "soak")
    }
    assert all(bounds.max_failed == 0 for bounds in THRESHOLDS.values())
    assert all(bounds.max_lateness_p99_ms == 20.0 for bounds in THRESHOLDS.values())
    assert THRESHOLDS["steady"].max_p95 == 1.5
    assert THRESHOLDS["steady"].max_refused == 0.0
    assert THRESHOLDS["overload"].min_goodput == 0.95
    assert THRESHOLDS["swap"].max_refused == 0.0
    assert THRESHOLDS["swap"].min_compared_each == THRESHOLDS["swap"].min_told_apart == 1
