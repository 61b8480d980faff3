"""Integer factors of few bits: what they are off by, and how the bytes are laid out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edits.errors import QuickFixError
from edits.export.lowrank import Spectrum
from edits.export.packing import Packed, pack


def spectrum(seed, rank=10, rows=40, columns=24, falling=0.5):
    """A delta whose singular values fall by a factor, beside a weight about as large."""
    generator = torch.Generator().manual_seed(seed)
    pristine = torch.randn(rows, columns, generator=generator)
    left = torch.linalg.qr(torch.randn(rows, rank, generator=generator).double())[0]
    right = torch.linalg.qr(torch.randn(columns, rank, generator=generator).double())[0]
    values = 20 * falling ** torch.arange(rank, dtype=torch.float64)
    return Spectrum.of(pristine, (pristine.double() + (left * values) @ right.T).float())


def read_by_hand(packed, rows, columns):
    """The delta from the format as it is written down, one bit at a time."""

    def numbers(stream, length):
        digits = "".join(f"{byte:08b}" for byte in stream.tolist())
        start, found = 0, []
        for width in packed.bits.tolist():
            ends = range(start, start + length * width, width)
            found.append([int(digits[i : i + width], 2) - 2 ** (width - 1) for i in ends])
            start += length * width
        return found

    delta = torch.zeros(rows, columns, dtype=torch.float64)
    up, down = numbers(packed.up, rows), numbers(packed.down, columns)
    for scale, a, b in zip(packed.scale.tolist(), up, down, strict=True):
        delta += scale * torch.outer(
            torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
        )
    return delta


@given(
    seed=st.integers(0, 2**16),
    bits=st.integers(4, 24),
    falling=st.floats(0.2, 1.0),
    rank=st.integers(1, 20),
)
@settings(max_examples=80, deadline=None)
def test_the_error_is_within_the_tolerance_and_reported(seed, bits, falling, rank):
    found = spectrum(seed, rank=rank, falling=falling)
    packed = pack(found, 2.0**-bits)
    off = (found.delta - packed.unpack((40, 24))).norm() / found.size
    assert float(off) <= 2.0**-bits
    assert packed.error == pytest.approx(float(off), rel=1e-9)


@given(seed=st.integers(0, 2**16), bits=st.integers(4, 20))
@settings(max_examples=20, deadline=None)
def test_the_bytes_are_as_described(seed, bits):
    packed = pack(spectrum(seed), 2.0**-bits)
    assert torch.allclose(packed.unpack((40, 24)), read_by_hand(packed, 40, 24), rtol=0, atol=1e-12)


def test_a_component_half_as_large_takes_one_bit_less():
    widths = pack(spectrum(1, rank=8, falling=0.5), 2.0**-16).bits.int()
    steps = (widths[:-1] - widths[1:]).tolist()
    assert sum(steps) in (6, 7, 8)
    assert set(steps) <= {0, 1, 2}


def test_sixteen_times_the_tolerance_takes_four_bits_less_of_a_number():
    fine, coarse = (pack(spectrum(2, falling=1.0), 2.0**-bits) for bits in (16, 12))
    fewer = (fine.bits.double() - coarse.bits.double()).mean()
    assert float(fewer) == pytest.approx(4.0, abs=0.3)


def test_the_delta_of_no_edit_takes_no_bytes():
    pristine = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    packed = pack(Spectrum.of(pristine, pristine.clone()), 2.0**-14)
    assert packed.rank == 0 and packed.up.nbytes == 0
    assert torch.equal(packed.unpack((6, 5)), torch.zeros(6, 5, dtype=torch.float64))


def test_a_tolerance_beyond_the_bits_is_refused():
    with pytest.raises(QuickFixError, match="bits a number"):
        pack(spectrum(3), 1e-13)


@pytest.mark.parametrize(
    "broken",
    [
        {"up": torch.zeros(3, dtype=torch.uint8)},
        {"bits": torch.full((10,), 33, dtype=torch.uint8)},
        {"bits": torch.zeros(10, dtype=torch.uint8)},
    ],
)
def test_bytes_that_do_not_fit_are_refused(broken):
    good = pack(spectrum(4), 2.0**-14)
    parts = {"up": good.up, "down": good.down, "bits": good.bits, "scale": good.scale} | broken
    with pytest.raises(ValueError, match="do not hold"):
        Packed(**parts).unpack((40, 24))
