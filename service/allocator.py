"""What glibc's allocator is told about this process.

As it is, memory that nobody holds stays resident, more of it with every new peak
(docs/benchmarks.md, `soak`). Threads get arenas of their own, up to eight a core, and one that ends
leaves its arena, with holes, to the next one; here threads come and go with every decoding
(service/own_thread.py). And the size from which a block is given back to the system grows with the
largest that was freed, so the heap is laid out anew in the middle of a day.
"""

import ctypes

__all__ = ["settle_allocator"]

# malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_OPTIONS = (
    (_M_ARENA_MAX, 1),  # a pass and a decoding use the same free blocks
    (_M_MMAP_THRESHOLD, 32 * 2**20),  # where glibc itself ends up: as high as it takes
    (_M_TRIM_THRESHOLD, 64 * 2**20),
)


def settle_allocator() -> bool:
    """Let all threads share one arena whose thresholds stay as they are.

    Call it before they start. False without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(*option) for option in _OPTIONS)
