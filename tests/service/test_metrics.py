"""Metrics: objectives are bucket bounds, labels are few, and one file makes them all."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from prometheus_client.metrics import MetricWrapperBase

from edits.loading import load_pipeline
from service import metrics
from service.generation.backends import TorchBackend
from service.generation.decode import Decoder

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


def test_gauges_of_a_killed_worker_are_gone_once_the_next_one_starts(tmp_path: Path) -> None:
    """Its queue would count for ever, and its revision stay the lowest."""
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def worker(then: str) -> str:
        program = (
            "import os, signal, prometheus_client, prometheus_client.multiprocess as m\n"
            "from service import metrics\n"
            "from service.gauges import forget_dead_processes, show_active\n" + then
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    digest = "sha256:" + "f" * 64
    die = "os.kill(os.getpid(), signal.SIGKILL)"
    show = (
        "registry = prometheus_client.CollectorRegistry()\n"
        "m.MultiProcessCollector(registry)\n"
        "for name in ('quickfix_queue_depth', 'quickfix_active_revision',"
        " 'quickfix_active_set_number'):\n"
        "    print(registry.get_sample_value(name))\n"
    )
    worker(
        f"metrics.QUEUE_DEPTH.set(5); metrics.RESTARTS.inc(3)\n"
        f"show_active(2, {digest!r}, edits=1, policies=1, published_at=0)\n{die}"
    )
    later = f"show_active(7, {digest!r}, edits=1, policies=1, published_at=0)\n{show}"
    assert worker(later).split() == ["5.0", "2.0", "4503599627370495.0"]
    assert worker(f"forget_dead_processes()\n{later}").split()[:2] == ["0.0", "7.0"]
    counted = "print(registry.get_sample_value('quickfix_restarts_total'))"
    assert worker(show + counted).split()[-1] == "3.0"  # what has happened stays counted


def test_what_the_safety_checker_says_is_counted_and_blackened(
    sd1_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = load_pipeline(str(sd1_folder))

    def first_is_bad(pixels: torch.Tensor, *_rest: object) -> tuple[torch.Tensor, list[bool]]:
        pixels[0] = 0.0  # as diffusers' checker does
        return pixels, [True, False, False]

    monkeypatch.setattr(pipeline, "run_safety_checker", first_is_bad)
    seen, flagged = (
        metric._value.get() for metric in (metrics.SAFETY_CHECKED, metrics.SAFETY_FLAGGED)
    )
    latents = [
        torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)
    ]
    pictures = Decoder(TorchBackend(pipeline), pipeline).decode(latents)
    assert metrics.SAFETY_CHECKED._value.get() == seen + 3
    assert metrics.SAFETY_FLAGGED._value.get() == flagged + 1
    assert [np.asarray(picture).any() for picture in pictures] == [False, True, True]
