"""What glibc's allocator is told about this process.

As it is, memory that nobody holds stays resident, more of it with every new peak
(docs/benchmarks.md, `soak`). Threads get arenas of their own, up to eight a core, and one that ends
leaves its arena, with holes, to the next one; here threads come and go with every decoding
(service/own_thread.py). And the size from which a block is given back to the system grows with the
largest that was freed, up to 32 MiB: then the largest activations of a pass lie in the heap among
what requests leave there, and one that finds no hole of its size makes the heap grow.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["activations_apart", "settle_allocator"]

# malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_MIB = 2**20
# From the system: a pass of 32 rows of the demo model takes 1 % longer than with 32 MiB.
_LARGE = 4 * _MIB
_ACTIVATION = _MIB // 16

_OPTIONS = (
    (_M_ARENA_MAX, 1),  # a pass and a decoding use the same free blocks
    (_M_MMAP_THRESHOLD, _LARGE),
    (_M_TRIM_THRESHOLD, 64 * _MIB),
)


def settle_allocator() -> bool:
    """Let all threads share one arena whose thresholds stay as they are.

    Call it before they start. False without glibc.
    """
    return all(_set(*option) for option in _OPTIONS)


@contextmanager
def activations_apart() -> Iterator[None]:
    """Meanwhile blocks of 64 KiB and more come from the system and go back to it, after it large
    ones only.

    For what runs once and leaves something small behind: kept kernels would lie in the heap with
    holes of activations between them. Slower, and for the whole process.
    """
    _set(_M_MMAP_THRESHOLD, _ACTIVATION)
    try:
        yield
    finally:
        _set(_M_MMAP_THRESHOLD, _LARGE)


def _set(option: int, value: int) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(option, value))
