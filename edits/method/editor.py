"""From edits to weights: all edits of a site are solved together, from the pristine weight, every time.

Therefore the order of edits does not matter, and an edit that is taken out leaves no trace.
"""

import copy
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edits.errors import EditRefused
from edits.method.captions import caption_pairs
from edits.method.keys import KeyCache
from edits.method.sites import Site, resolve
from edits.method.solver import Rows, complement, solve
from edits.method.spec import EditSpec
from edits.method.tokens import CaptionTokenizer


@dataclass(frozen=True)
class EditReport:
    """How well one edit came out at one site; every figure is relative to the pristine outputs.

    residual: |W k - v| over the edit's keys, 0 is a perfect fit, 1 is no edit. preserve_drift: change of
    the preserved keys' outputs. empty_prompt_drift: the same for the empty prompt, the unconditional branch.
    """

    name: str
    site: Site
    rows: int
    residual: float
    preserve_drift: float
    empty_prompt_drift: float
    seconds: float


@dataclass(frozen=True)
class Composition:
    """The weights of a set of edits; `digest` names their bytes, `reports` has one entry per edit and site."""

    weights: Mapping[Site, Tensor]
    digest: str
    reports: tuple[EditReport, ...]


class Editor:
    """One pristine text encoder with its tokenizer, and what has been captured on it.

    The encoder is only read: `apply` answers another module, and shares with it what no edit changes.
    `ordinary` are names of everyday concepts whose keys are kept still by every edit.
    """

    def __init__(self, text_encoder: nn.Module, tokenizer: Any, *, ordinary: Sequence[str] = ()) -> None:
        self._encoder = text_encoder
        self._tokenizer = CaptionTokenizer(tokenizer)
        self._keys = KeyCache(text_encoder, self._tokenizer, ordinary)
        self.fingerprint = _fingerprint(text_encoder, self._tokenizer)

    def check(self, spec: EditSpec) -> None:
        """Raise the EditRefused subclass that says why this model cannot carry `spec`."""
        for site in spec.sites:
            resolve(self._encoder, site)
        for pair in caption_pairs(spec):
            self._tokenizer(pair.concept)
            self._tokenizer(pair.anchor)

    def warm(self, sites: Sequence[Site]) -> None:
        """Capture the ordinary captions now, so that the first edit does not wait for them."""
        for site in sites:
            self._keys.preserved_gram(site, (), ())

    def compose(self, specs: Sequence[EditSpec]) -> Composition:
        """Solve all edits of every site together; raises a subclass of EditRefused, and changes nothing."""
        weights: dict[Site, Tensor] = {}
        reports: list[EditReport] = []
        ordered = sorted(specs, key=lambda spec: spec.name)
        for site in sorted({site for spec in ordered for site in spec.sites}):
            mine = [spec for spec in ordered if site in spec.sites]
            weights[site], site_reports = self._compose_site(site, mine)
            reports += site_reports
        return Composition(weights, weights_digest(weights), tuple(reports))

    def apply(self, composition: Composition) -> nn.Module:
        """A text encoder with the composition's weights; without any, the pristine module itself."""
        if not composition.weights:
            return self._encoder
        # A copy whose tensors are the pristine ones: only the edited weights are new memory.
        tensors = [*self._encoder.parameters(), *self._encoder.buffers()]
        edited = copy.deepcopy(self._encoder, {id(tensor): tensor for tensor in tensors})
        for site, weight in composition.weights.items():
            resolve(edited, site).weight = nn.Parameter(weight, requires_grad=False)
        return edited.eval()

    def _compose_site(self, site: Site, specs: list[EditSpec]) -> tuple[Tensor, list[EditReport]]:
        started = time.perf_counter()
        layer = resolve(self._encoder, site)
        parity = any(spec.parity for spec in specs)
        if parity and len(specs) > 1:
            raise EditRefused(
                "an edit with `parity: true` reproduces the released code, which edits one concept: "
                f"it cannot be combined with {len(specs) - 1} others",
                param="spec.method.parity",
            )
        rows = [self._rows(site, layer, spec) for spec in specs]
        # Each edit's objective is divided by its own ridge: with equal ridges this is the joint
        # objective as written, and with different ones every edit keeps the trade it asked for.
        joint = Rows(
            torch.cat([r.keys for r in rows]),
            torch.cat([r.values for r in rows]),
            torch.cat([r.weights / spec.ridge for r, spec in zip(rows, specs, strict=True)]),
        )
        gram = projector = None
        empty = self._keys.empty(site)
        if not parity:
            projector = complement(empty)
            if any(spec.preserve_weight > 0 for spec in specs):
                removed = [name for spec in specs for name in spec.names]
                preserve = [text for spec in specs for text in spec.preserve]
                share = max(spec.preserve_weight / spec.ridge for spec in specs)
                gram = share * self._keys.preserved_gram(site, preserve, removed)
        delta = solve(layer.weight, joint, ridge=1.0, preserved_gram=gram, projector=projector)
        edited = (layer.weight.double() + delta).to(layer.weight.dtype)
        seconds = time.perf_counter() - started
        delta = edited.double() - layer.weight.double()
        preserve_drift = 0.0 if gram is None else _gram_drift(delta, layer.weight.double(), gram)
        empty_drift = _drift(delta, layer.weight.double(), empty)
        return edited, [
            EditReport(
                name=spec.name,
                site=site,
                rows=len(r.keys),
                residual=_residual(edited.double(), layer.weight.double(), r),
                preserve_drift=preserve_drift,
                empty_prompt_drift=empty_drift,
                seconds=seconds,
            )
            for spec, r in zip(specs, rows, strict=True)
        ]

    def _rows(self, site: Site, layer: nn.Linear, spec: EditSpec) -> Rows:
        """Keys of the concept's captions and, as values, what the layer makes of the anchor's keys.

        The values carry no bias, since the layer adds it again; `parity` adds it, as the released code.
        """
        pairs = caption_pairs(spec)
        concept_keys = self._keys.of(site, [pair.concept for pair in pairs])
        anchor_keys = self._keys.of(site, [pair.anchor for pair in pairs])
        keys, wanted = [], []
        for (concept, last), (anchor, anchor_last) in zip(concept_keys, anchor_keys, strict=True):
            count = len(concept) - last if spec.tokens == "last+pad" else 1
            keys.append(concept[last : last + count])
            # Aligned by offset from each last subject token; a longer anchor ends at the last position.
            offsets = (anchor_last + torch.arange(count)).clamp(max=len(anchor) - 1)
            wanted.append(anchor[offsets])
        values = torch.cat(wanted) @ layer.weight.double().T
        if spec.parity and layer.bias is not None:
            values = values + layer.bias.double()
        stacked = torch.cat(keys)
        return Rows(stacked, values, torch.ones(len(stacked), dtype=torch.float64, device=stacked.device))


