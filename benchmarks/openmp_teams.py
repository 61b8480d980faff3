"""What a second thread that once ran a parallel operation costs the one that draws.

    python -m benchmarks.openmp_teams

libgomp counts the threads of all teams of a process; with more of them than cores a waiting thread
goes to sleep almost at once instead of spinning, although the other team has nothing to do.
"""

import json
import threading
import time
from statistics import median

import torch

from edits.loading import load_pipeline

IMAGES = 5


def main() -> None:
    """Time images before, beside and after a second team."""
    torch.set_num_threads(2)
    pipeline = load_pipeline("models/demo")
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet.to(memory_format=torch.channels_last)

    def draw(seed: int) -> float:
        started = time.perf_counter()
        pipeline(
            "a photo of a pistol",
            num_inference_steps=20,
            guidance_scale=3.0,
            height=32,
            width=32,
            generator=torch.Generator().manual_seed(seed),
        )
        return time.perf_counter() - started

    def seconds() -> float:
        return round(median(draw(seed) for seed in range(IMAGES)), 3)

    ready, stop = threading.Event(), threading.Event()

    def other() -> None:
        torch.randn(600, 600) @ torch.randn(600, 600)
        ready.set()
        stop.wait()

    draw(0)
    found = {"one_team": seconds()}
    thread = threading.Thread(target=other)
    thread.start()
    ready.wait()
    found["a_second_one_idle"] = seconds()
    stop.set()
    thread.join()
    found["after_its_thread_has_ended"] = seconds()
    print(json.dumps({"threads": 2, "images_each": IMAGES, **found}, indent=2))


if __name__ == "__main__":
    main()
