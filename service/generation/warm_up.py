"""Passes and decodings of every batch size, before the first request asks for one.

What a batch size needs is made when it first comes: kernels on a CPU, memory everywhere. Made on
the way, it slows down the requests that it comes with, and memory grows for as long as there are
sizes that have not come yet. First what every size leaves behind, apart from its activations; then
the largest of all, which lays the heap out for the others (docs/benchmarks.md, `soak`).
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch

from service.allocator import activations_apart
from service.generation.backends import Backend
from service.own_thread import in_own_thread

__all__ = ["warm_up"]

_log = logging.getLogger("quickfix.warm_up")


def warm_up(
    backend: Backend,
    *,
    latents: tuple[int, ...],
    embedding: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
    rows: int,
    images: int,
    seconds: float,
) -> None:
    """Run passes of up to `rows` rows and decodings of up to `images` images, then both at once.

    `latents` is the shape of one image's (channels, rows, columns), `embedding` that of one
    prompt's (positions, features). A size that the time left is too short for is left out; so is
    one that fails, with a word in the log: the loop draws such a batch in parts.
    """
    options: Any = {"dtype": dtype, "device": device}

    def predict(count: int) -> None:
        backend.predict(
            torch.zeros((count, *latents), **options),
            torch.zeros(count, device=device),
            torch.zeros((count, *embedding), **options),
        )

    def decode(count: int) -> None:
        in_own_thread(lambda: backend.decode(torch.zeros((count, *latents), **options)))

    def both() -> None:
        with ThreadPoolExecutor(1) as pool:
            decoding = pool.submit(decode, max(decodings))
            predict(max(passes))
            decoding.result()

    began = time.monotonic()
    with activations_apart():
        passes = _largest_first(predict, "a pass", rows, began + seconds / 2)
        decodings = _largest_first(decode, "a decoding", images, began + seconds)
    if passes and decodings:
        _ran(both, "the largest pass beside the largest decoding")
    _log.info(
        "warmed up pass_sizes=%d/%d decoding_sizes=%d/%d seconds=%.1f",
        *(len(passes), rows, len(decodings), images, time.monotonic() - began),
    )


def _largest_first(run: Callable[[int], None], what: str, most: int, ends: float) -> set[int]:
    """The sizes from `most` down to 1 that ran, after two of 1, which tell how long one takes."""
    ran: set[int] = set()
    one = 0.0  # seconds for each of a size
    for count in (1, 1, *range(most, 1, -1)):
        began = time.monotonic()
        if began + count * one < ends and _ran(partial(run, count), f"{what} of {count}"):
            ran.add(count)
            one = (time.monotonic() - began) / count
    return ran


def _ran(work: Callable[[], None], what: str) -> bool:
    try:
        work()
    except RuntimeError as error:  # out of memory among it
        _log.warning("warm-up failed at %s error=%s", what, error)
        return False
    return True
