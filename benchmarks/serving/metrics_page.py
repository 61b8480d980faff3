"""What a running service says on `/metrics`, at one moment."""

import time
from collections.abc import Callable
from typing import Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.serving.load import Broken

__all__ = ["MetricsPage", "wait_until"]


class MetricsPage:
    """The samples of one scrape, and when it was asked for and answered (perf_counter)."""

    def __init__(self, text: str, *, asked_at: float, answered_at: float) -> None:
        self.asked_at = asked_at
        self.answered_at = answered_at
        self._samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    @classmethod
    def read(cls, client: httpx.Client) -> Self:
        """Scrape. Raises Broken when the page is not served."""
        asked_at = time.perf_counter()
        answer = client.get("/metrics")
        answered_at = time.perf_counter()
        if answer.status_code != httpx.codes.OK:
            raise Broken(f"/metrics was answered with {answer.status_code}")
        return cls(answer.text, asked_at=asked_at, answered_at=answered_at)

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name with these labels. Raises Broken without any."""
        found = self.find(name, **labels)
        if found is None:
            raise Broken(f"/metrics has no {name} with the labels {labels}")
        return found

    def find(self, name: str, **labels: str) -> float | None:
        """The same, or None without any."""
        values = [
            sample.value
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(values) if values else None

    @property
    def running(self) -> int:
        """Requests being denoised."""
        return int(self.value("quickfix_running"))

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return int(self.value("quickfix_queue_depth"))

    @property
    def steps(self) -> int:
        """Denoising steps so far."""
        return int(self.value("quickfix_step_seconds_count"))

    def step_seconds_since(self, before: Self) -> float:
        """Mean seconds of the steps between both scrapes. Raises Broken when there was none."""
        steps = self.steps - before.steps
        if steps < 1:
            raise Broken("no denoising step between two scrapes")
        name = "quickfix_step_seconds_sum"
        return (self.value(name) - before.value(name)) / steps

    def mean_batch_since(self, before: Self) -> float | None:
        """Mean size of the batches between both scrapes; None where no such metric is served."""
        name = "quickfix_batch_size"
        count, total = (self.find(f"{name}_{part}") for part in ("count", "sum"))
        if count is None or total is None:
            return None
        return (total - before.value(f"{name}_sum")) / (count - before.value(f"{name}_count"))


def wait_until(
    client: httpx.Client,
    condition: Callable[[MetricsPage], bool],
    what: str,
    *,
    pause: float = 0.05,
    seconds: float = 300.0,
) -> MetricsPage:
    """Scrape until the condition holds; the scrape in which it does. Raises Broken, saying what."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        page = MetricsPage.read(client)
        if condition(page):
            return page
        time.sleep(pause)
    raise Broken(f"{what} did not happen within {seconds:.0f} s")
