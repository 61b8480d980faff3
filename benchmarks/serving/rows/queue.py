"""A denoising step with many requests waiting and with none, at the same running batch.

As many requests of 150 steps as run at once are sent, with or without `queued` more behind them.
Between two scrapes of `/metrics`, while nothing joins and nothing leaves, the batch is the same in
both cases; the clients leave before the first request is done.
"""

import time
from dataclasses import dataclass

import httpx

from benchmarks.serving.bench import Bench, in_turn
from benchmarks.serving.load import Broken, held
from benchmarks.serving.metrics_page import MetricsPage, wait_until
from benchmarks.serving.report import Bound, Row
from benchmarks.serving.servers import QUICKFIX, Server
from benchmarks.serving.statistics import Spread, ratios
from benchmarks.serving.workload import ImageRequest, mixed

__all__ = ["measure"]

QUEUED, ALONE = "queued", "none queued"
LONG = 150  # steps of a request: all are admitted, and a window passes, before the first is done
MORE_THAN_RUN = 32  # at once, in any build of the service
TRIES = 4


@dataclass(frozen=True, slots=True)
class Window:
    """What happened between two scrapes."""

    step_seconds: float
    seconds_by_clock: float  # of a step with what lies between two steps
    steps: int
    batch: float  # mean requests of a step


def measure(bench: Bench) -> list[Row]:
    """Windows with and without a queue, in turn."""
    plan = bench.plan
    requests = mixed(plan.queued + MORE_THAN_RUN, seed=plan.seed, steps=(LONG,), guidance=(3.0,))
    windows: dict[str, list[Window]] = {QUEUED: [], ALONE: []}
    server = bench.server(QUICKFIX)
    with httpx.Client(base_url=server.url, timeout=60.0) as client:
        room = _room(server, client, requests)
        for _, name in in_turn(plan.repeats, (ALONE, QUEUED)):
            waiting = plan.queued if name == QUEUED else 0
            asked = requests[: room + waiting]
            windows[name].append(_window(server, client, asked, room, steps=plan.window_steps))
    spreads = {
        name: Spread(tuple(window.step_seconds for window in windows[name])) for name in windows
    }
    batches = {name: [window.batch for window in windows[name]] for name in windows}
    queued, alone = spreads[QUEUED], spreads[ALONE]
    return [
        Row(
            "queue",
            f"step of {room} running requests, {plan.queued} queued: {1000 * queued.median:.1f} ms",
            f"none queued: {1000 * alone.median:.1f} ms",
            Bound("at most", 1.03),
            queued.median / alone.median,
            ratios(queued, alone),
            details={
                "running": room,
                "queued": plan.queued,
                "step_seconds": {name: spread.document() for name, spread in spreads.items()},
                "step_seconds_by_clock": {
                    name: [window.seconds_by_clock for window in windows[name]] for name in windows
                },
                "steps_of_a_window": {name: [w.steps for w in windows[name]] for name in windows},
                "mean_batch": batches,
            },
        )
    ]


def _room(server: Server, client: httpx.Client, requests: list[ImageRequest]) -> int:
    """How many of these run at once."""
    with held(server.url, requests):
        admitted = wait_until(
            client,
            lambda page: page.running > 0 and page.running + page.waiting == len(requests),
            "that all requests were admitted",
        )
        # Those that came in one by one have got their places only at the steps after it.
        page = wait_until(client, lambda page: page.steps >= admitted.steps + 3, "three steps")
    _wait_until_idle(client)
    if not page.waiting:
        raise Broken(f"{page.running} requests run at once: no queue can be made of {page.running}")
    return page.running


def _window(
    server: Server, client: httpx.Client, requests: list[ImageRequest], room: int, *, steps: int
) -> Window:
    """One window, shorter if a request was done before its end. Raises Broken."""
    for _ in range(TRIES):
        found = _try_window(server, client, requests, room, steps)
        _wait_until_idle(client)
        if found is not None:
            return found
        steps = max(2, steps // 2)
    waiting = len(requests) - room
    raise Broken(f"no window in which {room} requests ran and {waiting} waited throughout")


def _try_window(
    server: Server, client: httpx.Client, requests: list[ImageRequest], room: int, steps: int
) -> Window | None:
    waiting = len(requests) - room

    def steady(page: MetricsPage) -> bool:
        return page.running == room and page.waiting == waiting

    with held(server.url, requests):
        early = wait_until(client, steady, f"that {room} ran and {waiting} waited")
        first = wait_until(client, lambda page: page.steps >= early.steps + 2, "two steps")
        time.sleep(steps * first.step_seconds_since(early))
        last = MetricsPage.read(client)
    served = "quickfix_requests_total"
    if not (steady(first) and steady(last)) or last.value(served) != early.value(served):
        return None
    batch = last.mean_batch_since(first)
    count = last.steps - first.steps
    return Window(
        step_seconds=last.step_seconds_since(first),
        seconds_by_clock=(last.asked_at - first.asked_at) / count,
        steps=count,
        batch=float(room) if batch is None else batch,
    )


def _wait_until_idle(client: httpx.Client) -> None:
    wait_until(client, lambda page: not page.running and not page.waiting, "an idle service")
