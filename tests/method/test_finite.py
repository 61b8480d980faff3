"""One NaN or infinity is found, wherever it stands and in every precision."""

import itertools

import pytest
import torch

from edits.method.finite import is_finite

BAD = (float("nan"), float("inf"), -float("inf"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_bad_number_is_found_at_every_place(dtype):
    numbers = torch.linspace(-3, 3, 35).reshape(5, 7).to(dtype)
    assert is_finite(numbers)
    for bad, place in itertools.product(BAD, range(35)):
        spoilt = numbers.clone()
        spoilt.view(-1)[place] = bad
        assert not is_finite(spoilt)
        assert not is_finite(spoilt.T)


def test_the_largest_numbers_are_finite_and_so_is_nothing():
    assert is_finite(torch.full((3, 3), torch.finfo(torch.float32).max))
    assert is_finite(torch.zeros(0, 4))
