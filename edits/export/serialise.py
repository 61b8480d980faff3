"""Safetensors whose bytes follow from the content alone."""

import json
from collections.abc import Mapping

from safetensors.torch import save
from torch import Tensor

_ALIGNMENT = 8


def serialise(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file. `save` writes the entries of the metadata in an order of its own."""
    body = save(dict(tensors), metadata=dict(metadata))
    length = int.from_bytes(body[:_ALIGNMENT], "little")
    header = json.loads(body[_ALIGNMENT : _ALIGNMENT + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(_ALIGNMENT, "little") + text + body[_ALIGNMENT + length :]
