"""What a busy Python thread costs a pass of the UNet, by the interpreter's switch interval.

    python -m benchmarks.gil_switch

torch gives the interpreter's lock up in each operation of a pass and takes it again after it;
whoever computes in Python meanwhile keeps it for a whole switch interval.
"""

import json
import sys
import threading
import time
from pathlib import Path
from statistics import median

import torch

from edits.loading import load_pipeline

ROUNDS = 9
ROWS = 8
THREADS = 2
SEED = 0
INTERVALS = (0.005, 0.001, 0.0005, 0.0002, 0.0001, 0.00005)
RESULT = Path("benchmarks/results/gil_switch.json")


class Neighbour:
    """A thread that computes in Python alone while it is told to, and counts what it did."""

    def __init__(self) -> None:
        self.turns = 0
        self._busy = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._compute)
        self._thread.start()

    def work(self) -> None:
        """Compute from now on."""
        self.turns = 0
        self._busy.set()

    def rest(self) -> None:
        """Wait from now on."""
        self._busy.clear()

    def end(self) -> None:
        """End the thread."""
        self._ended = True
        self._busy.set()
        self._thread.join()

    def _compute(self) -> None:
        while not self._ended:
            self._busy.wait()
            sum(range(100))
            self.turns += 1


def main() -> None:
    """Time passes alone and beside the neighbour, all intervals in turn, and write the medians."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(SEED)
    unet = load_pipeline("models/demo").unet.to(memory_format=torch.channels_last)
    size, width = unet.config.sample_size, unet.config.cross_attention_dim
    latents = torch.randn(ROWS, unet.config.in_channels, size, size)
    latents = latents.contiguous(memory_format=torch.channels_last)
    embeddings = torch.randn(ROWS, 77, width)

    def pass_seconds() -> float:
        started = time.perf_counter()
        with torch.inference_mode():
            unet(latents, 10, embeddings)
        return time.perf_counter() - started

    neighbour = Neighbour()
    alone: dict[float, list[float]] = {interval: [] for interval in INTERVALS}
    beside: dict[float, list[float]] = {interval: [] for interval in INTERVALS}
    turns: dict[float, list[float]] = {interval: [] for interval in INTERVALS}
    before = sys.getswitchinterval()
    try:
        pass_seconds()
        for _ in range(ROUNDS):
            for interval in INTERVALS:
                sys.setswitchinterval(interval)
                alone[interval].append(pass_seconds())
                neighbour.work()
                seconds = pass_seconds()
                turns[interval].append(neighbour.turns / seconds)
                neighbour.rest()
                beside[interval].append(seconds)
    finally:
        sys.setswitchinterval(before)
        neighbour.end()
    rows = [
        {
            "switch_interval_ms": interval * 1000,
            "pass_alone_ms": round(median(alone[interval]) * 1000, 1),
            "pass_beside_python_ms": round(median(beside[interval]) * 1000, 1),
            "python_turns_per_second": round(median(turns[interval])),
        }
        for interval in INTERVALS
    ]
    found = {"threads": THREADS, "rows": ROWS, "rounds": ROUNDS, "seed": SEED, "by_interval": rows}
    text = json.dumps(found, indent=2)
    RESULT.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
