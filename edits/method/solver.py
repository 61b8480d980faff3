"""The closed form, and nothing else.

With D = W - W0 the edit minimises

    sum_i w_i |W k_i - v_i|^2  +  sum_p mu |D p|^2  +  ridge |D|^2     subject to  D n = 0

over the keys k_i (values v_i), the preserved keys p and the pinned keys n. Projecting every key on
the complement of the pinned ones removes the constraint; what remains is a ridge regression of the
residuals v_i - W0 k_i (paper, equations 8 and 9, is the case without p and n).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from edits.errors import NonFinite

_RANK_TOLERANCE = 1e-9  # relative to the largest singular value of the pinned keys


@dataclass(frozen=True)
class Rows:
    """Keys (n, d_in), values (n, d_out) without bias, and row weights (n,), all float64."""

    keys: Tensor
    values: Tensor
    weights: Tensor


def complement(pinned: Tensor) -> Tensor:
    """Projector (d_in, d_in) on the complement of the pinned keys (n, d_in)."""
    identity = torch.eye(pinned.shape[1], dtype=torch.float64, device=pinned.device)
    if not len(pinned):
        return identity
    _, sizes, directions = torch.linalg.svd(pinned, full_matrices=False)
    basis = directions[sizes > _RANK_TOLERANCE * sizes[0]]
    projector: Tensor = identity - basis.T @ basis
    return projector


def solve(
    weight: Tensor,
    rows: Rows,
    *,
    ridge: float,
    preserved_gram: Tensor | None = None,
    projector: Tensor | None = None,
) -> Tensor:
    """The delta D (d_out, d_in) in float64.

    weight: W0 (d_out, d_in). preserved_gram: sum_p mu p p^T (d_in, d_in). projector: from
    `complement`. Solved by Cholesky in the smaller of rows and features; raises NonFinite.
    """
    pristine = weight.double()
    scale = rows.weights.sqrt()[:, None]
    residuals = scale * (rows.values - rows.keys @ pristine.T)
    keys = scale * rows.keys
    if projector is not None:
        keys = keys @ projector
    if preserved_gram is None and len(keys) <= keys.shape[1]:
        system = keys @ keys.T
        system.diagonal().add_(ridge)
        delta = (keys.T @ _cholesky_solve(system, residuals)).T
    else:
        system = keys.T @ keys
        if preserved_gram is not None:
            gram = preserved_gram
            system = system + (gram if projector is None else projector @ gram @ projector)
        system.diagonal().add_(ridge)
        delta = _cholesky_solve(system, keys.T @ residuals).T
    if projector is not None:
        delta = delta @ projector  # once more: rounding must not leak into the pinned directions
    if not torch.isfinite(delta).all():
        raise NonFinite(
            "the solution contains NaN or infinity; raise the ridge", param="spec.method.ridge"
        )
    return delta.contiguous()


def _cholesky_solve(system: Tensor, right: Tensor) -> Tensor:
    factor, failed = torch.linalg.cholesky_ex(system)
    if failed.item():
        raise NonFinite(
            "the system is not positive definite in float64; raise the ridge",
            param="spec.method.ridge",
        )
    return torch.cholesky_solve(right, factor)
