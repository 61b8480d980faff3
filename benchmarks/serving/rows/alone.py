"""One request alone: what HTTP, the queue and the engine add to diffusers' pipeline."""

import time
from collections.abc import Callable
from functools import partial

import httpx

from benchmarks.serving.bench import Bench, in_turn
from benchmarks.serving.load import Broken, closed_loop
from benchmarks.serving.report import Bound, Row
from benchmarks.serving.servers import QUICKFIX
from benchmarks.serving.statistics import Spread, ratios
from benchmarks.serving.workload import mixed

__all__ = ["measure"]

IN_PROCESS = "in process"


def measure(bench: Bench) -> list[Row]:
    """Both sides draw the same images in turn, each from one thread that waits for it."""
    plan = bench.plan
    requests = mixed(plan.alone_pairs, seed=plan.seed, steps=(plan.alone_steps,), guidance=(3.0,))
    references = bench.references(requests)
    seconds: dict[str, list[float]] = {IN_PROCESS: [], QUICKFIX: []}
    url = bench.server(QUICKFIX).url
    # Every image once before: its picture is compared.
    compared = closed_loop(url, requests, clients=1, references=references)
    with httpx.Client(base_url=url, timeout=120.0) as client:
        for repeat, name in in_turn(len(requests), (IN_PROCESS, QUICKFIX)):
            request = requests[repeat]
            if name == QUICKFIX:
                seconds[name].append(_timed(partial(_posted, client, request.body)))
            else:
                seconds[name].append(_timed(partial(bench.in_process.draw, request)))
    ours, theirs = Spread(tuple(seconds[QUICKFIX])), Spread(tuple(seconds[IN_PROCESS]))
    return [
        Row(
            "alone",
            f"one request alone through HTTP, {plan.alone_steps} steps: {ours.median:.3f} s",
            f"diffusers' pipeline in process: {theirs.median:.3f} s",
            Bound("at most", 1.10),
            ours.median / theirs.median,
            ratios(ours, theirs),
            details={
                "steps": plan.alone_steps,
                "guidance_scale": 3.0,
                "seconds": {QUICKFIX: ours.document(), IN_PROCESS: theirs.document()},
                "images": compared.document(),
            },
        )
    ]


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _posted(client: httpx.Client, body: dict[str, object]) -> bytes:
    answer = client.post("/generate", json=body)
    if answer.status_code != httpx.codes.OK:
        raise Broken(f"one request alone was answered with {answer.status_code}")
    return answer.content
