"""How well an edit came out: the figures beside the weights."""

from dataclasses import dataclass

from torch import Tensor

from edits.method.rows import PairRows
from edits.method.sites import Site


@dataclass(frozen=True)
class EditReport:
    """How well one edit came out at one site; every figure is relative to the pristine outputs.

    residual: |W k - v| over the edit's keys, 0 is a perfect fit, 1 is no edit. preserve_drift:
    change of the preserved keys' outputs, whether or not the solve was told to keep them still.
    empty_prompt_drift: the same for the empty prompt, the unconditional branch, as it runs.
    neighbours: names that were kept still because this edit would have moved them. not_preserved:
    those of `preserve` that were not, since a name that some edit removes stands in them. seconds:
    captions to weight, for all edits of the site together.
    """

    name: str
    site: Site
    rows: int
    residual: float
    preserve_drift: float
    empty_prompt_drift: float
    neighbours: tuple[str, ...]
    not_preserved: tuple[str, ...]
    seconds: float


def residual(
    edited: Tensor, pristine: Tensor, rows: PairRows, bias_rows: Tensor | None = None
) -> float:
    """|K W^T - V| / |K W0^T - V|, and 0 where the pristine weight fits already.

    V = K' W0^T; with `bias_rows` (n, d_out) on top where `parity` counts the bias twice.
    """
    wanted = rows.steps.double() @ pristine.T
    if bias_rows is not None:
        wanted = wanted + bias_rows
    return _ratio((rows.keys.double() @ (edited - pristine).T - wanted).norm(), wanted.norm())


def drift(before: Tensor, after: Tensor) -> float:
    """|after - before| / |before|."""
    return _ratio((after.double() - before.double()).norm(), before.double().norm())


def gram_drift(delta: Tensor, pristine: Tensor, gram: Tensor) -> float:
    """|K D^T| / |K W0^T| from the Gram matrix K^T K (d_in, d_in); 0 if nothing is preserved."""
    moved, still = ((m @ gram * m).sum().clamp(min=0).sqrt() for m in (delta, pristine))
    return _ratio(moved, still)


def _ratio(part: Tensor, whole: Tensor) -> float:
    return float(part / whole) if whole > 0 else 0.0
