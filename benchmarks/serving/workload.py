"""What is asked for, and when: requests of mixed steps and guidance, and Poisson arrivals."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice, product
from typing import Any

import numpy as np

__all__ = ["ImageRequest", "arrivals", "mixed", "under_policies"]

_OBJECTS = (
    *("cat", "dog", "fish", "apple", "car", "house", "tree", "flower"),
    *("star", "heart", "ball", "robot", "bird", "umbrella", "guitar", "pistol"),
)
_COLOURS = ("red", "green", "blue", "yellow", "white", "gray")
GUIDANCE = (1.0, 3.0)  # off, and the demo model's own


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One request of `POST /generate`."""

    prompt: str
    seed: int
    steps: int
    guidance_scale: float
    policy: str | None = None
    size: str | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body; fields that the peers do not know stand in it only when they are used."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in fields.items() if value is not None}


def mixed(
    count: int,
    *,
    seed: int,
    steps: Sequence[int],
    guidance: Sequence[float] = GUIDANCE,
) -> list[ImageRequest]:
    """So many requests, every combination of steps and guidance as often, in a seeded order.

    Every request has a seed of its own, the first 96 also a prompt of their own.
    """
    kinds = islice(cycle(product(steps, guidance)), count)
    prompts = islice(cycle(product(_COLOURS, _OBJECTS)), count)
    requests = [
        ImageRequest(f"a photo of a {name} on a {colour} background", seed + n, number, scale)
        for n, ((number, scale), (colour, name)) in enumerate(zip(kinds, prompts, strict=True))
    ]
    order = np.random.default_rng(seed).permutation(count)
    return [requests[place] for place in order]


def under_policies(requests: Sequence[ImageRequest], policies: Sequence[str]) -> list[ImageRequest]:
    """The same requests under these policies in turn."""
    return [
        replace(request, policy=policy)
        for request, policy in zip(requests, cycle(policies), strict=False)
    ]


def arrivals(count: int, *, rate: float, seed: int) -> list[float]:
    """Seconds at which a Poisson process of `rate` per second has its arrivals, sorted.

    Given how many there are in count / rate seconds, the arrivals of a Poisson process are
    independent and uniform. Drawing them so keeps the offered rate exact, which exponential gaps of
    a short stream do not.
    """
    span = count / rate
    return [float(at) for at in np.sort(np.random.default_rng(seed).uniform(0.0, span, count))]
