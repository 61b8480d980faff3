"""How well an edit came out: the figures beside the weights."""

from dataclasses import dataclass

from torch import Tensor

from edits.method.sites import Site
from edits.method.solver import Rows


@dataclass(frozen=True)
class EditReport:
    """How well one edit came out at one site; every figure is relative to the pristine outputs.

    residual: |W k - v| over the edit's keys, 0 is a perfect fit, 1 is no edit. preserve_drift:
    change of the preserved keys' outputs, whether or not the solve was told to keep them still.
    empty_prompt_drift: the same for the empty prompt, the unconditional branch. seconds: captions
    to weight, for all edits of the site together.
    """

    name: str
    site: Site
    rows: int
    residual: float
    preserve_drift: float
    empty_prompt_drift: float
    seconds: float


def residual(edited: Tensor, pristine: Tensor, rows: Rows) -> float:
    """|K W^T - V| / |K W0^T - V|, and 0 where the pristine weight fits already."""
    return _ratio(
        (rows.keys @ edited.T - rows.values).norm(), (rows.keys @ pristine.T - rows.values).norm()
    )


def drift(delta: Tensor, pristine: Tensor, keys: Tensor) -> float:
    """|K D^T| / |K W0^T| over the rows of `keys` (n, d_in)."""
    return _ratio((keys @ delta.T).norm(), (keys @ pristine.T).norm())


def gram_drift(delta: Tensor, pristine: Tensor, gram: Tensor) -> float:
    """The same from the Gram matrix K^T K (d_in, d_in) alone; 0 if nothing is preserved."""
    moved, still = ((m @ gram * m).sum().clamp(min=0).sqrt() for m in (delta, pristine))
    return _ratio(moved, still)


def _ratio(part: Tensor, whole: Tensor) -> float:
    return float(part / whole) if whole > 0 else 0.0
