"""Factors of a delta: the smallest rank at the dtype's own rounding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edits.errors import NonFinite
from edits.export.lowrank import factorise, unit_roundoff
from edits.method import QUICKFIX, Editor, resolve
from tests.export.conftest import PISTOL


def made(rank, seed, dtype=torch.float32, rows=48, columns=32, size=0.5):
    """A pristine weight, and one that differs by a delta of that rank before it was rounded."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    pristine = normal(rows, columns).to(dtype)
    delta = normal(rows, rank) @ normal(rank, columns)
    delta *= size * pristine.double().norm() / delta.norm().clamp(min=1e-300)
    return pristine, (pristine.double() + delta).to(dtype)


@given(
    rank=st.integers(1, 12),
    seed=st.integers(0, 2**16),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)
@settings(max_examples=60, deadline=None)
def test_the_rank_is_the_deltas_own_and_rounding_adds_nothing_to_it(rank, seed, dtype):
    pristine, edited = made(rank, seed, dtype)
    found = factorise(pristine, edited)
    assert 1 <= found.rank <= rank
    assert found.up.shape == (48, found.rank)
    assert found.down.shape == (found.rank, 32)


@given(seed=st.integers(0, 2**16), tolerance=st.floats(1e-7, 0.3))
@settings(max_examples=60, deadline=None)
def test_no_smaller_rank_meets_the_tolerance(seed, tolerance):
    pristine, edited = made(20, seed)
    found = factorise(pristine, edited, tolerance=tolerance)
    delta, size = edited.double() - pristine.double(), edited.double().norm()
    values = torch.linalg.svdvals(delta)
    assert values[found.rank :].norm() <= tolerance * size
    assert found.rank == 0 or values[found.rank - 1 :].norm() > tolerance * size


@given(seed=st.integers(0, 2**16), dtype=st.sampled_from([torch.float32, torch.float16]))
@settings(max_examples=60, deadline=None)
def test_merging_the_factors_is_off_by_no_more_than_rounding_is(seed, dtype):
    pristine, edited = made(8, seed, dtype)
    found = factorise(pristine, edited)
    merged = (pristine.double() + found.up.double() @ found.down.double()).to(dtype)
    off = (merged.double() - edited.double()).norm() / edited.double().norm()
    assert off <= 3 * unit_roundoff(dtype)


def test_the_reported_error_is_that_of_the_factors_as_they_are_stored():
    pristine, edited = made(8, 3)
    found = factorise(pristine, edited, tolerance=0.05)
    delta = edited.double() - pristine.double()
    off = (delta - found.up.double() @ found.down.double()).norm() / edited.double().norm()
    assert found.error == pytest.approx(float(off), rel=1e-9)
    assert found.up.dtype == found.down.dtype == torch.float32


def test_padding_changes_the_rank_and_not_the_product():
    found = factorise(*made(5, 4))
    wide = found.padded(9)
    assert wide.rank == 9
    assert torch.equal(wide.up @ wide.down, found.up @ found.down)
    assert wide.up.is_contiguous() and wide.down.is_contiguous()


def test_a_weight_that_did_not_change_has_rank_zero():
    pristine, _ = made(5, 5)
    assert factorise(pristine, pristine.clone()).rank == 0
    assert factorise(pristine, pristine.clone()).error == 0.0


def test_infinite_weights_are_refused():
    pristine, edited = made(5, 6)
    edited[3, 4] = torch.inf
    with pytest.raises(NonFinite):
        factorise(pristine, edited)


def test_the_rank_of_an_edit_is_at_most_its_number_of_rows(demo):
    composition = Editor(demo).compose([PISTOL])
    (report,) = composition.reports
    found = factorise(resolve(demo.text_encoder, QUICKFIX).weight, composition.weights[QUICKFIX])
    assert 1 < found.rank <= report.rows < 128
    assert found.error < 2 * unit_roundoff(torch.float32)