def weights_digest(weights: Mapping[Site, Tensor]) -> str:
    """SHA-256 over the sites' names and their weights' bytes, in the order of the names."""
    hasher = hashlib.sha256()
    for site in sorted(weights):
        hasher.update(str(site).encode())
        hasher.update(_raw(weights[site]))
    return f"sha256:{hasher.hexdigest()}"


def _fingerprint(encoder: nn.Module, tokenizer: CaptionTokenizer) -> str:
    hasher = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hasher.update(_raw(tensor))
    hasher.update(json.dumps(tokenizer.vocabulary(), sort_keys=True).encode())
    return f"sha256:{hasher.hexdigest()}"


def _raw(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()


def _residual(edited: Tensor, pristine: Tensor, rows: Rows) -> float:
    missed = (rows.keys @ edited.T - rows.values).norm()
    asked = (rows.keys @ pristine.T - rows.values).norm()
    return float(missed / asked) if asked > 0 else 0.0


def _drift(delta: Tensor, pristine: Tensor, keys: Tensor) -> float:
    return float((keys @ delta.T).norm() / (keys @ pristine.T).norm())


def _gram_drift(delta: Tensor, pristine: Tensor, gram: Tensor) -> float:
    """|D P| / |W0 P| from the Gram matrix of P alone."""
    moved, still = ((m @ gram * m).sum().clamp(min=0) for m in (delta, pristine))
    return float((moved / still).sqrt())
