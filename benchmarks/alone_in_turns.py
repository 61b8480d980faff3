"""One guided image alone: services of several checkouts or settings, and diffusers in process.

    python -m benchmarks.alone_in_turns now,. before,../other-checkout
    python -m benchmarks.alone_in_turns now,. cold,.,QUICKFIX_WARM_UP_SECONDS=0 --pairs 40
    python -m benchmarks.alone_in_turns now,. glibc,.,LD_PRELOAD=

All are up at once and draw the same requests in turns, so that a machine whose speed changes is
the same for all of them: two runs of `benchmarks.serving --only alone` are not. Prints medians, and
the ratio of each to diffusers' pipeline: that of the medians, and the median of the pairs'.
"""

import json
import os
import tempfile
import time
from contextlib import ExitStack, chdir
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated

import httpx
import typer

from benchmarks.allocator import Allocator, use
from benchmarks.serving.plan import Plan
from benchmarks.serving.references import InProcess
from benchmarks.serving.servers import quickfix
from benchmarks.serving.workload import ImageRequest, mixed

IN_PROCESS = "in process"


def post(client: httpx.Client, request: ImageRequest) -> None:
    """Raises httpx.HTTPStatusError."""
    client.post("/generate", json=request.body).raise_for_status()


def main(
    sides: Annotated[list[str], typer.Argument(help="NAME,FOLDER[,SETTING=VALUE...] each.")],
    pairs: Annotated[int, typer.Option(min=4, help="Requests that every side draws.")] = 30,
    steps: Annotated[int, typer.Option(min=1)] = 20,
    seed: int = 7,
    allocator: Allocator = Allocator.jemalloc,
) -> None:
    """Draw in turns, and print."""
    use(allocator)
    plan = Plan.full(seed)
    requests = mixed(pairs, seed=seed, steps=(steps,), guidance=(3.0,))
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        calls = {IN_PROCESS: InProcess(plan).draw}
        for side in sides:
            name, folder, *settings = side.split(",")
            variables = dict(setting.split("=", 1) for setting in settings)
            variables["PYTHONPATH"] = os.fspath(Path(folder).resolve())
            with chdir(folder):
                server = stack.enter_context(quickfix(scratch / name, plan, settings=variables))
            client = stack.enter_context(httpx.Client(base_url=server.url, timeout=120.0))
            calls[name] = partial(post, client)
        for request in requests[:4]:
            for call in calls.values():
                call(request)
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for turn, request in enumerate(requests):
            names = list(calls)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                began = time.perf_counter()
                calls[name](request)
                seconds[name].append(time.perf_counter() - began)
    base = seconds[IN_PROCESS]
    found = {
        name: {
            "seconds": round(median(taken), 4),
            "ratio": round(median(taken) / median(base), 3),
            "ratio_of_pairs": round(median(a / b for a, b in zip(taken, base, strict=True)), 3),
        }
        for name, taken in seconds.items()
    }
    print(json.dumps({"pairs": pairs, "steps": steps, "seed": seed, "sides": found}, indent=2))


if __name__ == "__main__":
    typer.run(main)
