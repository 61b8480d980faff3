"""What glibc's allocator is told about this process.

It gives threads arenas of their own, up to eight a core, and a thread that ends leaves its arena,
with holes, to the next one. Here threads come and go with every decoding (service/own_thread.py):
resident memory grows with the arenas although nothing is held (docs/benchmarks.md, `soak`).
"""

import ctypes

__all__ = ["limit_arenas"]

_M_ARENA_MAX = -8  # malloc.h
_ARENAS = 2


def limit_arenas() -> bool:
    """Let all threads share two arenas; call it before they start. False without glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_ARENA_MAX, _ARENAS))
