"""From edits to weights: all edits of a site are solved together, always from the pristine weight.

Therefore the order of edits does not matter, and an edit that is taken out leaves no trace.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edits.errors import NonFinite
from edits.method.captions import fill
from edits.method.components import Components, with_layers
from edits.method.fingerprint import model_fingerprint, weights_digest
from edits.method.finite import is_finite
from edits.method.joint import Joint, JointSolver, bias_rows
from edits.method.keys import KeyCache
from edits.method.neighbours import Neighbours
from edits.method.ordinary_file import OrdinaryFile
from edits.method.pinned import PinnedLinear
from edits.method.report import EditReport, drift, gram_drift, residual
from edits.method.sites import Site, expand, locate
from edits.method.spec import EditSpec

_REMEMBERED = 8192  # edits that were checked


@dataclass(frozen=True)
class Composition:
    """The weights of a set of edits."""

    weights: Mapping[Site, Tensor]
    report: Callable[[str], tuple[EditReport, ...]]  # of one edit, by its name
    preserve_drift: Callable[[], float]  # as `EditReport` has it, the largest of all sites
    size: Callable[[], float]  # |W - W0| / |W0| in the Frobenius norm, the largest of all sites
    names: tuple[str, ...]
    pinned: Mapping[Site, Tensor]  # (r, d_in) for each site: the span that it leaves still

    @cached_property
    def digest(self) -> str:
        """What the bytes of the weights are called. Hashed when first asked for."""
        return weights_digest(self.weights)

    @cached_property
    def reports(self) -> tuple[EditReport, ...]:
        """One report per edit and site."""
        return tuple(report for name in self.names for report in self.report(name))


class Editor:
    """One pristine pipeline, and what has been captured on it. Thread-safe.

    `pipeline` is anything with the attributes of a diffusers pipeline. It is only read: `apply`
    answers other modules, which share with its own what no edit changes. `ordinary` are names of
    everyday concepts: their keys are kept still, and from them each edit's neighbours are chosen.
    """

    def __init__(self, pipeline: Any, *, ordinary: Sequence[str] = ()) -> None:
        self.components = Components(pipeline)
        self.neighbours = Neighbours(self.components, tuple(dict.fromkeys(ordinary)))
        self._keys = KeyCache(self.components, ordinary)
        self._solver = JointSolver(self._keys, self.neighbours)
        self._checked: dict[EditSpec, None] = {}
        self._expanded: dict[tuple[Site, ...], tuple[Site, ...]] = {}
        self._lock = threading.RLock()
        self.fingerprint = model_fingerprint(self.components)

    def check(self, spec: EditSpec) -> None:
        """Raise the EditRefused subclass that says why this model cannot carry `spec`."""
        if spec in self._checked:
            return
        for source in {self.components.source(site) for site in self.sites(spec)}:
            tokenize = self.components.tokenizer(source)
            tokenize([fill("{x}", spec.concept)], field="spec.concept")
            tokenize([fill("{x}", alias) for alias in spec.aliases], field="spec.aliases")
            tokenize([fill("{x}", spec.anchor)], field="spec.anchor")
            tokenize([fill("{x}", text) for text in spec.preserve], field="spec.preserve")
        with self._lock:
            self._checked[spec] = None
            while len(self._checked) > _REMEMBERED:
                self._checked.pop(next(iter(self._checked)))

    def sites(self, spec: EditSpec) -> tuple[Site, ...]:
        """The layers of this model that `spec` edits. Raises SiteUnknown."""
        with self._lock:
            if spec.sites not in self._expanded:
                found = expand(spec.sites, self.components.modules)
                for site in found:
                    self.components.source(site)
                self._expanded[spec.sites] = found
            return self._expanded[spec.sites]

    def warm(self, sites: Sequence[Site], *, folder: Path | None = None) -> None:
        """Capture the ordinary captions now, so that the first edit does not wait for them.

        With a folder they are read from there if they stand there for this very model, and stored
        there otherwise: see `ordinary_file`.
        """
        found = expand(sites, self.components.modules)
        sources = sorted({self.components.source(site) for site in found})
        stored = None
        if folder is not None and self._keys.ordinary:
            stored = OrdinaryFile(
                folder, self._keys, self.neighbours, fingerprint=self.fingerprint, sources=sources
            )
            if stored.recall():
                return
        for source in sources:
            self._keys.ordinary_gram(source, ())
        self.neighbours.warm()
        if stored is not None:
            stored.write()

    @torch.no_grad()
    def compose(self, specs: Sequence[EditSpec]) -> Composition:
        """Solve all edits of every site together. Changes nothing. Raises EditRefused."""
        started = time.perf_counter()
        by_site: dict[Site, list[EditSpec]] = {}
        for spec in sorted(specs, key=lambda spec: (spec.name, repr(spec))):
            for site in self.sites(spec):
                by_site.setdefault(site, []).append(spec)
        joints: dict[tuple[Site, tuple[EditSpec, ...]], Joint] = {}
        solved: dict[Site, Joint] = {}
        weights: dict[Site, Tensor] = {}
        pinned: dict[Site, Tensor] = {}
        for site, mine in sorted(by_site.items()):
            source = self.components.source(site)
            key = (source, tuple(mine))
            if key not in joints:
                joints[key] = self._solver.solve(*key)
            solved[site] = joints[key]
            weights[site] = self._weight(site, joints[key])
            if not mine[0].parity:
                pinned[site] = self._keys.spanned(source)
        seconds = time.perf_counter() - started
        names = tuple(dict.fromkeys(spec.name for spec in sorted(specs, key=lambda s: s.name)))

        def report(name: str) -> tuple[EditReport, ...]:
            return tuple(
                self._report(site, joint, spec, weights[site], seconds, pinned.get(site))
                for site, joint in solved.items()
                for spec in joint.specs
                if spec.name == name
            )

        def preserve_drift() -> float:
            return max((self._drift(*each, weights[each[0]]) for each in solved.items()), default=0)

        def size() -> float:
            pristine = {site: self.components.layer(site).weight.detach() for site in weights}
            return max((drift(pristine[site], weights[site]) for site in weights), default=0)

        return Composition(weights, report, preserve_drift, size, names, pinned)

    def apply(self, composition: Composition) -> dict[str, nn.Module]:
        """The edited components by name; they share every unedited tensor with the pristine ones.

        A component without edits is not among them.
        """
        layers: dict[str, dict[str, nn.Module]] = {}
        for site, weight in composition.weights.items():
            path, layer = locate(self.components.twin(site.component), site)
            edited = _edited_layer(layer, weight, composition.pinned.get(site)).eval()
            layers.setdefault(site.component, {})[path] = edited
        return {
            name: with_layers(self.components.twin(name), mine) for name, mine in layers.items()
        }

    def _weight(self, site: Site, joint: Joint) -> Tensor:
        layer = self.components.layer(site)
        if not all(map(is_finite, layer.parameters())):
            raise NonFinite(f"the pristine layer of site {site} contains NaN or infinity")
        edited = (layer.weight + joint.delta(layer)).to(layer.weight.dtype)
        if not is_finite(edited):
            raise NonFinite(
                f"the edited weight of site {site} exceeds {layer.weight.dtype}; raise the ridge",
                param="spec.method.ridge",
            )
        return edited

    @torch.no_grad()
    def _drift(self, site: Site, joint: Joint, weight: Tensor) -> float:
        pristine = self.components.layer(site).weight.double()
        return gram_drift(weight.double() - pristine, pristine, joint.gram())

    @torch.no_grad()
    def _report(
        self,
        site: Site,
        joint: Joint,
        spec: EditSpec,
        weight: Tensor,
        seconds: float,
        spanned: Tensor | None,
    ) -> EditReport:
        layer = self.components.layer(site)
        pristine = layer.weight.double()
        rows = self._keys.rows(joint.source, spec)
        empty = self._keys.empty(joint.source).to(layer.weight.dtype)
        extra = bias_rows(layer, rows) if spec.parity else None
        return EditReport(
            name=spec.name,
            site=site,
            rows=rows.captured,
            residual=residual(weight.double(), pristine, rows, extra),
            preserve_drift=self._drift(site, joint, weight),
            empty_prompt_drift=drift(layer(empty), _edited_layer(layer, weight, spanned)(empty)),
            neighbours=tuple(
                name for name in joint.neighbours.get(spec.name, ()) if name not in joint.left_out
            ),
            not_preserved=tuple(name for name in spec.preserve if name in joint.left_out),
            seconds=seconds,
        )


def _edited_layer(layer: nn.Linear, weight: Tensor, spanned: Tensor | None) -> nn.Linear:
    if spanned is None:
        spanned = weight.new_zeros(0, layer.in_features)
    return PinnedLinear(layer, weight, spanned)
