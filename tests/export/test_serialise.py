"""Files whose bytes follow from their content."""

import torch
from safetensors import safe_open
from safetensors.torch import load, save

from edits.export.serialise import serialise

TENSORS = {
    "b": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a": torch.tensor([1, 2, 3], dtype=torch.uint8),
    "none": torch.zeros(0),
}
METADATA = {f"key {number}": f"text \N{SNOWMAN} {number}" for number in range(20)}


def test_the_bytes_are_the_same_in_any_order():
    turned = dict(reversed(TENSORS.items())), dict(reversed(METADATA.items()))
    assert serialise(TENSORS, METADATA) == serialise(*turned)


def test_the_file_is_read_as_what_safetensors_writes_itself(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(serialise(TENSORS, METADATA))
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == METADATA
    found, own = load(path.read_bytes()), load(save(TENSORS))
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], own[name]) for name in own)
