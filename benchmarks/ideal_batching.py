"""What step-level batching can do at most with a device whose steps take the times measured.

    python -m benchmarks.onnx_step --out benchmarks/results/onnx_step.json
    python -m benchmarks.ideal_batching              # reads them: two rows of a step for an image

Simulated is a server that costs nothing but its steps: requests of equal length arrive as a Poisson
process, join at the next step while there is room, and leave after their last. Nothing decodes,
nothing is encoded, no HTTP. Its p95 over its unloaded latency is what a service that batches so
comes near on that device, at best. What KEDA compares with its
threshold is how many requests are at hand on average, running and waiting.
"""

import json
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Annotated

import typer

LOADS = (0.3, 0.5, 0.7, 0.8, 0.9)


def interpolated(measured: Sequence[tuple[int, float]]) -> Callable[[int], float]:
    """Milliseconds of a step by its rows, straight lines between what was measured.

    Raises ValueError for rows outside it.
    """
    points = sorted(measured)

    def milliseconds(rows: int) -> float:
        for (left, low), (right, high) in pairwise(points):
            if left <= rows <= right:
                return low + (high - low) * (rows - left) / (right - left)
        raise ValueError(f"a step of {rows} rows was not measured; --rows of onnx_step")

    return milliseconds


def latencies(
    step_ms: Callable[[int], float], *, rate: float, steps: int, max_batch: int, n: int, seed: int
) -> list[float]:
    """Milliseconds from arrival to the last step of `n` requests that arrive at `rate` a second."""
    draw = Random(seed)  # noqa: S311 - arrivals, no secret
    now, next_at = 0.0, draw.expovariate(rate) * 1e3
    arrived, waiting = 1, deque[float]()
    running: list[tuple[float, int]] = []  # arrival, steps left
    found: list[float] = []
    while len(found) < n:
        if not running and not waiting:
            now = next_at
        while arrived <= n and next_at <= now:
            waiting.append(next_at)
            next_at += draw.expovariate(rate) * 1e3
            arrived += 1
        while waiting and len(running) < max_batch:
            running.append((waiting.popleft(), steps))
        now += step_ms(2 * len(running))
        running = [(at, left - 1) for at, left in running]
        found += [now - at for at, left in running if not left]
        running = [(at, left) for at, left in running if left]
    return found


def main(
    measured: Path = Path("benchmarks/results/onnx_step.json"),
    side: str = "torch_channels_last",
    steps: int = 20,
    max_batch: Annotated[int, typer.Option(help="Images in a step.")] = 16,
    n: int = 20_000,
    seed: int = 0,
) -> None:
    """Simulate every load, print."""
    rows = json.loads(measured.read_text(encoding="utf-8"))["rows"]
    step_ms = interpolated([(int(r), each["step"][side]["ms"]) for r, each in rows.items()])
    unloaded = steps * step_ms(2)
    saturation = max(1e3 * b / (steps * step_ms(2 * b)) for b in range(1, max_batch + 1))
    print(f"unloaded {unloaded:.0f} ms, saturation {saturation:.2f} images/s")
    for load in LOADS:
        found = sorted(
            latencies(
                step_ms,
                rate=load * saturation,
                steps=steps,
                max_batch=max_batch,
                n=n,
                seed=seed,
            )
        )
        middle, high = found[n // 2], found[int(0.95 * n)]
        at_hand = load * saturation * fmean(found) / 1e3  # Little's law
        print(
            f"load {load:.0%}: p50 {middle:.0f} ms, p95 {high:.0f} ms, "
            f"{high / unloaded:.2f} times unloaded, {at_hand:.1f} requests at hand"
        )


if __name__ == "__main__":
    typer.run(main)
