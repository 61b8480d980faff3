"""What a base model and a set of edited weights are called: SHA-256 over their bytes."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edits.method.components import Components
from edits.method.sites import OPTIONAL_LEVEL, Site


def model_fingerprint(components: Components) -> str:
    """`sha256:...` of the CLIP text encoders' tensors and of what decides a prompt's token ids.

    Tensors count under their canonical names, so another transformers release answers the same.
    """
    hasher = hashlib.sha256()
    for number, encoder in enumerate(components.encoders.values()):
        if number:
            hasher.update(f"encoder {number + 1}".encode())
        state = {n.removeprefix(OPTIONAL_LEVEL): t for n, t in encoder.module.state_dict().items()}
        _add_tensors(hasher, state)
        hasher.update(json.dumps(encoder.tokenizer.identity(), sort_keys=True).encode())
    return f"sha256:{hasher.hexdigest()}"


def module_digest(module: nn.Module) -> str:
    """`sha256:...` of a module's tensors with their names, kinds and shapes."""
    return tensors_digest(module.state_dict())


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """`sha256:...` of tensors with their names, kinds and shapes."""
    hasher = hashlib.sha256()
    _add_tensors(hasher, tensors)
    return f"sha256:{hasher.hexdigest()}"


def weights_digest(weights: Mapping[Site, Tensor]) -> str:
    """SHA-256 over the sites' names and their weights' bytes, in the order of the names."""
    hasher = hashlib.sha256()
    for site in sorted(weights):
        hasher.update(str(site).encode())
        hasher.update(_raw(weights[site]))
    return f"sha256:{hasher.hexdigest()}"


def _add_tensors(hasher: Any, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in sorted(tensors.items()):
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hasher.update(_raw(tensor))


def _raw(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
