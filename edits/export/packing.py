"""A delta in few bits: integer factors, each component with as many bits as its size needs.

    D = sum_i scale_i a_i b_i^T        a_i (d_out,) and b_i (d_in,) integers

With the singular value decomposition D = sum_i s_i u_i v_i^T, a_i and b_i are s_i u_i and s_i v_i
in steps of h at most, the same h for all components, and scale_i is the product of both steps over
s_i. Then every component has about the same error, h sqrt((d_out + d_in) / 12), and one that is
half as large takes one bit less. The steps are so fine that the largest number fills its bits.

Half-precision factors take 16 bits a number and are off by 2^-12 of the delta.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edits.errors import QuickFixError
from edits.export.lowrank import Spectrum

MAX_BITS = 32
_SMALLER_STEP = 0.97


@dataclass(frozen=True)
class Packed:
    """up and down: packed bytes (uint8); bits (rank,) uint8; scale (rank,) float64.

    Component by component, every integer x stands as x + 2^(bits - 1) in `bits` bits, highest bit
    first. error = |D - unpacked|_F / |W|_F.
    """

    up: Tensor
    down: Tensor
    bits: Tensor
    scale: Tensor
    error: float = 0.0

    @property
    def rank(self) -> int:
        """How many components were kept."""
        return len(self.bits)

    def unpack(self, shape: tuple[int, int]) -> Tensor:
        """The delta (d_out, d_in) of that shape, float64. Raises ValueError if it does not fit."""
        rows, columns = shape
        return (_from_bytes(self.up, self.bits, rows) * self.scale) @ _from_bytes(
            self.down, self.bits, columns
        ).T


def pack(spectrum: Spectrum, tolerance: float) -> Packed:
    """Pack a delta so that its error is at most tolerance * |W|_F.

    Half of the tolerance goes to the components that are left out, the rest to rounding; other
    shares change the size by a hundredth. Raises QuickFixError for a tolerance that needs more than
    32 bits a number.
    """
    rank = spectrum.rank(tolerance / 2)
    if rank == 0:
        up, down, bits = (torch.zeros(0, dtype=torch.uint8) for _ in range(3))
        error = spectrum.error(torch.zeros_like(spectrum.delta))
        return Packed(up, down, bits, torch.zeros(0, dtype=torch.float64), error)
    # Steps that fill their bits are up to twice as fine as the one that is asked for, so the search
    # starts at twice the step that would use up the tolerance if errors were independent.
    step = 2 * tolerance * spectrum.size * (12 / (rank * sum(spectrum.delta.shape))) ** 0.5
    while True:
        rounded = _Rounded.of(spectrum, rank, step)
        error = spectrum.error((rounded.up * rounded.scale) @ rounded.down.T)
        if error <= tolerance:
            break
        step *= _SMALLER_STEP
    bits = rounded.bits.to(torch.uint8)
    up, down = _to_bytes(rounded.up, bits), _to_bytes(rounded.down, bits)
    return Packed(up, down, bits, rounded.scale, error)


@dataclass(frozen=True)
class _Rounded:
    """Integers up (d_out, rank) and down (d_in, rank), with bits and scale (rank,), float64."""

    up: Tensor
    down: Tensor
    bits: Tensor
    scale: Tensor

    @classmethod
    def of(cls, spectrum: Spectrum, rank: int, step: float) -> "_Rounded":
        """The first `rank` components in steps of `step` at most."""
        values = spectrum.values[:rank]
        sides = (spectrum.left[:, :rank] * values, spectrum.right[:rank].T * values)
        largest = [side.abs().amax(0) for side in sides]
        bits = torch.log2((torch.maximum(*largest) / step).clamp(min=1)).floor() + 2
        if bits.amax() > MAX_BITS:
            raise QuickFixError(
                f"the tolerance needs {int(bits.amax())} bits a number and the artefact has at "
                f"most {MAX_BITS}; raise the tolerance",
                param="tolerance",
            )
        steps = [most / (2 ** (bits - 1) - 1) for most in largest]
        up, down = ((side / own).round() for side, own in zip(sides, steps, strict=True))
        return cls(up, down, bits, steps[0] * steps[1] / values)


def _to_bytes(columns: Tensor, bits: Tensor) -> Tensor:
    """Integers (d, rank) with the bits (rank,) of each column, one after another."""
    stream = [
        np.unpackbits((column.astype(np.int64) + (1 << (width - 1))).astype(">u4").view(np.uint8))
        .reshape(-1, MAX_BITS)[:, MAX_BITS - width :]
        .reshape(-1)
        for column, width in zip(columns.T.numpy(), bits.tolist(), strict=True)
    ]
    return torch.from_numpy(np.packbits(np.concatenate(stream)))


def _from_bytes(packed: Tensor, bits: Tensor, length: int) -> Tensor:
    """Back to (length, rank), float64."""
    widths = bits.tolist()
    count = length * sum(widths)
    if len(packed) != -(-count // 8) or not all(1 <= width <= MAX_BITS for width in widths):
        raise ValueError(f"{len(packed)} bytes do not hold {len(widths)} columns of {length}")
    stream = np.unpackbits(packed.numpy(), count=count)
    columns = np.zeros((length, len(widths)))
    start = 0
    for index, width in enumerate(widths):
        part = stream[start : start + length * width].reshape(length, width)
        weights = 2.0 ** np.arange(width - 1, -1, -1)
        columns[:, index] = part @ weights - 2.0 ** (width - 1)
        start += length * width
    return torch.from_numpy(columns)
