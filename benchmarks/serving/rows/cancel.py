"""How soon a request of many steps is given up when its client leaves.

The client closes its connection in the middle of a run; `/metrics` is read again and again until
nothing runs. What is told is the upper end: when the first scrape with nothing running had been
answered. Images of twice the native side make a step long against a scrape.
"""

import http.client
import json
import time
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import httpx

from benchmarks.serving.bench import Bench, in_turn
from benchmarks.serving.load import Broken
from benchmarks.serving.metrics_page import MetricsPage, wait_until
from benchmarks.serving.report import Bound, Row
from benchmarks.serving.servers import QUICKFIX
from benchmarks.serving.statistics import Spread
from benchmarks.serving.workload import ImageRequest, mixed

__all__ = ["measure"]

_SHARE_BEFORE_LEAVING = 0.3  # of the run
_PAUSE_SECONDS = 0.01  # scrapes without a pause hold up the step that they wait for


@dataclass(frozen=True, slots=True)
class Cancel:
    """One client that left; seconds after it closed its connection."""

    step_seconds: float
    freed_at_the_latest: float
    freed_at_the_earliest: float
    steps_after: int  # since the last scrape before it left, so an upper bound too

    @property
    def in_steps(self) -> float:
        """At the latest, in steps of the same request."""
        return self.freed_at_the_latest / self.step_seconds


def measure(bench: Bench) -> list[Row]:
    """One client after the other."""
    plan = bench.plan
    requests = mixed(plan.cancels, seed=plan.seed, steps=(plan.long_steps,), guidance=(3.0,))
    url = bench.server(QUICKFIX).url
    with httpx.Client(base_url=url, timeout=60.0) as client:
        large = _twice_native(client)
        found = [
            _left(url, client, replace(requests[repeat], size=large))
            for repeat, _ in in_turn(len(requests), (QUICKFIX,))
        ]
    steps = Spread(tuple(cancel.in_steps for cancel in found))
    freed = Spread(tuple(cancel.freed_at_the_latest for cancel in found))
    step = Spread(tuple(cancel.step_seconds for cancel in found))
    return [
        Row(
            "cancel",
            f"cancel of a {plan.long_steps}-step request, freed after at most: "
            f"{1000 * freed.median:.0f} ms",
            f"one step of it: {1000 * step.median:.0f} ms",
            Bound("at most", 2.0),
            steps.median,
            steps,
            details={
                "size": large,
                "steps": plan.long_steps,
                "step_seconds": step.document(),
                "freed_seconds_at_the_latest": freed.document(),
                "freed_seconds_at_the_earliest": [c.freed_at_the_earliest for c in found],
                "steps_after_the_last_scrape_before": [c.steps_after for c in found],
            },
        )
    ]


def _twice_native(client: httpx.Client) -> str:
    width, height = client.get("/v1/models").json()["data"][0]["size"].split("x")
    return f"{2 * int(width)}x{2 * int(height)}"


def _left(url: str, client: httpx.Client, request: ImageRequest) -> Cancel:
    idle = wait_until(client, lambda page: not page.running, "an idle service")
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/generate", json.dumps(request.body), headers)
    wanted = idle.steps + _SHARE_BEFORE_LEAVING * request.steps
    before = wait_until(client, lambda page: page.steps >= wanted, "a third of the run")
    step = before.step_seconds_since(idle)
    if not before.running:
        raise Broken("the request was done before its client left")
    left_at = time.perf_counter()
    connection.close()
    earliest = left_at
    while (page := MetricsPage.read(client)).running:
        earliest = page.asked_at
        if page.asked_at > left_at + 60:
            raise Broken("a request ran on for 60 s after its client had left")
        time.sleep(_PAUSE_SECONDS)
    time.sleep(3 * step)
    after = MetricsPage.read(client)
    cause = "quickfix_cancelled_total"
    if after.value(cause, cause="client_left") != idle.value(cause, cause="client_left") + 1:
        raise Broken("the request was not given up because its client left")
    return Cancel(step, page.answered_at - left_at, earliest - left_at, after.steps - before.steps)
