"""When requests are sent in an open loop: a seeded Poisson process of varying rate."""

from collections.abc import Callable, Iterator
from random import Random

__all__ = ["poisson"]


def poisson(
    rate_at: Callable[[float], float], *, peak: float, seconds: float, random: Random
) -> Iterator[float]:
    """Moments from 0 to `seconds`, in order; `rate_at` a moment is in 1/s and at most `peak`.

    By thinning, which is exact for any rate: candidates come at the peak rate, and each is kept
    with the share that the rate has of the peak there.
    """
    moment = random.expovariate(peak)
    while moment < seconds:
        if random.random() * peak < rate_at(moment):
            yield moment
        moment += random.expovariate(peak)
