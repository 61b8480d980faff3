"""What an activation every second costs the requests that run meanwhile.

    python -m benchmarks.swap_latency             # 300 images with, 300 without, in one run

One replica on the demo model in this process draws one image after the other; blocks of images
with an activation every second and without any take turns, so that both see the same machine.
`held_up_ms` is what the denoising loop waits for a swap: reading the snapshot before an image and
the check before each step. Exit code 1 when its 99th percentile reaches 1 ms, or when the 99th
percentile of an image's latency is more than 5 % above that without activations.
"""

import json
import logging
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from edits.manifests import Choice, RevisionContent, catalog_entry
from service.generation.request import GenerationRequest
from service.runs import Run, Runs
from service.runtime import Runtime
from service.settings import Settings

BLOCK = 10  # images between two changes of arm
CHOICE = Choice(tokens="last+pad", ridge=30.0, preserve_weight=0.05, pad_weight=1.0)


@dataclass
class Arm:
    """What was measured with, or without, activations."""

    latencies: list[float] = field(default_factory=list)
    held_up: list[float] = field(default_factory=list)
    activations: int = 0


class Operator:
    """Publishes one of two sets in turn, every second while it is on."""

    def __init__(self, runtime: Runtime) -> None:
        fingerprint = runtime.builder.fingerprint
        pistol = catalog_entry("remove-pistol")
        self._sets = (
            RevisionContent((pistol,), fingerprint=fingerprint, choices={pistol.name: CHOICE}),
            RevisionContent(),
        )
        self._runtime = runtime
        self._on = threading.Event()
        self._ended = threading.Event()
        self.activations = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def switch(self, on: bool) -> None:
        """Publish from now on, or no more."""
        if on:
            self._on.set()
        else:
            self._on.clear()

    def end(self) -> None:
        """Stop the thread."""
        self._ended.set()
        self._on.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._on.wait()
            if self._ended.wait(1.0):
                return
            if self._on.is_set():
                # Nothing is remembered: each activation is computed as if it were new.
                self._runtime.builder._built.clear()
                self._runtime.store.publish_and_activate(
                    self._sets[self.activations % 2], author="benchmark", reason="swap"
                )
                self.activations += 1


def measured(runtime: Runtime, arms: dict[bool, Arm], on: list[bool]) -> None:
    """Time what the denoising loop waits for: wraps the engine's own calls."""
    runs, loop = runtime.activator.runs, runtime.engine._loop
    begin, let_go = runs.begin, loop._let_go

    def timed_begin() -> Run | None:
        started = time.perf_counter()
        run = begin()
        arms[on[0]].held_up.append(time.perf_counter() - started)
        return run

    def timed_let_go() -> None:
        started = time.perf_counter()
        let_go()
        arms[on[0]].held_up.append(time.perf_counter() - started)

    assert isinstance(runs, Runs)  # noqa: S101
    runs.begin = timed_begin  # type: ignore[method-assign]
    loop._let_go = timed_let_go  # type: ignore[method-assign]


def percentile(values: list[float], share: float) -> float:
    """The value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main(
    images: Annotated[int, typer.Option(help="Images of each arm.")] = 300,
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Measure, print and check."""
    logging.disable(logging.CRITICAL)
    arms = {True: Arm(), False: Arm()}
    on = [False]
    with tempfile.TemporaryDirectory() as folder:
        runtime = Runtime.start(Settings(device="cpu", threads=1, state_dir=Path(folder)))
        defaults = runtime.model.defaults
        side = runtime.model.sizes.native

        def draw(seed: int) -> float:
            request = GenerationRequest(
                "a photo of a pistol", (seed,), defaults.steps, defaults.guidance_scale, side, side
            )
            started = time.perf_counter()
            job = runtime.engine.submit(request)
            job.future.result()
            seconds = time.perf_counter() - started
            job.release()
            return seconds

        for seed in range(BLOCK):
            draw(seed)  # warm
        operator = Operator(runtime)
        measured(runtime, arms, on)
        for block in range(2 * images // BLOCK):
            on[0] = block % 2 == 1
            operator.switch(on[0])
            arm = arms[on[0]]
            before = operator.activations
            arm.latencies += [draw(seed) for seed in range(BLOCK)]
            arm.activations += operator.activations - before
        operator.end()
        runtime.stop()
    with_, without = arms[True], arms[False]
    ratio = percentile(with_.latencies, 0.99) / percentile(without.latencies, 0.99)
    held_up = percentile(with_.held_up, 0.99) * 1000
    document = {
        "images_each": len(with_.latencies),
        "activations": with_.activations,
        "latency_p50_seconds": [round(median(arm.latencies), 4) for arm in (without, with_)],
        "latency_p99_seconds": [
            round(percentile(arm.latencies, 0.99), 4) for arm in (without, with_)
        ],
        "latency_p99_ratio": round(ratio, 3),
        "held_up_p99_ms": round(held_up, 4),
        "held_up_max_ms": round(max(with_.held_up) * 1000, 4),
        "held_up_samples": len(with_.held_up),
    }
    print(json.dumps(document, indent=2))
    if out is not None:
        out.write_text(json.dumps(document, indent=2) + "\n")
    if held_up >= 1 or ratio > 1.05:
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
