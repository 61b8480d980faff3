"""The edited layer: pinned keys get the pristine bits, all others the edited weight."""

import copy

import pytest
import torch
from torch import nn

from edits.method.pinned import PinnedLinear
from edits.method.solver import basis


@pytest.fixture
def layers():
    torch.manual_seed(0)
    pristine = nn.Linear(16, 8).requires_grad_(False)
    pinned = torch.randn(3, 16)
    weight = pristine.weight + 0.1 * torch.randn(8, 16)
    return pristine, PinnedLinear(pristine, weight, basis(pinned.double())), pinned


def test_keys_in_the_pinned_span_get_the_pristine_bits(layers):
    pristine, edited, pinned = layers
    mixture = torch.tensor([[0.5, -2.0, 1.0]]) @ pinned
    for keys in (pinned, mixture, 1000 * mixture):
        assert torch.equal(edited(keys), pristine(keys))


def test_all_other_keys_get_the_edited_weight(layers):
    pristine, edited, pinned = layers
    keys = torch.randn(5, 7, 16)
    plain = copy.deepcopy(pristine)
    plain.weight = edited.weight
    assert torch.equal(edited(keys), plain(keys))
    off = pinned + 1e-3 * torch.randn(3, 16)
    assert torch.equal(edited(off), plain(off)), "a key just outside the span is no pinned one"


def test_its_state_is_that_of_a_plain_layer(layers):
    pristine, edited, _ = layers
    assert edited.state_dict().keys() == pristine.state_dict().keys()
    plain = nn.Linear(16, 8)
    plain.load_state_dict(edited.state_dict())
    assert torch.equal(plain.weight, edited.weight)


def test_without_pinned_keys_it_is_the_edited_layer(layers):
    pristine, edited, _ = layers
    bare = PinnedLinear(pristine, edited.weight.detach(), torch.zeros(0, 16))
    keys = torch.randn(4, 16)
    assert torch.equal(bare(keys), nn.functional.linear(keys, edited.weight, edited.bias))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keys_are_found_too(layers, dtype):
    pristine, edited, pinned = layers
    pristine = pristine.to(dtype)
    half = PinnedLinear(
        pristine, edited.weight.detach().to(dtype), basis(pinned.to(dtype).double())
    )
    keys = pinned.to(dtype)
    assert torch.equal(half(keys), pristine(keys))
