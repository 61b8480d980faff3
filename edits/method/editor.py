"""From edits to weights: all edits of a site are solved together, always from the pristine weight.

Therefore the order of edits does not matter, and an edit that is taken out leaves no trace.
"""

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edits.errors import EditRefused, NonFinite
from edits.method.captions import caption_pairs, preserve_captions
from edits.method.fingerprint import model_fingerprint, weights_digest
from edits.method.keys import KeyCache
from edits.method.report import EditReport, drift, gram_drift, residual
from edits.method.sites import Site, canonical, resolve
from edits.method.solver import Rows, complement, solve
from edits.method.spec import EditSpec
from edits.method.tokens import CaptionTokenizer


@dataclass(frozen=True)
class Composition:
    """The weights of a set of edits: `digest` names their bytes, one report per edit and site."""

    weights: Mapping[Site, Tensor]
    digest: str
    reports: tuple[EditReport, ...]


class Editor:
    """One pristine text encoder with its tokenizer, and what has been captured on it. Thread-safe.

    The encoder is only read: `apply` answers another module, and shares with it what no edit
    changes. `ordinary` are names of everyday concepts whose keys are kept still by every edit.
    """

    def __init__(
        self, text_encoder: nn.Module, tokenizer: Any, *, ordinary: Sequence[str] = ()
    ) -> None:
        self._encoder = text_encoder
        self._tokenizer = CaptionTokenizer(tokenizer)
        # Captures hook the module that they run and stop it half way: on a twin, since the pristine
        # module may be serving prompts, or be copied by `apply`, in another thread.
        twin = _same_tensors(text_encoder).eval()
        self._keys = KeyCache(twin, self._tokenizer, ordinary)
        self.fingerprint = model_fingerprint(text_encoder, self._tokenizer)

    def check(self, spec: EditSpec) -> None:
        """Raise the EditRefused subclass that says why this model cannot carry `spec`."""
        for site in spec.sites:
            resolve(self._encoder, site)
        for pair in caption_pairs(spec):
            is_alias = pair.concept.subject != spec.concept
            self._tokenizer(pair.concept, field="spec.aliases" if is_alias else "spec.concept")
            self._tokenizer(pair.anchor, field="spec.anchor")
        for text in spec.preserve:
            for caption in preserve_captions(text):
                self._tokenizer(caption, field="spec.preserve")

    def warm(self, sites: Sequence[Site]) -> None:
        """Capture the ordinary captions now, so that the first edit does not wait for them."""
        for site in sites:
            self._keys.preserved_gram(canonical(self._encoder, site), (), ())

    @torch.no_grad()
    def compose(self, specs: Sequence[EditSpec]) -> Composition:
        """Solve all edits of every site together. Changes nothing. Raises EditRefused."""
        weights: dict[Site, Tensor] = {}
        reports: list[EditReport] = []
        by_site: dict[Site, list[EditSpec]] = {}
        for spec in sorted(specs, key=lambda spec: (spec.name, repr(spec))):
            for site in {canonical(self._encoder, site) for site in spec.sites}:
                by_site.setdefault(site, []).append(spec)
        for site, mine in sorted(by_site.items()):
            weights[site], site_reports = self._compose_site(site, mine)
            reports += site_reports
        return Composition(weights, weights_digest(weights), tuple(reports))

    def apply(self, composition: Composition) -> nn.Module:
        """A text encoder with the composition's weights; without any, the pristine one itself."""
        if not composition.weights:
            return self._encoder
        edited = _same_tensors(self._encoder)
        for site, weight in composition.weights.items():
            resolve(edited, site).weight = nn.Parameter(weight, requires_grad=False)
        return edited.eval()

    def _compose_site(self, site: Site, specs: list[EditSpec]) -> tuple[Tensor, list[EditReport]]:
        started = time.perf_counter()
        layer = resolve(self._encoder, site)
        if not all(torch.isfinite(tensor).all() for tensor in layer.parameters()):
            raise NonFinite(f"the pristine layer of site {site} contains NaN or infinity")
        pristine = layer.weight.double()
        parity = any(spec.parity for spec in specs)
        if parity and len(specs) > 1:
            raise EditRefused(
                "an edit with `parity: true` reproduces the released code, which edits one "
                f"concept: it cannot be combined with {len(specs) - 1} others",
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
        empty = self._keys.empty(site)
        gram = self._keys.preserved_gram(
            site,
            [text for spec in specs for text in spec.preserve],
            [name for spec in specs for name in spec.names],
        )
        share = 0.0 if parity else max(spec.preserve_weight / spec.ridge for spec in specs)
        delta = solve(
            layer.weight,
            joint,
            ridge=1.0,
            preserved_gram=share * gram if share > 0 else None,
            projector=None if parity else complement(empty),
        )
        edited = (pristine + delta).to(layer.weight.dtype)
        if not torch.isfinite(edited).all():
            raise NonFinite(
                f"the edited weight of site {site} exceeds {layer.weight.dtype}; raise the ridge",
                param="spec.method.ridge",
            )
        seconds = time.perf_counter() - started
        delta = edited.double() - pristine  # as it will run, rounding included
        preserve_drift = gram_drift(delta, pristine, gram)
        empty_drift = drift(delta, pristine, empty)
        return edited, [
            EditReport(
                name=spec.name,
                site=site,
                rows=len(r.keys),
                residual=residual(edited.double(), pristine, r),
                preserve_drift=preserve_drift,
                empty_prompt_drift=empty_drift,
                seconds=seconds,
            )
            for spec, r in zip(specs, rows, strict=True)
        ]

    def _rows(self, site: Site, layer: nn.Linear, spec: EditSpec) -> Rows:
        """Keys of the concept's captions and, as values, what the layer makes of the anchor's keys.

        The values carry no bias, since the layer adds it again; `parity` adds it, as the released
        code does.
        """
        pairs = caption_pairs(spec)
        concepts = self._keys.of(site, [pair.concept for pair in pairs])
        anchors = self._keys.of(site, [pair.anchor for pair in pairs], field="spec.anchor")
        keys, wanted = [], []
        for (concept, last), (anchor, anchor_last) in zip(concepts, anchors, strict=True):
            count = len(concept) - last if spec.tokens == "last+pad" else 1
            keys.append(concept[last : last + count])
            # Aligned by offset from each last subject token; a longer anchor ends at the last
            # position.
            offsets = (anchor_last + torch.arange(count)).clamp(max=len(anchor) - 1)
            wanted.append(anchor[offsets])
        values = torch.cat(wanted) @ layer.weight.double().T
        if spec.parity and layer.bias is not None:
            values = values + layer.bias.double()
        stacked = torch.cat(keys)
        return Rows(stacked, values, stacked.new_ones(len(stacked)))


def _same_tensors(module: nn.Module) -> nn.Module:
    """A copy of the module's structure around the very same parameters and buffers."""
    tensors = (*module.parameters(), *module.buffers())
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
