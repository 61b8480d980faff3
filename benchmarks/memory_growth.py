"""Whether a service's memory grows with what it has drawn, in minutes instead of the soak's hour.

    python -m benchmarks.memory_growth                       # 6,000 images of one step
    python -m benchmarks.memory_growth --images 20000 --clients 24

Images of one step cost next to nothing but requests, decodings and threads, which are what leaves
something behind. What counts is the resident memory of the process that draws.
"""

import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.allocator import Allocator, use
from benchmarks.serving.load import closed_loop
from benchmarks.serving.plan import Plan
from benchmarks.serving.servers import Server, quickfix
from benchmarks.serving.workload import mixed

SECONDS = 4.0  # between two looks
WARM_SHARE = 1 / 3  # of the time: caches and pools fill


def watched(server: Server, stop: threading.Event) -> list[tuple[float, float]]:
    """Seconds and MiB of the largest process of the tree, until `stop`."""
    began = time.monotonic()
    found = []
    while not stop.wait(SECONDS):
        resident = max(process.memory_info().rss for process in server.processes)
        found.append((time.monotonic() - began, resident / 2**20))
    return found


def main(
    images: Annotated[int, typer.Option(min=1000)] = 6000,
    clients: Annotated[int, typer.Option(min=1, help="Each asks again at once.")] = 6,
    seed: int = 7,
    allocator: Allocator = Allocator.jemalloc,
) -> None:
    """Draw, and print memory once a third of the time is over and at the end."""
    use(allocator)
    plan = Plan.full(seed)
    samples: list[tuple[float, float]] = []
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as folder, quickfix(Path(folder), plan) as server:
        closed_loop(server.url, mixed(96, seed=seed, steps=(8, 20)), clients=32)
        looking = threading.Thread(target=lambda: samples.extend(watched(server, stop)))
        looking.start()
        try:
            load = closed_loop(server.url, mixed(images, seed=seed, steps=(1,)), clients=clients)
        finally:
            stop.set()
            looking.join()
    warm = [mib for seconds, mib in samples if seconds >= WARM_SHARE * samples[-1][0]]
    print(
        json.dumps(
            {
                "images": len(load.latencies),
                "clients": clients,
                "images_per_second": round(load.throughput, 1),
                "seconds": round(load.seconds, 1),
                "mib_after_a_third": round(warm[0], 1),
                "mib_at_the_end": round(warm[-1], 1),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    typer.run(main)
