"""How much is measured: once in full, once as a smoke run."""

from dataclasses import dataclass
from typing import Self

__all__ = ["Plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of every measurement; the same for all sides of it."""

    quick: bool
    seed: int
    model: str = "models/demo"
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 2  # of torch, on every side
    repeats: int = 5  # of each side, in turn
    steps: tuple[int, ...] = (8, 20, 50)  # mixed
    requests: int = 96  # of one saturation repeat
    clients: int = 32  # closed loop; more than any side runs at once
    stream: int = 120  # requests of one Poisson stream
    load: float = 0.7  # of saturation
    alone_steps: int = 20
    alone_pairs: int = 15
    long_steps: int = 50
    queued: int = 64
    window_steps: int = 40  # steps that the queue is looked at for
    cancels: int = 9
    soak_seconds: float = 600.0
    soak_load: float = 0.8

    @property
    def may_differ(self) -> int:
        """By how much of 255 a channel of one image may differ in another batch.

        In half precision batches of other sizes take other kernels. What that comes to is told; the
        bound is there to find another image, which differs by more somewhere.
        """
        return 1 if self.dtype == "float32" else 64

    @classmethod
    def full(cls, seed: int, *, soak_seconds: float = 600.0, repeats: int = 5) -> Self:
        """What the documents quote."""
        return cls(quick=False, seed=seed, soak_seconds=soak_seconds, repeats=repeats)

    @classmethod
    def smoke(cls, seed: int, *, soak_seconds: float = 600.0) -> Self:
        """Whether everything works; its ratios mean nothing."""
        return cls(
            quick=True,
            seed=seed,
            repeats=2,
            steps=(1, 2),
            requests=8,
            clients=4,
            stream=8,
            alone_steps=2,
            alone_pairs=2,
            long_steps=50,
            queued=8,
            window_steps=10,
            cancels=2,
            soak_seconds=min(soak_seconds, 20.0),
        )
