"""Places for admin calls: a store that hangs must not take the threads of everything else.

Each admin call holds one of the 40 threads that image routes, PNG files and `/metrics` need, too,
for as long as the store lets it wait.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import CapacityLimiter, fail_after
from anyio.lowlevel import RunVar

from service.errors import AdminBusy

__all__ = ["admin_place"]

_PLACES = 16
_PLACE_SECONDS = 5.0

_limiter: RunVar[CapacityLimiter] = RunVar("admin_places")  # one of each event loop


@asynccontextmanager
async def admin_place() -> AsyncIterator[None]:
    """One place for as long as the block runs. Raises AdminBusy when none becomes free in time."""
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = CapacityLimiter(_PLACES)
        _limiter.set(limiter)
    try:
        with fail_after(_PLACE_SECONDS):
            await limiter.acquire()
    except TimeoutError:
        raise AdminBusy(
            f"{_PLACES} other admin calls have been running for {_PLACE_SECONDS:g} seconds, most "
            "likely because the store does not answer; this one did nothing: try again"
        ) from None
    try:
        yield
    finally:
        limiter.release()
