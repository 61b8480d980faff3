"""The memory allocator of this process: jemalloc where it is preloaded, else glibc's.

The image preloads jemalloc (bentofile.yaml). It gives free memory back after seconds, and keeps
blocks of one size together: a request leaves no holes among the activations of a pass, and a pass
takes less time (docs/adr/0014, docs/benchmarks.md).

glibc as it is keeps memory that nobody holds resident, more of it with every new peak. Threads get
arenas of their own, up to eight a core, and one that ends leaves its arena, with holes, to the next
one; here threads come and go with every decoding (service/own_thread.py). And the size from which a
block is given back to the system grows with the largest that was freed, up to 32 MiB: then the
largest activations lie in the heap among what requests leave there, and one that finds no hole of
its size makes the heap grow.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

__all__ = ["activations_apart", "allocator", "settle_allocator"]

# malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_MIB = 2**20
# From the system: a pass of 32 rows of the demo model takes 1 % longer than with 32 MiB.
_LARGE = 4 * _MIB
_ACTIVATION = _MIB // 16

_GLIBC_OPTIONS = (
    (_M_ARENA_MAX, 1),  # a pass and a decoding use the same free blocks
    (_M_MMAP_THRESHOLD, _LARGE),
    (_M_TRIM_THRESHOLD, 64 * _MIB),
)


def allocator() -> Literal["jemalloc", "glibc", "other"]:
    """Whose `malloc` this process runs."""
    process = ctypes.CDLL(None)
    if hasattr(process, "mallctl"):
        return "jemalloc"
    return "glibc" if hasattr(process, "mallopt") else "other"


def settle_allocator() -> bool:
    """jemalloc: memory is given back by a thread of its own, not in the middle of a pass.

    glibc: all threads share one arena whose thresholds stay as they are; call it before they start.
    False when there is neither, or it refused.
    """
    if allocator() == "jemalloc":
        on = ctypes.c_bool(True)
        name = b"background_thread"
        found = ctypes.CDLL(None).mallctl(name, None, None, ctypes.byref(on), ctypes.sizeof(on))
        return bool(found == 0)
    return all(_set(*option) for option in _GLIBC_OPTIONS)


@contextmanager
def activations_apart() -> Iterator[None]:
    """With glibc, meanwhile blocks of 64 KiB and more come from the system and go back to it, after
    it large ones only. Without glibc nothing changes.

    For what runs once and leaves something small behind: kept kernels would lie in the heap with
    holes of activations between them. Slower, and for the whole process.
    """
    _set(_M_MMAP_THRESHOLD, _ACTIVATION)
    try:
        yield
    finally:
        _set(_M_MMAP_THRESHOLD, _LARGE)


def _set(option: int, value: int) -> bool:
    return allocator() == "glibc" and bool(ctypes.CDLL(None).mallopt(option, value))
