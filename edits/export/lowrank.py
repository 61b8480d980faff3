"""A delta as two thin factors: D = up @ down, by singular value decomposition.

An edit that is keyed on n rows has a delta of rank n at most. What is known of it is the edited
weight in the model's dtype, so rounding is added to it, and rounding has full rank. Its norm is at
most u |W|_F, with u the dtype's unit roundoff. By Eckart and Young's theorem, the truncation to n
singular values lies at most that far from the delta: with the tolerance u |W|_F the rank found is
n at most, and merging the factors, which rounds again, is off by no more than rounding is.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from edits.errors import NonFinite


@dataclass(frozen=True)
class Factors:
    """up (d_out, rank) and down (rank, d_in), float32; error = |D - up down|_F / |W|_F."""

    up: Tensor
    down: Tensor
    error: float

    @property
    def rank(self) -> int:
        """How many singular values were kept."""
        return self.up.shape[1]

    def padded(self, rank: int) -> "Factors":
        """The same product at a higher rank: zeros are added."""
        more = rank - self.rank
        up = torch.nn.functional.pad(self.up, (0, more))
        down = torch.nn.functional.pad(self.down, (0, 0, 0, more))
        return Factors(up.contiguous(), down.contiguous(), self.error)


@dataclass(frozen=True)
class Spectrum:
    """A delta (d_out, d_in) and its singular value decomposition, float64.

    left (d_out, n), values (n,) falling, right (n, d_in); size is |W|_F of the edited weight, which
    every error is relative to.
    """

    delta: Tensor
    left: Tensor
    values: Tensor
    right: Tensor
    size: float

    @classmethod
    def of(cls, pristine: Tensor, edited: Tensor) -> "Spectrum":
        """Decompose edited - pristine, both (d_out, d_in). Raises NonFinite."""
        weight = edited.detach().cpu().double()
        delta = weight - pristine.detach().cpu().double()
        if not torch.isfinite(delta).all():
            raise NonFinite("a weight contains NaN or infinity and cannot be exported")
        left, values, right = torch.linalg.svd(delta, full_matrices=False)
        return cls(delta, left, values, right, float(weight.norm()))

    def rank(self, tolerance: float) -> int:
        """The smallest rank that leaves at most tolerance * |W|_F of the delta behind."""
        return int((self.left_behind() > tolerance * self.size).sum())

    def left_behind(self) -> Tensor:
        """(n + 1,): entry r is the Frobenius norm of what rank r leaves of the delta."""
        squares = torch.cat([self.values.square(), self.values.new_zeros(1)])
        return squares.flip(0).cumsum(0).flip(0).sqrt()

    def error(self, approximation: Tensor) -> float:
        """|D - approximation|_F / |W|_F."""
        return float((self.delta - approximation).norm() / self.size) if self.size else 0.0


def unit_roundoff(dtype: torch.dtype) -> float:
    """The largest relative error of rounding to the nearest number of `dtype`."""
    return torch.finfo(dtype).eps / 2


def factorise(pristine: Tensor, edited: Tensor, *, tolerance: float | None = None) -> Factors:
    """Factors of edited - pristine at the smallest rank whose error is at most `tolerance`.

    pristine and edited are (d_out, d_in) of one dtype. tolerance is relative to |edited|_F; by
    default it is the dtype's unit roundoff. The factors share the singular values evenly. Their
    rounding to float32 is part of the reported error. Raises NonFinite.
    """
    spectrum = Spectrum.of(pristine, edited)
    rank = spectrum.rank(unit_roundoff(edited.dtype) if tolerance is None else tolerance)
    scale = spectrum.values[:rank].sqrt()
    up = (spectrum.left[:, :rank] * scale).float().contiguous()
    down = (scale[:, None] * spectrum.right[:rank]).float().contiguous()
    return Factors(up, down, spectrum.error(up.double() @ down.double()))
