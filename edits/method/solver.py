"""The closed form, and nothing else.

With D = W - W0 the edit minimises

    sum_i w_i |W k_i - v_i|^2  +  sum_p mu |D p|^2  +  ridge |D|^2     subject to  D n = 0

over the keys k_i (values v_i), the preserved keys p and the pinned keys n. Projecting every key on
the complement of the pinned ones removes the constraint; what remains is a ridge regression of the
residuals r_i = v_i - W0 k_i (paper, equations 8 and 9, is the case without p and n). Its solution
D = sum_i r_i x_i^T is linear in the residuals: the responses x_i depend on the keys alone, so all
layers that read the same keys share them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from edits.errors import NonFinite
from edits.method.finite import is_finite

_RANK_TOLERANCE = 1e-9  # relative to the largest singular value of the pinned keys


@dataclass(frozen=True)
class Rows:
    """Keys (n, d_in), values (n, d_out) without bias, and row weights (n,), all float64."""

    keys: Tensor
    values: Tensor
    weights: Tensor


def basis(pinned: Tensor) -> Tensor:
    """Orthonormal rows (r, d_in) that span the pinned keys (n, d_in)."""
    if not len(pinned):
        return pinned
    _, sizes, directions = torch.linalg.svd(pinned, full_matrices=False)
    spanned: Tensor = directions[sizes > _RANK_TOLERANCE * sizes[0]]
    return spanned


def respond(
    keys: Tensor,
    *,
    ridge: float,
    preserved_gram: Tensor | None = None,
    pinned: Tensor | None = None,
) -> Tensor:
    """The responses x_i (n, d_in) to weighted keys sqrt(w_i) k_i (n, d_in), float64.

    preserved_gram: sum_p mu p p^T (d_in, d_in). pinned: from `basis`. Solved by Cholesky in the
    smaller of rows and features; raises NonFinite.
    """
    free = _outside(keys, pinned)
    if preserved_gram is None and len(keys) <= keys.shape[1]:
        # The inverse is small here and in float64: one product more costs half of a substitution
        # for each feature.
        responses = torch.cholesky_inverse(_cholesky(_ridged(free @ free.T, ridge))) @ free
    else:
        gram = keys.T @ keys
        if preserved_gram is not None:
            gram += preserved_gram
        responses = _cholesky_solve(_ridged(_gram_outside(gram, pinned), ridge), free.T).T
    return _still(responses, pinned)


def respond_to_moments(
    gram: Tensor,
    cross: Tensor,
    *,
    ridge: float,
    preserved_gram: Tensor | None = None,
    pinned: Tensor | None = None,
) -> Tensor:
    """sum_i s_i x_i^T (m, d_in) for many rows, from their sums alone.

    gram: sum_i w_i k_i k_i^T (d_in, d_in). cross: sum_i w_i s_i k_i^T (m, d_in), where s_i is what
    the residual r_i is linear in. Raises NonFinite.
    """
    whole = gram if preserved_gram is None else gram + preserved_gram
    system = _ridged(_gram_outside(whole, pinned), ridge)
    return _still(_cholesky_solve(system, _outside(cross, pinned).T).T, pinned)


def solve(
    weight: Tensor,
    rows: Rows,
    *,
    ridge: float,
    preserved_gram: Tensor | None = None,
    pinned: Tensor | None = None,
) -> Tensor:
    """The delta D (d_out, d_in) in float64 of one layer; W0 is `weight` (d_out, d_in).

    Raises NonFinite.
    """
    scale = rows.weights.sqrt()[:, None]
    residuals = scale * (rows.values - rows.keys @ weight.double().T)
    responses = respond(
        scale * rows.keys, ridge=ridge, preserved_gram=preserved_gram, pinned=pinned
    )
    return _finite(residuals.T @ responses)


def _outside(keys: Tensor, pinned: Tensor | None) -> Tensor:
    """P k for every key (n, d_in), where P = I - B^T B projects on the complement of B's rows."""
    return keys if pinned is None else keys - (keys @ pinned.T) @ pinned


def _gram_outside(gram: Tensor, pinned: Tensor | None) -> Tensor:
    """P G P of a symmetric G (d_in, d_in), a new tensor: B is thin, P is not."""
    if pinned is None:
        return gram.clone()
    inside = pinned @ gram
    half = inside - 0.5 * (inside @ pinned.T) @ pinned
    # P G P = G - B^T H - H^T B, in one product.
    return torch.addmm(gram, torch.cat([pinned, half]).T, torch.cat([half, pinned]), alpha=-1)


def _ridged(system: Tensor, ridge: float) -> Tensor:
    system.diagonal().add_(ridge)
    return system


def _still(responses: Tensor, pinned: Tensor | None) -> Tensor:
    return _finite(_outside(responses, pinned))  # once more: rounding must not reach pinned keys


def _finite(solution: Tensor) -> Tensor:
    if not is_finite(solution):
        raise NonFinite(
            "the solution contains NaN or infinity; raise the ridge", param="spec.method.ridge"
        )
    return solution.contiguous()


def _cholesky_solve(system: Tensor, right: Tensor) -> Tensor:
    return torch.cholesky_solve(right, _cholesky(system))


def _cholesky(system: Tensor) -> Tensor:
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(system)
    if failed.item():
        raise NonFinite(
            "the system is not positive definite in float64; raise the ridge",
            param="spec.method.ridge",
        )
    return factor
