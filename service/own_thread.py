"""Parallel work beside the denoising loop, in a thread that ends with it.

OpenMP keeps a team of threads for every thread that ever ran a parallel operation, for as long as
that one lives. With more of them than cores, waits go to sleep at once instead of spinning, and a
denoising step takes half as long again, although the other teams have nothing to do
(benchmarks/openmp_teams.py). So the loop's team is the only one that stays.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

__all__ = ["in_own_thread"]

_SECOND = 1.0

_Result = TypeVar("_Result")


def in_own_thread(
    work: Callable[[], _Result], *, meanwhile: Callable[[], object] = lambda: None
) -> _Result:
    """What `work` returns or raises; its thread, and its team, have ended by then.

    `meanwhile` is called here after every second of the wait.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="own") as pool:
        future = pool.submit(work)
        while not wait([future], timeout=_SECOND).done:
            meanwhile()
        return future.result()
