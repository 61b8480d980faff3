"""Metrics: objectives are bucket bounds, labels are few, and one file makes them all."""

import re
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase

from service import metrics

SERVICE = Path(metrics.__file__).parent
OBJECTIVES = [0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 8, 12, 20, 30, 60]


def test_request_objectives_are_bucket_bounds() -> None:
    for histogram in (metrics.REQUEST_SECONDS.labels("ok"), metrics.QUEUE_WAIT_SECONDS):
        assert set(OBJECTIVES) <= set(histogram._upper_bounds)


@pytest.mark.parametrize("name", metrics.__all__)
def test_labels_hold_no_digest_prompt_seed_or_revision(name: str) -> None:
    metric: MetricWrapperBase = getattr(metrics, name)
    assert set(metric._labelnames) <= {"outcome", "reason", "cause", "result"}


def test_no_other_module_makes_metrics_or_reads_the_environment() -> None:
    makes = re.compile(r"\b(Counter|Gauge|Histogram|Summary)\(")
    for path in SERVICE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name != "metrics.py":
            assert not makes.search(text), path.name
        if path.name != "settings.py":
            assert "os.environ" not in text and "getenv" not in text, path.name
